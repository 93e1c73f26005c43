"""A privacy card: what was measured, on what, by which attacks, and what was not; as JSON values."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

from monai_deepfixcx import __version__
from monai_deepfixcx.attacks.base import AttackResult
from monai_deepfixcx.attacks.suite import SuiteResult
from monai_deepfixcx.attribution import describe_codec
from monai_deepfixcx.codecs import Codec, DeepFixCXCodec, HeartSpotCodec
from monai_deepfixcx.metrics import Estimate
from monai_deepfixcx.report.pictures import Gallery, draw_originals, draw_settings
from monai_deepfixcx.report.words import LIMITS, NOT_IN_THE_PACKAGE

FORMAT = 1
_PACKAGES = ("torch", "monai", "numpy", "PyWavelets")
_COMMON = ("data", "settings")
Card = dict[str, Any]


def codec_name(codec: Codec) -> str:
    """A short name.

    >>> codec_name(DeepFixCXCodec(levels=4, patch_size=5))
    'DeepFixCX J=4 P=5'
    """
    if isinstance(codec, HeartSpotCodec):
        seed = "" if codec.seed == 1 else f" seed {codec.seed}"
        sums = " sums" if codec.aggregate == "sum" else ""
        return f"HeartSpot {codec.parameters_config()['prior'] or 'all pixels'}{sums}{seed}"
    if isinstance(codec, DeepFixCXCodec):
        grid = "x".join(map(str, codec.patch_size if len(set(codec.patch_size)) > 1 else codec.patch_size[:1]))
        wavelet = "" if codec.wavelet == "db1" else f" {codec.wavelet}"
        features = "" if codec.features == ("l1",) else f" {'+'.join(codec.features)}"
        return f"DeepFixCX J={codec.levels} P={grid}{wavelet}{features}"
    return codec.name


def codec_entry(
    codec: Codec,
    suite: SuiteResult,
    image_shape: Sequence[int],
    utility: Mapping[str, Estimate] | None = None,
    pictures: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a card says about one codec.

    Args:
        codec: the codec.
        suite: the attacks on it.
        image_shape: [C, *S] of the images.
        utility: of the same patients' codes, by label and as "mean".
        pictures: what `draw_pictures` gave, and the "attack" it was given.
    """
    values = image_shape[0] * codec.code_length(image_shape[1:])
    return {
        "name": codec_name(codec),
        "config": suite.codec,
        "fingerprint": suite.fingerprint,
        "values_kept": values,
        "pixels": math.prod(image_shape),
        "explanation": describe_codec(codec, image_shape[1:], image_shape[0]),
        "drawing": draw_settings(codec, image_shape),
        "utility": None if utility is None else {name: value.as_dict() for name, value in utility.items()},
        "attacks": [_attack(result) for result in suite.results],
        "failed": _named(suite.failed),
        "not_run": _named(suite.not_run),
        "pictures": None if pictures is None else dict(pictures),
    }


def privacy_card(
    codecs: Sequence[Mapping[str, Any]],
    undefended: Mapping[str, AttackResult],
    data: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    undefended_utility: Mapping[str, Estimate] | None = None,
    gallery: Gallery | None = None,
    title: str = "Privacy card",
    date: str | None = None,
) -> Card:
    """Everything a card says, as JSON values.

    Args:
        codecs: what `codec_entry` gave, for each codec.
        undefended: the attacks on the images themselves (`SuiteResult.undefended`).
        data: "description", "synthetic", "image_shape", and "auxiliary" and "victims" with their "images" and
            "patients" as numbers; "labels" and "left_out".
        settings: "seed" and "samples".
        undefended_utility: of the images themselves.
        gallery: who is pictured; None pictures nobody.
        title: of the page.
        date: as it shall stand on the page; None leaves it out.
    """
    shown = None
    if gallery is not None:
        shown = {"whose": gallery.whose, "synthetic": gallery.synthetic, "originals": draw_originals(gallery)}
    return {
        "format": FORMAT,
        "title": title,
        "date": date,
        "versions": _versions(),
        "data": dict(data),
        "settings": {**settings, "confidence": 0.95, "interval": "percentile bootstrap over victim patients"},
        "codecs": [dict(entry) for entry in codecs],
        "undefended": {
            "utility": None
            if undefended_utility is None
            else {name: value.as_dict() for name, value in undefended_utility.items()},
            "attacks": [_attack(result) for result in undefended.values()],
        },
        "pictures": shown,
        "not_attacked_by": [{"name": name, "reason": reason} for name, reason in NOT_IN_THE_PACKAGE],
        "limits": list(LIMITS),
        "differential_privacy": None,
    }


def merge_cards(cards: Sequence[Card]) -> Card:
    """One card of all codecs of several, if they were measured on the same data with the same settings.

    Raises:
        ValueError: no card, or cards that cannot stand on one curve.
    """
    if not cards:
        raise ValueError("cards must be one or more; got none.")
    first = cards[0]
    for card in cards[1:]:
        differing = [part for part in _COMMON if card[part] != first[part]]
        if differing:
            raise ValueError(
                f"cards must have been measured on the same patients with the same settings to stand on one page; they "
                f"differ in {' and '.join(differing)}. Make a page of each."
            )
    undefended = {attack["attack"]: attack for card in cards for attack in card["undefended"]["attacks"]}
    codecs = {entry["fingerprint"]: entry for card in cards for entry in card["codecs"]}
    return {
        **first,
        "codecs": list(codecs.values()),
        "undefended": {**first["undefended"], "attacks": list(undefended.values())},
    }


def write_card(card: Card, path: Path) -> None:
    """Write a card as JSON: the same card, the same bytes.

    Raises:
        OSError: the file cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(card, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_card(path: Path) -> Card:
    """Read a card; of a folder, its card.json.

    Raises:
        ValueError: the file is not there, or no card of this format.
    """
    path = path / "card.json" if path.is_dir() else path
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}.") from None
    except ValueError:
        card = None
    if not isinstance(card, dict) or "codecs" not in card:
        raise ValueError(f"{path} is no privacy card. Make one with: deepfixcx attack")
    if card.get("format") != FORMAT:
        raise ValueError(
            f"{path} has card format {card.get('format')}, this release reads {FORMAT}: attack again with this release."
        )
    missing = [key for key in card_schema()["required"] if key not in card]
    if missing:
        raise ValueError(f"{path} is damaged: it lacks {', '.join(missing)}. Attack again.")
    return card


def card_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a card.

    >>> card_schema()["title"]
    'Privacy card'
    """
    schema: dict[str, Any] = json.loads(files("monai_deepfixcx.report").joinpath("card.schema.json").read_text("utf-8"))
    return schema


def _attack(result: AttackResult) -> dict[str, Any]:
    """An attack's result; its codec, the same for all, stands in the entry."""
    kept = {name: value for name, value in result.as_dict().items() if name not in ("codec", "fingerprint")}
    return {**kept, "goal": result.threat.goal, "seconds": round(result.seconds, 2)}


def _named(reasons: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "reason": reason} for name, reason in reasons.items()]


def _versions() -> dict[str, str]:
    found = {"monai-deepfixcx": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found

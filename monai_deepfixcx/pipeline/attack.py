"""Attack codecs on one population, measure what their codes are good for, and write the privacy card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_deepfixcx.attacks.base import AttackResult
from monai_deepfixcx.attacks.suite import ATTACKS, Selection, make_attack, run_suite
from monai_deepfixcx.codecs import Codec, IdentityCodec
from monai_deepfixcx.metrics import Estimate
from monai_deepfixcx.pipeline.attack_data import Pictures, Population, make_gallery, split_patients
from monai_deepfixcx.pipeline.workspace import OutputError
from monai_deepfixcx.report import (
    Card,
    codec_entry,
    codec_name,
    measure_utility,
    privacy_card,
    render_page,
    write_card,
)
from monai_deepfixcx.report.pictures import Gallery, draw_pictures
from monai_deepfixcx.report.sentences import headline, utility_sentence, worst_first
from monai_deepfixcx.report.words import GOALS


@dataclass(frozen=True)
class AttackSettings:
    """How to attack.

    Attributes:
        attacks: "default", or names and attacks.
        seed: of everything drawn.
        samples: resamples of the victim patients for the intervals.
        victims: share of the patients that are attacked; the others are auxiliary.
        pictures: whom to picture: "phantom", "auxiliary" or "none".
        title: of the card.
        date: as it shall stand on the card; None leaves it out.
        progress: show a progress bar.
        device: where to run the attacks.
    """

    attacks: Selection = "default"
    seed: int = 0
    samples: int = 1000
    victims: float = 0.5
    pictures: Pictures = "phantom"
    title: str = "Privacy card"
    date: str | None = None
    progress: bool = False
    device: str | None = None


def attack_population(
    population: Population,
    codecs: Sequence[Codec],
    settings: AttackSettings,
    on_codec: Callable[[str], None] = lambda name: None,
) -> Card:
    """Attack every codec on the same split by patient, and say what was found as a privacy card.

    Args:
        population: images of at least four patients.
        codecs: to compare; a fingerprint counts once.
        settings: how.
        on_codec: told each codec's name before it is attacked.

    Returns:
        The card.

    Raises:
        ValueError: data or codecs that cannot be attacked.
    """
    if not codecs:
        raise ValueError("codecs must be one or more; got none.")
    auxiliary, victims = split_patients(population, settings.seed, settings.victims)
    gallery, _ = make_gallery(auxiliary, population.synthetic, settings.pictures, settings.seed)
    if gallery is not None:
        gallery.refuse(victims["patients"])
    shape = tuple(population.images.shape[1:])
    for codec in codecs:
        codec.code_length(shape[1:])  # refuse all that does not fit before any is attacked
    undefended: dict[str, AttackResult] = {}
    entries = []
    for codec in {codec.fingerprint(): codec for codec in codecs}.values():
        on_codec(codec_name(codec))
        suite = run_suite(
            codec,
            auxiliary,
            victims,
            settings.attacks,
            settings.seed,
            settings.samples,
            settings.progress,
            undefended,
            settings.device,
        )
        undefended = suite.undefended
        codec = codec.to(population.images.device)
        utility = _utility(codec, auxiliary, victims, population, settings)
        entry = codec_entry(codec, suite, shape, utility)
        entries.append({**entry, **_pictures(gallery, codec, entry, settings)})
    return privacy_card(
        entries,
        undefended,
        _describe(population, auxiliary, victims),
        {"seed": settings.seed, "samples": settings.samples},
        undefended_utility=_utility(IdentityCodec(len(shape) - 1), auxiliary, victims, population, settings),
        gallery=gallery,
        title=settings.title,
        date=settings.date,
    )


def write_card_and_page(card: Card, folder: Path) -> tuple[Path, Path]:
    """Write card.json and card.html into a folder, which is made if absent.

    Raises:
        OutputError: they cannot be written.
    """
    paths = folder / "card.json", folder / "card.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_card(card, paths[0])
        paths[1].write_text(render_page(card), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}.") from None
    return paths


def headlines(card: Card) -> list[str]:
    """The card in a few lines of text."""
    lines = []
    before = card["undefended"]
    for entry in card["codecs"]:
        lines.append(f"{entry['name']}:")
        lines += [f"  {line}" for goal in GOALS if (line := headline(entry["attacks"], before["attacks"], goal))]
        if entry["utility"] is not None:
            lines.append(f"  {utility_sentence(entry['utility'], before['utility'])}")
        lines += [f"  {item['name']} failed: {item['reason']}" for item in entry["failed"]]
    return lines


def _utility(
    codec: Codec,
    auxiliary: Mapping[str, Any],
    victims: Mapping[str, Any],
    population: Population,
    settings: AttackSettings,
) -> dict[str, Estimate] | None:
    if not population.label_names:
        return None
    return measure_utility(codec, auxiliary, victims, population.label_names, settings.seed, settings.samples)


def _pictures(
    gallery: Gallery | None, codec: Codec, entry: Mapping[str, Any], settings: AttackSettings
) -> dict[str, Any]:
    """The strongest reconstruction in pictures; if that fails, it is named beside the attacks."""
    ordered = worst_first(entry["attacks"], "reconstruct")
    name = next((result["attack"] for result in ordered if result["attack"] in ATTACKS), None)
    if gallery is None or name is None:
        return {"pictures": None}
    try:
        drawn = draw_pictures(gallery, codec, make_attack(name), settings.seed)
    except Exception as error:  # a picture must not cost the card
        reason = " ".join(str(error).split()) if isinstance(error, ValueError) else type(error).__name__
        return {"pictures": None, "failed": [*entry["failed"], {"name": f"Pictures of {name}", "reason": reason}]}
    return {"pictures": {"attack": name, **drawn}}


def _describe(population: Population, auxiliary: Mapping[str, Any], victims: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "description": population.description,
        "synthetic": population.synthetic,
        "image_shape": list(population.images.shape[1:]),
        "auxiliary": _count(auxiliary),
        "victims": _count(victims),
        "labels": list(population.label_names),
        "left_out": len(population.left_out),
    }


def _count(part: Mapping[str, Any]) -> dict[str, int]:
    return {"images": len(part["patients"]), "patients": len(set(part["patients"]))}


def any_failed(card: Card) -> bool:
    """Whether an attack was tried and did not come through."""
    return any(entry["failed"] for entry in card["codecs"])

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from monai_deepfixcx.codecs import DeepFixCXCodec, HeartSpotCodec, IdentityCodec
from monai_deepfixcx.report import Card, card_schema, codec_name, merge_cards, read_card, write_card

jsonschema = pytest.importorskip("jsonschema")
VALIDATOR = jsonschema.Draft202012Validator(card_schema())


def test_the_schema_is_one_and_the_card_obeys_it(card: Card) -> None:
    jsonschema.Draft202012Validator.check_schema(card_schema())
    VALIDATOR.validate(card)
    VALIDATOR.validate(json.loads(json.dumps(card, allow_nan=False)))


def change(card: Card, *path: Any, to: Any) -> Card:
    changed = copy.deepcopy(card)
    place: Any = changed
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    return changed


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format",), 2),
        (("surprise",), 1),
        (("codecs",), []),
        (("codecs", 0, "attacks", 0, "goal"), "guess"),
        (("codecs", 0, "attacks", 0, "metrics", "ssim"), 0.5),
        (("codecs", 0, "fingerprint"), "abc"),
        (("pictures", "originals", 0), "https://example.org/a.png"),
        (("not_attacked_by",), []),
        (("data", "victims", "patients"), 1),
        (("differential_privacy",), {"epsilon": 1.0}),
    ],
)
def test_the_schema_refuses_what_is_no_card(card: Card, path: tuple[Any, ...], value: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(change(card, *path, to=value))


def test_the_card_holds_what_was_measured(card: Card) -> None:
    first, second = card["codecs"]
    assert first["name"] == "DeepFixCX J=2 P=4"
    assert first["values_kept"] == 256
    assert first["pixels"] == 4096
    assert {attack["attack"] for attack in first["attacks"]} == {
        "MeanImage",
        "LinearMMSE",
        "LowPassThumbnail",
        "EuclideanLinkage",
    }
    assert {"LowPassThumbnail"} <= {item["name"] for item in second["not_run"]}
    assert {item["name"] for item in first["not_run"]} >= {"LearnedInversion", "LearnedLinkage"}
    assert card["differential_privacy"] is None
    assert card["versions"].keys() >= {"monai-deepfixcx", "python", "torch", "monai"}
    assert card["data"]["auxiliary"] == card["data"]["victims"] == {"images": 12, "patients": 6}
    assert card["undefended"]["utility"]["mean"]["baseline"] == 0.5


def test_it_is_written_and_read_again(card: Card, tmp_path: Path) -> None:
    for name in ("one.json", "card.json"):
        write_card(card, tmp_path / name)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "card.json").read_bytes()
    assert read_card(tmp_path) == read_card(tmp_path / "one.json") == card
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.json", "one.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read .*: No such file"),
        ("{", "is no privacy card"),
        ("[]", "is no privacy card"),
        ('{"codecs": [], "format": 0}', "has card format 0, this release reads 1"),
        ('{"codecs": [], "format": 1}', "is damaged: it lacks title, date"),
    ],
)
def test_what_is_no_card_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "card.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_card(tmp_path)


def test_cards_of_the_same_patients_become_one(card: Card) -> None:
    parts = [{**card, "codecs": [entry]} for entry in card["codecs"]]
    assert merge_cards(parts) == card
    assert merge_cards([card, card]) == card


def test_cards_of_other_patients_do_not() -> None:
    with pytest.raises(ValueError, match="one or more; got none"):
        merge_cards([])


@pytest.mark.parametrize(("part", "key"), [("data", "description"), ("settings", "seed")])
def test_cards_that_differ_are_told_apart(card: Card, part: str, key: str) -> None:
    with pytest.raises(ValueError, match=f"they differ in {part}"):
        merge_cards([card, change(card, part, key, to="other")])


def test_names() -> None:
    assert codec_name(DeepFixCXCodec(4, 5)) == "DeepFixCX J=4 P=5"
    assert codec_name(DeepFixCXCodec(4, (3, 5), "coif1", ["l1", "max"])) == "DeepFixCX J=4 P=3x5 coif1 l1+max"
    assert codec_name(HeartSpotCodec("hline", aggregate="sum", seed=2)) == "HeartSpot hline sums seed 2"
    assert codec_name(HeartSpotCodec("")) == "HeartSpot all pixels"
    assert codec_name(IdentityCodec()) == "identity"

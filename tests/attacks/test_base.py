"""`run_attack`: who sees what, and what is refused. On an attack that guesses a constant."""

from __future__ import annotations

import json
import math
from typing import Any, ClassVar, Self

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from monai_deepfixcx.attacks import Attack, Auxiliary, MeanImage, ThreatModel, Truth, Victims, run_attack
from monai_deepfixcx.attacks.base import without_output
from monai_deepfixcx.codecs import Codec, ConstantCodec, DeepFixCXCodec, IdentityCodec
from monai_deepfixcx.metrics import Estimate

SECRET = 0.123456789


class Watcher(Attack):
    """Notes what it was given, and draws from torch's global generator."""

    name: str = "Watcher"
    threat = ThreatModel("reconstruct")
    spatial_dims: ClassVar[tuple[int, ...]] = (2,)

    def __init__(self, raw: bool = False) -> None:
        self.threat = ThreatModel("link", raw_images=raw)

    def fit(self, auxiliary: Auxiliary) -> Self:
        self.auxiliary = auxiliary
        return self

    def run(self, victims: Victims) -> Tensor:
        self.victims = victims
        return torch.rand(len(victims.codes))

    def measure(self, output: Tensor, auxiliary: Auxiliary, truth: Truth) -> dict[str, Estimate]:
        self.truth = truth
        return {"mean": Estimate(float(output.mean()), math.nan, math.nan)}


class Picky(Watcher):
    name: str = "Picky"

    def why_unsuited(self, codec: Codec) -> str | None:
        return None if isinstance(codec, IdentityCodec) else "needs every pixel"


def people(*names: Any, seed: int = 0, **changes: Any) -> dict[str, Any]:
    images = torch.rand((len(names), 1, 16, 16), generator=torch.Generator().manual_seed(seed))
    return {"images": images, "patients": list(names), **changes}


AUXILIARY, VICTIMS = people("a", "a", "b", seed=1), people("c", "c", "d", seed=2)
CODEC = DeepFixCXCodec(levels=1, patch_size=4)


def test_an_attack_sees_auxiliary_images_and_the_victims_codes_alone() -> None:
    attack = Watcher()
    run_attack(attack, CODEC, AUXILIARY, {**VICTIMS, "labels": [1, 0, 1]}, seed=7, samples=5, progress=True)
    assert torch.equal(attack.auxiliary.images, AUXILIARY["images"])
    assert torch.equal(attack.auxiliary.codes, CODEC.encode(AUXILIARY["images"]))
    assert attack.auxiliary.patients == ("a", "a", "b")
    assert attack.auxiliary.spatial_shape == (16, 16)
    assert attack.auxiliary.seed == 7
    assert attack.auxiliary.progress
    assert torch.equal(attack.victims.codes, CODEC.encode(VICTIMS["images"]))
    assert attack.victims.raw is None
    assert attack.victims.labels is not None
    assert attack.victims.labels.tolist() == [1, 0, 1]
    assert torch.equal(attack.truth.images, VICTIMS["images"])
    assert attack.truth.patients == ("c", "c", "d")
    assert (attack.truth.samples, attack.truth.seed) == (5, 7)
    raw = Watcher(raw=True)
    run_attack(raw, CODEC, AUXILIARY, VICTIMS)
    assert raw.victims.raw is not None
    assert torch.equal(raw.victims.raw, VICTIMS["images"])


def test_the_seed_fixes_everything_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(99)
    before = torch.get_rng_state()
    first, again, other = (run_attack(Watcher(), CODEC, AUXILIARY, VICTIMS, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.output, again.output)
    assert not torch.equal(first.output, other.output)


def test_the_result_tells_how_to_run_it_again_and_nothing_of_anybody() -> None:
    names = ["SECRET-1", "SECRET-1", "SECRET-2"]
    images = torch.full((3, 1, 16, 16), SECRET)
    result = run_attack(Watcher(), CODEC, AUXILIARY, {"images": images, "patients": names}, seed=3)
    told = json.loads(json.dumps(result.as_dict()))
    assert told["codec"] == CODEC.config()
    assert told["fingerprint"] == CODEC.fingerprint()
    assert (told["attack"], told["seed"]) == ("Watcher", 3)
    assert told["auxiliary"] == {"images": 3, "patients": 2} == told["victims"]
    assert told["threat_model"].startswith("Knows the codec and its parameters; holds codes of the victims")
    assert told["metrics"]["mean"]["low"] is None
    assert told["seconds"] >= 0
    for text in (json.dumps(told), repr(result)):
        assert "SECRET" not in text
        assert str(SECRET)[:6] not in text
    assert without_output(result).output.numel() == 0
    assert without_output(result) == result  # the output takes no part in comparisons


def test_metadata_stays_behind_and_any_kind_of_names_will_do() -> None:
    attack = Watcher()
    tagged = MetaTensor(VICTIMS["images"], meta={"filename_or_obj": "SECRET.dcm"})
    victims = {"images": tagged, "patients": np.array([7, 7, 8])}
    run_attack(attack, CODEC, {**AUXILIARY, "patients": torch.tensor([1, 1, 2])}, victims)
    assert type(attack.truth.images) is Tensor
    assert type(attack.victims.codes) is Tensor
    assert attack.truth.patients == ("7", "7", "8")
    whole = {"images": (VICTIMS["images"] * 255).to(torch.uint8), "patients": ["c", "c", "d"]}
    run_attack(attack, CODEC, AUXILIARY, whole)
    assert attack.truth.images.dtype == torch.float32


def test_given_codes_are_attacked_in_place_of_the_images_own() -> None:
    attack = Watcher()
    codes = torch.rand(3, 1, CODEC.code_length((16, 16)))
    run_attack(attack, CODEC, AUXILIARY, {**VICTIMS, "codes": codes, "fingerprint": CODEC.fingerprint()})
    assert torch.equal(attack.victims.codes, codes)
    mixed = DeepFixCXCodec(levels=1, patch_size=4, in_channels=1, channel_multiplier=2)
    own = mixed.encode(VICTIMS["images"])
    run_attack(attack, mixed, AUXILIARY, {**VICTIMS, "codes": own})
    assert torch.equal(attack.victims.codes, own)


def test_the_undefended_output_reaches_the_measure() -> None:
    attack = Watcher()
    undefended = run_attack(attack, IdentityCodec(), AUXILIARY, VICTIMS)
    alone = attack.truth
    run_attack(attack, CODEC, AUXILIARY, VICTIMS, undefended=undefended)
    assert alone.undefended is None
    assert attack.truth.undefended is not None
    assert torch.equal(attack.truth.undefended, undefended.output)


@pytest.mark.parametrize(
    ("auxiliary", "victims", "message"),
    [
        (people("a", "a"), VICTIMS, "auxiliary must hold at least two patients; got 1"),
        (AUXILIARY, people("c", "c"), "victims must hold at least two patients; got 1"),
        (AUXILIARY, people("b", "c"), "auxiliary and victims must be different patients; 1 in both. Split by patient"),
        (people(1, 2), people("2", "3"), "auxiliary and victims must be different patients; 1 in both"),
        ({"patients": ["a", "b"]}, VICTIMS, r"auxiliary must hold images \[N, C, \*S\] .*; images missing"),
        (AUXILIARY, {"images": torch.rand(2, 1, 9, 9)}, "victims must hold images .*; patients missing"),
        (AUXILIARY, {}, "victims must hold images .*; images and patients missing"),
        (people("a", "b", images=torch.rand(2, 16, 16)), VICTIMS, r"one patient per image; got images \[2, 16, 16\]"),
        (people("a", "b", patients=["a", "b", "c"]), VICTIMS, "and 3 patients"),
        (people("a", "b", images=torch.rand(2, 1, 16, 17)), VICTIMS, r"one shape .* got \(1, 16, 17\) and \(1, 16, 16"),
        (people("a", "b", images=torch.full((2, 1, 4, 4), math.nan)), VICTIMS, "auxiliary images must be finite"),
        (AUXILIARY, people("c", "d", labels=[1]), "victims must hold one of labels per image; got 1 for 2 images"),
        (AUXILIARY, people("c", "d", members=[True]), "victims must hold one of members per image; got 1 for 2 images"),
        (AUXILIARY, {**VICTIMS, "codes": torch.rand(3, 1, 5)}, "Were they made by another codec"),
        (
            AUXILIARY,
            {**VICTIMS, "codes": CODEC.encode(VICTIMS["images"]), "fingerprint": ConstantCodec().fingerprint()},
            "victims' codes were made by codec .* Attack them with the codec that made them",
        ),
    ],
)
def test_bad_input_is_refused(auxiliary: dict[str, Any], victims: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_attack(Watcher(), CODEC, auxiliary, victims)


def test_what_an_attack_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="Picky does not suit this deepfixcx codec: it needs every pixel"):
        run_attack(Picky(), CODEC, AUXILIARY, VICTIMS)
    assert Picky().suits(IdentityCodec())
    run_attack(Picky(), IdentityCodec(), AUXILIARY, VICTIMS)
    known, attacked = (people(*names, images=torch.rand(2, 1, 8, 8, 8)) for names in ("ab", "cd"))
    with pytest.raises(ValueError, match="Watcher works on images of 2 spatial axes; got 3"):
        run_attack(Watcher(), IdentityCodec(3), known, attacked)
    with pytest.raises(ValueError, match="samples must be at least 0"):
        run_attack(MeanImage(), CODEC, AUXILIARY, VICTIMS, samples=-1)


def test_threats_are_sentences() -> None:
    assert ThreatModel("infer membership", holds=("a head",)).sentence() == (
        "Knows the codec and its parameters; holds a head; aims to infer membership."
    )


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_an_attack_runs_where_it_is_told() -> None:
    attack = Watcher()
    run_attack(attack, DeepFixCXCodec(levels=1, patch_size=4), AUXILIARY, VICTIMS, device="cuda")
    assert attack.victims.codes.device.type == attack.auxiliary.images.device.type == "cuda"

"""One contract for every reconstruction attack: at both ends, and in between."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from monai_deepfixcx.attacks import (
    Auxiliary,
    DecoderAttack,
    InPainting,
    LearnedInversion,
    LinearInverse,
    LinearMMSE,
    LowPassThumbnail,
    MAPInversion,
    MeanFill,
    MeanImage,
    NearestNeighbor,
    Victims,
    run_attack,
)
from monai_deepfixcx.attacks.reconstruction import ReconstructionAttack
from monai_deepfixcx.codecs import Codec, ConstantCodec, DeepFixCXCodec, HeartSpotCodec, IdentityCodec
from monai_deepfixcx.metrics.reconstruction import explained_variance, mse, ssim
from tests.attacks.reconstruction.cohort import SIDE, attacked, people, volumes

ATTACKS: dict[str, Callable[[], ReconstructionAttack]] = {
    "MeanImage": MeanImage,
    "NearestNeighbor": NearestNeighbor,
    "DecoderAttack": DecoderAttack,
    "LowPassThumbnail": LowPassThumbnail,
    "LinearInverse": LinearInverse,
    "LinearMMSE": LinearMMSE,
    "MAPInversion": lambda: MAPInversion(steps=20, restarts=3),
    "LearnedInversion": lambda: LearnedInversion(steps=50, channels=(8, 16)),
    "MeanFill": MeanFill,
    "InPainting": lambda: InPainting(steps=50, channels=(8, 16)),
}
# What a code shows is all that these use; the others can only give what auxiliary images hold.
MUST_SUCCEED = {
    "DecoderAttack",
    "LinearInverse",
    "LinearMMSE",
    "MAPInversion",
    "LearnedInversion",
    "MeanFill",
    "InPainting",
}
METRICS = {"mse", "psnr", "ssim", "ms_ssim", "explained_variance", "normalised_ssim", "rero", "rero@0.02", "rero@0.1"}
CONTROLS = {"ssim_shuffled", "explained_variance_shuffled"}

every_attack = pytest.mark.parametrize("name", ATTACKS)


def suited_codec(name: str) -> Codec:
    pixels = name in ("MeanFill", "InPainting")
    return HeartSpotCodec("hline+heart", (SIDE, SIDE)) if pixels else DeepFixCXCodec(levels=2, patch_size=4)


# A codec that keeps (almost) everything, in the form that an attack on pixels or on sums asks for.
OPEN_ENDS: dict[str, Codec] = {
    "MeanFill": HeartSpotCodec("", (SIDE, SIDE)),
    "InPainting": HeartSpotCodec("", (SIDE, SIDE)),
    "LowPassThumbnail": DeepFixCXCodec(levels=1, patch_size=SIDE // 2),
}


@every_attack
def test_every_attack_succeeds_on_the_undefended_image(name: str) -> None:
    found = attacked(ATTACKS[name](), OPEN_ENDS.get(name, IdentityCodec()), samples=0)
    value = found.metrics["explained_variance"].value
    if name in MUST_SUCCEED:
        assert value > 0.95
    elif name == "NearestNeighbor":
        assert 0.1 < value < 0.95
    elif name == "LowPassThumbnail":
        assert value > 0.7  # half the resolution
    else:
        assert name == "MeanImage"
        assert value == 0


@every_attack
def test_every_attack_is_at_its_baseline_where_the_code_says_nothing(name: str) -> None:
    attack = ATTACKS[name]()
    if not attack.suits(ConstantCodec()):
        with pytest.raises(ValueError, match=f"{name} does not suit this constant codec: it needs"):
            attacked(attack, ConstantCodec())
        return
    for metric, estimate in attacked(attack, ConstantCodec()).metrics.items():
        assert estimate.baseline is not None
        within = 0.02 * abs(estimate.baseline) + 1e-3
        assert estimate.low - within <= estimate.baseline <= estimate.high + within, metric


@every_attack
def test_every_attack_reports_all_metrics_and_repeats_itself(name: str) -> None:
    codec = suited_codec(name)
    first, again = attacked(ATTACKS[name](), codec, seed=3), attacked(ATTACKS[name](), codec, seed=3)
    assert first.metrics.keys() == METRICS | CONTROLS
    assert torch.equal(first.output, again.output)
    assert first.metrics == again.metrics
    assert first.attack == name
    assert first.threat.goal == "reconstruct"
    assert not first.threat.raw_images
    assert first.output.shape == people()[1]["images"].shape
    assert 0 <= first.output.min() <= first.output.max() <= 1
    for estimate in first.metrics.values():
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.baseline is not None


@every_attack
def test_what_is_reported_is_what_the_output_scores(name: str) -> None:
    auxiliary, victims = people()
    result = attacked(ATTACKS[name](), suited_codec(name), samples=0)
    images, guess = victims["images"], auxiliary["images"].mean(0)
    metrics = result.metrics
    assert metrics["explained_variance"].value == pytest.approx(explained_variance(result.output, images, guess))
    assert metrics["mse"].baseline == pytest.approx(float(mse(guess.expand_as(images), images).mean()))
    assert metrics["ssim"].value == pytest.approx(float(ssim(result.output, images).mean()))
    assert metrics["explained_variance"].baseline == 0


@every_attack
def test_an_attack_sees_neither_the_victims_images_nor_their_order(name: str) -> None:
    """Victims are attacked one by one as all at once: nothing of an image reaches an attack but its code."""
    auxiliary, victims = people()
    codec = suited_codec(name)
    attack = ATTACKS[name]()
    seen: list[Victims] = []
    run = attack.run

    def watched(victims: Victims) -> Tensor:
        seen.append(victims)
        return run(victims)

    attack.run = watched  # type: ignore[method-assign]
    result = run_attack(attack, codec, auxiliary, victims, samples=0)
    (given,) = seen
    assert given.raw is None
    assert given.labels is None
    assert {field.name for field in dataclasses.fields(given)} == {"codes", "raw", "labels"}
    if name != "MAPInversion":  # its random start depends on the batch
        alone = run(Victims(given.codes[:3]))
        torch.testing.assert_close(alone, result.output[:3], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [name for name in ATTACKS if 3 in ATTACKS[name]().spatial_dims])
def test_attacks_on_volumes(name: str) -> None:
    auxiliary, victims = volumes()
    codec = DeepFixCXCodec(levels=1, patch_size=(4, 3, 3), spatial_dims=3)
    result = run_attack(ATTACKS[name](), codec, auxiliary, victims, samples=0)
    assert result.output.shape == victims["images"].shape
    value = result.metrics["explained_variance"].value
    assert math.isfinite(value)
    if name in ("LowPassThumbnail", "LinearInverse", "LinearMMSE", "MAPInversion", "LearnedInversion"):
        assert value > 0.3


@pytest.mark.parametrize("name", [name for name in ATTACKS if 3 not in ATTACKS[name]().spatial_dims])
def test_attacks_on_films_refuse_volumes(name: str) -> None:
    auxiliary, victims = volumes()

    class Pixels(HeartSpotCodec):
        """Has the type that these attacks ask for."""

    with pytest.raises(ValueError, match=f"{name} works on images of 2 spatial axes; got 3"):
        run_attack(ATTACKS[name](), Pixels("", (16, 14)), auxiliary, victims)


def test_stronger_attacks_beat_weaker_ones() -> None:
    """The order that METHODS and the issue expect, on sign-less codes of synthetic patients."""
    codec = DeepFixCXCodec(levels=2, patch_size=4)
    found = {
        name: attacked(attack, codec, samples=0).metrics
        for name, attack in {
            "decoder": DecoderAttack(),
            "thumbnail": LowPassThumbnail(),
            "inverse": LinearInverse(),
            "linear": LinearMMSE(),
            "map": MAPInversion(restarts=1),
            "learned": LearnedInversion(steps=100, channels=(8, 16)),
        }.items()
    }
    share = {name: metrics["explained_variance"].value for name, metrics in found.items()}
    assert share["decoder"] < share["thumbnail"] < share["linear"]
    assert share["decoder"] < share["inverse"] < share["linear"] < share["map"]
    assert share["linear"] <= share["learned"] + 0.01
    assert found["decoder"]["ssim"].value < found["thumbnail"]["ssim"].value < found["linear"]["ssim"].value
    # The control: a reconstruction shows its own patient, not just anybody.
    assert found["linear"]["ssim_shuffled"].value < found["linear"]["ssim"].value - 0.1


@pytest.mark.slow
def test_training_longer_beats_the_linear_attack() -> None:
    codec = DeepFixCXCodec(levels=2, patch_size=4)
    learned = attacked(LearnedInversion(), codec, samples=0).metrics["explained_variance"].value
    assert learned > attacked(LinearMMSE(), codec, samples=0).metrics["explained_variance"].value


def test_heartspot_attacks_beat_its_decoder() -> None:
    codec = HeartSpotCodec("rhline+heart", (SIDE, SIDE))
    found = {
        attack.name: attacked(attack, codec, samples=0).metrics["explained_variance"].value
        for attack in (DecoderAttack(), MeanFill(), LinearMMSE(), InPainting(steps=50, channels=(8, 16)))
    }
    assert found["DecoderAttack"] < 0 < found["MeanFill"] < found["LinearMMSE"] <= found["InPainting"] + 0.01


def test_the_advantage_is_measured_against_the_undefended_image() -> None:
    undefended = attacked(LinearMMSE(), IdentityCodec(), samples=0)
    result = attacked(LinearMMSE(), DeepFixCXCodec(levels=2, patch_size=4), undefended=undefended)
    advantage, share = (result.metrics[name] for name in ("advantage", "explained_variance"))
    full = undefended.metrics["explained_variance"].value
    assert advantage.value == pytest.approx(share.value / full)
    assert advantage.baseline == 0


def test_a_perceptual_distance_can_be_added() -> None:
    def grey(output: Tensor, images: Tensor) -> Tensor:
        return (output.mean((1, 2, 3)) - images.mean((1, 2, 3))).abs()

    found = attacked(LinearInverse(perceptual=grey), DeepFixCXCodec(levels=2, patch_size=4)).metrics["perceptual"]
    assert found.baseline is not None
    assert found.value < found.baseline


def test_a_progress_bar_is_shown_if_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    codec = DeepFixCXCodec(levels=2, patch_size=4)
    attacked(MAPInversion(steps=1, restarts=1), codec, samples=0, progress=True)
    attacked(LearnedInversion(steps=1, channels=(4, 8)), codec, samples=0, progress=True)
    shown = capsys.readouterr().out
    assert "inverting the codes" in shown
    assert "training the inversion network" in shown
    attacked(MAPInversion(steps=1, restarts=1), codec, samples=0)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("attack", "codec"),
    [
        (LowPassThumbnail(), HeartSpotCodec("hline", (SIDE, SIDE))),
        (LowPassThumbnail(), IdentityCodec()),
        (LowPassThumbnail(), DeepFixCXCodec(2, 4, features=["max"])),
        (LowPassThumbnail(), DeepFixCXCodec(2, 4, zero_mean=True)),
        (DecoderAttack(), DeepFixCXCodec(2, 4, features=["l1", "max"])),
        (DecoderAttack(), DeepFixCXCodec(2, 4, in_channels=1, channel_multiplier=2)),
        (MeanFill(), DeepFixCXCodec(2, 4)),
        (InPainting(), HeartSpotCodec("hline", (SIDE, SIDE), aggregate="sum")),
    ],
)
def test_an_attack_that_does_not_suit_a_codec_says_so(attack: ReconstructionAttack, codec: Codec) -> None:
    assert not attack.suits(codec)
    with pytest.raises(ValueError, match=f"{attack.name} does not suit this {codec.name} codec: it needs"):
        attacked(attack, codec)


@pytest.mark.parametrize(
    "codec",
    [
        DeepFixCXCodec(2, 4, features=["l1", "max"]),
        DeepFixCXCodec(2, 4, in_channels=1, channel_multiplier=2),
        HeartSpotCodec("hline", (SIDE, SIDE), aggregate="sum"),
        HeartSpotCodec("median+rhline", (SIDE, SIDE)),
        HeartSpotCodec("quadtree+hline", (SIDE, SIDE)),
        DeepFixCXCodec(1, 5, wavelet="coif1", zero_mean=True),
    ],
    ids=lambda codec: str(codec.config().get("prior", codec.config().get("features"))),
)
def test_regression_and_learning_suit_every_codec(codec: Codec) -> None:
    """Also those whose decoder, or whose gradient, is of little use."""
    linear = attacked(LinearMMSE(), codec, samples=0).metrics["explained_variance"].value
    assert linear > 0.3
    for attack in (MAPInversion(steps=5, restarts=1), LearnedInversion(steps=1, channels=(4, 8))):
        assert attacked(attack, codec, samples=0).metrics["explained_variance"].value > linear - 0.1


@pytest.mark.parametrize("part", ["auxiliary", "victims"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: images * 3 - 1, "images must be in \\[0, 1\\], the range the metrics are defined on. Scale"),
        (lambda images: images[..., :8], "images must have at least 11 pixels along every axis, SSIM's window"),
    ],
)
def test_images_that_cannot_be_judged_are_refused(part: str, change: Callable[[Tensor], Tensor], message: str) -> None:
    parts: dict[str, Any] = dict(zip(("auxiliary", "victims"), people(), strict=True))
    for name, content in parts.items():
        if name == part or "pixels" in message:
            parts[name] = {**content, "images": change(content["images"])}
    with pytest.raises(ValueError, match=message):
        run_attack(MeanImage(), IdentityCodec(), parts["auxiliary"], parts["victims"])


def test_attacks_are_of_the_auxiliary_kind() -> None:
    """An attack can be fitted and run by hand, without `run_attack`."""
    auxiliary, victims = people()
    codec = DeepFixCXCodec(levels=2, patch_size=4)
    learnt = Auxiliary(codec, auxiliary["images"], tuple(auxiliary["patients"]), codec.encode(auxiliary["images"]))
    output = LinearMMSE().fit(learnt).run(Victims(codec.encode(victims["images"])))
    torch.testing.assert_close(output, attacked(LinearMMSE(), codec, samples=0).output)

"""Against the best guess without the code: by definition, by resampling one by one, and over an epoch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from monai_deepfixcx.metrics import Estimate, patient_bootstrap
from monai_deepfixcx.metrics.reconstruction import (
    PerceptualDistance,
    ReconstructionMetric,
    explained_variance,
    image_scores,
    mse,
    normalised_ssim,
    of_another_patient,
    reconstruction_estimates,
    ssim,
    train_feature_network,
)

PATIENTS = ["a", "a", "b", "c", "c", "c", "d", "e"]


def cohort(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Reconstructions, images and a guess."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand((8, 1, 16, 16), generator=generator)
    output = (images + 0.1 * torch.randn(images.shape, generator=generator)).clamp(0, 1)
    return output, images, torch.rand((1, 16, 16), generator=generator)


def test_explained_variance_and_normalised_ssim_by_definition() -> None:
    output, images, guess = cohort()
    errors, guessed = ((shown - images).double().square().mean() for shown in (output, guess))
    assert explained_variance(output, images, guess) == pytest.approx(float(1 - errors / guessed))
    s, s_mean = float(ssim(output, images).mean()), float(ssim(guess.expand_as(images), images).mean())
    assert normalised_ssim(output, images, guess) == pytest.approx((s - s_mean) / (1 - s_mean))
    assert math.isnan(explained_variance(output, guess.expand_as(images), guess))
    with pytest.raises(ValueError, match=r"guess must be one image, \[1, 16, 16\]; got \[8, 1, 16, 16\]"):
        explained_variance(output, images, images)


def test_intervals_are_those_of_the_patient_bootstrap() -> None:
    """The vectorised statistics against `patient_bootstrap`, which computes each resample on its own."""
    output, images, guess = cohort()
    ours, guessed = image_scores(output, images), image_scores(guess.expand_as(images), images)
    found = reconstruction_estimates(ours, guessed, PATIENTS, samples=60, seed=4, undefended_mse=ours["mse"] / 2)

    def expected(statistic: Any, *columns: Tensor) -> Estimate:
        # Two last columns that are not used: of two, `patient_bootstrap` takes the second for labels.
        spare = torch.zeros(8)
        return patient_bootstrap(lambda *c: statistic(*c[:-2]), [*columns, spare, spare], PATIENTS, samples=60, seed=4)

    references = {
        "ssim": expected(np.mean, ours["ssim"]),
        "psnr": expected(np.mean, ours["psnr"]),
        "explained_variance": expected(lambda a, b: 1 - a.sum() / b.sum(), ours["mse"], guessed["mse"]),
        "normalised_ssim": expected(lambda a, b: (a.mean() - b.mean()) / (1 - b.mean()), ours["ssim"], guessed["ssim"]),
        "advantage": expected(
            lambda a, b, c: (b - a).sum() / (b - c).sum(), ours["mse"], guessed["mse"], ours["mse"] / 2
        ),
    }
    for name, reference in references.items():
        estimate = found[name]
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx(
            (reference.value, reference.low, reference.high)
        ), name
    assert found["ssim"].baseline == pytest.approx(float(guessed["ssim"].mean()))
    assert found["explained_variance"].baseline == 0


def test_without_an_advantage_on_undefended_images_there_is_none_to_share() -> None:
    output, images, guess = cohort()
    ours, guessed = image_scores(output, images), image_scores(guess.expand_as(images), images)
    found = reconstruction_estimates(ours, guessed, PATIENTS, samples=0, undefended_mse=guessed["mse"])
    assert math.isnan(found["advantage"].value)
    with pytest.raises(ValueError, match="samples must be at least 0"):
        reconstruction_estimates(ours, guessed, PATIENTS, samples=-1)
    with pytest.raises(ValueError, match="patients must hold one name per image"):
        reconstruction_estimates(ours, guessed, PATIENTS[:3])


def test_the_control_never_draws_the_same_patient() -> None:
    for seed in range(20):
        others = of_another_patient(PATIENTS, seed).tolist()
        assert all(PATIENTS[k] != PATIENTS[other] for k, other in enumerate(others))
    drawn = np.array([of_another_patient(PATIENTS, seed).tolist() for seed in range(300)])
    assert {int(k) for k in drawn[:, 3]} == {0, 1, 2, 6, 7}  # every image of every other patient
    assert torch.equal(of_another_patient(PATIENTS, 3), of_another_patient(PATIENTS, 3))
    with pytest.raises(ValueError, match="patients must be at least two"):
        of_another_patient(["a", "a"])


@pytest.mark.parametrize("as_lists", [False, True])
def test_the_cumulative_metric_is_the_function_over_all_batches(as_lists: bool) -> None:
    output, images, guess = cohort()
    metric = ReconstructionMetric(guess, samples=30, seed=2)
    for part in (slice(0, 3), slice(3, 8)):
        if as_lists:
            metric(list(output[part]), list(images[part]), patients=PATIENTS[part])
        else:
            metric(output[part], images[part], patients=PATIENTS[part])
    ours, guessed = image_scores(output, images), image_scores(guess.expand_as(images), images)
    expected = reconstruction_estimates(ours, guessed, PATIENTS, samples=30, seed=2)
    found = metric.aggregate()
    assert found.keys() == expected.keys()
    for name, estimate in found.items():
        assert estimate.value == pytest.approx(expected[name].value)
        assert estimate.baseline == pytest.approx(expected[name].baseline)
    metric.reset()
    with pytest.raises(ValueError, match="ReconstructionMetric has seen no image on any rank"):
        metric.aggregate()


def test_the_cumulative_metric_says_what_it_needs() -> None:
    output, images, guess = cohort()
    metric = ReconstructionMetric(guess, samples=0)
    with pytest.raises(ValueError, match="y must be the images and patients whose each is; got none"):
        metric(output, images)
    with pytest.raises(ValueError, match="patients must hold one name per image, 8 in this batch; got 2"):
        metric(output, images, patients=["a", "b"])
    with pytest.raises(ValueError, match="samples must be at least 0"):
        ReconstructionMetric(guess, samples=-1)


def test_a_trained_network_gives_a_distance_that_grows_with_damage() -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((24, 1, 5, 5), generator=generator)
    images = nn.functional.interpolate(coarse, size=(20, 20), mode="bilinear")
    distance = PerceptualDistance(train_feature_network(images, steps=40, seed=1, channels=(8, 16)))
    noise = torch.randn(images.shape, generator=generator)
    found = [float(distance(images + level * noise, images).mean()) for level in (0, 0.02, 0.1, 0.3)]
    assert found[0] == 0
    assert found == sorted(found)
    again = PerceptualDistance(train_feature_network(images, steps=40, seed=1, channels=(8, 16)))
    assert torch.equal(distance(images.flip(0), images), again(images.flip(0), images))
    assert distance.train().network.training is False
    assert not any(parameter.requires_grad for parameter in distance.parameters())


def test_perceptual_distance_by_definition_on_named_layers() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ELU(), nn.Conv2d(3, 2, 3, stride=2))
    a, b, _ = cohort()
    distance = PerceptualDistance(network, layers=["0", "2"])(a, b)
    expected = torch.zeros(8, dtype=torch.float64)
    for depth in (1, 3):
        x, y = (network[:depth](images) for images in (a, b))
        x, y = (maps / maps.square().sum(1, keepdim=True).sqrt() for maps in (x, y))
        expected += (x - y).square().sum(1).mean((1, 2)).double() / 2
    torch.testing.assert_close(distance, expected, atol=1e-5, rtol=1e-5)


def test_networks_for_volumes_and_bad_input() -> None:
    volumes = torch.rand(4, 2, 8, 9, 10)
    network = train_feature_network(volumes, steps=2, channels=(4, 8))
    assert PerceptualDistance(network)(volumes, volumes.flip(0)).shape == (4,)
    with pytest.raises(ValueError, match=r"images must be \[N, C, \*S\], at least one; got \[4, 2, 8\]"):
        train_feature_network(torch.rand(4, 2, 8))
    with pytest.raises(ValueError, match="layers must be names of the network's submodules; it has no missing"):
        PerceptualDistance(network, layers=["missing"])


def test_perceptual_is_one_of_the_scores() -> None:
    output, images, _ = cohort()
    distance = PerceptualDistance(nn.Conv2d(1, 4, 3))
    found = image_scores(output, images, distance)
    torch.testing.assert_close(found["perceptual"], distance(output, images))
    torch.testing.assert_close(found["mse"], mse(output, images))

"""Reconstructions against the best guess without the code, with intervals over patients."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from monai_deepfixcx.metrics.bootstrap import (
    Estimate,
    check_bootstrap,
    number_patients,
    percentile_estimate,
    resample_patients,
)
from monai_deepfixcx.metrics.inputs import as_array
from monai_deepfixcx.metrics.reconstruction.similarity import mse, psnr_of, ssim, ssim_and_ms_ssim
from monai_deepfixcx.metrics.weighted import Floats, divide

Distance = Callable[[Tensor, Tensor], Tensor]


def image_scores(output: Tensor, images: Tensor, perceptual: Distance | None = None) -> dict[str, Tensor]:
    """Every similarity of each reconstruction and its image.

    Args:
        output: reconstructions, ``[N, C, *S]``.
        images: the truth, of the same shape, in [0, 1].
        perceptual: gives distances ``[N]`` of two batches of images, such as `PerceptualDistance`.

    Returns:
        ``mse``, ``psnr``, ``ssim``, ``ms_ssim`` and, if given, ``perceptual``: each ``[N]``, float64.

    Raises:
        ValueError: shapes that differ, no images, or images smaller than SSIM's window.

    >>> sorted(image_scores(torch.rand(2, 1, 16, 16), torch.rand(2, 1, 16, 16)))
    ['ms_ssim', 'mse', 'psnr', 'ssim']
    """
    errors = mse(output, images)
    fine, scales = ssim_and_ms_ssim(output, images)
    found = {"mse": errors, "psnr": psnr_of(errors), "ssim": fine, "ms_ssim": scales}
    return found if perceptual is None else {**found, "perceptual": perceptual(output, images).double().cpu()}


def explained_variance(output: Tensor, images: Tensor, guess: Tensor) -> float:
    """Share of the squared error of the best guess without the code that the reconstructions remove: 1 - MSE/MSE_mean.

    Args:
        output: reconstructions, ``[N, C, *S]``.
        images: the truth, of the same shape.
        guess: the best guess, ``[C, *S]``: the mean of other patients' images.

    Returns:
        At most 1 (exact); 0 is the guess; below 0 is worse than it. nan if the guess is exact.

    Raises:
        ValueError: shapes that differ, or no images.

    >>> images = torch.rand(3, 1, 16, 16)
    >>> explained_variance(images, images, images.mean(0))
    1.0
    """
    errors, guessed = mse(output, images), mse(_repeat(guess, images), images)
    return _value(_explained(as_array(errors), as_array(guessed)), len(images))


def normalised_ssim(output: Tensor, images: Tensor, guess: Tensor) -> float:
    """SSIM between that of the best guess without the code and 1: (S - S_mean) / (1 - S_mean).

    Args:
        output: reconstructions, ``[N, C, *S]``.
        images: the truth, of the same shape.
        guess: the best guess, ``[C, *S]``.

    Returns:
        At most 1; 0 is the guess; below 0 is worse than it. nan if the guess is exact.

    Raises:
        ValueError: shapes that differ, no images, or images smaller than the window.

    >>> images = torch.rand(3, 1, 16, 16)
    >>> normalised_ssim(images.mean(0).expand_as(images), images, images.mean(0))
    0.0
    """
    found, guessed = ssim(output, images), ssim(_repeat(guess, images), images)
    return _value(_normalised(as_array(found), as_array(guessed)), len(images))


def reconstruction_estimates(
    scores: Mapping[str, Tensor],
    guess_scores: Mapping[str, Tensor],
    patients: Iterable[Hashable],
    samples: int = 1000,
    seed: int = 0,
    undefended_mse: Tensor | None = None,
) -> dict[str, Estimate]:
    """Means over images, and how far they lie from the best guess without the code, with intervals over patients.

    Args:
        scores: `image_scores` of the reconstructions.
        guess_scores: `image_scores` of the guess.
        patients: N names: whose each image is.
        samples: resamples of patients; 0 gives no intervals.
        seed: of the resamples.
        undefended_mse: ``[N]``, the errors of the same attacker on undefended images.

    Returns:
        Every name of `scores`, its baseline that of the guess; ``explained_variance`` and ``normalised_ssim``, baseline
        0; and with `undefended_mse` ``advantage``: the error removed, as a share of what the same attacker removes on
        undefended images, baseline 0, nan where that is nothing.

    Raises:
        ValueError: not one patient per image, or a negative number of samples.

    >>> images = torch.rand(4, 1, 16, 16)
    >>> mean = images.mean(0).expand_as(images)
    >>> found = reconstruction_estimates(image_scores(images, images), image_scores(mean, images), "aabb", samples=50)
    >>> found["explained_variance"].value, found["mse"].value, found["mse"].baseline > 0
    (1.0, 0.0, True)
    """
    check_bootstrap(samples)
    ours = {name: as_array(values) for name, values in scores.items()}
    guess = {name: as_array(values) for name, values in guess_scores.items()}
    owners = number_patients(patients, len(ours["mse"]))
    statistics = {name: _mean(values) for name, values in ours.items()}
    baselines = {name: _value(_mean(values), len(owners)) for name, values in guess.items()}
    statistics["explained_variance"] = _explained(ours["mse"], guess["mse"])
    statistics["normalised_ssim"] = _normalised(ours["ssim"], guess["ssim"])
    if undefended_mse is not None:
        statistics["advantage"] = _ratio(guess["mse"] - ours["mse"], guess["mse"] - as_array(undefended_mse))
    drawn = resample_patients(list(statistics.values()), owners, samples, seed)
    return {
        name: percentile_estimate(_value(statistic, len(owners)), row, baseline=baselines.get(name, 0.0))
        for (name, statistic), row in zip(statistics.items(), drawn, strict=True)
    }


def of_another_patient(patients: Iterable[Hashable], seed: int = 0) -> Tensor:
    """For each image a random image of another patient, for a shuffled-identity control.

    Args:
        patients: N names of at least two patients.
        seed: of the draw.

    Returns:
        Indices ``[N]``.

    Raises:
        ValueError: fewer than two patients.

    >>> of_another_patient(["a", "a", "b"]).tolist()[:2]
    [2, 2]
    """
    names = [str(name) for name in patients]
    owners = number_patients(names, len(names))
    counts = np.bincount(owners)
    if len(counts) < 2:
        raise ValueError(f"patients must be at least two, to compare with another one's image; got {len(counts)}.")
    order = np.argsort(owners, kind="stable")
    after = np.cumsum(counts)[owners]  # where the next patient's images begin, in that order
    steps = np.random.default_rng(seed).integers(0, len(names) - counts[owners])
    return torch.from_numpy(order[(after + steps) % len(names)])


def _repeat(guess: Tensor, images: Tensor) -> Tensor:
    if guess.shape != images.shape[1:]:
        raise ValueError(f"guess must be one image, {list(images.shape[1:])}; got {list(guess.shape)}.")
    return guess.expand_as(images)


def _mean(values: Floats) -> Callable[[Floats], Floats]:
    return lambda weights: divide(weights @ values, weights.sum(axis=1))


def _ratio(numerators: Floats, denominators: Floats) -> Callable[[Floats], Floats]:
    return lambda weights: divide(weights @ numerators, weights @ denominators)


def _explained(errors: Floats, guessed: Floats) -> Callable[[Floats], Floats]:
    return _ratio(guessed - errors, guessed)


def _normalised(found: Floats, guessed: Floats) -> Callable[[Floats], Floats]:
    return _ratio(found - guessed, 1 - guessed)


def _value(statistic: Callable[[Floats], Floats], images: int) -> float:
    return float(statistic(np.ones((1, images)))[0])

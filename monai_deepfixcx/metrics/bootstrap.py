"""Intervals by resampling whole patients: images of one patient are not independent."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from monai_deepfixcx.metrics.weighted import Floats

_CHUNK = 2**21  # weights held at once: 16 MB, which stays in fast memory


@dataclass(frozen=True)
class Estimate:
    """A measured value, its interval, and what no skill would have scored.

    Attributes:
        value: on the data as they are; nan if they leave it undefined.
        low: lower end of the interval; nan if there is none.
        high: upper end of the interval; nan if there is none.
        baseline: the score without skill; None where there is no such thing.

    >>> Estimate(0.81, 0.74, float("nan"), baseline=0.5).as_dict()
    {'value': 0.81, 'low': 0.74, 'high': None, 'baseline': 0.5}
    """

    value: float
    low: float
    high: float
    baseline: float | None = None

    def as_dict(self) -> dict[str, float | None]:
        """The same as a JSON-able mapping: nan, which JSON does not know, is None."""
        return {name: None if number is None or math.isnan(number) else number for name, number in asdict(self).items()}


def resample_patients(
    statistics: Sequence[Callable[[Floats], Floats]], patients: NDArray[np.int64], samples: int, seed: int
) -> Floats:
    """Values ``[len(statistics), samples]`` of weighted statistics over the same resamples of patients.

    Args:
        statistics: each takes weights ``[s, N]`` and gives ``[s]``.
        patients: ``[N]``, 0 to P - 1: whose each image is.
        samples: number of resamples; each draws P patients with replacement, and all images of each.
        seed: of the draws, which depend on nothing but `seed`, `samples` and P.
    """
    count = int(patients.max()) + 1
    generator = np.random.default_rng(seed)
    values = np.empty((len(statistics), samples))
    step = max(1, _CHUNK // max(len(patients), 1))
    for start in range(0, samples, step):
        rows = min(step, samples - start)
        drawn = generator.integers(0, count, size=(rows, count)) + np.arange(rows)[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        weights = times[:, patients].astype(float)
        for row, statistic in zip(values, statistics, strict=True):
            row[start : start + rows] = statistic(weights)
    return values


def percentile_estimate(
    value: float, resampled: Floats, confidence: float = 0.95, baseline: float | None = None
) -> Estimate:
    """The percentile interval of resampled values ``[S]``, undefined ones left out, widened to hold `value`."""
    defined = resampled[~np.isnan(resampled)]
    if not len(defined) or math.isnan(value):
        return Estimate(value, math.nan, math.nan, baseline)
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Estimate(value, min(float(low), value), max(float(high), value), baseline)


def number_patients(patients: Iterable[Hashable], images: int) -> NDArray[np.int64]:
    """Numbers 0 to P - 1 ``[N]`` in place of patients' names, the same for any order of the images.

    Raises:
        ValueError: not one name per image, or none.
    """
    names = patients.tolist() if isinstance(patients, torch.Tensor | np.ndarray) else list(patients)
    if len(names) != images or not names:
        raise ValueError(f"patients must hold one name per image, at least one; got {len(names)} for {images} images.")
    return np.unique(np.array([str(name) for name in names]), return_inverse=True)[1].astype(np.int64)


def check_bootstrap(samples: int, confidence: float = 0.95) -> None:
    """Check the two numbers of a bootstrap.

    Raises:
        ValueError: a negative number of samples, or a confidence outside (0, 1).
    """
    if samples < 0:
        raise ValueError(f"samples must be at least 0 (0: no intervals); got {samples}.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, for example 0.95; got {confidence}.")

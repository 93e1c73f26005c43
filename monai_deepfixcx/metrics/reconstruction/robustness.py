"""Reconstruction robustness (ReRo): how many patients come back within a radius, against the best constant guess."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable

import numpy as np
import torch
from torch import Tensor

from monai_deepfixcx.metrics.bootstrap import Estimate, number_patients
from monai_deepfixcx.metrics.inputs import Values, as_array
from monai_deepfixcx.metrics.weighted import Floats, Ints

_CANDIDATES = 256  # constant guesses tried


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a probability, from independent trials.

    Args:
        successes: 0 to `trials`.
        trials: at least 1.
        confidence: coverage, at least; between 0 and 1.

    Returns:
        Lower and upper end, 0 to 1.

    Raises:
        ValueError: a number out of range.

    Source: Clopper & Pearson, Biometrika 26 (1934).

    >>> [round(end, 4) for end in clopper_pearson(0, 10)]
    [0.0, 0.3085]
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"successes must lie between 0 and trials, at least one trial; got {successes} of {trials}.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, for example 0.95; got {confidence}.")
    tail = (1 - confidence) / 2
    counts = np.arange(trials + 1)
    # Logarithms of the binomial coefficients.
    ways = np.array([math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1) for k in counts])

    def at_least(k: int, p: float) -> float:
        """Probability of k or more successes."""
        return float(np.exp(ways[k:] + counts[k:] * math.log(p) + (trials - counts[k:]) * math.log1p(-p)).sum())

    low = 0.0 if successes == 0 else _root(lambda p: at_least(successes, p) - tail)
    high = 1.0 if successes == trials else _root(lambda p: at_least(successes + 1, p) - (1 - tail))
    return low, high


def _root(rising: Callable[[float], float]) -> float:
    """Where a rising function of a probability crosses 0, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


def rero(
    errors: Values,
    guess_errors: Values,
    patients: Iterable[Hashable],
    radius: float,
    confidence: float = 0.95,
) -> Estimate:
    """Share of patients of whom at least one image is reconstructed within a radius.

    Patients, not images, are the independent trials of the interval. Called for several radii it gives the success
    curve.

    Args:
        errors: ``[N]``, the distance of each reconstruction from its image: root mean squared error, in grey values of
            [0, 1].
        guess_errors: ``[N]``, that of the best constant guess, `best_constant_guess`.
        patients: N names: whose each image is.
        radius: eta, above 0, in the unit of the errors.
        confidence: of the Clopper-Pearson interval.

    Returns:
        The share, 0 to 1; its baseline is that of the constant guess.

    Raises:
        ValueError: shapes that do not fit, or a number out of range.

    Source: Balle et al., IEEE S&P 2022, definition 2 and section III; the interval is Clopper-Pearson's.

    >>> rero([0.01, 0.2, 0.3], [0.3, 0.2, 0.2], ["a", "a", "b"], radius=0.05).value
    0.5
    """
    if not radius > 0:
        raise ValueError(f"radius must be above 0, in grey values of [0, 1]; got {radius}.")
    found, guessed = as_array(errors), as_array(guess_errors)
    if found.ndim != 1 or found.shape != guessed.shape:
        raise ValueError(f"errors and guess_errors must both be [N]; got {list(found.shape)}, {list(guessed.shape)}.")
    owners = number_patients(patients, len(found))
    successes, baseline = (_patients_within(values, owners, radius) for values in (found, guessed))
    trials = int(owners.max()) + 1
    low, high = clopper_pearson(successes, trials, confidence)
    return Estimate(successes / trials, low, high, baseline / trials)


def _patients_within(errors: Floats, owners: Ints, radius: float) -> int:
    return len(np.unique(owners[errors <= radius]))


def best_constant_guess(images: Tensor, patients: Iterable[Hashable], radius: float) -> Tensor:
    """The one image that lies within a radius of the most other patients: the best guess that needs no code.

    Tried are the mean image and up to 256 of the images, evenly spaced; judged on the same images, those of a
    candidate's own patient left out. The mean is kept unless another is better.

    Args:
        images: auxiliary, ``[N, C, *S]`` in [0, 1].
        patients: N names: whose each image is.
        radius: root mean squared error, in grey values.

    Returns:
        ``[C, *S]``.

    Raises:
        ValueError: not one name per image, or none.

    Source: Balle et al., IEEE S&P 2022, the baseline kappa of section III.

    >>> images = torch.cat([torch.zeros(3, 1, 4, 4), torch.ones(1, 1, 4, 4)])
    >>> best_constant_guess(images, ["a", "b", "c", "d"], radius=0.1).max()
    tensor(0.)
    """
    owners = torch.from_numpy(number_patients(patients, len(images)))
    rows = torch.linspace(0, len(images) - 1, min(len(images), _CANDIDATES)).round().long().unique()
    tried, whose = images[rows.to(images.device)].flatten(1), owners[rows]
    candidates = torch.cat([images.flatten(1).mean(0, keepdim=True), tried])
    errors = torch.cdist(candidates, tried).cpu() / tried.shape[1] ** 0.5
    others = torch.cat([torch.ones(1, len(rows), dtype=torch.bool), whose[:, None] != whose[None]])
    shares = ((errors <= radius) & others).double().sum(1) / others.sum(1).clamp(min=1)
    return candidates[int(shares.argmax())].reshape(images.shape[1:])

"""What a receiver operating characteristic tells, for many weightings of the same data at once.

A curve is two arrays ``[S, T]`` of S weightings: the false and the true positive rate after each threshold, both rising
from 0 to 1. Between two points the curve is a straight line: a threshold in the middle of equal scores accepts a random
part of them. So equal scores count half in the area, and scores that are all equal give chance everywhere.
"""

from __future__ import annotations

import numpy as np

from monai_deepfixcx.metrics.weighted import Floats


def rates(counts: Floats) -> Floats:
    """Cumulative shares ``[S, 1 + G]`` of counts ``[S, G]``, from 0 to 1; nan where the counts are all 0."""
    sums = np.cumsum(counts, axis=1)
    total = sums[:, -1:]
    shares = np.divide(sums, total, out=np.full(sums.shape, np.nan), where=total > 0)
    return np.concatenate([np.where(total > 0, 0.0, np.nan), shares], axis=1)


def area(false: Floats, true: Floats) -> Floats:
    """Area under each curve ``[S]``: P(a positive scores higher than a negative), ties half."""
    return np.asarray((np.diff(false, axis=1) * (true[:, 1:] + true[:, :-1])).sum(axis=1) / 2)


def equal_error_rate(false: Floats, true: Floats) -> Floats:
    """The rate ``[S]`` at which as many negatives are accepted as positives are refused; .5 without skill."""
    both = false + true
    after = np.argmax(both >= 1, axis=1)[:, None]  # at least 1: each curve begins at 0
    low, high = (np.take_along_axis(both, at, axis=1) for at in (after - 1, after))
    left, right = (np.take_along_axis(false, at, axis=1) for at in (after - 1, after))
    return np.asarray((left + (right - left) * (1 - low) / (high - low))[:, 0])


def true_positive_rate(false: Floats, true: Floats, at: float) -> Floats:
    """The true positive rate ``[S]`` at a false positive rate; `at` itself without skill."""
    last = false.shape[1] - 1
    before = np.clip((false <= at).sum(axis=1)[:, None] - 1, 0, last - 1)
    left, right = (np.take_along_axis(false, index, axis=1) for index in (before, before + 1))
    low, high = (np.take_along_axis(true, index, axis=1) for index in (before, before + 1))
    steep = right == left
    share = np.divide(at - left, right - left, out=np.ones_like(left), where=~steep)
    return np.asarray((low + (high - low) * share)[:, 0])


def kolmogorov_smirnov(false: Floats, true: Floats) -> Floats:
    """The greatest distance ``[S]`` between the two cumulative distributions, 0 to 1."""
    return np.asarray(np.abs(true - false).max(axis=1))

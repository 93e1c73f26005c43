"""The maths of the metrics, over many weightings of the same images at once.

A bootstrap resample is a weight (how often each image was drawn) per image, so that one sort serves all resamples.
Weights are ``[S, N]``, S weightings of N images; every result is ``[S]``, nan where a weighting leaves it undefined.
`monai_deepfixcx.metrics.functional` asks with S = 1 and weights of 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

IGNORED = 2.0  # the label value of an uncertain finding


@dataclass(frozen=True)
class Ranking:
    """Images of one label in falling order of score; uncertain ones are left out.

    Attributes:
        kept: ``[M]`` indices of the certain images, highest score first.
        positive: ``[M]`` 1 or 0, in that order.
        ends: ``[G]`` the last position of each group of equal scores.
        scores: ``[M]`` falling.
    """

    kept: Ints
    positive: Floats
    ends: Ints
    scores: Floats

    @staticmethod
    def of(scores: Floats, labels: Floats) -> Ranking:
        """Rank scores ``[N]`` of labels ``[N]`` (0, 1, or 2 = uncertain)."""
        certain = np.flatnonzero(labels != IGNORED)
        kept = certain[np.argsort(-scores[certain], kind="stable")]
        ranked = scores[kept]
        last = np.append(ranked[1:] != ranked[:-1], True) if len(kept) else np.zeros(0, bool)
        return Ranking(kept, labels[kept], np.flatnonzero(last), ranked)

    def counts(self, weights: Floats) -> tuple[Floats, Floats]:
        """True and false positives ``[S, G]`` if the cut lies below each group of equal scores."""
        drawn = weights[:, self.kept]
        # Sums within a group first: few distinct scores make short cumulative sums.
        starts = np.concatenate([[0], self.ends[:-1] + 1]).astype(np.int64)
        true = np.cumsum(np.add.reduceat(drawn * self.positive, starts, axis=1), axis=1)
        return true, np.cumsum(np.add.reduceat(drawn, starts, axis=1), axis=1) - true

    def auroc(self, weights: Floats) -> Floats:
        """Probability that a positive scores higher than a negative, ties counted half."""
        if not len(self.kept):
            return np.full(len(weights), np.nan)
        true, false = self.counts(weights)
        steps = np.diff(false, axis=1, prepend=0.0)
        heights = 2 * true - np.diff(true, axis=1, prepend=0.0)
        return divide((steps * heights).sum(axis=1), 2 * true[:, -1] * false[:, -1])

    def average_precision(self, weights: Floats) -> Floats:
        """Mean over positives of the precision at their score; nan without a positive or without a negative."""
        if not len(self.kept):
            return np.full(len(weights), np.nan)
        true, false = self.counts(weights)
        gained = np.diff(true, axis=1, prepend=0.0)
        precision = true / np.maximum(true + false, np.finfo(float).tiny)
        result = divide((gained * precision).sum(axis=1), true[:, -1])
        return np.where(false[:, -1] > 0, result, np.nan)

    def youden(self) -> float:
        """The highest score whose use as threshold gives the greatest sensitivity + specificity - 1."""
        if not 0 < self.positive.sum() < len(self.positive):
            return float("nan")
        weights = np.zeros((1, int(self.kept.max()) + 1))
        weights[:, self.kept] = 1
        true, false = self.counts(weights)
        # Over one common denominator the counts stay whole: equal values of J compare equal.
        informedness = true[0] * false[0, -1] - false[0] * true[0, -1]
        return float(self.scores[self.ends[int(informedness.argmax())]])


def calibration_error(confidences: Floats, outcomes: Floats, bins: int, weights: Floats) -> Floats:
    """Expected calibration error of confidences ``[N]`` for outcomes ``[N]`` (0, 1, or 2 = uncertain)."""
    certain = np.flatnonzero(outcomes != IGNORED)
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    members = np.zeros((len(certain), bins))
    members[np.arange(len(certain)), np.searchsorted(edges, confidences[certain], side="left")] = 1
    gaps = (confidences[certain] - outcomes[certain])[:, None] * members
    drawn = weights[:, certain]
    return divide(np.abs(drawn @ gaps).sum(axis=1), drawn.sum(axis=1))


def share(hits: NDArray[np.bool_], among: NDArray[np.bool_], weights: Floats) -> Floats:
    """Share of hits ``[N]`` among the images ``[N]`` that count."""
    drawn = weights[:, among]
    return divide(drawn @ hits[among].astype(float), drawn.sum(axis=1))


def balanced_accuracy(predicted: Ints, classes: Ints, weights: Floats) -> Floats:
    """Mean over the classes that occur of the share that is recognised."""
    shares = np.stack([share(predicted == name, classes == name, weights) for name in np.unique(classes)])
    return divide(np.nansum(shares, axis=0), (~np.isnan(shares)).sum(axis=0).astype(float))


def divide(numerator: Floats, denominator: Floats) -> Floats:
    """Quotients ``[S]``, nan where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)

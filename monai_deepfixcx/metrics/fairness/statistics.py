"""The figures of a subgroup, over many weightings of its images at once, and the same as Ignite metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from ignite.metrics.fairness.base import SubgroupMetric
from torch import Tensor

from monai_deepfixcx.metrics import weighted
from monai_deepfixcx.metrics.weighted import IGNORED, Floats, Ints, Ranking

Statistic = Callable[[Floats], Floats]

RANKED = ("auroc", "ece")
DECIDED = ("selection_rate", "tpr", "fpr", "accuracy")
SPD = "accuracy_spd"
WORST_IS_HIGH = ("ece", "fpr")


def gap_name(kind: str) -> str:
    """What the gap of a figure between subgroups is called; that of selection rates has a name of its own."""
    return "demographic_parity_difference" if kind == "selection_rate" else f"{kind}_gap"


def statistic(kind: str, scores: Floats, labels: Floats, threshold: float | None) -> Statistic:
    """A figure of scores ``[N]`` and labels ``[N]`` (2: left out) as a function of weights ``[S, N]``."""
    if kind == "auroc":
        return Ranking.of(scores, labels).auroc
    if kind == "ece":
        return lambda weights: weighted.calibration_error(scores, labels, 15, weights)
    cut = math.nan if threshold is None else threshold
    called, known = scores >= cut, not math.isnan(cut)
    hits = called == (labels == 1) if kind == "accuracy" else called
    among = {"tpr": labels == 1, "fpr": labels == 0}.get(kind, labels != IGNORED) & known
    return lambda weights: weighted.share(hits, among, weights)


def of_rows(own: Statistic, rows: Ints) -> Statistic:
    """A figure of some of the images, given weights of all of them."""
    return lambda weights: own(weights[:, rows])


def accuracy_spd(
    group: str, groups: Mapping[str, Ints], scores: Floats, labels: Floats, threshold: float | None
) -> Statistic:
    """The accuracy of a group less that of all other groups together: the third paper's "parity difference".

    The sample-weighted mean of the others' accuracies is the accuracy of the others taken together.
    """
    own = groups[group]
    others = np.concatenate([rows for name, rows in groups.items() if name != group] or [own[:0]])
    here, there = (
        of_rows(statistic("accuracy", scores[rows], labels[rows], threshold), rows) for rows in (own, others)
    )
    return lambda weights: here(weights) - there(weights)


class _Pooled(Metric):
    """A figure of all scores and labels seen; no group is skipped but one whose labels leave it undefined.

    Args:
        kind: one of `RANKED` or `DECIDED`.
        threshold: a score at or above it means positive.
    """

    def __init__(self, kind: str, threshold: float | None = None) -> None:
        self.kind, self.threshold = kind, threshold
        super().__init__()

    def reset(self) -> None:
        self._scores: list[Tensor] = []
        self._labels: list[Tensor] = []

    def update(self, output: Sequence[Tensor]) -> None:
        self._scores.append(output[0])
        self._labels.append(output[1])

    def compute(self) -> float:
        if not self._scores:
            raise NotComputableError("no image")
        scores, labels = torch.cat(self._scores).numpy(), torch.cat(self._labels).numpy()
        value = float(statistic(self.kind, scores, labels, self.threshold)(np.ones((1, len(scores))))[0])
        if math.isnan(value):
            raise NotComputableError("a class is missing")
        return value


def by_group(
    kind: str, groups: Mapping[str, Ints], scores: Floats, labels: Floats, threshold: float | None
) -> dict[str, float]:
    """A figure of each group, by Ignite's `SubgroupMetric`; groups that leave it undefined are not there.

    Args:
        kind: one of `RANKED` or `DECIDED`.
        groups: name -> rows of its images.
        scores: ``[N]``.
        labels: ``[N]`` of 0, 1, or 2 (uncertain: left out).
        threshold: a score at or above it means positive; None or nan leaves `DECIDED` undefined.

    >>> rows = {"F": np.array([0, 1]), "M": np.array([2, 3])}
    >>> by_group("accuracy", rows, np.array([0.9, 0.2, 0.8, 0.7]), np.array([1.0, 0.0, 1.0, 0.0]), threshold=0.5)
    {'F': 1.0, 'M': 0.5}
    """
    codes = np.full(len(scores), -1)
    for code, rows in enumerate(groups.values()):
        codes[rows] = code
    metric = SubgroupMetric(_Pooled(kind, threshold), groups=range(len(groups)))
    metric.update((torch.from_numpy(scores), torch.from_numpy(labels), torch.from_numpy(codes)))
    names = list(groups)
    return {names[code]: value for code, value in metric.compute().items()}

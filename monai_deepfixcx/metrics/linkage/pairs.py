"""Pairs of images, for many weightings of the patients at once: the maths of verification."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monai_deepfixcx.metrics import curves
from monai_deepfixcx.metrics.weighted import Floats, Ints

_BLOCK = 2**19  # products held at once: 4 MB, which stays in fast memory


@dataclass(frozen=True)
class PairCounts:
    """How many pairs of which patients have a similarity in which bin.

    The bins are the distinct similarities of same-patient pairs, and the gaps between them, falling: all that the
    curve of true over false positives needs. Every ordered pair of two images counts once, no image with itself.

    Attributes:
        bins: number of bins.
        same: ``[G, 3]`` bin, patient, number of pairs of two images of this patient.
        different: ``[H, 4]`` bin, patient, another patient, number of pairs of an image of each; sorted by bin.
    """

    bins: int
    same: Ints
    different: Ints

    @staticmethod
    def of(similarities: Floats, patients: Ints) -> PairCounts:
        """Count the pairs of similarities ``[N, N]`` of images of patients ``[N]``, 0 to P - 1."""
        alike = patients[:, None] == patients
        np.fill_diagonal(alike, False)
        levels = np.unique(similarities[alike])
        count, last = int(patients.max()) + 1, 2 * len(levels)
        same = _count(_bins(similarities[alike], levels), np.broadcast_to(patients[:, None], alike.shape)[alike], count)
        unlike = patients[:, None] != patients
        least = np.minimum(patients[:, None], patients)[unlike]
        most = np.maximum(patients[:, None], patients)[unlike]
        pairs = _count(_bins(similarities[unlike], levels), least * count + most, count**2)
        different = np.stack([pairs[:, 0], pairs[:, 1] // count, pairs[:, 1] % count, pairs[:, 2]], axis=1)
        return PairCounts(last + 1, same, different)

    def curve(self, weights: Floats) -> tuple[Floats, Floats]:
        """False and true positive rates ``[S, bins + 1]`` if each patient counts as often as `weights` ``[S, P]`` say.

        A patient drawn k times stands for k patients: k times the pairs within, and none between the copies, which
        would pair an image with itself.
        """
        times = np.ascontiguousarray(weights.T)
        true = np.zeros((self.bins, len(weights)))
        np.add.at(true, self.same[:, 0], times[self.same[:, 1]] * self.same[:, 2:])
        false = np.zeros_like(true)
        step = max(1, _BLOCK // max(1, len(weights)))
        for start in range(0, len(self.different), step):
            bins, one, other, number = self.different[start : start + step].T
            products = times[one]
            products *= times[other]
            products *= number[:, None]
            first = np.flatnonzero(np.diff(bins, prepend=-1))
            false[bins[first]] += np.add.reduceat(products, first, axis=0)
        return curves.rates(false.T), curves.rates(true.T)


def _bins(values: Floats, levels: Floats) -> Ints:
    """The bin of each value: odd ones are `levels`, even ones the gaps around them, falling."""
    return 2 * len(levels) - np.searchsorted(levels, values, "left") - np.searchsorted(levels, values, "right")


def _count(bins: Ints, keys: Ints, limit: int) -> Ints:
    """``[G, 3]`` bin, key (below `limit`) and how often both occur together, sorted."""
    found, number = np.unique(bins * limit + keys, return_counts=True)
    return np.stack([found // limit, found % limit, number], axis=1)


@dataclass(frozen=True)
class ShuffledPairs:
    """Pairs of images whose owners are dealt anew: what similarities tell of identity when there is none to tell.

    Attributes:
        groups: ``[N, N]`` the place of each pair's similarity among the distinct ones, rising.
        ends: ``[1 + G]`` how many pairs lie below each distinct similarity, and N (N - 1).
        one: ``[M]`` first image of each same-patient pair, and `other` ``[M]`` its second.
    """

    groups: Ints
    ends: Ints
    one: Ints
    other: Ints

    @staticmethod
    def of(similarities: Floats, patients: Ints) -> ShuffledPairs:
        """Rank the pairs of similarities ``[N, N]`` of images of patients ``[N]``."""
        off = ~np.eye(len(patients), dtype=bool)
        _, inverse, counts = np.unique(similarities[off], return_inverse=True, return_counts=True)
        groups = np.zeros(off.shape, np.int64)
        groups[off] = inverse.ravel()
        one, other = np.nonzero((patients[:, None] == patients) & off)
        return ShuffledPairs(groups, np.concatenate([[0], np.cumsum(counts)]), one, other)

    def draw(self, shuffles: int, seed: int) -> tuple[Floats, Floats]:
        """AUC and Kolmogorov-Smirnov statistic ``[shuffles]``, each of another random dealing of the images."""
        generator = np.random.default_rng(seed)
        drawn = [self._one_dealing(generator.permutation(len(self.groups))) for _ in range(shuffles)]
        auc, statistic = np.array(drawn, float).reshape(shuffles, 2).T
        return auc, statistic

    def _one_dealing(self, order: Ints) -> tuple[float, float]:
        groups = np.sort(self.groups[order[self.one], order[self.other]])
        below, upto, total = self.ends[groups], self.ends[groups + 1], self.ends[-1]
        positives, negatives = len(groups), total - len(groups)
        # The rank sum of Mann and Whitney; equal similarities share the middle of their ranks.
        auc = ((below + upto + 1).sum() / 2 - positives * (positives + 1) / 2) / (positives * negatives)
        gaps = [
            np.searchsorted(groups, groups, "right") / positives - upto / total,
            np.searchsorted(groups, groups, "left") / positives - below / total,
        ]
        return auc, float(np.abs(gaps).max()) * total / negatives

"""Auxiliary patients parted, to choose or to judge on some what was learnt on others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor


def split_patients(patients: Sequence[str], share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the images of most patients, and of those held out: at least one patient in each part.

    Args:
        patients: N names of at least two patients.
        share: of the patients to hold out, above 0 and below 1.
        seed: of the draw.

    >>> split_patients(["a", "b", "a"], 0.25, seed=0)
    (tensor([1]), tensor([0, 2]))
    """
    names = np.unique(np.array(patients))
    count = min(max(1, round(share * len(names))), len(names) - 1)
    chosen = np.random.default_rng(seed).permutation(names)[:count]
    held_out = torch.from_numpy(np.isin(np.array(patients), chosen))
    return (~held_out).nonzero()[:, 0], held_out.nonzero()[:, 0]


def fold_patients(patients: Sequence[str], folds: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices of the images outside and inside each fold of patients; every image is inside one fold.

    Args:
        patients: N names of at least two patients.
        folds: at most; as many as there are patients if those are fewer.
        seed: of the draw.

    >>> [inside.tolist() for _, inside in fold_patients(["a", "b", "a"], 4, seed=0)]
    [[0, 2], [1]]
    """
    names, owners = np.unique(np.array(patients), return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(names)) % min(folds, len(names))
    inside = torch.from_numpy(fold[owners])
    for number in range(min(folds, len(names))):
        yield (inside != number).nonzero()[:, 0], (inside == number).nonzero()[:, 0]

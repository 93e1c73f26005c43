"""Retrieval: rank a gallery by similarity to each image, and see where the other images of the patient come."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from monai_deepfixcx.metrics.weighted import Floats, Ints

Flags = NDArray[np.bool_]
NAMES = ("precision_at_1", "r_precision", "map_at_r")
_BLOCK = 2**20  # similarities sorted at once


def retrieval_scores(similarities: Floats, patients: Ints) -> tuple[Ints, Floats]:
    """Precision at 1, R-precision and average precision at R of every query, expected over random orders of ties.

    The gallery of a query is all other images; R, the number among them of the query's patient. Images whose patient
    has no other are no queries, but stay in the galleries.

    Args:
        similarities: ``[N, N]``, row: the query; the diagonal is not read.
        patients: ``[N]``.

    Returns:
        The queries ``[Q]``, and ``[Q, 3]`` in the order of `NAMES`, each 0 to 1.

    Source: Musgrave, Belongie & Lim, ECCV 2020; ties: the mean over their orders.
    """
    relevant = patients[:, None] == patients
    np.fill_diagonal(relevant, False)
    queries = np.flatnonzero(relevant.any(axis=1))
    step = max(1, _BLOCK // len(patients))
    blocks = [queries[start : start + step] for start in range(0, len(queries), step)]
    scores = [_scores(*_without_self(similarities[rows], relevant[rows], rows)) for rows in blocks]
    return queries, np.concatenate([np.zeros((0, len(NAMES))), *scores])


def _without_self(similarities: Floats, relevant: Flags, rows: Ints) -> tuple[Floats, Flags]:
    gallery = np.arange(similarities.shape[1]) != rows[:, None]
    shape = (len(rows), similarities.shape[1] - 1)
    return similarities[gallery].reshape(shape), relevant[gallery].reshape(shape)


def _scores(similarities: Floats, relevant: Flags) -> Floats:
    """The three scores ``[Q, 3]`` of galleries ``[Q, G]``."""
    order = np.argsort(-similarities, axis=1, kind="stable")
    ranked = np.take_along_axis(similarities, order, axis=1)
    hits = np.cumsum(np.take_along_axis(relevant, order, axis=1), axis=1).astype(float)
    rank = np.arange(1, ranked.shape[1] + 1)
    new = np.concatenate([np.ones((len(ranked), 1), bool), ranked[:, 1:] != ranked[:, :-1]], axis=1)
    # Rank k lies in a group of equal similarities: `size` long with `found` hits, after `before` others with `above`.
    before = np.maximum.accumulate(np.where(new, rank - 1, 0), axis=1)
    last = np.concatenate([new[:, 1:], np.ones((len(ranked), 1), bool)], axis=1)
    end = np.minimum.accumulate(np.where(last, rank, ranked.shape[1])[:, ::-1], axis=1)[:, ::-1]
    padded = np.concatenate([np.zeros((len(ranked), 1)), hits], axis=1)
    above, size = np.take_along_axis(padded, before, axis=1), end - before
    found = np.take_along_axis(padded, end, axis=1) - above
    hit = found / size  # chance that rank k holds a hit
    among = (rank - before - 1) * (found - 1) / np.maximum(size - 1, 1)  # hits expected before it in its group, if so
    precision = hit * (above + 1 + among) / rank
    wanted = rank <= hits[:, -1:]
    number = hits[:, -1]
    return np.stack([hit[:, 0], (hit * wanted).sum(axis=1) / number, (precision * wanted).sum(axis=1) / number], axis=1)

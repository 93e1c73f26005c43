"""Pooling coefficients into patches, compiled: what the fused encoders share. Importing this module imports Numba."""

from typing import Any

import numpy as np
import numpy.typing as npt

from monai_deepfixcx.codecs.kernels.jit import borrow, jit

# The numbers by which the loops know the pooled features.
L1, SUM, MAX, MIN, MEDIAN, L2, SUM_POS, SUM_NEG = range(8)
LINE = 64  # bytes
_Array = npt.NDArray[Any]


@jit
def aligned_rows(count: int, length: int, like: _Array) -> _Array:
    """Rows of at least `length`, of the type of `like`, that begin where a line of the cache begins.

    A vector register is as long as a line: a load or store that crosses two takes several times as long.
    """
    size = like.itemsize
    per_line = LINE // size
    stride = -(-length // per_line) * per_line
    room = np.empty(count * stride + per_line, dtype=like.dtype)
    start = -room.ctypes.data % LINE // size
    return room[start : start + count * stride].reshape(count, stride)


@borrow
def start_value(feature: int, whole: bool) -> float:
    """What pooling starts from; where zeros pad the patch (it is not `whole`), they take part."""
    return -np.inf if feature == MAX and whole else np.inf if feature == MIN and whole else 0.0


@borrow
def start_pooling(features: _Array, whole: bool, pooled: _Array) -> None:
    """Fill ``pooled [F, ...]`` with what pooling starts from."""
    for f in range(len(features)):
        pooled[f] = start_value(features[f], whole)


@borrow
def pool_row(row: _Array, scale: Any, feature: int, pooled: _Array) -> None:
    """Add a row of coefficients, scaled, to what was pooled before it."""
    if feature == L1:
        for x in range(len(row)):
            pooled[x] += abs(row[x]) * scale
    elif feature == SUM:
        for x in range(len(row)):
            pooled[x] += row[x] * scale
    elif feature == MAX:
        for x in range(len(row)):
            pooled[x] = max(pooled[x], row[x] * scale)
    elif feature == MIN:
        for x in range(len(row)):
            pooled[x] = min(pooled[x], row[x] * scale)
    elif feature == L2:
        for x in range(len(row)):
            pooled[x] += (row[x] * scale) * (row[x] * scale)
    elif feature == SUM_POS:
        for x in range(len(row)):
            value = row[x] * scale
            pooled[x] += value if value > 1e-6 else 0
    elif feature == SUM_NEG:
        for x in range(len(row)):
            value = row[x] * scale
            pooled[x] += value if value < -1e-6 else 0


@borrow
def pool_runs(flat: _Array, run: int, feature: int, totals: _Array) -> int:
    """Pool every `run` neighbours, more than one, in ``totals [2, at least len(flat) / 2]``; returns in which row."""
    found, row = flat, 1
    while run > 1:
        some = run if feature in (MAX, MIN) else _factor(run)
        row = 1 - row
        target = totals[row][: len(found) // some]
        _pool_some(found, some, feature, target)
        found, run = target, run // some
    return row


@borrow
def _factor(run: int) -> int:
    """Of a run, which is pooled factor by factor, one that `_pool_some` is fast at; the run itself if there is none."""
    for factor in (5, 4, 3, 2):
        if run % factor == 0:
            return factor
    return run


@borrow
def _pool_some(flat: _Array, run: int, feature: int, totals: _Array) -> None:
    if feature in (MAX, MIN):
        for i in range(len(totals)):
            total = flat[i * run]
            for x in range(i * run + 1, (i + 1) * run):
                total = max(total, flat[x]) if feature == MAX else min(total, flat[x])
            totals[i] = total
    elif run == 2:
        for i in range(len(totals)):
            totals[i] = flat[2 * i] + flat[2 * i + 1]
    elif run == 3:
        for i in range(len(totals)):
            totals[i] = (flat[3 * i] + flat[3 * i + 1]) + flat[3 * i + 2]
    elif run == 4:
        for i in range(len(totals)):
            totals[i] = (flat[4 * i] + flat[4 * i + 1]) + (flat[4 * i + 2] + flat[4 * i + 3])
    elif run == 5:
        for i in range(len(totals)):
            totals[i] = (flat[5 * i] + flat[5 * i + 1]) + (flat[5 * i + 2] + flat[5 * i + 3]) + flat[5 * i + 4]
    else:
        count, one, at = np.uint64(run), np.uint64(1), np.uint64(0)  # unsigned: as fast again
        for i in range(len(totals)):
            total, end = flat[at], at + count
            at += one
            while at < end:
                total += flat[at]
                at += one
            totals[i] = total


@jit
def put_medians(kept: _Array, run: int, bands: _Array, out: _Array) -> None:
    """The lower median of each patch, the zeros that pad it among its pixels."""
    for i in range(bands.shape[1]):
        for q in range(out.shape[1]):
            values = np.sort(kept[:, bands[1, i], q * run : (q + 1) * run].copy().reshape(-1))
            out[bands[0, i], q] = values[(len(values) - 1) // 2]

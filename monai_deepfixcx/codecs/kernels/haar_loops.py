"""The outer loops of `encode_haar`, compiled. Importing this module imports Numba."""

import sys
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba.extending import overload

from monai_deepfixcx.codecs.kernels.haar_levels import copy_row, transform
from monai_deepfixcx.codecs.kernels.jit import borrow, jit, scale_run
from monai_deepfixcx.codecs.kernels.pool_loops import (
    L1,
    LINE,
    MEDIAN,
    aligned_rows,
    pool_row,
    pool_runs,
    put_medians,
    start_pooling,
)

_NEAR = 1 << 14  # bytes of rows of blocks that are transformed together: they and the result stay in fast memory
_Array = npt.NDArray[Any]


@jit
def encode_volumes(
    start: int,
    stop: int,
    volumes: _Array,
    deep: int,
    levels: int,
    room: int,
    features: _Array,
    bands: _Array,
    like: _Array,
    white: float,
    codes: _Array,
) -> None:
    """Fill ``codes [N, F, K, P_d, P_h, P_w]``, where there is anything but zeros, from ``volumes [N, D, H, W]``.

    Args:
        start: the first of N P_d P_h rows of patches to fill.
        stop: one past the last.
        volumes: any real type; an image is a volume of one slice.
        deep: levels along the depth: J, or 0 for images.
        levels: J.
        room: how many levels the type of `like` holds.
        features: numbers of the pooled features.
        bands: ``[2, K]``, all subbands and where each lies in a transformed row of blocks.
        like: an array of the type in which the first levels are computed.
        white: what the pixels are divided by.
        codes: float32 or float64.
    """
    grid, kinds = codes.shape[3:], codes.shape[2]
    block = 1 << levels
    depth, height, width = -(-volumes.shape[1] >> deep), -(-volumes.shape[2] >> levels), -(-volumes.shape[3] >> levels)
    patch = (-(-depth // grid[0]), -(-height // grid[1]), -(-width // grid[2]))
    before = (
        (grid[0] * patch[0] - depth) // 2,
        (grid[1] * patch[1] - height) // 2,
        (grid[2] * patch[2] - width) // 2,
    )
    # The patches that a row of blocks reaches: the outer two are completed with zeros, those beyond stay zero.
    left, right = before[2] // patch[2], -(-(before[2] + width) // patch[2])
    lead = before[2] - left * patch[2]
    # So many columns of blocks that every subband of every level begins where a line of the cache does.
    apart = max(1, LINE // like.itemsize >> (levels - 1))
    columns = -(-width // apart) * apart
    length = kinds * columns
    only_l1 = len(features) == 1 and features[0] == L1
    # How many absolute values of 8-bit pixels' coefficients 16 bits can add up.
    limit = 32767 // (255 * kinds) if like.itemsize == 2 and levels <= room and only_l1 else depth * height
    together = max(1, min(patch[1], limit, _NEAR // (length * like.itemsize)))
    pixels, pairs = volumes.reshape(-1), _pairs(volumes, like)
    whole_rows = deep == 0 and len(pairs) > 0 and columns * block == volumes.shape[3]
    work, wide_work = _twice(together * length, like), _twice(together * length, codes)
    subbands = aligned_rows(1, 0 if only_l1 else together * length, codes)[0]
    pooled = aligned_rows(len(features), length, codes)
    wide_sums = pooled[0][:length]
    sums = _sums(like, wide_sums)
    reach = (right - left) * patch[2]
    frames = columns < reach or columns > width
    framed = np.zeros(kinds * reach if frames else 0, dtype=codes.dtype)
    totals = aligned_rows(2, kinds * reach // 2, codes)
    keeps = patch[0] * patch[1] if np.any(features == MEDIAN) else 0
    kept = np.empty((keeps, kinds, reach), dtype=codes.dtype)
    scale, one = codes.dtype.type(0.5 ** (levels + deep / 2) / white), codes.dtype.type(1)
    share = 0 if deep else -(-2 * volumes.shape[3] // levels)
    flat_codes, plane = codes.reshape(-1), grid[0] * grid[1] * grid[2]
    for job in range(start, stop):
        n, pd, ph = job // (grid[0] * grid[1]), job // grid[1] % grid[0], job % grid[1]
        front, back = max(0, pd * patch[0] - before[0]), min(depth, (pd + 1) * patch[0] - before[0])
        top, bottom = max(0, ph * patch[1] - before[1]), min(height, (ph + 1) * patch[1] - before[1])
        if back <= front or bottom <= top:
            continue
        start_pooling(features, back - front == patch[0] and bottom - top == patch[1], pooled)
        if keeps:
            kept[:] = 0
        count = added = 0
        for z in range(front, back):
            for y in range(top, bottom, together):
                rows = min(together, bottom - y)
                if added + rows > limit:
                    _pour(sums, wide_sums)
                    added = 0
                added += rows
                straight = whole_rows and (y + rows) * block <= volumes.shape[2]
                begin, end = n * volumes.shape[2] + y * block, n * volumes.shape[2] + (y + rows) * block
                if not straight:
                    target = work[0][: rows * length].reshape((1 << deep, rows * block, columns * block))
                    _fetch(volumes[n], z << deep, y << levels, target)
                transform(
                    pairs,
                    begin * (volumes.shape[3] // 2) if straight else -1,
                    work,
                    wide_work,
                    sums,
                    wide_sums,
                    subbands,
                    (deep, levels, room, rows),
                    pixels,
                    (end * volumes.shape[3], share),
                )
                if only_l1:
                    continue
                for i in range(rows):
                    band_row = subbands[i * length : (i + 1) * length]
                    for f in range(len(features)):
                        pool_row(band_row, scale, features[f], pooled[f][:length])
                    if keeps:
                        _frame(band_row, (columns, width, lead, reach), scale, kept[count].reshape(-1))
                    count += 1
        _pour(sums, wide_sums)
        for f in range(len(features)):
            if features[f] == MEDIAN:
                put_medians(kept, patch[2], bands, codes[n, f, :, pd, ph, left:right])
                continue
            first = (n * len(features) + f) * kinds * plane + (pd * grid[1] + ph) * grid[2] + left
            _put(
                pooled[f],
                (columns, width, lead, reach),
                patch[2],
                features[f],
                framed,
                totals,
                scale if only_l1 else one,
                bands,
                flat_codes,
                first,
                plane,
            )


@jit
def _twice(length: int, like: _Array) -> tuple[_Array, _Array]:
    rows = aligned_rows(2, length, like)
    return rows[0], rows[1]


@borrow
def _frame(flat: _Array, layout: tuple[int, int, int, int], factor: Any, framed: _Array) -> None:
    """Copy rows, times `factor`, to where their patches have them.

    Args:
        flat: rows, one after the other.
        layout: how long a row is and how much of it to copy, then from where on and how long its patches are.
        factor: a number.
        framed: all rows' patches, one after the other; what is not copied stays.
    """
    columns, width, lead, reach = layout
    for k in range(len(framed) // reach):
        scale_run(flat, np.uint64(k * columns), np.uint64(width), factor, framed, np.uint64(k * reach + lead))


@borrow
def _put(
    pooled: _Array,
    layout: tuple[int, int, int, int],
    run: int,
    feature: int,
    framed: _Array,
    totals: _Array,
    factor: Any,
    bands: _Array,
    codes: _Array,
    first: int,
    stride: int,
) -> None:
    """Pool every `run` neighbours of subbands side by side, and write them, each subband from its own place on.

    Args:
        pooled: one row of subbands.
        layout: of a subband, as in `_frame`.
        run: pixels of a patch.
        feature: which pooled feature.
        framed: room for a row of frames, if one is needed.
        totals: room, as `pool_runs` needs it.
        factor: a number, by which all are multiplied.
        bands: ``[2, K]``, all subbands and where each lies in `pooled`.
        codes: to write to.
        first: from where on.
        stride: between subbands.
    """
    flat = pooled[: bands.shape[1] * layout[0]]
    if len(framed) > 0:
        _frame(flat, layout, pooled.dtype.type(1), framed)
        flat = framed
    found = flat if run == 1 else totals[pool_runs(flat, run, feature, totals)]
    count = np.uint64(layout[3] // run)
    for i in range(bands.shape[1]):
        source, target = np.uint64(bands[1, i]) * count, np.uint64(first + bands[0, i] * stride)
        scale_run(found, source, count, factor, codes, target)


@jit
def _fetch(volume: _Array, front: int, top: int, rows: _Array) -> None:
    """Copy rows of blocks, in the order of memory, and zeros where the volume is not."""
    width = volume.shape[2]
    below = min(rows.shape[1], volume.shape[1] - top)
    rows[:, :, width:] = 0
    for z in range(len(rows)):
        inside = below if front + z < len(volume) else 0
        rows[z, inside:] = 0
        if width == rows.shape[2]:
            copy_row(volume[front + z, top : top + inside].reshape(-1), rows[z, :inside].reshape(-1))
            continue
        for y in range(inside):
            copy_row(volume[front + z, top + y], rows[z, y])


def _pairs(volumes: Any, like: Any) -> Any:
    """All pixels, one after the other, as `haar_levels` reads them; none where they would have to be widened first."""
    raise NotImplementedError  # only in compiled code


def _sums(like: Any, pooled: Any) -> Any:
    """Where absolute values are added up in the type of `like`: in `pooled` if that has it."""
    raise NotImplementedError  # only in compiled code


def _pour(sums: Any, pooled: Any) -> Any:
    """Add `sums` to `pooled` if they are not the same, and empty it."""
    raise NotImplementedError  # only in compiled code


def _two_in_one(volumes: Any, like: Any) -> Any:
    return volumes.reshape(-1)[: volumes.size // 2 * 2].view(np.uint16)


def _one_by_one(volumes: Any, like: Any) -> Any:
    return volumes.reshape(-1)


def _none(volumes: Any, like: Any) -> Any:
    return like


def _empty_sums(like: Any, pooled: Any) -> Any:
    return np.zeros(len(pooled), dtype=like.dtype)


def _pooled_itself(like: Any, pooled: Any) -> Any:
    return pooled


def _add_and_empty(sums: Any, pooled: Any) -> Any:
    kind = pooled.dtype.type
    for x in range(len(sums)):
        pooled[x] += kind(sums[x])
        sums[x] = 0


def _nothing_to_pour(sums: Any, pooled: Any) -> Any:
    return None


@overload(_pairs)
def _pairs_by_type(volumes: Any, like: Any) -> Any:
    if volumes.dtype == numba.uint8 and sys.byteorder == "little":
        return _two_in_one
    return _one_by_one if volumes.dtype == like.dtype else _none


@overload(_sums)
def _sums_by_type(like: Any, pooled: Any) -> Any:
    return _pooled_itself if like.dtype == pooled.dtype else _empty_sums


@overload(_pour)
def _pour_by_type(sums: Any, pooled: Any) -> Any:
    return _nothing_to_pour if sums.dtype == pooled.dtype else _add_and_empty

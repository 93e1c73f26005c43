"""The loops of `encode_haar`, compiled. Importing this module imports Numba.

Written for the vectorizer: an inner loop runs over whole views from 0, where it need not fear a negative index, and the
innermost axis is the longest there is. Sums are cast back to their type: Numba widens every integer sum to 64 bits.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from monai_deepfixcx.codecs.kernels.jit import jit
from monai_deepfixcx.codecs.kernels.pool_loops import (
    L1,
    MEDIAN,
    aligned_rows,
    pool_row,
    pool_runs,
    put_medians,
    start_value,
)

_Array = npt.NDArray[Any]


@jit
def encode_volumes(
    volumes: _Array,
    start: int,
    stop: int,
    deep: int,
    levels: int,
    room: int,
    features: _Array,
    bands: _Array,
    like: _Array,
    codes: _Array,
) -> None:
    """Fill ``codes [N, F, K, P_d, P_h, P_w]``, where there is anything but zeros, from ``volumes [N, D, H, W]``.

    Args:
        volumes: any real type; an image is a volume of one slice.
        start: the first of N P_d P_h rows of patches to fill.
        stop: one past the last.
        deep: levels along the depth: J, or 0 for images.
        levels: J.
        room: how many levels along the rows keep to the type of `like`.
        features: numbers of the pooled features.
        bands: ``[K]``, the subband at each place of a transformed tile.
        like: an array of the type that holds what the levels across the rows and those make of a pixel.
        codes: float32 or float64.
    """
    grid = codes.shape[3:]
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
    lead = (before[2] - left * patch[2]) * block
    length = len(bands) * (right - left) * patch[2]
    tile = aligned_rows(2, length, like)
    wide = aligned_rows(2, length, codes)
    pooled = aligned_rows(len(features), length, codes)
    totals = np.empty(len(bands) * (right - left), dtype=codes.dtype)
    only_l1 = len(features) == 1 and features[0] == L1
    keeps = patch[0] * patch[1] if np.any(features == MEDIAN) else 0
    kept = np.empty((keeps, length), dtype=codes.dtype)
    scale = codes.dtype.type(0.5 ** (levels + deep / 2))
    near = np.empty((block << deep, volumes.shape[3]), dtype=volumes.dtype)
    for job in range(start, stop):
        n, pd, ph = job // (grid[0] * grid[1]), job // grid[1] % grid[0], job % grid[1]
        front, back = max(0, pd * patch[0] - before[0]), min(depth, (pd + 1) * patch[0] - before[0])
        top, bottom = max(0, ph * patch[1] - before[1]), min(height, (ph + 1) * patch[1] - before[1])
        if back <= front or bottom <= top:
            continue
        whole = back - front == patch[0] and bottom - top == patch[1]
        for f in range(len(features)):
            pooled[f] = start_value(features[f], whole)
        kept[:] = 0
        count = 0
        for z in range(front, back):
            for y in range(top, bottom):
                _fetch(volumes[n], z << deep, y << levels, block, near)
                _mix_rows(near, deep + levels, lead, tile[0][:length])
                if only_l1:
                    _split_and_pool(tile, wide, length, levels, room, pooled[0][:length])
                    continue
                subbands = _split_rows(tile, wide, length, levels, room)
                for f in range(len(features)):
                    pool_row(subbands, scale, features[f], pooled[f][:length])
                if keeps:
                    for x in range(length):
                        kept[count, x] = subbands[x] * scale
                count += 1
        for f in range(len(features)):
            if features[f] == MEDIAN:
                rows = kept.reshape(keeps, len(bands), -1)
                put_medians(rows, patch[2], bands, codes[n, f, :, pd, ph, left:right])
                continue
            sums = pool_runs(pooled[f][:length], patch[2], features[f], totals)
            factor = scale if only_l1 else codes.dtype.type(1)
            place = (pd * grid[1] + ph) * grid[2] + left
            _put(sums, factor, bands, right - left, place, grid[0] * grid[1] * grid[2], codes[n, f].reshape(-1))


@jit
def _put(sums: _Array, factor: Any, bands: _Array, columns: int, place: int, stride: int, codes: _Array) -> None:
    """Write ``sums [K, columns]`` from `place` on into ``codes [K * stride]``, each row to its subband."""
    # Unsigned: Numba looks whether an index is negative, which takes as long as to write a number.
    count, one, i = np.uint64(columns), np.uint64(1), np.uint64(0)
    for k in range(len(bands)):
        start, q = np.uint64(bands[k] * stride + place), np.uint64(0)
        while q < count:
            codes[start + q] = sums[i] * factor
            q += one
            i += one


@jit
def _fetch(volume: _Array, front: int, top: int, block: int, near: _Array) -> None:
    """Copy one row of blocks, and zeros below the end of the volume.

    In the order of memory: the butterflies read rows side by side, for which the processor does not fetch ahead.
    """
    width = near.shape[1]
    below = min(top + block, volume.shape[1])
    for z in range(len(near) // block):
        target = near[z * block : (z + 1) * block].reshape(-1)
        end = (below - top) * width if front + z < len(volume) else 0
        if end:
            source = volume[front + z].reshape(-1)[top * width : below * width]
            for x in range(end):
                target[x] = source[x]
        target[end:] = 0


@jit
def _mix_rows(near: _Array, levels: int, lead: int, tile: _Array) -> None:
    """Butterflies between the rows of one row of blocks; leaves the bands in bit-reversed order, depth last."""
    rows = len(near)
    width = len(tile) // rows
    step = 2 if levels % 2 else 4
    for r in range(0, rows, step):
        start = r * width
        if step == 2:
            _load_two(near[r], near[r + 1], lead, tile[start : start + width], tile[start + width : start + 2 * width])
        else:
            _load_four(
                near[r],
                near[r + 1],
                near[r + 2],
                near[r + 3],
                lead,
                tile[start : start + width],
                tile[start + width : start + 2 * width],
                tile[start + 2 * width : start + 3 * width],
                tile[start + 3 * width : start + 4 * width],
            )
    run = step * width
    while run < len(tile):
        for start in range(0, len(tile), 4 * run):
            _butterfly_twice(
                tile[start : start + run],
                tile[start + run : start + 2 * run],
                tile[start + 2 * run : start + 3 * run],
                tile[start + 3 * run : start + 4 * run],
            )
        run *= 4


@jit
def _load_two(above: _Array, below: _Array, lead: int, low: _Array, high: _Array) -> None:
    kind = low.dtype.type
    low_part, high_part = _blank_ends(low, lead, len(above)), _blank_ends(high, lead, len(above))
    for x in range(len(above)):
        a, b = kind(above[x]), kind(below[x])
        low_part[x] = kind(a + b)
        high_part[x] = kind(b - a)


@jit
def _load_four(
    row_a: _Array,
    row_b: _Array,
    row_c: _Array,
    row_d: _Array,
    lead: int,
    first: _Array,
    second: _Array,
    third: _Array,
    fourth: _Array,
) -> None:
    kind, width = first.dtype.type, len(row_a)
    part_a, part_b = _blank_ends(first, lead, width), _blank_ends(second, lead, width)
    part_c, part_d = _blank_ends(third, lead, width), _blank_ends(fourth, lead, width)
    for x in range(width):
        a, b, c, d = kind(row_a[x]), kind(row_b[x]), kind(row_c[x]), kind(row_d[x])
        left, left_edge, right, right_edge = kind(a + b), kind(b - a), kind(c + d), kind(d - c)
        part_a[x] = kind(left + right)
        part_b[x] = kind(left_edge + right_edge)
        part_c[x] = kind(right - left)
        part_d[x] = kind(right_edge - left_edge)


@jit
def _blank_ends(row: _Array, lead: int, width: int) -> _Array:
    """Set zeros before and after, and return what is between."""
    row[:lead] = 0
    row[lead + width :] = 0
    return row[lead : lead + width]


@jit
def _butterfly_twice(first: _Array, second: _Array, third: _Array, fourth: _Array) -> None:
    """Two levels at once: half as much to load and store."""
    kind = first.dtype.type
    for x in range(len(first)):
        a, b, c, d = first[x], second[x], third[x], fourth[x]
        left, left_edge, right, right_edge = kind(a + b), kind(b - a), kind(c + d), kind(d - c)
        first[x] = kind(left + right)
        second[x] = kind(left_edge + right_edge)
        third[x] = kind(right - left)
        fourth[x] = kind(right_edge - left_edge)


@jit
def _split_early(tile: _Array, wide: _Array, length: int, early: int, room: int) -> tuple[int, bool]:
    """The first levels along the rows, from ``tile[0]``.

    Returns:
        The row that has the result, and whether it is one of `wide`.
    """
    short, full = tile.dtype.type(0), wide.dtype.type(0)
    source, widened = 0, False
    if early % 2:
        if room > 0:
            _split(tile[0][:length], tile[1][:length], 1)
            source = 1
        else:
            _split(tile[0][:length], wide[0][:length], 1)
            widened = True
    for level in range(early % 2, early, 2):
        parts = 1 << level
        if widened:
            _split_twice(wide[source][:length], wide[1 - source][:length], parts, full)
            source = 1 - source
        elif level + 2 <= room:
            _split_twice(tile[source][:length], tile[1 - source][:length], parts, short)
            source = 1 - source
        else:
            if level + 1 <= room:
                _split_twice(tile[source][:length], wide[0][:length], parts, short)
            else:
                _split_twice(tile[source][:length], wide[0][:length], parts, full)
            source, widened = 0, True
    return source, widened


@jit
def _split_and_pool(tile: _Array, wide: _Array, length: int, levels: int, room: int, pooled: _Array) -> None:
    """All levels along the rows; what the last two make is added to `pooled`, not written."""
    short, full = tile.dtype.type(0), wide.dtype.type(0)
    if levels == 1:
        if room > 0:
            _pool_split(tile[0][:length], pooled, short)
        else:
            _pool_split(tile[0][:length], pooled, full)
        return
    source, widened = _split_early(tile, wide, length, levels - 2, room)
    parts = 1 << (levels - 2)
    if widened:
        _pool_split_twice(wide[source][:length], pooled, parts, full, full)
    elif levels <= room:
        _pool_split_twice(tile[source][:length], pooled, parts, short, short)
    elif levels - 1 <= room:
        _pool_split_twice(tile[source][:length], pooled, parts, short, full)
    else:
        _pool_split_twice(tile[source][:length], pooled, parts, full, full)


@jit
def _split_rows(tile: _Array, wide: _Array, length: int, levels: int, room: int) -> _Array:
    """All levels along the rows, written."""
    full = wide.dtype.type(0)
    last = 1 if levels == 1 else 2
    source, widened = _split_early(tile, wide, length, levels - last, room)
    target = wide[1 - source][:length]
    if last == 1:
        _split(tile[0][:length], target, 1)
    elif widened:
        _split_twice(wide[source][:length], target, 1 << (levels - 2), full)
    else:
        _split_twice(tile[source][:length], target, 1 << (levels - 2), full)
    return target


@jit
def _split(source: _Array, target: _Array, parts: int) -> None:
    """One level along the rows: sums of neighbours go to one half of each part, differences to the other."""
    kind = target.dtype.type
    half = len(source) // parts // 2
    for part in range(parts):
        start = 2 * part * half
        pairs = source[start : start + 2 * half]
        low, high = target[start : start + half], target[start + half : start + 2 * half]
        for x in range(half):
            a, b = kind(pairs[2 * x]), kind(pairs[2 * x + 1])
            low[x] = kind(a + b)
            high[x] = kind(b - a)


@jit
def _pool_split(source: _Array, pooled: _Array, like: Any) -> None:
    """As `_split` of one part, in the type of `like`, but absolute values are added to `pooled`."""
    early, kind = type(like), pooled.dtype.type
    half = len(source) // 2
    low, high = pooled[:half], pooled[half:]
    for x in range(half):
        a, b = early(source[2 * x]), early(source[2 * x + 1])
        low[x] += kind(abs(early(a + b)))
        high[x] += kind(abs(early(b - a)))


@jit
def _split_twice(source: _Array, target: _Array, parts: int, like: Any) -> None:
    """Two levels, the first in the type of `like`."""
    early, kind = type(like), target.dtype.type
    quarter = len(source) // parts // 4
    for part in range(parts):
        start = 4 * part * quarter
        fours = source[start : start + 4 * quarter]
        low_low, low_high = target[start : start + quarter], target[start + quarter : start + 2 * quarter]
        start += 2 * quarter
        high_low, high_high = target[start : start + quarter], target[start + quarter : start + 2 * quarter]
        for x in range(quarter):
            a, b, c, d = early(fours[4 * x]), early(fours[4 * x + 1]), early(fours[4 * x + 2]), early(fours[4 * x + 3])
            left, left_edge = kind(early(a + b)), kind(early(b - a))
            right, right_edge = kind(early(c + d)), kind(early(d - c))
            low_low[x] = kind(left + right)
            low_high[x] = kind(right - left)
            high_low[x] = kind(left_edge + right_edge)
            high_high[x] = kind(right_edge - left_edge)


@jit
def _pool_split_twice(source: _Array, pooled: _Array, parts: int, like: Any, last: Any) -> None:
    """As `_split_twice`, the second level in the type of `last`, but absolute values are added to `pooled`."""
    early, late, kind = type(like), type(last), pooled.dtype.type
    quarter = len(source) // parts // 4
    for part in range(parts):
        start = 4 * part * quarter
        fours = source[start : start + 4 * quarter]
        low_low, low_high = pooled[start : start + quarter], pooled[start + quarter : start + 2 * quarter]
        start += 2 * quarter
        high_low, high_high = pooled[start : start + quarter], pooled[start + quarter : start + 2 * quarter]
        for x in range(quarter):
            a, b, c, d = early(fours[4 * x]), early(fours[4 * x + 1]), early(fours[4 * x + 2]), early(fours[4 * x + 3])
            left, left_edge = late(early(a + b)), late(early(b - a))
            right, right_edge = late(early(c + d)), late(early(d - c))
            low_low[x] += kind(abs(late(left + right)))
            low_high[x] += kind(abs(late(right - left)))
            high_low[x] += kind(abs(late(left_edge + right_edge)))
            high_high[x] += kind(abs(late(right_edge - left_edge)))

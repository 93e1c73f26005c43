"""The loops of `encode_haar`, compiled. Importing this module imports Numba.

A level makes of two rows of length L one of four subbands side by side, each of length L/2; the next makes one of two
of these. So every inner loop is at least as long as half a row of pixels, and runs over memory in order.

Written for the vectorizer: an inner loop reads one array and writes one, as it checks that no two overlap; indices are
unsigned, as it would fear negative ones; sums are cast back to their type, as Numba widens every integer to 64 bits.
"""

import sys
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba.extending import overload

from monai_deepfixcx.codecs.kernels.jit import jit, prefetch
from monai_deepfixcx.codecs.kernels.pool_loops import (
    L1,
    LINE,
    MEDIAN,
    aligned_rows,
    pool_row,
    pool_runs,
    put_medians,
    start_value,
)

_NEAR = 1 << 14  # bytes of rows of blocks that are transformed together: they and the result stay in fast memory
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
        room: how many levels the type of `like` holds.
        features: numbers of the pooled features.
        bands: ``[K]``, the subband at each place of a transformed row of blocks.
        like: an array of the type in which the first levels are computed.
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
    lead = before[2] - left * patch[2]
    # So many columns of blocks that every subband of every level begins where a line of the cache does.
    apart = max(1, LINE // like.itemsize >> (levels - 1))
    columns = -(-width // apart) * apart
    length = len(bands) * columns
    only_l1 = len(features) == 1 and features[0] == L1
    # How many absolute values of 8-bit pixels' coefficients 16 bits can add up.
    limit = 32767 // (255 * len(bands)) if like.itemsize == 2 and levels <= room and only_l1 else depth * height
    together = max(1, min(patch[1], limit, _NEAR // (length * like.itemsize)))
    pixels, pairs = volumes.reshape(-1), _pairs(volumes, like)
    row_pairs = len(pairs) // (volumes.size // volumes.shape[3])
    whole_rows = deep == 0 and len(pairs) > 0 and columns * block == volumes.shape[3]
    work, wide_work = aligned_rows(2, together * length, like), aligned_rows(2, together * length, codes)
    pooled, subbands = aligned_rows(len(features), length, codes), aligned_rows(1, together * length, codes)[0]
    sums = _sums(like, pooled[0][:length])
    reach = (right - left) * patch[2]
    frames = columns < reach or columns > width
    framed = np.zeros((len(bands) if frames else 0, reach), dtype=codes.dtype)
    totals = np.empty(len(bands) * (right - left), dtype=codes.dtype)
    keeps = patch[0] * patch[1] if np.any(features == MEDIAN) else 0
    kept = np.empty((keeps, len(bands), reach), dtype=codes.dtype)
    scale = codes.dtype.type(0.5 ** (levels + deep / 2))
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
        count = added = 0
        for z in range(front, back):
            for y in range(top, bottom, together):
                rows = min(together, bottom - y)
                if added + rows > limit:
                    _pour(sums, pooled[0][:length])
                    added = 0
                added += rows
                straight = whole_rows and (y + rows) * block <= volumes.shape[2]
                begin, end = n * volumes.shape[2] + y * block, n * volumes.shape[2] + (y + rows) * block
                if not straight:
                    target = work[0][: rows * length].reshape((1 << deep, rows * block, columns * block))
                    _fetch(volumes[n], z << deep, y << levels, target)
                _transform(
                    pairs[begin * row_pairs : end * row_pairs if straight else 0],
                    work,
                    wide_work,
                    sums,
                    pooled[0][:length],
                    subbands[: 0 if only_l1 else rows * length],
                    (deep, levels, room, rows),
                    pixels[end * volumes.shape[3] : 0 if deep else (2 * end - begin) * volumes.shape[3]],
                )
                if only_l1:
                    continue
                for i in range(rows):
                    band_row = subbands[i * length : (i + 1) * length]
                    for f in range(len(features)):
                        pool_row(band_row, scale, features[f], pooled[f][:length])
                    if keeps:
                        _frame(band_row, columns, width, lead, scale, kept[count])
                    count += 1
        _pour(sums, pooled[0][:length])
        for f in range(len(features)):
            if features[f] == MEDIAN:
                put_medians(kept, patch[2], bands, codes[n, f, :, pd, ph, left:right])
                continue
            flat = pooled[f][:length]
            if frames:
                _frame(flat, columns, width, lead, codes.dtype.type(1), framed)
                flat = framed.reshape(-1)
            found = pool_runs(flat, patch[2], features[f], totals)
            factor = scale if only_l1 else codes.dtype.type(1)
            first = (pd * grid[1] + ph) * grid[2] + left
            _put(found, factor, bands, right - left, first, grid[0] * grid[1] * grid[2], codes[n, f].reshape(-1))


@jit
def _frame(flat: _Array, columns: int, width: int, lead: int, factor: Any, framed: _Array) -> None:
    """Copy the first `width` of every `columns` numbers, times `factor`, to where its patches have them."""
    target, end, one = framed.reshape(-1), np.uint64(width), np.uint64(1)
    for k in range(len(framed)):
        source, start, x = np.uint64(k * columns), np.uint64(k * framed.shape[1] + lead), np.uint64(0)
        while x < end:
            target[start + x] = flat[source + x] * factor
            x += one


@jit
def _put(sums: _Array, factor: Any, bands: _Array, columns: int, place: int, stride: int, codes: _Array) -> None:
    """Write ``sums [K, columns]`` from `place` on into ``codes [K * stride]``, each subband to its own row."""
    count, one, step = np.uint64(columns), np.uint64(1), np.uint64(stride)
    start = np.uint64(place)
    for k in range(len(bands)):  # in the order of the codes, which are the slower memory
        first, q = np.uint64(bands[k]) * count, np.uint64(0)
        while q < count:
            codes[start + q] = sums[first + q] * factor
            q += one
        start += step


@jit
def _fetch(volume: _Array, front: int, top: int, rows: _Array) -> None:
    """Copy rows of blocks, in the order of memory, and zeros where the volume is not."""
    width = volume.shape[2]
    below = min(rows.shape[1], volume.shape[1] - top)
    rows[:, :, width:] = 0
    for z in range(len(rows)):
        inside = below if front + z < len(volume) else 0
        rows[z, inside:] = 0
        for y in range(inside):
            _copy(volume[front + z, top + y], rows[z, y])


@jit
def _copy(source: _Array, target: _Array) -> None:
    kind = target.dtype.type
    for x in range(len(source)):
        target[x] = kind(source[x])


@jit
def _transform(
    pixels: _Array,
    work: _Array,
    wide_work: _Array,
    sums: _Array,
    wide_sums: _Array,
    subbands: _Array,
    setting: tuple[int, int, int, int],
    ahead: _Array,
) -> None:
    """All levels of rows of blocks.

    Args:
        pixels: to read, as `_pair` does; if there are none, they are in ``work[0]``.
        work: two rows to write to.
        wide_work: likewise, for the levels that the type of `work` does not hold.
        sums: of the type of `work`, one row of subbands to which absolute values are added.
        wide_sums: likewise, if `work` does not hold the last level.
        subbands: to which all are written; if it has no room, they are added up.
        setting: levels along the depth, levels, how many `work` holds, and how many rows of blocks there are.
        ahead: pixels to bring to fast memory meanwhile.
    """
    deep, levels, room, rows = setting
    size, share = rows * len(sums), -(-len(ahead) // levels)
    if len(pixels) > 0 and levels == 1:
        _last(pixels, 1, rows, sums, subbands, ahead)
        return
    if len(pixels) > 0:
        _level(pixels, 1, rows << (levels - 1), work[0][:size], ahead[:share])
    near, done = _levels(work, min(1, len(pixels)), min(levels - 1, room), setting, size, ahead)
    rest, slices = ahead[share * (levels - 1) :], 2 if deep else 1
    if levels <= room:
        _last(near, slices, rows, sums, subbands, rest)
        return
    if deep == 0 and done == levels - 1:
        _last(near, slices, rows, wide_sums, subbands, rest)
        return
    if deep:  # slices are mixed in place, hence in the wide type
        _copy(near, wide_work[0][:size])
    else:
        _level(near, 1, rows << (levels - 1 - done), wide_work[0][:size], ahead[share * done : share * (done + 1)])
        done += 1
    far, _ = _levels(wide_work, done, levels - 1, setting, size, ahead)
    _last(far, slices, rows, wide_sums, subbands, rest)


@jit
def _levels(
    work: _Array, done: int, until: int, setting: tuple[int, int, int, int], size: int, ahead: _Array
) -> tuple[_Array, int]:
    """The levels from `done` on, of what is in ``work[0]``.

    Returns:
        What they come to, in a row of `work`, and how many levels are done.
    """
    deep, levels, _, rows = setting
    source, target, share = work[0][:size], work[1][:size], -(-len(ahead) // levels)
    for level in range(done, until):
        part = ahead[share * level : share * (level + 1)]
        _level(source, 1 << max(0, deep - level), rows << (levels - 1 - level), target, part)
        source, target = target, source
    return source, max(done, until)


@jit
def _last(rows: _Array, depth: int, pairs: int, sums: _Array, subbands: _Array, ahead: _Array) -> None:
    """The last level: written to `subbands`, or if that has no room, added to `sums`."""
    if len(subbands) > 0:
        _level(rows, depth, pairs, subbands, ahead)
    else:
        _add_level(rows, depth, pairs, sums, ahead)


@jit
def _level(rows: _Array, depth: int, pairs: int, target: _Array, ahead: _Array) -> None:
    """One level: of every two rows and, in volumes, two slices one row of subbands.

    Args:
        rows: as `_pair` reads them; volumes' are overwritten.
        depth: slices, an even number or 1.
        pairs: of rows in each slice.
        target: as many numbers.
        ahead: pixels to bring to fast memory meanwhile.
    """
    both = _mix_slices(rows, depth)
    part = np.uint64(len(target) // (4 * depth * pairs))
    for z in range(depth):
        for y in range(pairs):
            _bring(ahead, z * pairs + y, depth * pairs)
            goal = (z // both * pairs + y) * both + z % both
            _split(rows, np.uint64(z * pairs + y), part, target, np.uint64(goal))


@jit
def _add_level(rows: _Array, depth: int, pairs: int, sums: _Array, ahead: _Array) -> None:
    """The last level, of which absolute values are added to one row of subbands."""
    both = _mix_slices(rows, depth)
    part = np.uint64(len(sums) // (4 * both))
    for z in range(depth):
        for y in range(pairs):
            _bring(ahead, z * pairs + y, depth * pairs)
            _split_and_add(rows, np.uint64(z * pairs + y), part, sums, np.uint64(z % both))


@jit
def _bring(pixels: _Array, part: int, parts: int) -> None:
    """Have one of so many parts brought to fast memory; all at once would block it."""
    i, step = np.uint64(len(pixels) * part // parts), np.uint64(LINE // pixels.itemsize)
    end = np.uint64(len(pixels) * (part + 1) // parts)
    while i < end:
        prefetch(pixels, i)
        i += step


@jit
def _mix_slices(rows: _Array, depth: int) -> int:
    """Butterflies between every two slices, in place; returns how many are mixed."""
    if depth == 1:
        return 1
    size, kind = len(rows) // depth, rows.dtype.type
    for start in range(0, len(rows), 2 * size):
        front, back = rows[start : start + size], rows[start + size : start + 2 * size]
        for x in range(size):
            a, b = front[x], back[x]
            front[x], back[x] = kind(a + b), kind(b - a)
    return 2


@jit
def _split(rows: _Array, pair: np.uint64, part: np.uint64, target: _Array, goal: np.uint64) -> None:
    """The four subbands, each of length `part`, of one pair of rows, to one place of `target`."""
    kind, x, one, two = target.dtype.type, np.uint64(0), np.uint64(1), np.uint64(2)
    top, first = two * pair * part, two * two * goal * part
    bottom, second, third, fourth = top + part, first + part, first + part + part, first + part + part + part
    while x < part:
        a, b = _pair(rows, top + x, target)
        c, d = _pair(rows, bottom + x, target)
        left, right, left_edge, right_edge = kind(a + c), kind(b + d), kind(c - a), kind(d - b)
        target[first + x] = kind(left + right)
        target[second + x] = kind(right - left)
        target[third + x] = kind(left_edge + right_edge)
        target[fourth + x] = kind(right_edge - left_edge)
        x += one


@jit
def _split_and_add(rows: _Array, pair: np.uint64, part: np.uint64, sums: _Array, goal: np.uint64) -> None:
    """As `_split`, but absolute values are added."""
    kind, x, one, two = sums.dtype.type, np.uint64(0), np.uint64(1), np.uint64(2)
    top, first = two * pair * part, two * two * goal * part
    bottom, second, third, fourth = top + part, first + part, first + part + part, first + part + part + part
    while x < part:
        a, b = _pair(rows, top + x, sums)
        c, d = _pair(rows, bottom + x, sums)
        left, right, left_edge, right_edge = kind(a + c), kind(b + d), kind(c - a), kind(d - b)
        sums[first + x] = kind(sums[first + x] + kind(abs(kind(left + right))))
        sums[second + x] = kind(sums[second + x] + kind(abs(kind(right - left))))
        sums[third + x] = kind(sums[third + x] + kind(abs(kind(left_edge + right_edge))))
        sums[fourth + x] = kind(sums[fourth + x] + kind(abs(kind(right_edge - left_edge))))
        x += one


def _pairs(volumes: Any, like: Any) -> Any:
    """All pixels, one after the other, as `_pair` reads them; none where they would have to be widened first."""
    raise NotImplementedError  # only in compiled code


def _sums(like: Any, pooled: Any) -> Any:
    """Where absolute values are added up in the type of `like`: in `pooled` if that has it."""
    raise NotImplementedError  # only in compiled code


def _pour(sums: Any, pooled: Any) -> Any:
    """Add `sums` to `pooled` if they are not the same, and empty it."""
    raise NotImplementedError  # only in compiled code


def _pair(rows: Any, i: Any, like: Any) -> Any:
    """Two neighbours, in the type of `like`; of 8-bit pixels, both are in one number."""
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


def _both_of_one(rows: Any, i: Any, like: Any) -> Any:
    kind = like.dtype.type
    return kind(rows[i] & np.uint16(255)), kind(rows[i] >> np.uint16(8))


def _neighbours(rows: Any, i: Any, like: Any) -> Any:
    kind, two = like.dtype.type, np.uint64(2)
    return kind(rows[two * i]), kind(rows[two * i + np.uint64(1)])


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


@overload(_pair)
def _pair_by_type(rows: Any, i: Any, like: Any) -> Any:
    return _both_of_one if rows.dtype == numba.uint16 else _neighbours

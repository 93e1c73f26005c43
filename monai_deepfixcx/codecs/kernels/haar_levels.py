"""The levels of `encode_haar`'s loops, compiled. Importing this module imports Numba.

A level makes of two rows of length L one of four subbands side by side, each of length L/2; the next makes one of two
of these. So every inner loop is at least as long as half a row of pixels, and runs over memory in order.

Written for the vectorizer: an inner loop reads one array and writes one, as it checks that no two overlap; indices are
unsigned, as it would fear negative ones; sums are cast back to their type, as Numba widens every integer to 64 bits.
"""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba.extending import overload

from monai_deepfixcx.codecs.kernels.jit import borrow, prefetch
from monai_deepfixcx.codecs.kernels.pool_loops import LINE

_Array = npt.NDArray[Any]


@borrow
def transform(
    pixels: _Array,
    first: int,
    work: tuple[_Array, _Array],
    wide_work: tuple[_Array, _Array],
    sums: _Array,
    wide_sums: _Array,
    subbands: _Array,
    setting: tuple[int, int, int, int],
    memory: _Array,
    ahead: tuple[int, int],
) -> None:
    """All levels of rows of blocks.

    Arrays come whole, with numbers that say where in them, and no number is divided: this is called often.

    Args:
        pixels: to read from `first` on, as `_pair` does.
        first: where they begin; if negative, they are in ``work[0]``.
        work: room for all of them, twice.
        wide_work: likewise, for the levels that the type of `work` does not hold.
        sums: of the type of `work`, one row of subbands to which absolute values are added.
        wide_sums: likewise, if `work` does not hold the last level.
        subbands: to which all are written; if it has no room, they are added up.
        setting: levels along the depth, levels, how many `work` holds, and how many rows of blocks there are.
        memory: all pixels, as they are stored.
        ahead: from where on to bring pixels to fast memory meanwhile, and how many with each pair of rows.
    """
    deep, levels, room, rows = setting
    last = levels - 1
    done = 0
    if first >= 0:
        if last == 0:
            _last(pixels, first, 0, rows, sums, subbands, memory, ahead)
            return
        _level(pixels, first, 0, rows << last, len(sums) >> last, work[0], memory, ahead)
        done, ahead = 1, _after(ahead, rows << last)
    near, done, ahead = _levels(work, done, min(last, room), setting, len(sums), memory, ahead)
    mixed = 1 if deep else 0
    if levels <= room:
        _last(near, 0, mixed, rows, sums, subbands, memory, ahead)
        return
    if deep == 0 and done == last:
        _last(near, 0, mixed, rows, wide_sums, subbands, memory, ahead)
        return
    if deep:  # slices are mixed in place, hence in the wide type
        copy_row(near[: rows * len(sums)], wide_work[0][: rows * len(sums)])
    else:
        pairs = rows << (last - done)
        _level(near, 0, 0, pairs, len(sums) >> (last - done), wide_work[0], memory, ahead)
        done, ahead = done + 1, _after(ahead, pairs)
    far, _, ahead = _levels(wide_work, done, last, setting, len(sums), memory, ahead)
    _last(far, 0, mixed, rows, wide_sums, subbands, memory, ahead)


@borrow
def _after(ahead: tuple[int, int], pairs: int) -> tuple[int, int]:
    """What is to be brought when the next level is made: its rows are twice as long."""
    return ahead[0] + pairs * ahead[1], 2 * ahead[1]


@borrow
def _levels(
    work: tuple[_Array, _Array],
    done: int,
    until: int,
    setting: tuple[int, int, int, int],
    length: int,
    memory: _Array,
    ahead: tuple[int, int],
) -> tuple[_Array, int, tuple[int, int]]:
    """The levels from `done` on, of what is in ``work[0]``, where a row of blocks has this length.

    Returns:
        What they come to, one of `work`, how many levels are done, and what is to be brought next.
    """
    deep, levels, _, rows = setting
    source, target = work
    for level in range(done, until):
        slices, times = max(0, deep - level), levels - 1 - level
        _level(source, 0, slices, rows << times, length >> (times + slices), target, memory, ahead)
        ahead = _after(ahead, rows << times)
        source, target = target, source
    return source, max(done, until), ahead


@borrow
def _last(
    rows: _Array,
    first: int,
    deep: int,
    pairs: int,
    sums: _Array,
    subbands: _Array,
    memory: _Array,
    ahead: tuple[int, int],
) -> None:
    """The last level: written to `subbands`, or if that has no room, added to `sums`."""
    if len(subbands) > 0:
        _level(rows, first, deep, pairs, len(sums) >> deep, subbands, memory, ahead)
    else:
        _add_level(rows, first, deep, pairs, sums, memory, ahead)


@borrow
def _level(
    rows: _Array,
    first: int,
    deep: int,
    pairs: int,
    length: int,
    target: _Array,
    memory: _Array,
    ahead: tuple[int, int],
) -> None:
    """One level: of every two rows and, in volumes, two slices one row of subbands.

    Args:
        rows: as `_pair` reads them; volumes' are overwritten.
        first: where they begin.
        deep: there are 2^deep slices.
        pairs: of rows in each slice.
        length: of a pair.
        target: as many numbers as all pairs have.
        memory: all pixels.
        ahead: from where on to bring them to fast memory meanwhile, and how many with each pair.
    """
    mixed = _mix_slices(rows, deep, pairs * length)
    part = np.uint64(length >> 2)
    for z in range(1 << deep):
        for y in range(pairs):
            pair, goal = z * pairs + y, (((z >> mixed) * pairs + y) << mixed) + (z & mixed)
            _bring(memory, ahead[0] + pair * ahead[1], ahead[1])
            _split(rows, np.uint64(first) + np.uint64(2 * pair) * part, part, target, np.uint64(4 * goal) * part)


@borrow
def _add_level(
    rows: _Array, first: int, deep: int, pairs: int, sums: _Array, memory: _Array, ahead: tuple[int, int]
) -> None:
    """The last level, of which absolute values are added to one row of subbands."""
    mixed = _mix_slices(rows, deep, pairs * len(sums) >> deep)
    part = np.uint64(len(sums) >> (2 + mixed))
    for z in range(1 << deep):
        for y in range(pairs):
            pair, goal = z * pairs + y, z & mixed
            _bring(memory, ahead[0] + pair * ahead[1], ahead[1])
            _split_and_add(rows, np.uint64(first) + np.uint64(2 * pair) * part, part, sums, np.uint64(4 * goal) * part)


@borrow
def _bring(pixels: _Array, start: int, count: int) -> None:
    """Have some brought to fast memory; all at once would block it."""
    i, line = np.uint64(start), np.uint64(LINE // pixels.itemsize)
    end = np.uint64(min(len(pixels), start + count))
    while i < end:
        for _ in range(4):  # unrolled; what lies beyond the end does no harm
            prefetch(pixels, i)
            i += line


@borrow
def _mix_slices(rows: _Array, deep: int, size: int) -> int:
    """Butterflies between every two of 2^deep slices of this size, in place; returns 1 if there are any."""
    kind = rows.dtype.type
    for start in range(0, size << deep if deep else 0, 2 * size):
        front, back = rows[start : start + size], rows[start + size : start + 2 * size]
        for x in range(size):
            a, b = front[x], back[x]
            front[x], back[x] = kind(a + b), kind(b - a)
    return min(deep, 1)


@borrow
def _butterflies(rows: _Array, top: np.uint64, bottom: np.uint64, like: _Array) -> tuple[Any, Any, Any, Any]:
    """Low-low, low-high, high-low and high-high of two by two neighbours, rows first."""
    kind = like.dtype.type
    a, b = _pair(rows, top, like)
    c, d = _pair(rows, bottom, like)
    left, right, left_edge, right_edge = kind(a + c), kind(b + d), kind(c - a), kind(d - b)
    return kind(left + right), kind(right - left), kind(left_edge + right_edge), kind(right_edge - left_edge)


@borrow
def _split(rows: _Array, top: np.uint64, part: np.uint64, target: _Array, first: np.uint64) -> None:
    """The four subbands, each of length `part`, of the pair of rows at `top`, to `target` from `first` on."""
    x, one = np.uint64(0), np.uint64(1)
    bottom, second, third, fourth = top + part, first + part, first + part + part, first + part + part + part
    while x < part:
        low_low, low_high, high_low, high_high = _butterflies(rows, top + x, bottom + x, target)
        target[first + x] = low_low
        target[second + x] = low_high
        target[third + x] = high_low
        target[fourth + x] = high_high
        x += one


@borrow
def _split_and_add(rows: _Array, top: np.uint64, part: np.uint64, sums: _Array, first: np.uint64) -> None:
    """As `_split`, but absolute values are added."""
    kind, x, one = sums.dtype.type, np.uint64(0), np.uint64(1)
    bottom, second, third, fourth = top + part, first + part, first + part + part, first + part + part + part
    while x < part:
        low_low, low_high, high_low, high_high = _butterflies(rows, top + x, bottom + x, sums)
        sums[first + x] = kind(sums[first + x] + kind(abs(low_low)))
        sums[second + x] = kind(sums[second + x] + kind(abs(low_high)))
        sums[third + x] = kind(sums[third + x] + kind(abs(high_low)))
        sums[fourth + x] = kind(sums[fourth + x] + kind(abs(high_high)))
        x += one


@borrow
def copy_row(source: _Array, target: _Array) -> None:
    """Copy numbers, to another type if need be."""
    kind = target.dtype.type
    for x in range(len(source)):
        target[x] = kind(source[x])


def _pair(rows: Any, i: Any, like: Any) -> Any:
    """Two neighbours, in the type of `like`; of 8-bit pixels, both are in one number."""
    raise NotImplementedError  # only in compiled code


def _both_of_one(rows: Any, i: Any, like: Any) -> Any:
    kind = like.dtype.type
    return kind(rows[i] & np.uint16(255)), kind(rows[i] >> np.uint16(8))


def _neighbours(rows: Any, i: Any, like: Any) -> Any:
    kind, two = like.dtype.type, np.uint64(2)
    return kind(rows[two * i]), kind(rows[two * i + np.uint64(1)])


@overload(_pair)
def _pair_by_type(rows: Any, i: Any, like: Any) -> Any:
    return _both_of_one if rows.dtype == numba.uint16 else _neighbours

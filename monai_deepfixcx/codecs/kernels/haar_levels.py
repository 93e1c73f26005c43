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

from monai_deepfixcx.codecs.kernels.jit import jit, prefetch
from monai_deepfixcx.codecs.kernels.pool_loops import LINE

_Array = npt.NDArray[Any]


@jit
def transform(
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
        copy_row(near, wide_work[0][:size])
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
def _butterflies(rows: _Array, top: np.uint64, bottom: np.uint64, like: _Array) -> tuple[Any, Any, Any, Any]:
    """Low-low, low-high, high-low and high-high of two by two neighbours, rows first."""
    kind = like.dtype.type
    a, b = _pair(rows, top, like)
    c, d = _pair(rows, bottom, like)
    left, right, left_edge, right_edge = kind(a + c), kind(b + d), kind(c - a), kind(d - b)
    return kind(left + right), kind(right - left), kind(left_edge + right_edge), kind(right_edge - left_edge)


@jit
def _split(rows: _Array, pair: np.uint64, part: np.uint64, target: _Array, goal: np.uint64) -> None:
    """The four subbands, each of length `part`, of one pair of rows, to one place of `target`."""
    x, one, two = np.uint64(0), np.uint64(1), np.uint64(2)
    top, first = two * pair * part, two * two * goal * part
    bottom, second, third, fourth = top + part, first + part, first + part + part, first + part + part + part
    while x < part:
        low_low, low_high, high_low, high_high = _butterflies(rows, top + x, bottom + x, target)
        target[first + x] = low_low
        target[second + x] = low_high
        target[third + x] = high_low
        target[fourth + x] = high_high
        x += one


@jit
def _split_and_add(rows: _Array, pair: np.uint64, part: np.uint64, sums: _Array, goal: np.uint64) -> None:
    """As `_split`, but absolute values are added."""
    kind, x, one, two = sums.dtype.type, np.uint64(0), np.uint64(1), np.uint64(2)
    top, first = two * pair * part, two * two * goal * part
    bottom, second, third, fourth = top + part, first + part, first + part + part, first + part + part + part
    while x < part:
        low_low, low_high, high_low, high_high = _butterflies(rows, top + x, bottom + x, sums)
        sums[first + x] = kind(sums[first + x] + kind(abs(low_low)))
        sums[second + x] = kind(sums[second + x] + kind(abs(low_high)))
        sums[third + x] = kind(sums[third + x] + kind(abs(high_low)))
        sums[fourth + x] = kind(sums[fourth + x] + kind(abs(high_high)))
        x += one


@jit
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

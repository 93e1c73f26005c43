"""The loops of `encode_packets`, compiled. Importing this module imports Numba.

Each axis is filtered in strips that stay in fast memory, always along the first axis of an array, so that the innermost
loop runs over neighbours in memory. No subband is written out: coefficients are added to their patch as they arise.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from monai_deepfixcx.codecs.kernels.jit import borrow, jit
from monai_deepfixcx.codecs.kernels.pool_loops import MEDIAN, aligned_rows, pool_row, pool_runs, start_value

_STRIP = 160  # columns filtered together, at most
_Array = npt.NDArray[Any]


@jit
def encode_volumes(
    volumes: _Array, deep: int, levels: int, taps: _Array, features: _Array, bands: _Array, codes: _Array
) -> None:
    """Fill ``codes [N, K, P_d, P_h, P_w, F]`` from ``volumes [N, D, H, W]``; an image is a volume of one slice.

    Args:
        volumes: any real type.
        deep: levels along the depth: J, or 0 for images.
        levels: J.
        taps: ``[2, L]``, the low- and the high-pass filter.
        features: numbers of the pooled features.
        bands: ``[2^deep, 2^J, 2^J]``, the subband at (depth, column, row) bands, each axis in order.
        codes: float32 or float64.
    """
    grid = codes.shape[2:5]
    size = volumes.shape[1:]
    depth, height, width = -(-size[0] >> deep), -(-size[1] >> levels), -(-size[2] >> levels)  # of a subband
    patch = (-(-depth // grid[0]), -(-height // grid[1]), -(-width // grid[2]))
    before = (
        (grid[0] * patch[0] - depth) // 2,
        (grid[1] * patch[1] - height) // 2,
        (grid[2] * patch[2] - width) // 2,
    )
    rows, columns = height << levels, width << levels
    kind = codes.dtype
    slices = np.empty((depth << deep, size[1], size[2]), dtype=kind)
    turned = np.empty((size[2], rows), dtype=kind)
    longest = max(len(slices), rows, columns)
    work = aligned_rows(2, longest * _STRIP, codes)
    pooled = np.empty((len(features), 1 << levels, grid[2], rows), dtype=kind)
    keeps = patch[0] if np.any(features == MEDIAN) else 0
    kept = np.empty((keeps, columns, rows), dtype=kind)
    framed = np.zeros((1 << levels, grid[1] * patch[1]), dtype=kind)
    totals = aligned_rows(2, framed.size // 2, codes)
    for n in range(len(volumes)):
        if deep > 0:
            _split_depth(volumes[n].reshape(size[0], -1), deep, taps, work, slices.reshape(len(slices), -1))
        for band in range(1 << deep):
            for p in range(grid[0]):
                first = max(0, p * patch[0] - before[0])
                last = max(first, min(depth, (p + 1) * patch[0] - before[0]))
                for f in range(len(features)):
                    for q in range(grid[2]):
                        left = q * patch[2] - before[2]
                        whole = last - first == patch[0] and left >= 0 and left + patch[2] <= width
                        pooled[f, :, q] = start_value(features[f], whole)
                for z in range(first, last):
                    if deep > 0:
                        _split_rows(slices[band * depth + z], levels, taps, work, turned)
                    else:
                        _split_rows(volumes[n, z], levels, taps, work, turned)
                    strips = _strips(work, longest, rows)
                    strip = strips.shape[2]
                    for left in range(0, rows, strip):
                        right = min(rows, left + strip)
                        _load(turned, left, right, strips[0])
                        final = _split(strips, size[2], levels, taps)
                        for f in range(len(features)):
                            _pool(final, width, patch[2], before[2], features[f], pooled[f], left, right)
                        if keeps:
                            kept[z - first, :, left:right] = final[:columns, : right - left]
                for f in range(len(features)):
                    if features[f] == MEDIAN:
                        _put_medians(
                            kept[: last - first], height, width, patch, before, bands[band], codes[n, :, p, :, :, f]
                        )
                        continue
                    for c in range(1 << levels):
                        for q in range(grid[2]):
                            _frame(pooled[f, c, q], before[1], height, framed)
                            _put(framed, patch[1], features[f], totals, bands[band, c], codes[n, :, p, :, q, f])


@borrow
def _frame(flat: _Array, before: int, width: int, framed: _Array) -> None:
    """Put rows of `width` into wider ones, whose other places are zero already."""
    for k in range(len(framed)):
        row = framed[k, before : before + width]
        values = flat[k * width : (k + 1) * width]
        for x in range(width):
            row[x] = values[x]


@borrow
def _put(framed: _Array, run: int, feature: int, totals: _Array, bands: _Array, codes: _Array) -> None:
    """Pool every `run` neighbours of rows ``[K, P run]``, into ``codes [K, P]``."""
    flat = framed.reshape(-1)
    found = flat if run == 1 else totals[pool_runs(flat, run, feature, totals)]
    for r in range(len(framed)):
        for i in range(codes.shape[1]):
            codes[bands[r], i] = found[r * codes.shape[1] + i]


@jit
def _strips(work: _Array, rows: int, columns: int) -> _Array:
    """Room for two strips ``[2, rows, strip]``, of a width that cuts the columns into few strips of one size."""
    each = -(-columns // -(-columns // _STRIP))
    strip = -(-each // 16) * 16
    return work.reshape(-1)[: 2 * rows * strip].reshape(2, rows, strip)


@borrow
def _load(source: _Array, left: int, right: int, strip: _Array) -> None:
    for y in range(len(source)):
        row, values = strip[y], source[y][left:right]
        for x in range(len(values)):
            row[x] = values[x]


@jit
def _split_depth(volume: _Array, levels: int, taps: _Array, work: _Array, slices: _Array) -> None:
    """All levels along the first axis of ``[D, H * W]``."""
    strips = _strips(work, len(slices), volume.shape[1])
    strip = strips.shape[2]
    for left in range(0, volume.shape[1], strip):
        right = min(volume.shape[1], left + strip)
        _load(volume, left, right, strips[0])
        slices[:, left:right] = _split(strips, len(volume), levels, taps)[: len(slices), : right - left]


@jit
def _split_rows(image: _Array, levels: int, taps: _Array, work: _Array, turned: _Array) -> None:
    """All levels along the first axis of ``[H, W]``; the result is turned, ``[W, 2^levels * H']``."""
    rows = turned.shape[1]
    strips = _strips(work, max(len(image), rows), image.shape[1])
    strip = strips.shape[2]
    for left in range(0, image.shape[1], strip):
        right = min(image.shape[1], left + strip)
        _load(image, left, right, strips[0])
        final = _split(strips, len(image), levels, taps)
        for x in range(right - left):
            target = turned[left + x]
            for y in range(rows):
                target[y] = final[y, x]


@jit
def _split(work: _Array, size: int, levels: int, taps: _Array) -> _Array:
    """The packet transform along the first axis of the strip ``work[0, :size]``, the bands one below the other."""
    source = 0
    for level in range(levels):
        half = (size + 1) // 2
        for part in range(1 << level):
            signal = work[source][part * size : (part + 1) * size]
            low = work[1 - source][2 * part * half : (2 * part + 1) * half]
            high = work[1 - source][(2 * part + 1) * half : 2 * (part + 1) * half]
            _filter(signal, taps, low, high)
        source = 1 - source
        size = half
    return work[source]


@borrow
def _filter(signal: _Array, taps: _Array, low: _Array, high: _Array) -> None:
    """Correlate with both filters at every other row, zeros beyond the ends."""
    size, length = len(signal), taps.shape[1]
    for i in range(len(low)):
        low_row, high_row = low[i], high[i]
        top = 2 * i - (length - 1) // 2
        k = max(0, -top)
        end = min(length, size - top)
        if k + 4 <= end:
            y = top + k
            _set_four(signal[y], signal[y + 1], signal[y + 2], signal[y + 3], taps[:, k : k + 4], low_row, high_row)
            k += 4
        else:
            low_row[:] = 0
            high_row[:] = 0
        while k + 4 <= end:
            y = top + k
            _add_four(signal[y], signal[y + 1], signal[y + 2], signal[y + 3], taps[:, k : k + 4], low_row, high_row)
            k += 4
        while k + 2 <= end:
            _add_two(signal[top + k], signal[top + k + 1], taps[:, k : k + 2], low_row, high_row)
            k += 2
        if k < end:
            _add_one(signal[top + k], taps[:, k], low_row, high_row)


@borrow
def _set_four(
    first: _Array, second: _Array, third: _Array, fourth: _Array, taps: _Array, low: _Array, high: _Array
) -> None:
    a, b, c, d = taps[0, 0], taps[0, 1], taps[0, 2], taps[0, 3]
    e, f, g, h = taps[1, 0], taps[1, 1], taps[1, 2], taps[1, 3]
    for x in range(len(low)):
        low[x] = a * first[x] + b * second[x] + c * third[x] + d * fourth[x]
        high[x] = e * first[x] + f * second[x] + g * third[x] + h * fourth[x]


@borrow
def _add_four(
    first: _Array, second: _Array, third: _Array, fourth: _Array, taps: _Array, low: _Array, high: _Array
) -> None:
    a, b, c, d = taps[0, 0], taps[0, 1], taps[0, 2], taps[0, 3]
    e, f, g, h = taps[1, 0], taps[1, 1], taps[1, 2], taps[1, 3]
    for x in range(len(low)):
        low[x] += a * first[x] + b * second[x] + c * third[x] + d * fourth[x]
        high[x] += e * first[x] + f * second[x] + g * third[x] + h * fourth[x]


@borrow
def _add_two(first: _Array, second: _Array, taps: _Array, low: _Array, high: _Array) -> None:
    a, b, c, d = taps[0, 0], taps[0, 1], taps[1, 0], taps[1, 1]
    for x in range(len(low)):
        low[x] += a * first[x] + b * second[x]
        high[x] += c * first[x] + d * second[x]


@borrow
def _add_one(row: _Array, taps: _Array, low: _Array, high: _Array) -> None:
    a, b = taps[0], taps[1]
    for x in range(len(low)):
        low[x] += a * row[x]
        high[x] += b * row[x]


@borrow
def _pool(
    final: _Array, width: int, patch: int, before: int, feature: int, pooled: _Array, left: int, right: int
) -> None:
    """Add along the columns of patches; ``pooled [2^J, P_w, rows]``, of which the strip is ``left:right``."""
    one = final.dtype.type(1)
    for c in range(len(pooled)):
        for q in range(pooled.shape[1]):
            target = pooled[c, q][left:right]
            for x in range(max(0, q * patch - before), min(width, (q + 1) * patch - before)):
                pool_row(final[c * width + x][: right - left], one, feature, target)


@jit
def _put_medians(
    kept: _Array,
    height: int,
    width: int,
    patch: tuple[int, int, int],
    before: tuple[int, int, int],
    bands: _Array,
    out: _Array,
) -> None:
    """The lower median of each patch, the zeros that pad it among its pixels; ``kept [z, (column, x), (row, y)]``."""
    values = np.empty(patch[0] * patch[1] * patch[2], dtype=out.dtype)
    for p in range(out.shape[1]):
        top, bottom = max(0, p * patch[1] - before[1]), min(height, (p + 1) * patch[1] - before[1])
        for q in range(out.shape[2]):
            left, right = max(0, q * patch[2] - before[2]), min(width, (q + 1) * patch[2] - before[2])
            for c in range(len(bands)):
                for r in range(bands.shape[1]):
                    values[:] = 0
                    count = 0
                    for z in range(len(kept)):
                        for x in range(left, right):
                            for y in range(top, bottom):
                                values[count] = kept[z, c * width + x, r * height + y]
                                count += 1
                    out[bands[c, r], p, q] = np.sort(values)[(len(values) - 1) // 2]

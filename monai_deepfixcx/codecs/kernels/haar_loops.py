"""The loops of `encode_haar`, compiled. Importing this module imports Numba.

Written for the vectorizer: an inner loop runs over whole views from 0, where it need not fear a negative index, and the
innermost axis is the longest there is. Sums are cast back to their type: Numba widens every integer sum to 64 bits.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from monai_deepfixcx.codecs.kernels.jit import jit
from monai_deepfixcx.codecs.kernels.pool_loops import MEDIAN, frame, pool_row, put_medians, put_runs, start_value

_Array = npt.NDArray[Any]


@jit
def encode_images(
    images: _Array, levels: int, narrow: int, features: _Array, bands: _Array, tile: _Array, codes: _Array
) -> None:
    """Fill ``codes [N, K, P_h, P_w, F]`` from ``images [N, H, W]``.

    Args:
        images: any real type.
        levels: J.
        narrow: how many levels along the rows, an even number below J, keep to the type of `tile`.
        features: numbers of the pooled features.
        bands: ``[K]``, the subband at each place of a transformed tile.
        tile: ``[2, K * W']``, for a row of W' blocks; of a type that holds what those levels make of a pixel.
        codes: float32 or float64.
    """
    block = 1 << levels
    grid_rows, grid_columns = codes.shape[2:4]
    height, width = -(-images.shape[1] // block), tile.shape[1] // len(bands)  # of a subband
    patch = (-(-height // grid_rows), -(-width // grid_columns))
    above, before = (grid_rows * patch[0] - height) // 2, (grid_columns * patch[1] - width) // 2
    scale = codes.dtype.type(0.5**levels)
    wide = np.empty((2, tile.shape[1]), dtype=codes.dtype)
    pooled = np.empty((len(features), tile.shape[1]), dtype=codes.dtype)
    keeps = patch[0] if np.any(features == MEDIAN) else 0
    kept = np.zeros((keeps, len(bands), grid_columns * patch[1]), dtype=codes.dtype)
    framed = np.zeros((len(bands), grid_columns * patch[1]), dtype=codes.dtype)
    for n in range(len(images)):
        for p in range(grid_rows):
            top = max(0, p * patch[0] - above)
            bottom = max(top, min(height, (p + 1) * patch[0] - above))
            whole = bottom - top == patch[0]
            for f in range(len(features)):
                pooled[f] = start_value(features[f], whole)
            kept[bottom - top :] = 0
            for b in range(top, bottom):
                _load(images[n], b * block, tile[0].reshape(block, -1))
                _mix_rows(tile[0], block, levels)
                subbands = _split_rows(tile, wide, levels, narrow)
                for f in range(len(features)):
                    pool_row(subbands, scale, features[f], pooled[f])
                if keeps:
                    frame(subbands, scale, before, width, kept[b - top])
            for f in range(len(features)):
                out = codes[n, :, p, :, f]
                if features[f] == MEDIAN:
                    put_medians(kept, patch[1], bands, out)
                elif width < framed.shape[1]:
                    frame(pooled[f], 1, before, width, framed)
                    put_runs(framed.reshape(-1), patch[1], features[f], bands, out)
                else:
                    put_runs(pooled[f], patch[1], features[f], bands, out)


@jit
def _load(image: _Array, first: int, tile: _Array) -> None:
    """One row of blocks; beyond the image, zeros."""
    height, width = image.shape
    for r in range(len(tile)):
        row = tile[r]
        if first + r < height:
            pixels = image[first + r]
            for x in range(width):
                row[x] = pixels[x]
            row[width:] = 0
        else:
            row[:] = 0


@jit
def _mix_rows(tile: _Array, rows: int, levels: int) -> None:
    """Haar butterflies between whole rows; leaves the bands in bit-reversed order."""
    run = len(tile) // rows
    if levels % 2:
        for start in range(0, len(tile), 2 * run):
            _butterfly(tile[start : start + run], tile[start + run : start + 2 * run])
        run *= 2
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
def _butterfly(low: _Array, high: _Array) -> None:
    kind = low.dtype.type
    for x in range(len(low)):
        a, b = low[x], high[x]
        low[x] = kind(a + b)
        high[x] = kind(b - a)


@jit
def _butterfly_twice(first: _Array, second: _Array, third: _Array, fourth: _Array) -> None:
    """Two levels at once: half the memory traffic."""
    kind = first.dtype.type
    for x in range(len(first)):
        a, b, c, d = first[x], second[x], third[x], fourth[x]
        left, left_edge, right, right_edge = kind(a + b), kind(b - a), kind(c + d), kind(d - c)
        first[x] = kind(left + right)
        second[x] = kind(left_edge + right_edge)
        third[x] = kind(right - left)
        fourth[x] = kind(right_edge - left_edge)


@jit
def _split_rows(tile: _Array, wide: _Array, levels: int, narrow: int) -> _Array:
    """All levels along the rows: neighbours are added and subtracted, sums go to one half, differences to the other."""
    source = 0
    level = 0
    while level < narrow:
        _split_twice(tile[source], tile[1 - source], 1 << level)
        source = 1 - source
        level += 2
    if (levels - level) % 2:
        _split(tile[source], wide[0], 1 << level)
        level += 1
    else:
        _split_twice(tile[source], wide[0], 1 << level)
        level += 2
    source = 0
    while level < levels:
        _split_twice(wide[source], wide[1 - source], 1 << level)
        source = 1 - source
        level += 2
    return wide[source]


@jit
def _split(source: _Array, target: _Array, parts: int) -> None:
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
def _split_twice(source: _Array, target: _Array, parts: int) -> None:
    kind = target.dtype.type
    quarter = len(source) // parts // 4
    for part in range(parts):
        start = 4 * part * quarter
        fours = source[start : start + 4 * quarter]
        low_low, low_high = target[start : start + quarter], target[start + quarter : start + 2 * quarter]
        start += 2 * quarter
        high_low, high_high = target[start : start + quarter], target[start + quarter : start + 2 * quarter]
        for x in range(quarter):
            a, b, c, d = kind(fours[4 * x]), kind(fours[4 * x + 1]), kind(fours[4 * x + 2]), kind(fours[4 * x + 3])
            left, left_edge, right, right_edge = kind(a + b), kind(b - a), kind(c + d), kind(d - c)
            low_low[x] = kind(left + right)
            low_high[x] = kind(right - left)
            high_low[x] = kind(left_edge + right_edge)
            high_high[x] = kind(right_edge - left_edge)

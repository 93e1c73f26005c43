"""The loops of `encode_haar`, compiled. Importing this module imports Numba.

Written for the vectorizer: an inner loop runs over whole views from 0, where it need not fear a negative index.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from monai_deepfixcx.codecs.kernels.jit import jit

# The numbers by which the loops know the pooled features.
L1, SUM, MAX, MIN, MEDIAN, L2, SUM_POS, SUM_NEG = range(8)
_Array = npt.NDArray[Any]


@jit
def encode_images(images: _Array, levels: int, features: _Array, bands: _Array, codes: _Array) -> None:
    """Fill ``codes [N, K, P_h, P_w, F]`` from ``images [N, H, W]``."""
    block = 1 << levels
    grid_rows, grid_columns = codes.shape[2:4]
    height, width = -(-images.shape[1] // block), -(-images.shape[2] // block)  # of a subband
    patch = (-(-height // grid_rows), -(-width // grid_columns))
    above, before = (grid_rows * patch[0] - height) // 2, (grid_columns * patch[1] - width) // 2
    lefts = np.array([max(0, q * patch[1] - before) for q in range(grid_columns)])
    rights = np.array([max(0, min(width, (q + 1) * patch[1] - before)) for q in range(grid_columns)])
    scale = codes.dtype.type(0.5**levels)
    rows = np.zeros((block, width * block), dtype=codes.dtype)
    turned = np.empty((block, block * width), dtype=codes.dtype)
    pooled = np.empty((len(features), block, width * block), dtype=codes.dtype)
    keeps = patch[0] if np.any(features == MEDIAN) else 0
    kept = np.empty((keeps, block, block, width), dtype=codes.dtype)
    for n in range(len(images)):
        for p in range(grid_rows):
            top = max(0, p * patch[0] - above)
            bottom = max(top, min(height, (p + 1) * patch[0] - above))
            for f in range(len(features)):
                pooled[f] = -np.inf if features[f] == MAX else np.inf if features[f] == MIN else 0.0
            for b in range(top, bottom):
                _load(images[n], b * block, scale, rows)
                _transform(rows, levels)
                _turn(rows, turned)
                _transform(turned, levels)
                for c in range(block):
                    for f in range(len(features)):
                        _pool_row(turned[c], features[f], pooled[f, c])
                if keeps:
                    kept[b - top] = turned.reshape(block, block, width)
            for f in range(len(features)):
                out = codes[n, :, p, :, f]
                for c in range(block):
                    columns = pooled[f, c].reshape(block, width)
                    if features[f] in (MAX, MIN):
                        _pool_extremes(columns, lefts, rights, bands[c], features[f], bottom - top, patch, out)
                    elif features[f] == MEDIAN:
                        _pool_medians(kept[: bottom - top, c], lefts, rights, bands[c], patch[0] * patch[1], out)
                    else:
                        _pool_sums(columns, lefts, rights, bands[c], out)


@jit
def _load(image: _Array, first: int, scale: Any, rows: _Array) -> None:
    """One row of blocks, scaled; beyond the image, zeros."""
    width = image.shape[1]
    for r in range(len(rows)):
        row = rows[r]
        if first + r < image.shape[0]:
            pixels = image[first + r]
            for x in range(width):
                row[x] = pixels[x] * scale
            row[width:] = 0
        else:
            row[:] = 0


@jit
def _transform(rows: _Array, levels: int) -> None:
    """Haar butterflies between whole rows; leaves the bands in bit-reversed order."""
    for level in range(levels):
        stride = 1 << level
        for r in range(len(rows)):
            if r & stride == 0:
                _butterfly(rows[r], rows[r + stride])


@jit
def _butterfly(low: _Array, high: _Array) -> None:
    for x in range(len(low)):
        a, b = low[x], high[x]
        low[x] = a + b
        high[x] = b - a


@jit
def _turn(rows: _Array, turned: _Array) -> None:
    """``turned [column in block, (row in block, block)]``, so that columns, too, are transformed as whole rows."""
    block = len(rows)
    width = rows.shape[1] // block
    for r in range(block):
        blocks = rows[r].reshape(width, block)
        for c in range(block):
            target = turned[c, r * width : (r + 1) * width]
            for x in range(width):
                target[x] = blocks[x, c]


@jit
def _pool_row(row: _Array, feature: int, pooled: _Array) -> None:
    if feature == L1:
        for x in range(len(row)):
            pooled[x] += abs(row[x])
    elif feature == SUM:
        for x in range(len(row)):
            pooled[x] += row[x]
    elif feature == MAX:
        for x in range(len(row)):
            pooled[x] = max(pooled[x], row[x])
    elif feature == MIN:
        for x in range(len(row)):
            pooled[x] = min(pooled[x], row[x])
    elif feature == L2:
        for x in range(len(row)):
            pooled[x] += row[x] * row[x]
    elif feature == SUM_POS:
        for x in range(len(row)):
            pooled[x] += row[x] if row[x] > 1e-6 else 0
    elif feature == SUM_NEG:
        for x in range(len(row)):
            pooled[x] += row[x] if row[x] < -1e-6 else 0


@jit
def _pool_sums(columns: _Array, lefts: _Array, rights: _Array, bands: _Array, out: _Array) -> None:
    """Add along the rows of patches what was added along their columns; ``out [K, P_w]``."""
    for r in range(len(columns)):
        for q in range(len(lefts)):
            total = out.dtype.type(0)
            for x in range(lefts[q], rights[q]):
                total += columns[r, x]
            out[bands[r], q] = total


@jit
def _pool_extremes(
    columns: _Array,
    lefts: _Array,
    rights: _Array,
    bands: _Array,
    feature: int,
    height: int,
    patch: tuple[int, int],
    out: _Array,
) -> None:
    """As `_pool_sums`; the zeros that pad a patch of (height, width) take part."""
    for q in range(len(lefts)):
        whole = height == patch[0] and rights[q] - lefts[q] == patch[1]
        for r in range(len(columns)):
            extreme = columns[r, lefts[q]] if whole else out.dtype.type(0)
            for x in range(lefts[q], rights[q]):
                extreme = max(extreme, columns[r, x]) if feature == MAX else min(extreme, columns[r, x])
            out[bands[r], q] = extreme


@jit
def _pool_medians(kept: _Array, lefts: _Array, rights: _Array, bands: _Array, pixels: int, out: _Array) -> None:
    """The lower median of each patch's `pixels`, the zeros that pad it among them."""
    values = np.empty(pixels, dtype=out.dtype)
    for q in range(len(lefts)):
        for r in range(kept.shape[1]):
            values[:] = 0
            count = 0
            for y in range(kept.shape[0]):
                for x in range(lefts[q], rights[q]):
                    values[count] = kept[y, r, x]
                    count += 1
            out[bands[r], q] = np.sort(values)[(pixels - 1) // 2]

"""Quantiles of windows, compiled. Importing this module imports Numba."""

from typing import Any

import numpy as np
import numpy.typing as npt

from monai_deepfixcx.codecs.kernels.jit import jit

_Array = npt.NDArray[Any]


@jit
def window_quantiles(
    images: _Array, kernel: int, stride: int, rows: _Array, columns: _Array, below: int, weight: float, out: _Array
) -> None:
    """Fill ``out [N, M]`` from ``images [N, H, W]``: a quantile of the window at each (row, column) of the output grid.

    It lies `weight` of the way from the value of rank `below` to the next.
    """
    values = np.empty(kernel * kernel, dtype=images.dtype)
    for n in range(len(images)):
        for m in range(len(rows)):
            top, left = rows[m] * stride, columns[m] * stride
            for y in range(kernel):
                values[y * kernel : (y + 1) * kernel] = images[n, top + y, left : left + kernel]
            _partition(values, below)
            low = values[below]
            high = values[below + 1 :].min() if below + 1 < len(values) else low
            out[n, m] = low + (high - low) * weight


@jit
def _partition(values: _Array, rank: int) -> None:
    """Move the value of that rank to its place, none smaller behind it (Hoare's selection)."""
    first, last = 0, len(values) - 1
    while first < last:
        pivot = values[(first + last) // 2]
        i, j = first, last
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if rank <= j:
            last = j
        elif rank >= i:
            first = i
        else:
            return

"""DeepFixCX with any wavelet, 2-D and 3-D: filter one axis after the other, pool as the coefficients arise."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from monai_deepfixcx.codecs.kernels.threads import in_parts

_Array = npt.NDArray[Any]


def encode_packets(
    images: Tensor, taps: Sequence[Sequence[float]], levels: int, grid: Sequence[int], features: Sequence[str]
) -> Tensor:
    """Encode ``[B, C, *S]`` on the CPU, as `DeepFixCXCodec` does.

    Args:
        images: float32, float64, uint8, uint16 or int16; integers are read as they are.
        taps: the low- and the high-pass analysis filter.
        levels: J.
        grid: patches along each axis.
        features: in the code's order.

    Returns:
        ``[B, C, D]``, float64 for float64 images, else float32.

    >>> encode_packets(torch.ones(1, 1, 4, 4, 4), [[0.5, 0.5], [-0.5, 0.5]], 1, (1, 1, 1), ["sum"])
    tensor([[[8., 0., 0., 0., 0., 0., 0., 0.]]])
    """
    from monai_deepfixcx.codecs.kernels import packet_loops, pool_loops  # Numba takes a third of a second to import

    spatial_dims = images.ndim - 2
    pixels = images.detach().flatten(0, 1).contiguous().numpy()
    volumes = pixels if spatial_dims == 3 else pixels[:, None]
    deep = levels if spatial_dims == 3 else 0
    dtype = np.float64 if images.dtype == torch.float64 else np.float32
    depth_grid = () if spatial_dims == 3 else (1,)
    codes = np.empty((len(pixels), 2 ** (spatial_dims * levels), *depth_grid, *grid, len(features)), dtype=dtype)
    numbers = np.array([getattr(pool_loops, feature.upper()) for feature in features])
    bands, filters = _band_numbers(deep, levels), np.array(taps, dtype=dtype)

    def encode_part(first: int, last: int) -> None:
        packet_loops.encode_volumes(volumes[first:last], deep, levels, filters, numbers, bands, codes[first:last])

    in_parts(encode_part, len(volumes), 0.5 * spatial_dims * levels * volumes[0].size)
    return torch.from_numpy(codes).reshape(*images.shape[:2], -1)


@lru_cache(maxsize=16)
def _band_numbers(deep: int, levels: int) -> _Array:
    """``[2^deep, 2^levels, 2^levels]``: the subband at (depth, column, row) bands, each axis in order."""
    numbers = np.zeros((2**deep, 2**levels, 2**levels), dtype=np.int64)
    depths, columns, rows = np.indices(numbers.shape)
    for bit in reversed(range(levels)):
        if deep:
            numbers = 2 * numbers + (depths >> bit & 1)
        numbers = 4 * numbers + 2 * (rows >> bit & 1) + (columns >> bit & 1)
    return numbers

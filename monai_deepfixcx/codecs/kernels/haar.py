"""DeepFixCX with the Haar wavelet (db1), 2-D and 3-D, in one pass over the pixels.

For Haar, J levels of the packet transform are butterflies within blocks of 2^J pixels a side. A row of blocks is
loaded, transformed, and added into its row of patches; no subband is ever written out.

Every number is computed by the same additions in the same order, whatever the batch, the threads or the processor:
nothing is reassociated, and images are scaled by a power of two, hence exactly.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from monai_deepfixcx.codecs.kernels.threads import in_parts

_Array = npt.NDArray[Any]
_DOUBLINGS = 7  # of an 8-bit pixel that 16 bits hold


def encode_haar(images: Tensor, levels: int, grid: Sequence[int], features: Sequence[str]) -> Tensor:
    """Encode ``[B, C, *S]`` on the CPU, as `DeepFixCXCodec` with wavelet db1 does.

    Args:
        images: float32, float64, uint8, uint16 or int16; integers are read as they are.
        levels: J.
        grid: patches along each axis.
        features: in the code's order.

    Returns:
        ``[B, C, D]``, float64 for float64 images, else float32.

    >>> encode_haar(torch.ones(1, 1, 4, 4, dtype=torch.uint8), levels=1, grid=(1, 1), features=["l1"])
    tensor([[[8., 0., 0., 0.]]])
    """
    from monai_deepfixcx.codecs.kernels import haar_loops  # Numba takes a third of a second to import

    batch, channels, *size = images.shape
    deep = levels if len(size) == 3 else 0
    shape, patches = (size, grid) if deep else ((1, *size), (1, *grid))
    volumes = images.detach().contiguous().numpy().reshape(-1, *shape)
    numbers, bands = _numbers(tuple(features)), _band_numbers(deep, levels)
    dtype = np.float64 if images.dtype == torch.float64 else np.float32
    # What 8 bits grow to is exact in 16, of which a register holds twice as many as of float32.
    across = deep + levels
    short = images.dtype == torch.uint8 and across <= _DOUBLINGS
    like, room = (np.empty(0, np.int16), _DOUBLINGS - across) if short else (np.empty(0, dtype), levels)
    codes = np.zeros((len(volumes), len(numbers), len(bands), *patches), dtype=dtype)

    def encode_part(first: int, last: int) -> None:
        haar_loops.encode_volumes(volumes, (first, last), deep, levels, room, numbers, bands, like, codes)

    rows = patches[0] * patches[1]
    in_parts(encode_part, len(volumes) * rows, volumes[0].size // rows)
    if len(numbers) > 1:
        codes = np.ascontiguousarray(np.moveaxis(codes, 1, -1))
    return torch.from_numpy(codes.reshape(batch, channels, -1))


@lru_cache(maxsize=64)
def _numbers(features: tuple[str, ...]) -> _Array:
    from monai_deepfixcx.codecs.kernels import pool_loops

    return np.array([getattr(pool_loops, feature.upper()) for feature in features])


@lru_cache(maxsize=16)
def _band_numbers(deep: int, levels: int) -> _Array:
    """``[4^J]``, or ``[8^J]`` with depth: the subband at every place of a transformed tile, by column, then row.

    Splitting leaves the bands along the rows in order; butterflies in place leave those across them in bit-reversed
    order, where bit 0 is the first level's, those along the depth in the higher half of the bits.
    """
    numbers = np.zeros((2**levels, 2 ** (deep + levels)), dtype=np.int64)
    columns, rows = np.indices(numbers.shape)
    for level in range(levels):
        if deep:
            numbers = 2 * numbers + (rows >> (levels + level) & 1)
        numbers = 4 * numbers + 2 * (rows >> level & 1) + (columns >> (levels - 1 - level) & 1)
    return numbers.ravel()

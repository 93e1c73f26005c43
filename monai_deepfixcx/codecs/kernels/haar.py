"""DeepFixCX with the Haar wavelet (db1), 2-D, in one pass over the pixels.

For Haar, J levels of the packet transform are butterflies within blocks of 2^J x 2^J pixels. A row of blocks is loaded,
transformed, and added into its row of patches; no subband is ever written out.

Every number is computed by the same additions in the same order, whatever the batch, the threads or the processor:
scaling is by a power of two, hence exact, and nothing is reassociated.
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
_ROOM = 7  # doublings of an 8-bit pixel that 16 bits hold


def encode_haar(images: Tensor, levels: int, grid: Sequence[int], features: Sequence[str]) -> Tensor:
    """Encode ``[B, C, H, W]`` on the CPU, as `DeepFixCXCodec` with wavelet db1 does.

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
    from monai_deepfixcx.codecs.kernels import haar_loops, pool_loops  # Numba takes a third of a second to import

    pixels = images.detach().flatten(0, 1).contiguous().numpy()
    dtype = np.float64 if images.dtype == torch.float64 else np.float32
    codes = np.empty((len(pixels), 4**levels, *grid, len(features)), dtype=dtype)
    numbers = np.array([getattr(pool_loops, feature.upper()) for feature in features])
    bands = _band_numbers(levels)
    # What 8 bits grow to is exact in 16, of which a register holds twice as many as of float32.
    short = images.dtype == torch.uint8 and levels <= _ROOM
    narrow = min(levels - 1, _ROOM - levels if short else levels) // 2 * 2
    length = 4**levels * -(-images.shape[-1] // 2**levels)

    def encode_part(part: slice) -> None:
        tile = np.empty((2, length), dtype=np.int16 if short else dtype)
        haar_loops.encode_images(pixels[part], levels, narrow, numbers, bands, tile, codes[part])

    in_parts(encode_part, len(pixels))
    return torch.from_numpy(codes).reshape(*images.shape[:2], -1)


@lru_cache(maxsize=16)
def _band_numbers(levels: int) -> _Array:
    """``[4^J]``: the subband at every place of a transformed tile, which holds them by column, then row.

    Splitting leaves the bands along the rows in order; butterflies in place leave those along the columns in
    bit-reversed order, where bit 0 is the first level's.
    """
    numbers = np.zeros((2**levels, 2**levels), dtype=np.int64)
    columns, rows = np.indices(numbers.shape)
    for level in range(levels):
        numbers = 4 * numbers + 2 * (rows >> level & 1) + (columns >> (levels - 1 - level) & 1)
    return numbers.ravel()

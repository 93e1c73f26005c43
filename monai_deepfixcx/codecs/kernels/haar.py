"""DeepFixCX with the Haar wavelet (db1), 2-D, in one pass over the pixels.

For Haar, J levels of the packet transform are butterflies within blocks of 2^J x 2^J pixels. A row of blocks is loaded,
transformed in place, and added into its row of patches; no subband is ever written out.

Every number is computed by the same additions in the same order, whatever the batch, the threads or the processor:
scaling is by a power of two, hence exact, and nothing is reassociated.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_Array = npt.NDArray[Any]


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
    from monai_deepfixcx.codecs.kernels import haar_loops  # Numba takes a third of a second to import

    pixels = images.detach().flatten(0, 1).contiguous().numpy()
    dtype = np.float64 if images.dtype == torch.float64 else np.float32
    codes = np.empty((len(pixels), 4**levels, *grid, len(features)), dtype=dtype)
    numbers = np.array([getattr(haar_loops, feature.upper()) for feature in features])
    bands = _band_numbers(levels)

    def encode_part(part: slice) -> None:
        haar_loops.encode_images(pixels[part], levels, numbers, bands, codes[part])

    parts = _parts(len(pixels), torch.get_num_threads())
    if len(parts) == 1:
        encode_part(parts[0])
    else:
        # Threads of our own: Numba's default pool must not be entered by two Python threads at once.
        with ThreadPoolExecutor(len(parts)) as pool:
            list(pool.map(encode_part, parts))
    return torch.from_numpy(codes).reshape(*images.shape[:2], -1)


def _parts(count: int, threads: int) -> list[slice]:
    step = -(-count // max(1, threads))
    return [slice(start, start + step) for start in range(0, count, step)]


@lru_cache(maxsize=16)
def _band_numbers(levels: int) -> _Array:
    """``[2^J, 2^J]``: the subband at (column, row) of a transformed block.

    In-place butterflies leave the bands of either axis in bit-reversed order: bit 0 is the first level's.
    """
    numbers = np.zeros((2**levels, 2**levels), dtype=np.int64)
    columns, rows = np.indices(numbers.shape)
    for level in range(levels):
        numbers = 4 * numbers + 2 * (rows >> level & 1) + (columns >> level & 1)
    return numbers

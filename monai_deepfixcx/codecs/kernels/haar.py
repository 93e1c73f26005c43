"""DeepFixCX with the Haar wavelet (db1), 2-D and 3-D, in one pass over the pixels.

For Haar, J levels of the packet transform are butterflies within blocks of 2^J pixels a side. A row of blocks is
loaded, transformed, and added into its row of patches; no subband is ever written out.

Every number is computed by the same additions in the same order, whatever the batch, the threads or the processor:
nothing is reassociated, and images are scaled by a power of two, hence exactly.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

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
    batch, channels, *size = images.shape
    deep = levels if len(size) == 3 else 0
    shape, patches = (size, grid) if deep else ((1, *size), (1, *grid))
    plan = _plan(deep, levels, tuple(features), images.dtype)
    volumes = images.detach().contiguous().numpy().reshape(-1, *shape)
    room = np.empty if _reach_all_patches(tuple(size), levels, tuple(grid)) else np.zeros  # others are never written
    codes = room((len(volumes), len(plan.features), len(plan.bands), *patches), dtype=plan.dtype)

    def encode_part(first: int, last: int) -> None:
        plan.encode(volumes, first, last, deep, levels, plan.room, plan.features, plan.bands, plan.like, codes)

    rows = patches[0] * patches[1]
    in_parts(encode_part, len(volumes) * rows, _nanoseconds(volumes[0].size, codes[0].size, levels) / rows)
    if len(plan.features) > 1:
        codes = np.ascontiguousarray(np.moveaxis(codes, 1, -1))
    return torch.from_numpy(codes.reshape(batch, channels, -1))


def _nanoseconds(pixels: int, values: int, levels: int) -> float:
    """About how long an image takes."""
    return 0.1 * (levels + 1) * pixels + 0.5 * values


@lru_cache(maxsize=256)
def _reach_all_patches(size: tuple[int, ...], levels: int, grid: tuple[int, ...]) -> bool:
    """Whether every patch has a coefficient, not only zeros that complete the subbands on both sides."""
    bands = [-(-n >> levels) for n in size]
    patch = [-(-n // p) for n, p in zip(bands, grid, strict=True)]
    return all(-(-(p * q - n) // 2) < q for n, p, q in zip(bands, grid, patch, strict=True))


class _Plan(NamedTuple):
    """What depends on the settings and the type of the pixels alone."""

    encode: Callable[..., None]
    features: _Array  # their numbers
    bands: _Array
    dtype: type[np.floating[Any]]  # of the codes
    like: _Array
    room: int


@lru_cache(maxsize=64)
def _plan(deep: int, levels: int, features: tuple[str, ...], dtype: torch.dtype) -> _Plan:
    from monai_deepfixcx.codecs.kernels import haar_loops, pool_loops  # Numba takes a third of a second to import

    numbers = np.array([getattr(pool_loops, feature.upper()) for feature in features])
    full = np.float64 if dtype == torch.float64 else np.float32
    # What 8 bits grow to is exact in 16, of which a register holds twice as many as of float32.
    room = _DOUBLINGS - deep - levels
    short = dtype == torch.uint8 and room >= 0
    like, room = (np.empty(0, np.int16), room) if short else (np.empty(0, full), levels)
    return _Plan(haar_loops.encode_volumes, numbers, _band_numbers(deep, levels), full, like, room)


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

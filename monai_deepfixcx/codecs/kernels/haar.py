"""DeepFixCX with the Haar wavelet (db1), 2-D and 3-D, in one pass over the pixels.

For Haar, J levels of the packet transform are butterflies within blocks of 2^J pixels a side. A row of blocks is
loaded, transformed, and added into its row of patches; no subband is ever written out.

Every number is computed by the same additions in the same order, whatever the batch, the threads or the processor:
nothing is reassociated. The transform is scaled by a power of two, hence exactly.
"""

import math
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


def encode_haar(images: Tensor, levels: int, grid: Sequence[int], features: Sequence[str], white: float = 1) -> Tensor:
    """Encode ``[B, C, *S]`` on the CPU, as `DeepFixCXCodec` with wavelet db1 does.

    Args:
        images: float32, float64, uint8, uint16 or int16; integers are read as they are.
        levels: J.
        grid: patches along each axis.
        features: in the code's order.
        white: what the images are divided by.

    Returns:
        ``[B, C, D]``, float64 for float64 images, else float32.

    >>> encode_haar(torch.ones(1, 1, 4, 4, dtype=torch.uint8), levels=1, grid=(1, 1), features=["l1"])
    tensor([[[8., 0., 0., 0.]]])
    """
    batch, channels, *size = images.shape
    plan = _plan(tuple(size), levels, tuple(grid), tuple(features), images.dtype)
    values = images.detach() if images.requires_grad else images
    volumes = values.contiguous().numpy().reshape(-1, *plan.volume)
    codes = plan.allocate((len(volumes), *plan.code), plan.dtype)
    in_parts(plan.encode, len(volumes) * plan.rows, plan.nanoseconds, volumes, *plan.settings, float(white), codes)
    if len(features) > 1:
        codes = np.ascontiguousarray(np.moveaxis(codes, 1, -1))
    return torch.from_numpy(codes.reshape(batch, channels, -1))


class _Plan(NamedTuple):
    """What depends on the settings, and the shape and the type of the images alone."""

    encode: Callable[..., None]
    settings: tuple[Any, ...]  # of `haar_loops.encode_volumes`
    volume: tuple[int, ...]
    code: tuple[int, ...]
    dtype: type[np.floating[Any]]  # of the codes
    allocate: Callable[..., _Array]  # makes room for them
    rows: int  # of patches
    nanoseconds: float  # that a row takes, about


@lru_cache(maxsize=256)
def _plan(
    size: tuple[int, ...], levels: int, grid: tuple[int, ...], features: tuple[str, ...], dtype: torch.dtype
) -> _Plan:
    from monai_deepfixcx.codecs.kernels import haar_loops, pool_loops  # Numba takes a third of a second to import

    deep = levels if len(size) == 3 else 0
    volume, patches = (size, grid) if deep else ((1, *size), (1, *grid))
    numbers = np.array([getattr(pool_loops, feature.upper()) for feature in features])
    bands, full = _places(deep, levels), np.float64 if dtype == torch.float64 else np.float32
    code = (len(features), bands.shape[1], *patches)
    # What 8 bits grow to is exact in 16 for some levels, and a register holds twice as many of these as of float32.
    short = dtype == torch.uint8
    room = _DOUBLINGS // (3 if deep else 2) if short else levels
    rows = patches[0] * patches[1]
    return _Plan(
        haar_loops.encode_volumes,
        (deep, levels, room, numbers, bands, np.empty(0, np.int16 if short else full)),
        volume,
        code,
        full,
        np.empty if _reach_all_patches(size, levels, grid) else np.zeros,  # others are never written
        rows,
        (0.1 * (levels + 0.5) * math.prod(size) + 0.5 * math.prod(code)) / rows,
    )


def _reach_all_patches(size: tuple[int, ...], levels: int, grid: tuple[int, ...]) -> bool:
    """Whether every patch has a coefficient, not only zeros that complete the subbands on both sides."""
    bands = [-(-n >> levels) for n in size]
    patch = [-(-n // p) for n, p in zip(bands, grid, strict=True)]
    return all(-(-(p * q - n) // 2) < q for n, p, q in zip(bands, grid, patch, strict=True))


@lru_cache(maxsize=16)
def _places(deep: int, levels: int) -> _Array:
    """``[2, K]``, K = 4^J or, with depth, 8^J: subbands, and the place of each in a row's subbands side by side.

    The last level's lie side by side, within each the last but one's, and so on; subbands are numbered the other way.
    They are listed tile by tile, where a tile has few runs of neighbours of either kind: in the order of one alone, the
    other's lines of the cache would be fetched again for each.
    """
    base = 8 if deep else 4
    tile = base ** min(levels // 2, 1 if deep else 2)
    numbers = np.arange(base**levels)
    first, middle, last = numbers // (len(numbers) // tile), numbers // tile % (len(numbers) // tile**2), numbers % tile
    numbers = numbers[np.lexsort((last, first, middle))]
    digits = [numbers // base**level % base for level in range(levels)]
    places = np.sum([digit * base ** (levels - 1 - level) for level, digit in enumerate(digits)], axis=0)
    return np.stack([numbers, places]).astype(np.int32)

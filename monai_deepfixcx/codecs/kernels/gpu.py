"""DeepFixCX with the Haar wavelet (db1), 2-D, in one pass over the pixels, on a GPU.

As on the CPU (`encode_haar`), J levels are butterflies within blocks of 2^J x 2^J pixels; here a block lies in the
registers of one program. What is computed, and in which order, depends on the images' size and never on the batch: an
image has the same codes, bit for bit, in any batch and any run.
"""

import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

_LEVELS_IN_REGISTERS = 6  # a block of 64 x 64 pixels; further levels are taken while loading
_ROWS, _COLUMNS = 16, 64  # of a tile, at least: wide enough to read whole lines of memory
_TILES_A_PART, _PARTS = 16, 64  # a patch of more tiles is shared out over programs, up to 64
_VALUES_A_THREAD = 64
_JOINED_AT_ONCE = 256


class _Plan(NamedTuple):
    """How the blocks of an image's patches are shared out over programs, axes as (vertical, horizontal)."""

    bands: tuple[int, int]  # the size of a subband
    patch: tuple[int, int]  # blocks in a patch
    padding: tuple[int, int]  # blocks of zeros before the first
    outer: int
    inner: int
    tile: tuple[int, int]
    patches: int  # side by side in a tile
    groups: int
    tiles: tuple[int, int]  # over a patch
    tiles_a_part: int
    parts: int


def encode_haar_gpu(images: Tensor, levels: int, grid: Sequence[int], features: Sequence[str]) -> Tensor:
    """Encode ``[B, C, H, W]`` on their GPU, as `DeepFixCXCodec` with wavelet db1 does.

    Pixels are read once up to J = 6 (and 4^(J - 6) times beyond), and nothing is written but the codes and, where
    patches are so large that several programs share one, a partial code of each.

    Args:
        images: float16, bfloat16, float32, float64, uint8, uint16 or int16; integers are read as they are.
        levels: J.
        grid: patches along each axis.
        features: in the code's order, any but "median".

    Returns:
        ``[B, C, D]``, of the images' floating type, else float32; computed in float32, for float64 images in float64.
    """
    from triton import language

    from monai_deepfixcx.codecs.kernels import gpu_loops

    pixels = images.detach().flatten(0, 1).contiguous()
    plan = _plan(levels, images.shape[-2], images.shape[-1], grid[0], grid[1])
    wide = torch.float64 if images.dtype == torch.float64 else torch.float32
    length = 4**levels * grid[0] * grid[1]
    dtype = images.dtype if images.is_floating_point() else torch.float32
    codes = torch.empty((len(pixels), length, len(features)), dtype=dtype, device=images.device)
    partial = codes if plan.parts == 1 else codes.new_empty((len(pixels), plan.parts, *codes.shape[1:]), dtype=wide)
    numbers = tuple(getattr(gpu_loops, feature.upper()).value for feature in features)
    # No product and sum in one rounding: a compiler could contract them in one variant and not in another.
    options: dict[str, Any] = {"features": numbers, "enable_fp_fusion": False}
    programs = len(pixels) * grid[0] * plan.groups * plan.parts * 4**plan.outer
    with torch.cuda.device_of(pixels):
        gpu_loops.encode_images[(programs,)](
            pixels,
            partial,
            *pixels.shape[1:],
            *plan.bands,
            *grid,
            *plan.patch,
            *plan.padding,
            plan.groups,
            plan.tiles[1],
            plan.tiles[0] * plan.tiles[1],
            plan.tiles_a_part,
            plan.parts,
            kind=language.float64 if wide == torch.float64 else language.float32,
            outer=plan.outer,
            inner=plan.inner,
            rows=plan.tile[0],
            columns=plan.tile[1],
            patches=plan.patches,
            num_warps=_warps(plan.tile[0] * plan.tile[1] * (1 + len(features)) * wide.itemsize // 4),
            **options,
        )
        if plan.parts > 1:
            programs = len(pixels) * -(-length // _JOINED_AT_ONCE)
            gpu_loops.join_parts[(programs,)](partial, codes, plan.parts, length, size=_JOINED_AT_ONCE, **options)
    return codes.reshape(*images.shape[:2], -1)


@lru_cache(maxsize=8)
def gpu_works(device: torch.device) -> bool:
    """Whether Triton is installed and can compile for this device; if only the latter fails, it warns, once."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    try:
        encode_haar_gpu(torch.zeros(1, 1, 2, 2, device=device), 1, (1, 1), ("l1",))
    except Exception as error:  # no C compiler, too old a device, a driver that Triton does not know, ...
        warnings.warn(
            f"Triton cannot compile for {device} ({type(error).__name__}: {error}): DeepFixCX encodes there in torch, "
            "slower, the codes the same but for rounding. Triton needs a C compiler and a GPU of compute capability "
            "8.0 or later.",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


@lru_cache(maxsize=64)
def _plan(levels: int, height: int, width: int, grid_rows: int, grid_columns: int) -> _Plan:
    bands = (-(-height // 2**levels), -(-width // 2**levels))
    patch = (-(-bands[0] // grid_rows), -(-bands[1] // grid_columns))
    padding = ((grid_rows * patch[0] - bands[0]) // 2, (grid_columns * patch[1] - bands[1]) // 2)
    inner = min(levels, _LEVELS_IN_REGISTERS)
    block = 2**inner
    # Blocks of a patch in a tile, as many as fit; where a patch has fewer, patches side by side.
    down = min(_power_of_two(patch[0]), max(1, _ROWS // block))
    across = min(_power_of_two(patch[1]), max(1, _COLUMNS // block))
    patches = min(_power_of_two(grid_columns), max(1, _COLUMNS // (across * block))) if across >= patch[1] else 1
    tiles = (-(-patch[0] // down), -(-patch[1] // across))
    tiles_a_part = max(_TILES_A_PART, -(-tiles[0] * tiles[1] // _PARTS))
    return _Plan(
        bands,
        patch,
        padding,
        levels - inner,
        inner,
        (down * block, patches * across * block),
        patches,
        -(-grid_columns // patches),
        tiles,
        tiles_a_part,
        -(-tiles[0] * tiles[1] // tiles_a_part),
    )


def _power_of_two(n: int) -> int:
    """The least that is not below n."""
    return 1 << (n - 1).bit_length()


def _warps(registers: int) -> int:
    """Warps of 32 threads for that many values in registers."""
    return max(1, min(16, _power_of_two(-(-registers // (32 * _VALUES_A_THREAD)))))

"""Where in an image, and at which scale and direction, each value of a code belongs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from monai_deepfixcx.codecs import Codec, DeepFixCXCodec, HeartSpotCodec, IdentityCodec
from monai_deepfixcx.codecs.wavelet_packet import subband_shape

Over = Literal["patches", "subbands", "values"]
# Pixels are too many to be left out one by one: a codec that keeps pixels has so many blocks along each axis.
_BLOCKS = 10


def has_grid(codec: Codec) -> bool:
    """Whether every value of a code belongs to one place of the image."""
    return isinstance(codec, DeepFixCXCodec | IdentityCodec) or (
        isinstance(codec, HeartSpotCodec) and codec.aggregate == "pixels"
    )


def to_grid(codes: Tensor, codec: Codec, spatial_shape: Sequence[int]) -> Tensor:
    """Lay codes out by subband, place and pooled feature; zero where a codec keeps no pixel.

    Args:
        codes: ``[B, C, D]``.
        codec: a DeepFixCX codec, or one that keeps pixels.
        spatial_shape: of the encoded images.

    Returns:
        ``[B, C, K, *P, F]``: K subbands and F features (1 and 1 of pixels), at the P patches (pixels).

    Raises:
        ValueError: the codec's values have no place of their own.

    >>> codec = DeepFixCXCodec(levels=2, patch_size=3, features=["l1", "max"])
    >>> to_grid(torch.rand(4, 1, 288), codec, (32, 32)).shape
    torch.Size([4, 1, 16, 3, 3, 2])
    """
    _need_grid(codec)
    if isinstance(codec, DeepFixCXCodec):
        return codes.unflatten(2, (-1, *codec.patch_size, len(codec.features)))
    if isinstance(codec, HeartSpotCodec):
        pixels = codes.new_zeros((*codes.shape[:2], *codec.mask.shape))
        pixels[:, :, codec.mask.to(codes.device)] = codes
    else:
        pixels = codes.unflatten(2, tuple(spatial_shape))
    return pixels.unsqueeze(2).unsqueeze(-1)


def from_grid(grid: Tensor, codec: Codec) -> Tensor:
    """Codes ``[B, C, D]`` from the layout of `to_grid`; what lies where the codec keeps no pixel is dropped."""
    if isinstance(codec, HeartSpotCodec):
        return grid[:, :, 0, :, :, 0][:, :, codec.mask.to(grid.device)]
    return grid.flatten(2)


def feature_groups(codec: Codec, spatial_shape: Sequence[int], over: Over) -> Tensor:
    """Which values of a code are taken together, for methods that leave parts of it out.

    Args:
        codec: that made the codes.
        spatial_shape: of the encoded images.
        over: "patches" takes all values of a patch together (of pixels: square blocks, 10 along the longer axis),
            "subbands" all of a subband (DeepFixCX only), "values" none.

    Returns:
        int64 ``[D]``, the group of each value, from 0 without gaps.

    Raises:
        ValueError: an unknown name, or a codec without such groups.

    >>> feature_groups(DeepFixCXCodec(levels=1, patch_size=2), (8, 8), "patches").tolist()
    [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]
    """
    if over not in ("patches", "subbands", "values"):
        raise ValueError(f'over must be "patches", "subbands" or "values"; got {over!r}.')
    length = codec.code_length(spatial_shape)
    if over == "values":
        return torch.arange(length)
    _need_grid(codec)
    if over == "subbands" and not isinstance(codec, DeepFixCXCodec):
        raise ValueError(f'over="subbands" needs a DeepFixCX code; a {codec.name} code has no subbands. Use "patches".')
    shape = to_grid(torch.zeros(1, 1, length), codec, spatial_shape).shape
    bands, places = shape[2], shape[3:-1]
    if over == "subbands":
        groups = torch.arange(bands).reshape(-1, *[1] * (len(places) + 1))
    else:
        step = 1 if isinstance(codec, DeepFixCXCodec) else math.ceil(max(places) / _BLOCKS)
        blocks = [torch.arange(n) // step for n in places]
        groups = torch.zeros(1, dtype=torch.int64)
        for block in blocks:
            groups = groups.unsqueeze(-1) * (int(block[-1]) + 1) + block
        groups = groups.unsqueeze(-1)
    codes = from_grid(groups.expand(shape[2:])[None, None], codec)[0, 0]
    # Blocks in which the codec keeps no pixel have no number.
    return codes.unique(return_inverse=True)[1]


def subband_grid(bias: Tensor, levels: int, spatial_dims: int = 2) -> Tensor:
    """Lay subbands out by frequency: low to high along every axis.

    A packet's index tells which filters it went through, and every high-pass with its halving turns the order of
    the frequencies round: frequency f stands at f XOR (f >> 1), its Gray code.

    Args:
        bias: ``[..., 4^J]``, or ``[..., 8^J]`` in 3-D, in the code's order d = 4 d_previous + 2 row_is_hi + col_is_hi.
        levels: J.
        spatial_dims: 2 or 3.

    Returns:
        ``[..., 2^J, 2^J]`` (one axis more in 3-D): at [r, c] the subband of r/2^(J+1) to (r+1)/2^(J+1) cycles a pixel
        down the rows, and likewise along the columns.

    Raises:
        ValueError: the number of subbands is not that of `levels`.

    >>> subband_grid(torch.arange(16), levels=2)
    tensor([[ 0,  1,  5,  4],
            [ 2,  3,  7,  6],
            [10, 11, 15, 14],
            [ 8,  9, 13, 12]])
    """
    if bias.shape[-1] != 2 ** (spatial_dims * levels):
        raise ValueError(
            f"bias must have {2 ** (spatial_dims * levels)} subbands on its last axis at levels={levels} in "
            f"{spatial_dims}-D; got {bias.shape[-1]}."
        )
    before = bias.ndim - 1
    bits = bias.unflatten(-1, [2] * (spatial_dims * levels))
    by_axis = [before + level * spatial_dims + axis for axis in range(spatial_dims) for level in range(levels)]
    grid = bits.permute(*range(before), *by_axis).reshape(*bias.shape[:-1], *[2**levels] * spatial_dims)
    frequency = torch.arange(2**levels, device=bias.device)
    for axis in range(before, grid.ndim):
        grid = grid.index_select(axis, frequency ^ (frequency >> 1))
    return grid


def patch_edges(codec: DeepFixCXCodec, spatial_shape: Sequence[int], decoded: bool = True) -> list[list[int]]:
    """Where the patches begin and end, in pixels.

    The encoder pads an image whose side P 2^J does not divide, and the decoder crops what it drew: pixel i of a decoded
    image shows what was at pixel i + `decoded_offset`. Attributions and privatized images come from one decoder
    and lie on each other; the encoded image lies elsewhere.

    Args:
        codec: of the codes.
        spatial_shape: of the encoded images.
        decoded: edges in the decoded image, otherwise in the encoded one.

    Returns:
        For each axis P + 1 positions between pixels; the outer ones may lie outside the image.

    >>> patch_edges(DeepFixCXCodec(levels=2, patch_size=3), (48, 50), decoded=False)
    [[0, 16, 32, 48], [-4, 16, 36, 56]]
    >>> patch_edges(DeepFixCXCodec(levels=2, patch_size=3), (48, 50))
    [[0, 16, 32, 48], [-5, 15, 35, 55]]
    """
    sides = patch_pixels(codec, spatial_shape)
    starts = _padding(codec, spatial_shape)
    offsets = decoded_offset(codec, spatial_shape) if decoded else [0] * len(sides)
    return [
        [index * side - start - offset for index in range(patches + 1)]
        for side, start, offset, patches in zip(sides, starts, offsets, codec.patch_size, strict=True)
    ]


def patch_pixels(codec: DeepFixCXCodec, spatial_shape: Sequence[int]) -> tuple[int, ...]:
    """Pixels that a patch measures along each axis.

    >>> patch_pixels(DeepFixCXCodec(levels=4, patch_size=5), (320, 300))
    (64, 64)
    """
    levels = codec.levels_for(spatial_shape)
    bands = subband_shape(spatial_shape, levels)
    return tuple(-(-band // patches) * 2**levels for band, patches in zip(bands, codec.patch_size, strict=True))


def decoded_offset(codec: Codec, spatial_shape: Sequence[int]) -> tuple[int, ...]:
    """By how many pixels decoded images are shifted: pixel i of them shows what was at pixel i + offset.

    Zero on every axis that P 2^J divides. To lay a region of the original over a decoded image, take it this much
    further on.

    >>> decoded_offset(DeepFixCXCodec(levels=2, patch_size=3), (48, 50))
    (0, 1)
    """
    if not isinstance(codec, DeepFixCXCodec):
        return (0,) * len(spatial_shape)
    whole = [p * side for p, side in zip(codec.patch_size, patch_pixels(codec, spatial_shape), strict=True)]
    crops = [round((size - n) / 2) for size, n in zip(whole, spatial_shape, strict=True)]
    return tuple(crop - pad for crop, pad in zip(crops, _padding(codec, spatial_shape), strict=True))


def _padding(codec: DeepFixCXCodec, spatial_shape: Sequence[int]) -> list[int]:
    """Pixels that the encoder puts before the image on each axis, to fill the patch grid."""
    levels = codec.levels_for(spatial_shape)
    bands = subband_shape(spatial_shape, levels)
    return [-band % patches // 2 * 2**levels for band, patches in zip(bands, codec.patch_size, strict=True)]


def _need_grid(codec: Codec) -> None:
    if not has_grid(codec):
        raise ValueError(
            f'the values of a {codec.name} code with this configuration belong to no one place. Use over="values".'
        )

"""How far the codes of two neighbouring images can lie apart. docs/differential_privacy.md derives each bound."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from monai_deepfixcx.codecs import Codec, DeepFixCXCodec, HeartSpotCodec, IdentityCodec
from monai_deepfixcx.codecs.wavelet_packet import subband_shape

Relation = Literal["image", "m_pixels"]
# By how much a pooled value of a patch of n coefficients can change, for a change of 1 in l2: the root of n, or 1.
_SUMS, _PICKS = {"l1", "sum"}, {"max", "min", "median"}
_NON_NEGATIVE = {"l1", "l2", "sum_pos"}
_ROUNDING = 1 + 1e-5  # float32 codes


class Slopes(NamedTuple):
    """How a codec stretches a difference of images, in l2.

    Attributes:
        any_change: code distance by image distance, at most.
        one_pixel: code distance by the change of one pixel, at most.
    """

    any_change: float
    one_pixel: float


def image_sensitivity(clip_norm: float, codec: Codec | None = None) -> float:
    """For any two images: codes clipped to a ball of radius C lie 2C apart, those without a negative value sqrt(2) C.

    Args:
        clip_norm: C.
        codec: that made the codes, or None.

    >>> image_sensitivity(3.0)
    6.0
    """
    positive = isinstance(codec, DeepFixCXCodec) and set(codec.features) <= _NON_NEGATIVE
    return clip_norm * (math.sqrt(2) if positive else 2.0)


def pixel_sensitivity(
    codec: Codec, spatial_shape: Sequence[int], pixels: int, value_range: float = 1.0, in_channels: int = 1
) -> float:
    """For two images that differ in at most `pixels` pixels, each value by at most `value_range`.

    Args:
        codec: that makes the codes.
        spatial_shape: of the images.
        pixels: m, positions; all channels of each may differ.
        value_range: the largest change of a value.
        in_channels: C of the images.

    Returns:
        An upper bound of the l2 distance of their codes, before any clipping.

    Raises:
        ValueError: an argument out of range, or a codec whose codes can jump or have no bound.

    >>> codec = DeepFixCXCodec(levels=3, patch_size=2)
    >>> [round(pixel_sensitivity(codec, (64, 64), m), 3) for m in (1, 4, 64)]
    [1.0, 4.0, 32.0]
    """
    if pixels < 1 or in_channels < 1:
        raise ValueError(f"pixels and in_channels must be at least 1; got {pixels!r} and {in_channels!r}.")
    if not (value_range > 0 and math.isfinite(value_range)):
        raise ValueError(f"value_range must be above 0 and finite; got {value_range!r}.")
    slopes = slopes_of(codec, spatial_shape)
    per_channel = min(slopes.any_change * math.sqrt(pixels), slopes.one_pixel * pixels) * value_range
    return per_channel * math.sqrt(in_channels) * _ROUNDING


def slopes_of(codec: Codec, spatial_shape: Sequence[int]) -> Slopes:
    """How the codes of one channel follow a change of its pixels.

    Args:
        codec: that makes the codes.
        spatial_shape: of the images.

    Raises:
        ValueError: a codec whose codes can jump or have no bound.

    >>> slopes_of(IdentityCodec(), (8, 8))
    Slopes(any_change=1.0, one_pixel=1.0)
    """
    codec.code_length(spatial_shape)
    if isinstance(codec, DeepFixCXCodec):
        return _deepfixcx(codec, spatial_shape)
    if isinstance(codec, HeartSpotCodec):
        return _heartspot(codec)
    if isinstance(codec, IdentityCodec):
        return Slopes(1.0, 1.0)
    raise ValueError(f'relation must be "image" for a codec {codec.name!r}, whose sensitivity to pixels is not known.')


def _heartspot(codec: HeartSpotCodec) -> Slopes:
    if codec.priors & {"median", "quadtree"}:
        raise ValueError(
            'relation must be "image" for HeartSpot with median or quadtree: one pixel changes many kept pixels, or a '
            "whole block, and no bound is derived."
        )
    if codec.aggregate == "sum":
        return Slopes(math.sqrt(sum(codec.mask.shape)), math.sqrt(2))
    return Slopes(1.0, 1.0)


def _deepfixcx(codec: DeepFixCXCodec, spatial_shape: Sequence[int]) -> Slopes:
    if codec.adaptive != "none":
        raise ValueError(
            f'relation must be "image" for a codec with adaptive={codec.adaptive!r}: its learned filters have no '
            "fixed norm."
        )
    if unbounded := set(codec.features) - _SUMS - _PICKS:
        raise ValueError(
            f'relation must be "image" for the features {", ".join(sorted(unbounded))}: l2 grows with the square of a '
            "coefficient, sum_pos and sum_neg jump at their threshold. Pool by l1, sum, max, min or median."
        )
    levels = codec.levels_for(spatial_shape)
    lengths = [-(-n // p) for n, p in zip(subband_shape(spatial_shape, levels), codec.patch_size, strict=True)]
    sums, picks = len(_SUMS & set(codec.features)), len(_PICKS & set(codec.features))
    mix, norm, one = 1.0, 1.0, 1.0
    for size, grid in zip(spatial_shape, codec.patch_size, strict=True):
        operator = codec.analysis.operator(size, levels, like=torch.zeros((), dtype=torch.float64))
        norm *= float(torch.linalg.matrix_norm(operator, 2))
        one *= _one_pixel(operator, levels, grid)
    if codec.channel_multiplier > 1:
        # CELU stretches nothing.
        mix = float(torch.linalg.matrix_norm(codec.channel_mix.double(), 2))
    if codec.zero_mean:
        # Takes something from every pixel: only the bound for any change remains.
        one = math.inf
    any_change = mix * norm * math.sqrt(sums * math.prod(lengths) + picks)
    return Slopes(any_change, min(mix * one * math.sqrt(sums + picks), any_change))


def _one_pixel(operator: Tensor, levels: int, grid: int) -> float:
    """The l2 norm, over subbands and patches, of the sums of |coefficients| of the worst single pixel of an axis."""
    bands = operator.abs().unflatten(0, (2**levels, -1))
    total = -bands.shape[1] % grid
    padded = torch.nn.functional.pad(bands, (0, 0, total // 2, total - total // 2))
    return float(padded.unflatten(1, (grid, -1)).sum(2).square().sum((0, 1)).amax().sqrt())

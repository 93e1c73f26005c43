"""HeartSpot: keep only the pixels that a prior names.

Source: Johnson et al., IEEE BHI 2022, arXiv:2210.02241.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from monai_deepfixcx.codecs.base import Codec, per_axis
from monai_deepfixcx.codecs.prefilters import Criterion, median_pool, medians_at, quadtree
from monai_deepfixcx.codecs.priors import HEART, Mask, Point, horizontal_lines, polygon_mask, random_lines

Region = Sequence[Point] | Mask | Tensor | Mapping[str, Any]
# In canonical order: what is done to the image first stands first.
_PRIORS = ("quadtree", "median", "hline", "rline", "rhline", "heart")


class HeartSpotCodec(Codec):
    """Keep the pixels of a mask, and nothing else.

    Args:
        prior: any of hline, rline, rhline (= hline+rline), heart, median and quadtree, joined by "+". Lines are joined;
            with lines, heart keeps what of them lies in the region, alone the whole region; median halves the image and
            quadtree flattens its blocks before sampling. The empty string keeps every pixel.
        spatial_shape: (H, W) of the images; the published masks are those at 320 x 320.
        seed: of the random lines; 1 is the published one, 2 and 3 its variants.
        line_count: random lines drawn.
        zero_top_fraction: drop the random lines from this top part of the image, in [0, 1).
        aggregate: "pixels" keeps the masked pixels in row-major order; "sum" keeps only the masked image's W column
            sums, then its H row sums.
        region: instead of the heart, a polygon of (row, column) fractions of the image, or a boolean mask ``[H, W]``.
        quadtree_threshold: published at 320 x 320: 30, 100 and 200; see `quadtree`.
        quadtree_criterion: "entropy" (published) or "std".

    Attributes:
        mask: bool ``[H', W']``, the kept pixels; half the image size (rounded down) with median.

    Raises:
        ValueError: an unknown prior, an argument out of range, or a mask that keeps nothing.

    >>> codec = HeartSpotCodec("rhline")
    >>> codec.code_length((320, 320))
    32797
    >>> images = torch.rand(2, 1, 320, 320)
    >>> privatized = codec(images)
    >>> bool((privatized[:, :, codec.mask] == images[:, :, codec.mask]).all())
    True
    """

    name = "heartspot"
    version = 1
    mask: Tensor
    _kept: Tensor

    def __init__(
        self,
        prior: str = "rhline+heart",
        spatial_shape: Sequence[int] = (320, 320),
        seed: int = 1,
        line_count: int = 200,
        zero_top_fraction: float = 0.0,
        aggregate: Literal["pixels", "sum"] = "pixels",
        region: Region | None = None,
        quadtree_threshold: float = 30.0,
        quadtree_criterion: Criterion = "entropy",
    ) -> None:
        super().__init__()
        self.priors = _parse_prior(prior)
        height, width = per_axis(tuple(spatial_shape), 2, "spatial_shape")
        self.spatial_dims, self.spatial_shape = 2, (height, width)
        if not 0 <= zero_top_fraction < 1:
            raise ValueError(f"zero_top_fraction must be in [0, 1); got {zero_top_fraction!r}.")
        if line_count < 1:
            raise ValueError(f"line_count must be at least 1; got {line_count!r}.")
        if aggregate not in ("pixels", "sum"):
            raise ValueError(f'aggregate must be "pixels" or "sum"; got {aggregate!r}.')
        if quadtree_criterion not in ("entropy", "std"):
            raise ValueError(f'quadtree_criterion must be "entropy" or "std"; got {quadtree_criterion!r}.')
        if region is not None and "heart" not in self.priors:
            raise ValueError(f"region stands in for the heart, which prior={prior!r} does not have. Add '+heart'.")
        self.seed, self.line_count, self.zero_top_fraction = seed, line_count, zero_top_fraction
        self.aggregate, self.quadtree_threshold = aggregate, float(quadtree_threshold)
        self.quadtree_criterion = quadtree_criterion
        self.region = None if region is None else _region_config(region, self.spatial_shape)
        mask = self._draw_mask()
        if not mask.any():
            raise ValueError(f"prior={prior!r} keeps no pixel of a {height}x{width} image. Enlarge the region.")
        self.register_buffer("mask", torch.from_numpy(mask), persistent=False)
        self.register_buffer("_kept", torch.from_numpy(np.flatnonzero(mask)), persistent=False)

    def _draw_mask(self) -> Mask:
        halved = 2 if "median" in self.priors else 1
        grid = (self.spatial_shape[0] // halved, self.spatial_shape[1] // halved)
        lines = np.zeros(grid, dtype=bool)
        if self.priors & {"hline", "rhline"}:
            lines |= horizontal_lines(grid)
        if self.priors & {"rline", "rhline"}:
            lines |= random_lines(grid, self.seed, self.line_count, self.zero_top_fraction)
        if not self.priors & {"hline", "rline", "rhline"}:
            lines[:] = True
        if "heart" in self.priors:
            # Drawn at full size and thinned out, as the published region was.
            lines &= _region_mask(self.region, self.spatial_shape)[::halved, ::halved][: grid[0], : grid[1]]
        return lines

    def parameters_config(self) -> dict[str, Any]:
        """The constructor's arguments, the prior in canonical order."""
        return {
            "prior": "+".join(prior for prior in _PRIORS if prior in self.priors),
            "spatial_shape": list(self.spatial_shape),
            "seed": self.seed,
            "line_count": self.line_count,
            "zero_top_fraction": self.zero_top_fraction,
            "aggregate": self.aggregate,
            "region": self.region,
            "quadtree_threshold": self.quadtree_threshold,
            "quadtree_criterion": self.quadtree_criterion,
        }

    def code_length(self, spatial_shape: Sequence[int]) -> int:
        """K kept pixels, or W' + H' sums.

        Raises:
            ValueError: `spatial_shape` is not the codec's.
        """
        if tuple(spatial_shape) != self.spatial_shape:
            raise ValueError(
                f"images must be {self.spatial_shape[0]}x{self.spatial_shape[1]}, as the codec's spatial_shape; got "
                f"{'x'.join(map(str, spatial_shape))}. Resize them (--size on the command line) or set spatial_shape."
            )
        return sum(self.mask.shape) if self.aggregate == "sum" else len(self._kept)

    def _encode_fused(self, images: Tensor, white: float) -> Tensor | None:
        if images.is_floating_point() or self.aggregate == "sum" or self.priors & {"quadtree", "median"}:
            return None
        self.code_length(images.shape[2:])
        return images.flatten(2)[:, :, self._kept].float() / white  # converts only what is kept

    def _encode(self, images: Tensor) -> Tensor:
        if "quadtree" in self.priors:
            images = quadtree(images, self.quadtree_threshold, self.quadtree_criterion)
        if self.aggregate == "sum":
            masked = (median_pool(images) if "median" in self.priors else images) * self.mask
            return torch.cat([masked.sum(2), masked.sum(3)], dim=2)
        return medians_at(images, self._kept) if "median" in self.priors else images.flatten(2)[:, :, self._kept]

    def _decode(self, codes: Tensor, spatial_shape: tuple[int, ...], restore_size: bool) -> Tensor:
        images = self._spread_sums(codes) if self.aggregate == "sum" else self.scatter(codes)
        if restore_size and "median" in self.priors:
            for axis, size in enumerate(spatial_shape, start=2):
                nearest = torch.arange(size, device=images.device) // 2
                images = images.index_select(axis, nearest.clamp(max=images.shape[axis] - 1))
        return images

    def scatter(self, codes: Tensor) -> Tensor:
        """Put the pixels of a code ``[B, C, K]`` back in their places, zeros elsewhere: ``[B, C, H', W']``."""
        images = codes.new_zeros((*codes.shape[:2], self.mask.numel()))
        return images.index_copy(2, self._kept, codes).unflatten(2, tuple(self.mask.shape))

    def _spread_sums(self, codes: Tensor) -> Tensor:
        """Additive model: a pixel is its column's mean plus its row's mean minus the image's, inside the mask."""
        mask = self.mask.to(codes)
        columns, rows = codes.split([mask.shape[1], mask.shape[0]], dim=2)
        column_means = columns / mask.sum(0).clamp(min=1)
        row_means = rows / mask.sum(1).clamp(min=1)
        mean = rows.sum(2, keepdim=True) / mask.sum()
        return (column_means.unsqueeze(2) + row_means.unsqueeze(3) - mean.unsqueeze(3)) * mask


def _parse_prior(prior: str) -> frozenset[str]:
    asked = frozenset(filter(None, prior.split("+")))
    if unknown := asked - set(_PRIORS):
        raise ValueError(
            f"prior must join any of {', '.join(_PRIORS)} by '+'; got {prior!r}, of which "
            f"{', '.join(sorted(unknown))} is unknown."
        )
    if "rhline" in asked or asked >= {"hline", "rline"}:
        asked = asked - {"hline", "rline"} | {"rhline"}
    return asked


def _region_config(
    region: Sequence[Point] | Mask | Tensor | Mapping[str, Any], shape: tuple[int, int]
) -> dict[str, Any]:
    """The region as JSON: a polygon's vertices, or the bits of a mask."""
    if isinstance(region, Mapping):
        return dict(region)
    array = np.asarray(region.cpu() if isinstance(region, Tensor) else region)
    if array.dtype == bool:
        if array.shape != shape:
            raise ValueError(f"region, as a mask, must be {list(shape)} as spatial_shape; got {list(array.shape)}.")
        return {"mask": np.packbits(array).tobytes().hex()}
    if array.ndim != 2 or array.shape[0] < 3 or array.shape[1] != 2 or array.min() < 0 or array.max() > 1:
        raise ValueError(
            "region must be a boolean mask, or at least 3 (row, column) vertices as fractions in [0, 1] of the image; "
            f"got {array.dtype} values of shape {list(array.shape)}."
        )
    return {"polygon": array.astype(float).tolist()}


def _region_mask(region: Mapping[str, Any] | None, shape: tuple[int, int]) -> Mask:
    if region is None:
        return polygon_mask(HEART, shape)
    if "polygon" in region:
        return polygon_mask(region["polygon"], shape)
    bits = np.frombuffer(bytes.fromhex(region["mask"]), dtype=np.uint8)
    return np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape).astype(bool)

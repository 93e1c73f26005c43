"""What HeartSpot can do to an image before sampling it: quantile (median) pooling and a quadtree.

Source: Johnson et al., IEEE BHI 2022, arXiv:2210.02241.
"""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from monai_deepfixcx.codecs import kernels

Criterion = Literal["entropy", "std"]
# Windows are gathered a few output rows at a time, to keep the working memory near this many values.
_WINDOW_VALUES = 2**24
_MEDIAN_KERNEL, _MEDIAN_STRIDE = 12, 2


def quantile_pool(
    images: Tensor, kernel: int, stride: int, quantile: float, padding: Literal["same", "valid"] = "valid"
) -> Tensor:
    """Quantile of every ``kernel x kernel`` window, interpolated between the two nearest values.

    Args:
        images: ``[B, C, H, W]``.
        kernel: window side in pixels.
        stride: step in pixels.
        quantile: in [0, 1]; 0.5 is the median.
        padding: "valid" takes whole windows only; "same" reflects max(kernel - stride, 0) border pixels in all, half
            of them (rounded down) before, so that floor(H / stride) rows come out where stride <= kernel.

    Returns:
        ``[B, C, H', W']``.

    Raises:
        ValueError: the window does not fit the image.

    >>> quantile_pool(torch.arange(16.0).reshape(1, 1, 4, 4), kernel=2, stride=2, quantile=0.5)
    tensor([[[[ 2.5000,  4.5000],
              [10.5000, 12.5000]]]])
    """
    if padding == "same":
        images = _reflect(images, kernel, stride)
    elif min(images.shape[2:]) < kernel:
        raise ValueError(f"kernel must be at most the image size; got {kernel} for {list(images.shape)}.")
    if images.is_floating_point() and kernels.takes(images):
        height = (images.shape[2] - kernel) // stride + 1
        return kernels.window_quantiles(images, kernel, stride, quantile).unflatten(2, (height, -1))
    windows = images.unfold(2, kernel, stride).unfold(3, kernel, stride)
    if torch.compiler.is_exporting():  # an exported program must not split by the batch size it was traced with
        return _quantile(windows.flatten(-2), quantile)
    rows_at_once = max(1, _WINDOW_VALUES // max(1, windows[:, :, :1].numel()))
    return torch.cat([_quantile(part.flatten(-2), quantile) for part in windows.split(rows_at_once, dim=2)], dim=2)


def _reflect(images: Tensor, kernel: int, stride: int) -> Tensor:
    total = max(kernel - stride, 0)
    if min(images.shape[2:]) <= total - total // 2:
        raise ValueError(f"images must be larger than half the {kernel}-pixel window; got {list(images.shape)}.")
    before, after = total // 2, total - total // 2
    return F.pad(images, (before, after, before, after), mode="reflect")


def _quantile(values: Tensor, quantile: float) -> Tensor:
    """Linear interpolation on the last axis, as `torch.quantile`, which takes at most 16 million values."""
    position = quantile * (values.shape[-1] - 1)
    below = int(position)
    ordered = values.sort(dim=-1).values
    above = min(below + 1, values.shape[-1] - 1)
    return torch.lerp(ordered[..., below], ordered[..., above], position - below)


def median_pool(images: Tensor) -> Tensor:
    """HeartSpot's Median: a 12 x 12 median, stride 2, reflected borders; ``[B, C, H, W]`` becomes half as large.

    >>> median_pool(torch.rand(1, 1, 320, 320)).shape
    torch.Size([1, 1, 160, 160])
    """
    return quantile_pool(images, _MEDIAN_KERNEL, _MEDIAN_STRIDE, quantile=0.5, padding="same")


def medians_at(images: Tensor, places: Tensor) -> Tensor:
    """``median_pool(images)`` at some places only, counted row by row: ``[B, C, M]``.

    >>> images = torch.rand(2, 1, 32, 32)
    >>> bool((medians_at(images, torch.tensor([3, 17])) == median_pool(images).flatten(2)[:, :, [3, 17]]).all())
    True
    """
    if images.is_floating_point() and kernels.takes(images):
        padded = _reflect(images, _MEDIAN_KERNEL, _MEDIAN_STRIDE)
        return kernels.window_quantiles(padded, _MEDIAN_KERNEL, _MEDIAN_STRIDE, 0.5, places)
    return median_pool(images).flatten(2)[:, :, places]


def quadtree(images: Tensor, threshold: float, criterion: Criterion = "entropy") -> Tensor:
    """Replace each leaf of an image's quadtree by its mean.

    A block is halved on both axes (the first half the larger where odd) while it has more than one pixel, is less
    than 9 levels deep and

    - "entropy": -p(v) log2 p(v), summed over its pixels, is at least `threshold`; p is the block's 256-bin histogram,
      smoothed by [1, 1, 1]. Uniform blocks split further, textured ones stay coarse. (The published criterion.)
    - "std": its standard deviation is above `threshold`. (Ours.)

    Args:
        images: ``[B, C, H, W]`` in [0, 1]; each channel has its own tree. Differentiable for a given tree.
        threshold: published at 320 x 320: 30, 100 and 200.
        criterion: "entropy" or "std".

    Returns:
        ``[B, C, H, W]``.

    Raises:
        ValueError: pixels outside [0, 1] with the entropy criterion.
    """
    if images.numel() == 0:
        return images
    channels = images.flatten(0, 1)
    pixels = channels.detach().cpu().double().numpy()
    if criterion == "entropy" and not (pixels.min() >= 0 and pixels.max() <= 1):
        # Without the values, as they are the original's.
        raise ValueError("images must be in [0, 1] for a quadtree by entropy; some pixels are outside. Scale them.")
    from monai_deepfixcx.codecs.kernels import quadtree_loops  # Numba takes a third of a second to import

    leaves = np.stack([quadtree_loops.number_leaves(c, threshold, criterion == "entropy") for c in pixels])
    return torch.stack(
        [_leaf_means(c, torch.from_numpy(leaf).to(c.device)) for c, leaf in zip(channels, leaves, strict=True)]
    ).unflatten(0, tuple(images.shape[:2]))


def _leaf_means(channel: Tensor, leaves: Tensor) -> Tensor:
    sums = channel.new_zeros(int(leaves.max()) + 1).index_add(0, leaves.flatten(), channel.flatten())
    return (sums / leaves.flatten().bincount())[leaves]

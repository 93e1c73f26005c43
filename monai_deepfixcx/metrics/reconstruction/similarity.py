"""Similarity of a reconstruction and its image, one value per image, with fixed windows and a data range of 1.

Images are ``[N, C, *S]`` in [0, 1], in two or three dimensions; values are float64, on the CPU. Scores of other windows
or data ranges cannot be compared with these: a small window and a large data range flatter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA = 11, 1.5  # of the Gaussian, in pixels
LEAST_MSE = 1e-10  # what float32 can tell from 0 on images in [0, 1]: PSNR is at most 100 dB
_C1, _C2 = 0.01**2, 0.03**2  # keep SSIM's quotients stable
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, finest first
_PIXELS_AT_ONCE = 2**20  # what stays in fast memory


def mse(output: Tensor, images: Tensor) -> Tensor:
    """Mean squared error.

    Args:
        output: reconstructions, ``[N, C, *S]``.
        images: the truth, of the same shape.

    Returns:
        ``[N]``, 0 or more.

    Raises:
        ValueError: shapes that differ, or no images.

    >>> mse(torch.zeros(2, 1, 16, 16), torch.ones(2, 1, 16, 16))
    tensor([1., 1.], dtype=torch.float64)
    """
    _check(output, images)
    return _in_parts(lambda a, b: (a.double() - b.double()).square().flatten(1).mean(1), output, images)


def psnr(output: Tensor, images: Tensor) -> Tensor:
    """Peak signal-to-noise ratio for a data range of 1, in dB; at most 100, which is an MSE of 1e-10 or less.

    Args:
        output: reconstructions, ``[N, C, *S]``.
        images: the truth, of the same shape.

    Returns:
        ``[N]``, in dB.

    Raises:
        ValueError: shapes that differ, or no images.

    >>> psnr(torch.full((1, 1, 16, 16), 0.1), torch.zeros(1, 1, 16, 16)).round()
    tensor([20.], dtype=torch.float64)
    """
    return psnr_of(mse(output, images))


def psnr_of(errors: Tensor) -> Tensor:
    """The PSNR of mean squared errors ``[N]``."""
    return -10 * errors.clamp(min=LEAST_MSE).log10()


def ssim(output: Tensor, images: Tensor) -> Tensor:
    """Structural similarity: Gaussian window of 11 pixels and sigma 1.5, data range 1, whole windows only.

    A constant image already scores about .4 on a radiograph: read it beside the score of the best guess without the
    code (`normalised_ssim`).

    Args:
        output: reconstructions, ``[N, C, *S]``, every axis of at least 11 pixels.
        images: the truth, of the same shape.

    Returns:
        ``[N]``, -1 to 1.

    Raises:
        ValueError: shapes that differ, no images, or images smaller than the window.

    Source: Wang et al., IEEE Trans. Image Processing 13 (2004), equation 13.

    >>> ssim(torch.ones(2, 1, 16, 16), torch.ones(2, 1, 16, 16))
    tensor([1., 1.], dtype=torch.float64)
    """
    _check(output, images, window=True)
    return _in_parts(lambda a, b: _ssim_and_contrast(a, b)[0], output, images)


def ms_ssim_scales(spatial_shape: Sequence[int]) -> int:
    """How many of the five scales of MS-SSIM images have room for: the coarsest must hold the 11-pixel window.

    Five from 176 pixels, three from 44, one below 22. Values at different numbers of scales cannot be compared.

    Args:
        spatial_shape: of the images, in pixels.

    Returns:
        1 to 5.

    Raises:
        ValueError: images smaller than the window.

    >>> ms_ssim_scales((320, 320)), ms_ssim_scales((64, 64)), ms_ssim_scales((16, 16, 16))
    (5, 3, 1)
    """
    _check_window(spatial_shape)
    side = min(spatial_shape)
    return max(n for n in range(1, len(_WEIGHTS) + 1) if side // 2 ** (n - 1) >= WINDOW)


def ms_ssim(output: Tensor, images: Tensor) -> Tensor:
    """Multi-scale structural similarity over as many of its five scales as fit (`ms_ssim_scales`).

    With fewer scales the weights of those that remain are scaled to a sum of 1. Negative terms count as 0.

    Args:
        output: reconstructions, ``[N, C, *S]``, every axis of at least 11 pixels.
        images: the truth, of the same shape.

    Returns:
        ``[N]``, 0 to 1.

    Raises:
        ValueError: shapes that differ, no images, or images smaller than the window.

    Source: Wang et al., Asilomar 2003, equation 7, weights of section 3.2.

    >>> ms_ssim(torch.ones(1, 1, 64, 64), torch.ones(1, 1, 64, 64)).round(decimals=6)
    tensor([1.], dtype=torch.float64)
    """
    _check(output, images, window=True)
    return _in_parts(_ssim_and_ms_ssim, output, images)[1]


def ssim_and_ms_ssim(output: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """`ssim` and `ms_ssim` at once, in little more time than one."""
    _check(output, images, window=True)
    both = _in_parts(_ssim_and_ms_ssim, output, images)
    return both[0], both[1]


def _ssim_and_ms_ssim(output: Tensor, images: Tensor) -> Tensor:
    """``[2, N]``."""
    scales = ms_ssim_scales(images.shape[2:])
    halve = F.avg_pool2d if images.ndim == 4 else F.avg_pool3d
    first, contrast = _ssim_and_contrast(output, images)
    found, terms = first, []
    for _ in range(1, scales):
        terms.append(contrast)
        output, images = halve(output, 2), halve(images, 2)
        found, contrast = _ssim_and_contrast(output, images)
    weights = torch.tensor(_WEIGHTS[:scales], dtype=torch.float64, device=first.device)[:, None]
    values = torch.stack([*terms, found]).clamp(min=0) ** (weights / weights.sum())
    return torch.stack([first, values.prod(0)])


def _ssim_and_contrast(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM, and its factor for contrast and structure alone, each ``[N]``."""
    mean_x, mean_y, xx, yy, xy = _blur(torch.stack([x, y, x * x, y * y, x * y]))
    covariance = 2 * (xy - mean_x * mean_y) + _C2
    contrast = covariance / (xx - mean_x.square() + yy - mean_y.square() + _C2)
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
    return _mean_of_image(luminance * contrast), _mean_of_image(contrast)


def _mean_of_image(maps: Tensor) -> Tensor:
    return maps.flatten(1).mean(1, dtype=torch.float64)


def _blur(maps: Tensor) -> Tensor:
    """Weighted means of all whole windows of ``[5, N, C, *S]``; the Gaussian is taken axis by axis."""
    taps = [math.exp(-0.5 * ((k - WINDOW // 2) / SIGMA) ** 2) for k in range(WINDOW)]
    for axis in range(3, maps.ndim):
        size = maps.shape[axis] - WINDOW + 1
        blurred = maps.narrow(axis, 0, size) * (taps[0] / sum(taps))
        for k, tap in enumerate(taps[1:], start=1):
            blurred.add_(maps.narrow(axis, k, size), alpha=tap / sum(taps))
        maps = blurred
    return maps


def _in_parts(score: Callable[[Tensor, Tensor], Tensor], output: Tensor, images: Tensor) -> Tensor:
    """The scores of a few images at a time, to bound the memory in use."""
    step = max(1, _PIXELS_AT_ONCE // max(1, images[0].numel()))
    pairs = zip(output.detach().split(step), images.detach().split(step), strict=True)
    with torch.no_grad():
        return torch.cat([score(a.as_subclass(Tensor), b.as_subclass(Tensor)) for a, b in pairs], dim=-1).cpu()


def _check(output: Tensor, images: Tensor, window: bool = False) -> None:
    if output.shape != images.shape or images.ndim not in (4, 5) or not len(images):
        raise ValueError(
            "output and images must both be [N, C, H, W] or [N, C, D, H, W], with at least one image; got "
            f"{list(output.shape)} and {list(images.shape)}."
        )
    if window:
        _check_window(images.shape[2:])


def _check_window(spatial_shape: Sequence[int]) -> None:
    if min(spatial_shape) < WINDOW:
        raise ValueError(
            f"images must have at least {WINDOW} pixels along every axis, SSIM's window; got "
            f"{'x'.join(map(str, spatial_shape))}. Measure larger images: SSIM of a smaller window means another thing."
        )

"""Quantiles of square windows, at some places or all."""

import torch
from torch import Tensor

from monai_deepfixcx.codecs.kernels.threads import in_parts


def window_quantiles(images: Tensor, kernel: int, stride: int, quantile: float, places: Tensor | None = None) -> Tensor:
    """Quantile of ``kernel x kernel`` windows, interpolated between the two nearest values.

    Args:
        images: ``[B, C, H, W]``, float32 or float64, on the CPU.
        kernel: window side in pixels.
        stride: step in pixels.
        quantile: in [0, 1].
        places: ``[M]``, which windows, counted row by row; all if None.

    Returns:
        ``[B, C, M]``.

    >>> window_quantiles(torch.arange(16.0).reshape(1, 1, 4, 4), kernel=2, stride=2, quantile=0.5)
    tensor([[[ 2.5000,  4.5000, 10.5000, 12.5000]]])
    """
    from monai_deepfixcx.codecs.kernels import window_loops  # Numba takes a third of a second to import

    height, width = ((n - kernel) // stride + 1 for n in images.shape[2:])
    numbers = torch.arange(height * width) if places is None else places
    rows, columns = (numbers // width).numpy(), (numbers % width).numpy()
    pixels = images.detach().flatten(0, 1).contiguous().numpy()
    out = torch.empty(len(pixels), len(numbers), dtype=images.dtype)
    position = quantile * (kernel * kernel - 1)
    below = int(position)

    def pool_part(first: int, last: int) -> None:
        part = out[first:last].numpy()
        window_loops.window_quantiles(pixels[first:last], kernel, stride, rows, columns, below, position - below, part)

    in_parts(pool_part, len(pixels), 1 + len(numbers) * kernel * kernel)
    return out.unflatten(0, tuple(images.shape[:2]))

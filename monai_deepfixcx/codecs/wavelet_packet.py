"""The wavelet packet transform and its inverse, in 2-D and 3-D, differentiable and optionally learnable.

Source: Gaudio et al., WIREs DMKD 2023, doi:10.1002/widm.1495, section on the wavelet packet transform.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import pywt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Adaptive = Literal["none", "filters_1d", "filters_2d"]
_CONV = {2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {2: F.conv_transpose2d, 3: F.conv_transpose3d}
# An axis up to this size takes all its levels in one matrix product: on CPUs several times faster than convolutions,
# and its cost does not grow with the filter's length. Longer axes are first halved by convolution.
_LONGEST_PRODUCT = 1024
_Matrix = npt.NDArray[np.float64]


def discrete_wavelet(name: str) -> pywt.Wavelet:
    """The PyWavelets wavelet of that name.

    Raises:
        ValueError: not a discrete PyWavelets wavelet.
    """
    known = pywt.wavelist(kind="discrete")
    if name not in known and name != "haar":
        raise ValueError(f"wavelet must be a discrete PyWavelets wavelet, one of {', '.join(known)}; got {name!r}.")
    return pywt.Wavelet(name)


def subband_shape(spatial_shape: Sequence[int], levels: int) -> tuple[int, ...]:
    """Shape of one subband map: every axis halved `levels` times, rounded up each time.

    >>> subband_shape((320, 65), levels=4)
    (20, 5)
    """
    # ceil(ceil(n / 2) / 2) == ceil(n / 4), and so on.
    return tuple(-(-int(n) // 2**levels) for n in spatial_shape)


class _PacketFilters(nn.Module):
    """A filter pair, fixed or learnable, and the convolution kernels it makes: one an axis, or one for all."""

    filters: Tensor

    def __init__(self, low: Sequence[float], high: Sequence[float], spatial_dims: int, adaptive: Adaptive) -> None:
        super().__init__()
        if spatial_dims not in _CONV:
            raise ValueError(f"spatial_dims must be 2 or 3; got {spatial_dims!r}.")
        if adaptive not in ("none", "filters_1d", "filters_2d"):
            raise ValueError(f'adaptive must be "none", "filters_1d" or "filters_2d"; got {adaptive!r}.')
        self.spatial_dims, self.adaptive = spatial_dims, adaptive
        self.taps = (tuple(low), tuple(high))
        pair = torch.tensor([list(low), list(high)], dtype=torch.float64)
        if adaptive == "none":
            # float64 whatever the images are: float32 images then see the taps rounded once, float64 ones exactly.
            self.register_buffer("filters", pair, persistent=False)
        elif adaptive == "filters_1d":
            self.filters = nn.Parameter(pair.to(torch.get_default_dtype()))
        else:
            outer = pair
            for _ in range(spatial_dims - 1):
                outer = torch.einsum("a...,bl->ab...l", outer, pair).flatten(0, 1)
            self.filters = nn.Parameter(outer.to(torch.get_default_dtype()))

    def kernels(self, like: Tensor) -> list[Tensor]:
        """Kernels ``[children, 1, *k]`` to apply one after the other, each halving the axes on which k > 1."""
        filters = self.filters.to(like)
        if self.adaptive == "filters_2d":
            return [filters.unsqueeze(1)]
        ones = [1] * self.spatial_dims
        return [filters.reshape(2, 1, *ones[:axis], -1, *ones[axis + 1 :]) for axis in range(self.spatial_dims)]

    def operator(self, size: int, levels: int, like: Tensor) -> Tensor:
        """The packet transform along one axis of `size` pixels, as a matrix ``[2^levels * n', size]``."""
        return torch.from_numpy(_axis_operator(self.taps, size, levels)).to(like)

    def patch_operator(self, patches: int, repeat: int, levels: int, like: Tensor) -> Tensor:
        """The inverse along one axis of bands in which every value stands `repeat` times, from the values alone.

        ``[2^levels * patches * repeat, 2^levels * patches]``.
        """
        return torch.from_numpy(_patch_operator(self.taps, patches, repeat, levels)).to(like)

    def levels_by_convolution(self, spatial_shape: Sequence[int], levels: int) -> int:
        """How many levels to take one at a time, before the others in one matrix product an axis."""
        if self.adaptive != "none":
            return levels
        too_long = max(spatial_shape) / _LONGEST_PRODUCT
        return min(levels, max(0, math.ceil(math.log2(too_long))))


@lru_cache(maxsize=32)
def _axis_operator(taps: tuple[tuple[float, ...], tuple[float, ...]], size: int, levels: int) -> _Matrix:
    filters = np.array(taps).T
    length = len(filters)
    padding = (length - 1) // 2
    rows = np.eye(size)[None]  # [bands, positions, size]: which combination of pixels each output position is
    for _ in range(levels):
        odd = rows.shape[1] % 2
        rows = np.pad(rows, ((0, 0), (padding, padding + odd), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(rows, length, axis=1)[:, ::2]
        rows = (windows @ filters).transpose(0, 3, 1, 2)
        rows = rows.reshape(-1, *rows.shape[2:])
    return rows.reshape(-1, size)


@lru_cache(maxsize=32)
def _patch_operator(
    taps: tuple[tuple[float, ...], tuple[float, ...]], patches: int, repeat: int, levels: int
) -> _Matrix:
    size = 2**levels * patches * repeat
    return _axis_operator(taps, size, levels).reshape(-1, repeat, size).sum(axis=1).T.copy()


def _along_axis(matrix: Tensor, x: Tensor, axis: int) -> Tensor:
    if axis == x.ndim - 1:
        return x @ matrix.T
    return (matrix @ x.flatten(axis + 1)).unflatten(axis + 1, x.shape[axis + 1 :])


def _interleaved(levels: int, spatial_dims: int) -> list[int]:
    """Where each subband stands when the axes' band indices are counted one after the other instead of bit by bit."""
    axis_bits = np.arange(spatial_dims * levels).reshape(spatial_dims, levels)
    bands = np.arange(2 ** (spatial_dims * levels)).reshape([2] * (spatial_dims * levels))
    return bands.transpose(axis_bits.T.ravel()).ravel().tolist()


def _stride_and_padding(kernel: Tensor) -> tuple[list[int], list[int]]:
    sizes = kernel.shape[2:]
    return [2 if k > 1 else 1 for k in sizes], [(k - 1) // 2 for k in sizes]


class WaveletPacket(_PacketFilters):
    """Split images into all wavelet packet subbands of a level.

    At each level an odd axis gets one zero appended; then every channel is cross-correlated with the products of
    PyWavelets' ``dec_lo`` and ``dec_hi`` (stride 2, zero padding (L-1)//2).

    Args:
        wavelet: a discrete PyWavelets wavelet.
        spatial_dims: 2 or 3.
        adaptive: learn nothing, the low- and high-pass filter ("filters_1d"), or the full 2-D (3-D) filters
            ("filters_2d"), starting from the wavelet's.

    Raises:
        ValueError: an unknown wavelet, ``spatial_dims`` or ``adaptive``.

    >>> WaveletPacket("coif1")(torch.rand(2, 3, 64, 50), levels=2).shape
    torch.Size([2, 3, 16, 16, 13])
    """

    def __init__(self, wavelet: str = "db1", spatial_dims: int = 2, adaptive: Adaptive = "none") -> None:
        bank = discrete_wavelet(wavelet)
        super().__init__(bank.dec_lo, bank.dec_hi, spatial_dims, adaptive)

    def forward(self, images: Tensor, levels: int) -> Tensor:
        """Transform ``[B, C, *S]`` to ``[B, C, K, *S']``, K = 4^levels (8^levels in 3-D).

        The subband index grows as ``d = 4 d_previous + 2 row_is_hi + col_is_hi``.
        """
        x = images.flatten(0, 1)
        first = self.levels_by_convolution(x.shape[1:], levels)
        kernels = self.kernels(like=x)
        for _ in range(first):
            x = _append_zero_where_odd(x)
            for kernel in kernels:
                stride, padding = _stride_and_padding(kernel)
                x = _CONV[self.spatial_dims](x.unsqueeze(1), kernel, stride=stride, padding=padding).flatten(0, 1)
        if levels > first:
            x = self._split_every_axis(x, levels - first).flatten(0, 1)
        return x.unflatten(0, (*images.shape[:2], 2 ** (self.spatial_dims * levels)))

    def _split_every_axis(self, x: Tensor, levels: int) -> Tensor:
        """All `levels` of ``[N, *S]`` at once, as ``[N, K, *S']``."""
        for axis in range(1, x.ndim):
            x = _along_axis(self.operator(x.shape[axis], levels, like=x), x, axis)
        for axis in reversed(range(1, x.ndim)):
            x = x.unflatten(axis, (2**levels, -1))
        bands = range(1, 2 * self.spatial_dims, 2)
        x = x.movedim(list(bands), list(range(1, self.spatial_dims + 1))).flatten(1, self.spatial_dims)
        return x[:, _interleaved(levels, self.spatial_dims)]


class InverseWaveletPacket(_PacketFilters):
    """Put images together again from their wavelet packet subbands.

    Transposed correlation with PyWavelets' ``rec_lo`` and ``rec_hi`` reversed (stride 2, padding (L-1)//2), then
    the sum over the children of each parent. For an orthogonal wavelet this undoes `WaveletPacket` but for a border of
    (L/2 - 1)(2^levels - 1) pixels; for db1 on sizes divisible by 2^levels, everywhere.

    Args:
        wavelet: a discrete PyWavelets wavelet.
        spatial_dims: 2 or 3.
        adaptive: as in `WaveletPacket`; the filters learned here are this module's own.

    Raises:
        ValueError: an unknown wavelet, ``spatial_dims`` or ``adaptive``.

    >>> images = torch.rand(2, 3, 64, 48, dtype=torch.float64)
    >>> back = InverseWaveletPacket("db1")(WaveletPacket("db1")(images, levels=3), levels=3)
    >>> torch.allclose(back, images)
    True
    """

    def __init__(self, wavelet: str = "db1", spatial_dims: int = 2, adaptive: Adaptive = "none") -> None:
        bank = discrete_wavelet(wavelet)
        super().__init__(bank.rec_lo[::-1], bank.rec_hi[::-1], spatial_dims, adaptive)

    def forward(self, subbands: Tensor, levels: int) -> Tensor:
        """Transform ``[B, C, K, *S']`` to ``[B, C, *S]`` with S = S' * 2^levels.

        Raises:
            ValueError: K is not the number of subbands of that level.
        """
        expected = 2 ** (self.spatial_dims * levels)
        if subbands.shape[2] != expected:
            raise ValueError(
                f"subbands must have {expected} subbands on axis 2 at levels={levels}; got {subbands.shape[2]}."
            )
        x = subbands.flatten(0, 2)
        last = self.levels_by_convolution([n * 2**levels for n in x.shape[1:]], levels)
        if levels > last:
            x = self._join_every_axis(x.unflatten(0, (-1, 2 ** (self.spatial_dims * (levels - last)))), levels - last)
        kernels = self.kernels(like=x)
        for _ in range(last):
            for kernel in reversed(kernels):
                stride, padding = _stride_and_padding(kernel)
                children = x.unflatten(0, (-1, kernel.shape[0]))
                x = _CONV_TRANSPOSE[self.spatial_dims](children, kernel, stride=stride, padding=padding).squeeze(1)
        return x.unflatten(0, tuple(subbands.shape[:2]))

    def _join_every_axis(self, x: Tensor, levels: int) -> Tensor:
        """Undo all `levels` of ``[N, K, *S']`` at once, to ``[N, *S]``."""
        x = self._bands_by_axis(x, levels)
        for axis in range(1, x.ndim):
            x = _along_axis(self.operator(x.shape[axis], levels, like=x).T, x, axis)
        return x

    def _bands_by_axis(self, x: Tensor, levels: int) -> Tensor:
        """Subbands ``[N, K, *S']`` side by side along each axis, ``[N, *S]``."""
        axis_by_axis = np.argsort(_interleaved(levels, self.spatial_dims)).tolist()
        x = x[:, axis_by_axis].unflatten(1, [2**levels] * self.spatial_dims)
        bands = range(1, 2 * self.spatial_dims, 2)
        x = x.movedim(list(range(1, self.spatial_dims + 1)), list(bands))
        for axis in range(1, self.spatial_dims + 1):
            x = x.flatten(axis, axis + 1)
        return x

    def from_patches(
        self, patches: Tensor, levels: int, repeats: Sequence[int], spatial_shape: Sequence[int]
    ) -> Tensor:
        """Put images together from subbands that are constant in patches, and crop them about their centre.

        The same as repeating every value of ``patches [B, C, K, *P]`` `repeats` times along each axis, `forward`, and
        the crop, but, where axes are short enough for it, by one small matrix product an axis.

        Args:
            patches: one value per subband and patch.
            levels: J.
            repeats: how often each value stands along each axis.
            spatial_shape: what is cropped out.
        """
        sizes = [int(p) * r * 2**levels for p, r in zip(patches.shape[3:], repeats, strict=True)]
        # Python's half-to-even rounding is part of the method.
        starts = [round((size - n) / 2) for size, n in zip(sizes, spatial_shape, strict=True)]
        if self.levels_by_convolution(sizes, levels) > 0:
            for axis, repeat in enumerate(repeats, start=3):
                patches = patches.repeat_interleave(repeat, dim=axis)
            x = self.forward(patches, levels)
            for axis, (start, n) in enumerate(zip(starts, spatial_shape, strict=True), start=2):
                x = x.narrow(axis, start, n)
            return x
        x = self._bands_by_axis(patches.flatten(0, 1), levels)
        for axis, (repeat, start, n) in enumerate(zip(repeats, starts, spatial_shape, strict=True), start=1):
            matrix = self.patch_operator(int(patches.shape[axis + 2]), repeat, levels, like=x)
            x = _along_axis(matrix[start : start + n], x, axis)
        return x.unflatten(0, tuple(patches.shape[:2]))


def _append_zero_where_odd(x: Tensor) -> Tensor:
    odd = [size % 2 for size in x.shape[1:]]
    if not any(odd):
        return x
    return F.pad(x, [side for amount in reversed(odd) for side in (0, amount)])

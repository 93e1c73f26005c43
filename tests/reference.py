"""The methods once more, slowly: what METHODS.md says, in numpy and float64, one image channel at a time.

Nothing here comes from the package, so agreement of the two is evidence. PyWavelets gives the filter taps
only; scikit-image draws lines and fills polygons.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, Literal

import numpy as np
import pywt
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from skimage import draw
from torch import Tensor

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Grid = int | Sequence[int]
Polygon = Sequence[tuple[float, float]]

_draw: Any = draw  # scikit-image's functions have no types

# fmt: off
HEART: Polygon = [
    (0.914, 0.769), (0.911, 0.712), (0.889, 0.617), (0.845, 0.571), (0.749, 0.516), (0.813, 0.427),
    (0.856, 0.301), (0.851, 0.256), (0.814, 0.187), (0.748, 0.140), (0.638, 0.114), (0.569, 0.115),
    (0.431, 0.147), (0.341, 0.184), (0.208, 0.275), (0.040, 0.472), (0.111, 0.585), (0.176, 0.664),
    (0.390, 0.811), (0.486, 0.855), (0.666, 0.892), (0.810, 0.899), (0.831, 0.892), (0.867, 0.858),
]
# fmt: on

# In the code's order, whatever order is asked for.
FEATURES: dict[str, Callable[[Array], float]] = {
    "l1": lambda c: float(np.abs(c).sum()),
    "sum": lambda c: float(c.sum()),
    "max": lambda c: float(c.max()),
    "min": lambda c: float(c.min()),
    "median": lambda c: float(np.sort(c, axis=None)[(c.size - 1) // 2]),
    "l2": lambda c: float((c**2).sum()),
    "sum_pos": lambda c: float(c[c > 1e-6].sum()),
    "sum_neg": lambda c: float(c[c < -1e-6].sum()),
}


def golden_image(seed: int, shape: Sequence[int]) -> NDArray[np.float32]:
    """Return the test image `[B, C, *S]` in [0, 1] that a seed and a shape name.

    Args:
        seed: of the noise.
        shape: `[B, C, H, W]`, as in the shared golden data, or `[B, C, D, H, W]`, our own extension of it.
    """
    noise = np.random.default_rng(seed).integers(0, 256, size=tuple(shape)).astype("float32") / 255
    axes = np.mgrid[tuple(slice(0, n) for n in shape[2:])].astype("float32")
    wave = np.sin(axes[0] / 7.0) * np.cos(axes[1] / 11.0)
    if len(axes) == 3:
        wave = wave * np.cos(axes[2] / 13.0)
    image: NDArray[np.float32] = (0.5 * noise + 0.5 * (0.5 + 0.5 * wave)).astype("float32")
    return image


def over_channels(function: Callable[[Array], NDArray[Any]], batch: NDArray[Any]) -> NDArray[Any]:
    """Apply a function of one channel to each of `[B, C, ...]`."""
    return np.stack([np.stack([function(channel.astype(np.float64)) for channel in item]) for item in batch])


# --- DeepFixCX ---


def filters(low: Sequence[float], high: Sequence[float], spatial_dims: int) -> Array:
    """Return `[2^n, L, ..., L]`: outer products lo x lo, lo x hi, hi x lo, hi x hi, first axis first."""
    taps = [np.array(low, dtype=np.float64), np.array(high, dtype=np.float64)]
    # product() counts in base 2 with the first axis as the highest digit: 2 * row_is_hi + col_is_hi.
    choices = itertools.product(taps, repeat=spatial_dims)
    return np.stack([reduce(np.multiply.outer, choice) for choice in choices])


def packet(x: Array, wavelet: str, levels: int) -> Array:
    """Return the wavelet packet subbands `[K, *S']` of one channel `[*S]`, K = 4^levels (8^levels in 3-D)."""
    n = x.ndim
    basis = pywt.Wavelet(wavelet)
    bank = filters(basis.dec_lo, basis.dec_hi, n)
    length = basis.dec_len
    pad = (length - 1) // 2
    axes = tuple(range(1, n + 1))
    bands = x[np.newaxis].astype(np.float64)
    for _ in range(levels):
        bands = np.pad(bands, [(0, 0), *((0, size % 2) for size in bands.shape[1:])])
        bands = np.pad(bands, [(0, 0), *[(pad, pad)] * n])
        windows = np.lib.stride_tricks.sliding_window_view(bands, (length,) * n, axis=axes)
        windows = windows[(slice(None), *[slice(None, None, 2)] * n)]
        # Each output is one filter laid on one window, unflipped: a cross-correlation.
        children = np.stack([(windows * kernel).sum(axis=tuple(range(-n, 0))) for kernel in bank], axis=1)
        # [parent, child, *S'] -> parent * 2^n + child
        bands = children.reshape(-1, *children.shape[2:])
    return bands


def inverse_packet(bands: Array, wavelet: str, levels: int) -> Array:
    """Return the channel `[*S]` that subbands `[K, *S']` describe, S = 2^levels * S'."""
    n = bands.ndim - 1
    basis = pywt.Wavelet(wavelet)
    bank = filters(basis.rec_lo[::-1], basis.rec_hi[::-1], n)
    length = basis.rec_len
    pad = (length - 1) // 2
    for _ in range(levels):
        children = bands.reshape(-1, 2**n, *bands.shape[1:])
        canvas = np.zeros((len(children), *(2 * (size - 1) + length for size in bands.shape[1:])))
        for position in np.ndindex(*bands.shape[1:]):
            # Every coefficient lays its filter, scaled, on the canvas; the children of one parent add up.
            target = (slice(None), *(slice(2 * i, 2 * i + length) for i in position))
            canvas[target] += np.tensordot(children[(..., *position)], bank, axes=1)
        bands = canvas[(slice(None), *(slice(pad, size - pad) for size in canvas.shape[1:]))]
    image: Array = bands[0]
    return image


def as_grid(patch_grid: Grid, spatial_dims: int) -> tuple[int, ...]:
    """Return the patch grid with one entry per axis."""
    return (patch_grid,) * spatial_dims if isinstance(patch_grid, int) else tuple(patch_grid)


def pool(bands: Array, patch_grid: Grid, features: Sequence[str]) -> Array:
    """Return the flat code `[D]` of subbands `[K, *S']`; index ((d * P_h + i) * P_w + j) * F + f."""
    grid = as_grid(patch_grid, bands.ndim - 1)
    totals = [(p - size % p) % p for size, p in zip(bands.shape[1:], grid, strict=True)]
    padded = np.pad(bands, [(0, 0), *((total // 2, total - total // 2) for total in totals)])
    sides = [size // p for size, p in zip(padded.shape[1:], grid, strict=True)]
    code = []
    for band in padded:
        for cell in np.ndindex(*grid):
            patch = band[tuple(slice(i * side, (i + 1) * side) for i, side in zip(cell, sides, strict=True))]
            code += [feature(patch) for name, feature in FEATURES.items() if name in features]
    return np.array(code)


def encode(
    x: Array,
    levels: int,
    patch_grid: Grid,
    wavelet: str = "db1",
    features: Sequence[str] = ("l1",),
    zero_mean: bool = False,
) -> Array:
    """Return the DeepFixCX code `[D]` of one channel `[*S]`."""
    x = x.astype(np.float64)
    return pool(packet(x - x.mean() if zero_mean else x, wavelet, levels), patch_grid, features)


def published_encode(images: Tensor, levels: int, patch_grid: Grid, wavelet: str = "db1") -> Tensor:
    """The l1 codes `[B, D]` of `[B, 1, *S]`, as published: a grouped convolution per level, unfold, sum of |c|."""
    spatial_dims = images.ndim - 2
    convolve = {2: F.conv2d, 3: F.conv3d}[spatial_dims]
    taps = [torch.tensor(filter_taps) for filter_taps in pywt.Wavelet(wavelet).filter_bank[:2]]
    products = [
        reduce(lambda a, b: a[..., None] * b, chosen) for chosen in itertools.product(taps, repeat=spatial_dims)
    ]
    bank = torch.stack(products).unsqueeze(1).to(images)
    for _ in range(levels):
        images = F.pad(images, [side for n in reversed(images.shape[2:]) for side in (0, n % 2)])
        channels = images.shape[1]
        kernels = bank.repeat(channels, *[1] * (spatial_dims + 1))
        images = convolve(images, kernels, stride=2, padding=(len(taps[0]) - 1) // 2, groups=channels)
    grid = as_grid(patch_grid, spatial_dims)
    pads = [(p - n % p) % p for n, p in zip(images.shape[2:], grid, strict=True)]
    images = F.pad(images, [side for pad in reversed(pads) for side in (pad // 2, pad - pad // 2)])
    for axis, p in enumerate(grid, start=2):
        images = images.unfold(axis, images.shape[axis] // p, images.shape[axis] // p)
    return images.abs().sum(tuple(range(-spatial_dims, 0))).flatten(1)


def decode(
    code: Array,
    spatial_shape: Sequence[int],
    levels: int,
    patch_grid: Grid,
    wavelet: str = "db1",
    restore_size: bool = True,
) -> Array:
    """Return the privatized channel of a one-feature code `[D]`: `[*S]`; unrestored, `[*(2^levels * P)]`."""
    n = len(spatial_shape)
    grid = as_grid(patch_grid, n)
    repeats = [math.ceil(size / 2**levels / p) for size, p in zip(spatial_shape, grid, strict=True)]
    bands = code.astype(np.float64).reshape(2 ** (n * levels), *grid)
    bands = bands / math.prod(repeats)
    if not restore_size:
        return inverse_packet(bands, wavelet, levels)
    for axis, repeat in enumerate(repeats, start=1):
        bands = np.repeat(bands, repeat, axis=axis)
    image = inverse_packet(bands, wavelet, levels)
    # round() is Python's: half to even.
    starts = [round((have - want) / 2) for have, want in zip(image.shape, spatial_shape, strict=True)]
    return image[tuple(slice(start, start + want) for start, want in zip(starts, spatial_shape, strict=True))]


# --- HeartSpot ---


def hline_mask(shape: tuple[int, int]) -> Mask:
    """Return the horizontal lines: rows 100, 110, ..., 290 of 320, scaled to the height."""
    mask = np.zeros(shape, dtype=bool)
    for row in range(100, 300, 10):
        scaled = round(row * shape[0] / 320)
        if scaled < shape[0]:  # below six rows the last line can round to the row after the image
            mask[scaled] = True
    return mask


def clip_segment(x: list[int], y: list[int], right: int, bottom: int) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Clip the segment (x[0], y[0]) - (x[1], y[1]) to [0, right] x [0, bottom]; None if nothing is left."""

    def beyond_one_side(values: list[int], limit: int) -> bool:
        return all(value < 0 for value in values) or all(value > limit for value in values)

    def moved(value: int, rise: int, span: int, run: int) -> int:
        return value + math.trunc(rise * span / run)

    x, y = list(x), list(y)
    if beyond_one_side(x, right) or beyond_one_side(y, bottom):
        return None
    for end in (0, 1):
        if not 0 <= y[end] <= bottom:
            edge = 0 if y[end] < 0 else bottom
            x[end] = moved(x[end], edge - y[end], x[1] - x[0], y[1] - y[0])
            y[end] = edge
    if beyond_one_side(x, right):
        return None
    for end in (0, 1):
        if not 0 <= x[end] <= right:
            edge = 0 if x[end] < 0 else right
            y[end] = moved(y[end], edge - x[end], y[1] - y[0], x[1] - x[0])
            x[end] = edge
    return (x[0], x[1]), (y[0], y[1])


def rline_mask(shape: tuple[int, int], seed: int = 1, line_count: int = 200, zero_top_fraction: float = 0.0) -> Mask:
    """Return the random lines, with rows [0, int(zero_top_fraction * H)) zeroed."""
    height, width = shape
    # The legacy generator on purpose: its stream is what the published mask was drawn from.
    points = np.random.RandomState(seed).randn(line_count, 2, 2)
    points[:, 0, 0] = np.abs(points[:, 0, 0])
    points[:, 1, 0] = -np.abs(points[:, 1, 0])
    points /= np.sqrt((points**2).sum(axis=-1, keepdims=True))
    # Points are (column, row), yet (H/2, W/2) is added, in this order: that is what METHODS.md says.
    ends = np.round(points * max(height, width) + np.array([height / 2, width / 2])).astype(int).tolist()
    mask = np.zeros(shape, dtype=bool)
    for (x0, y0), (x1, y1) in ends:
        clipped = clip_segment([x0, x1], [y0, y1], width - 1, height - 1)
        if clipped is not None:
            columns, rows = clipped
            mask[_draw.line(rows[0], columns[0], rows[1], columns[1])] = True
    mask[: int(zero_top_fraction * height)] = False
    return mask


def heart_mask(shape: tuple[int, int], polygon: Polygon = HEART) -> Mask:
    """Return the region inside a polygon of (row, column) fractions of the image."""
    mask: Mask = _draw.polygon2mask(shape, np.array(polygon) * np.array(shape))
    return mask


def heartspot_mask(
    prior: str,
    shape: tuple[int, int],
    seed: int = 1,
    line_count: int = 200,
    zero_top_fraction: float = 0.0,
    region: Mask | None = None,
) -> Mask:
    """Return what a prior keeps, on the grid it is sampled on: `shape`, or half of it with "median".

    Args:
        prior: '+'-joined names out of hline, rline, rhline, heart, median, quadtree.
        shape: (H, W) of the image.
        seed: of the random lines.
        line_count: number of random lines.
        zero_top_fraction: of the random lines only.
        region: the heart region at `shape`; the polygon's where None.
    """
    names = set(prior.split("+")) if prior else set()
    region = heart_mask(shape) if region is None else region
    if "median" in names:
        shape = (shape[0] // 2, shape[1] // 2)  # what median_pool leaves
        region = region[::2, ::2][: shape[0], : shape[1]]
    lines = np.zeros(shape, dtype=bool)
    if names & {"hline", "rhline"}:
        lines |= hline_mask(shape)
    if names & {"rline", "rhline"}:
        lines |= rline_mask(shape, seed, line_count, zero_top_fraction)
    if names & {"hline", "rline", "rhline"}:
        return lines & region if "heart" in names else lines
    return region if "heart" in names else np.ones(shape, dtype=bool)


def quantile_pool(x: Array, kernel: int = 24, stride: int = 1, q: float = 0.9) -> Array:
    """Return the q-quantile of every kernel x kernel window of `[H, W]`, unpadded, interpolated linearly."""
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (kernel, kernel))
    pooled: Array = np.quantile(windows[::stride, ::stride], q, axis=(-2, -1))
    return pooled


def median_pool(x: Array, kernel: int = 12, stride: int = 2) -> Array:
    """Return the median of every window of `[H, W]`, reflect-padded by max(kernel - stride, 0) in all."""
    total = max(kernel - stride, 0)
    padded = np.pad(x, (total // 2, total - total // 2), mode="reflect")
    return quantile_pool(padded, kernel, stride, 0.5)


def block_entropy(block: Array) -> float:
    """Return the sum of -p log2 p over a block's *pixels*, p from the block's own smoothed histogram."""
    counts, _ = np.histogram(block, bins=256, range=(0.0, 1.0))
    smooth = np.convolve(counts, [1, 1, 1], mode="same")
    bins = np.searchsorted(np.linspace(0.0, 1.0, 256), block.ravel(), side="left")
    p = (smooth / smooth.sum())[bins]
    p = p[p > 0]  # 0 log 0 = 0
    return float(-(p * np.log2(p)).sum())


def quadtree(x: Array, threshold: float, criterion: Literal["entropy", "std"] = "entropy", max_depth: int = 9) -> Array:
    """Return `[H, W]` with every leaf of its quadtree set to the leaf's mean.

    Args:
        x: one channel with values in [0, 1].
        threshold: a block splits while its entropy is >= this, or its (population) std is > this.
        criterion: what is held against the threshold.
        max_depth: splits between the root and the smallest leaf.
    """
    x = x.astype(np.float64)
    out = np.empty_like(x)

    def visit(top: int, bottom: int, left: int, right: int, depth: int) -> None:
        block = x[top:bottom, left:right]
        if block.size == 0:  # the second half of an axis of one pixel
            return
        busy = block_entropy(block) >= threshold if criterion == "entropy" else block.std() > threshold
        if block.size == 1 or depth == max_depth or not busy:
            out[top:bottom, left:right] = block.mean()
            return
        row, column = top + (bottom - top + 1) // 2, left + (right - left + 1) // 2
        for rows in ((top, row), (row, bottom)):
            for columns in ((left, column), (column, right)):
                visit(*rows, *columns, depth + 1)

    visit(0, x.shape[0], 0, x.shape[1], 0)
    return out


def sum_aggregate(x: Array) -> Array:
    """Return `[W + H]`: the column sums (over rows), then the row sums."""
    return np.concatenate([x.sum(axis=0), x.sum(axis=1)])

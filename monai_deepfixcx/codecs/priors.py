"""HeartSpot's priors: which pixels of a chest radiograph to keep.

Source: Johnson et al., IEEE BHI 2022, arXiv:2210.02241.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Point = tuple[float, float]

# (row, column) as fractions of the image, measured on the published 320 x 320 heart region (IoU 0.988).
HEART: tuple[Point, ...] = (
    *((0.914, 0.769), (0.911, 0.712), (0.889, 0.617), (0.845, 0.571), (0.749, 0.516), (0.813, 0.427)),
    *((0.856, 0.301), (0.851, 0.256), (0.814, 0.187), (0.748, 0.140), (0.638, 0.114), (0.569, 0.115)),
    *((0.431, 0.147), (0.341, 0.184), (0.208, 0.275), (0.040, 0.472), (0.111, 0.585), (0.176, 0.664)),
    *((0.390, 0.811), (0.486, 0.855), (0.666, 0.892), (0.810, 0.899), (0.831, 0.892), (0.867, 0.858)),
)


def horizontal_lines(shape: tuple[int, int]) -> Mask:
    """HLine: rows 100, 110, ..., 290 of 320, at the same relative heights in any other image.

    >>> int(horizontal_lines((320, 320)).sum())
    6400
    """
    mask = np.zeros(shape, dtype=bool)
    rows = [round(row * shape[0] / 320) for row in range(100, 300, 10)]
    mask[[row for row in rows if row < shape[0]]] = True
    return mask


def random_lines(shape: tuple[int, int], seed: int, line_count: int, zero_top_fraction: float = 0.0) -> Mask:
    """RLine: random segments, each one pixel wide, with the rows above ``int(zero_top_fraction * H)`` cleared.

    The published centre (H/2, W/2) is added to (column, row) points: on an image that is not square the lines are
    centred beside the middle.

    >>> int(random_lines((320, 320), seed=1, line_count=200).sum())
    28246
    """
    height, width = shape
    ends = np.random.RandomState(seed).randn(line_count, 2, 2)
    ends[:, 0, 0] = np.abs(ends[:, 0, 0])
    ends[:, 1, 0] = -np.abs(ends[:, 1, 0])
    ends /= np.linalg.norm(ends, axis=2, keepdims=True)
    ends = np.round(ends * max(shape) + (height / 2, width / 2)).astype(int)
    mask = np.zeros(shape, dtype=bool)
    for (x0, y0), (x1, y1) in ends.tolist():
        segment = _clip_segment([x0, x1], [y0, y1], width, height)
        if segment is not None:
            _draw_segment(mask, *segment)
    mask[: int(zero_top_fraction * height)] = False
    return mask


def _clip_segment(x: list[int], y: list[int], width: int, height: int) -> tuple[list[int], list[int]] | None:
    """Integer Cohen-Sutherland in the published order: y of both ends, then x of both, each from the moved ends."""
    if _same_side(x, width) or _same_side(y, height):
        return None
    _clip_axis(y, x, height)
    if _same_side(x, width):
        return None
    _clip_axis(x, y, width)
    return x, y


def _same_side(ends: list[int], size: int) -> bool:
    return max(ends) < 0 or min(ends) >= size


def _clip_axis(ends: list[int], others: list[int], size: int) -> None:
    """Move each end beyond [0, size - 1] onto the border, and its other coordinate along the segment."""
    for end in (0, 1):
        border = min(max(ends[end], 0), size - 1)
        if border != ends[end]:
            step = (border - ends[end]) * (others[1] - others[0]) / (ends[1] - ends[0])
            others[end] += math.trunc(step)
            ends[end] = border


def _draw_segment(mask: Mask, x: list[int], y: list[int]) -> None:
    """Bresenham's line from end 0 to end 1; the other direction draws other pixels."""
    run, rise = abs(x[1] - x[0]), abs(y[1] - y[0])
    steep = rise > run
    long, short = (y, x) if steep else (x, y)
    run, rise = max(run, rise), min(run, rise)
    long_step, short_step = (1 if ends[1] > ends[0] else -1 for ends in (long, short))
    error, across = 2 * rise - run, short[0]
    for along in range(long[0], long[1] + long_step, long_step):
        mask[(along, across) if steep else (across, along)] = True
        if error >= 0 and run > 0:
            across += short_step
            error -= 2 * run
        error += 2 * rise


def polygon_mask(polygon: Sequence[Point], shape: tuple[int, int]) -> Mask:
    """The pixels inside a polygon given as (row, column) fractions of the image; vertex = fraction * (H, W).

    Even-odd rule at pixel centres, so that a self-crossing polygon has holes.

    >>> polygon_mask([(0, 0), (0, 1), (1, 0)], (3, 3)).astype(int).tolist()
    [[1, 1, 1], [1, 1, 0], [1, 0, 0]]
    """
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    vertices = np.asarray(polygon, dtype=float) * shape
    inside = np.zeros(shape, dtype=bool)
    for (r0, c0), (r1, c1) in zip(np.roll(vertices, 1, axis=0), vertices, strict=True):
        crosses = (r0 > rows) != (r1 > rows)
        left = (cols - c0) * abs(r1 - r0) < (rows - r0) * (c1 - c0) * np.sign(r1 - r0)
        inside ^= crosses & left
    return inside

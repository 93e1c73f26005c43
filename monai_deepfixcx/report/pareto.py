"""Utility against leakage, a numbered point for each codec, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 520, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 30, 20, 58


@dataclass(frozen=True)
class Point:
    """One codec in the plot.

    Attributes:
        name: for the text alternative.
        mark: what stands in the point, a number or a letter.
        leakage: value, low, high; low and high may be None.
        utility: the same.
        reference: not a codec but the undefended images; outside the Pareto curve.
    """

    name: str
    mark: str
    leakage: tuple[float, float | None, float | None]
    utility: tuple[float, float | None, float | None]
    reference: bool = False


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats on both axes, by rising leakage.

    A point is beaten by one that leaks no more and is no less useful, and is better in one of the two.

    >>> places = enumerate([(1, 1), (2, 1), (0, 0)])
    >>> points = [Point(str(n), "", (x, None, None), (y, None, None)) for n, (x, y) in places]
    >>> [point.name for point in front(points)]
    ['2', '0']
    """
    kept = [point for point in points if not any(_beats(other, point) for other in points)]
    return sorted(kept, key=lambda point: (point.leakage[0], point.utility[0]))


def _beats(one: Point, other: Point) -> bool:
    leaks_no_more, no_less_useful = one.leakage[0] <= other.leakage[0], one.utility[0] >= other.utility[0]
    differs = (one.leakage[0], one.utility[0]) != (other.leakage[0], other.utility[0])
    return leaks_no_more and no_less_useful and differs


def pareto_svg(
    points: Sequence[Point],
    title: str,
    leakage_label: str,
    leakage_range: tuple[float, float],
    percent: bool = True,
) -> str:
    """An SVG element of the points with their intervals, and the line through those no other beats.

    Args:
        points: of the codecs, and of the undefended images as reference.
        title: what the plot shows, for those who cannot see it.
        leakage_label: under the horizontal axis.
        leakage_range: left and right end of the horizontal axis; values outside are drawn at its end.
        percent: write the horizontal axis in percent.

    Returns:
        The element; its colours come from the page's style sheet.
    """
    floor = min([0.5, *(end for point in points for end in _ends(point.utility))])
    plot = _Plot(leakage_range, (max(0.0, round(floor - 0.05, 1)), 1.0))
    drawn = "; ".join(f"{point.name}: leakage {point.leakage[0]:.2f}, AUROC {point.utility[0]:.2f}" for point in points)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}" class="pareto">',
        f"<title>{escape(title)}</title><desc>{escape(drawn)}</desc>",
        *plot.axes(leakage_label, percent),
    ]
    curve = front([point for point in points if not point.reference])
    if len(curve) > 1:
        path = " ".join(f"{plot.x(point.leakage[0]):.1f},{plot.y(point.utility[0]):.1f}" for point in curve)
        parts.append(f'<polyline class="front" points="{path}"/>')
    # Intervals first: they must not hide a point.
    parts += [line for point in points for line in plot.intervals(point)]
    parts += [plot.mark(point) for point in points]
    return "\n".join([*parts, "</svg>"])


class _Plot:
    def __init__(self, horizontal: tuple[float, float], vertical: tuple[float, float]) -> None:
        self.horizontal, self.vertical = horizontal, vertical

    def x(self, value: float) -> float:
        return _LEFT + _share(value, self.horizontal) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - _share(value, self.vertical) * (_HEIGHT - _TOP - _BOTTOM)

    def axes(self, label: str, percent: bool) -> list[str]:
        left, right, bottom = _LEFT, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
        parts = []
        for tick in _ticks(self.horizontal):
            text = f"{100 * tick:.0f} %" if percent else f"{tick:.1f}"
            parts.append(
                f'<line class="grid" x1="{self.x(tick):.1f}" x2="{self.x(tick):.1f}" y1="{_TOP}" y2="{bottom}"/>'
            )
            parts.append(f'<text x="{self.x(tick):.1f}" y="{bottom + 20}" text-anchor="middle">{text}</text>')
        for tick in _ticks(self.vertical):
            parts.append(
                f'<line class="grid" x1="{left}" x2="{right}" y1="{self.y(tick):.1f}" y2="{self.y(tick):.1f}"/>'
            )
            parts.append(f'<text x="{left - 8}" y="{self.y(tick) + 5:.1f}" text-anchor="end">{tick:.1f}</text>')
        middle = (_TOP + bottom) / 2
        return [
            *parts,
            f'<text x="{(left + right) / 2}" y="{_HEIGHT - 12}" text-anchor="middle">{escape(label)}</text>',
            f'<text transform="translate(16 {middle}) rotate(-90)" text-anchor="middle">utility (AUROC)</text>',
        ]

    def intervals(self, point: Point) -> list[str]:
        x, y = self.x(point.leakage[0]), self.y(point.utility[0])
        parts = []
        if len(_ends(point.leakage)) == 3:
            low, high = self.x(point.leakage[1] or 0.0), self.x(point.leakage[2] or 0.0)
            parts.append(f'<line class="interval" x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        if len(_ends(point.utility)) == 3:
            low, high = self.y(point.utility[1] or 0.0), self.y(point.utility[2] or 0.0)
            parts.append(f'<line class="interval" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
        return parts

    def mark(self, point: Point) -> str:
        x, y = self.x(point.leakage[0]), self.y(point.utility[0])
        kind = "reference" if point.reference else "point"
        return (
            f'<g class="{kind}"><title>{escape(point.name)}</title><circle cx="{x:.1f}" cy="{y:.1f}" r="12"/>'
            f'<text x="{x:.1f}" y="{y + 5:.1f}" text-anchor="middle">{escape(point.mark)}</text></g>'
        )


def _ends(triple: tuple[float, float | None, float | None]) -> list[float]:
    return [value for value in triple if value is not None]


def _share(value: float, ends: tuple[float, float]) -> float:
    return min(1.0, max(0.0, (value - ends[0]) / (ends[1] - ends[0])))


def _ticks(ends: tuple[float, float]) -> list[float]:
    step = 0.1 if ends[1] - ends[0] <= 0.6 else 0.2
    first = round(ends[0] / step) * step
    return [first + number * step for number in range(round((ends[1] - first) / step) + 1)]

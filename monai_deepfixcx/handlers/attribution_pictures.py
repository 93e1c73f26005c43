"""Pictures of privatized attributions: where, and at which scale and direction. No original is ever drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]
Draw = Callable[[Axes], None]
_FOR_AND_AGAINST = "RdBu_r"  # diverging: red for the label, blue against it, white nothing
_OUTLINE = "#ffb000"
_CLIPPED = 99.5  # percentile of the magnitudes at which the colours of the overlay end


@dataclass(frozen=True)
class Shown:
    """What there is to draw of a case, or of a mean over cases. All in the pixels of the decoded image.

    Attributes:
        title: of the whole picture.
        image: privatized, ``[*S]`` in [0, 1].
        attribution: ``[*S]``, output per pixel; `None` if the codec cannot draw it.
        spatial: ``[*P]``, output per patch.
        edges: where the patches begin and end along rows and columns: (top, bottom, left, right).
        subbands: by frequency, ``[2^J, ...]``, output per subband.
        region: bool ``[*S]``, outlined.
        size: height and width of what is drawn.
        units: of the attribution, of the sums by patch, and of those by subband.
        limits: where the colours of the two sums end; 0 for each one's own largest magnitude.
    """

    title: str
    image: Tensor | None
    attribution: Tensor | None
    spatial: Tensor | None
    edges: tuple[float, float, float, float]
    subbands: Tensor | None
    region: Tensor | None
    size: tuple[int, int]
    units: tuple[str, str, str]
    limits: tuple[float, float] = (0.0, 0.0)


def case_figure(shown: Shown) -> Figure:
    """The privatized image, the attribution over it, and its sums by patch and by subband.

    Of a volume, the middle slice of the last axis is drawn, and the sums over that axis.

    Args:
        shown: what there is; panels without content are left out.
    """
    return _figure([_panels(shown)], [""], shown.title)


def cohort_figure(rows: Mapping[str, Shown], title: str) -> Figure:
    """Means over groups of cases, a row each, with the same colours in all rows.

    Args:
        rows: name of the group -> its means.
        title: of the picture.
    """
    spatial, subbands = (
        max((_limit(flat(part, total=True), 100) for part in parts if part is not None), default=0.0)
        for parts in ([shown.spatial for shown in rows.values()], [shown.subbands for shown in rows.values()])
    )
    alike = [replace(shown, limits=(spatial, subbands)) for shown in rows.values()]
    return _figure([_panels(shown) for shown in alike], list(rows), title)


def pixels_of(figure: Figure) -> NDArray[np.uint8]:
    """The drawn figure, ``[H, W, 3]``, for TensorBoard."""
    canvas: Any = FigureCanvasAgg(figure)  # untyped in matplotlib
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG without metadata, the same bytes each time."""
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def write_map(drawn: Tensor, path: Path) -> None:
    """Write a map ``[*S]`` without a header of its own; rows run down and columns to the right, as in the image."""
    import nibabel

    values = drawn.detach().cpu().float().numpy()
    # NIfTI's axes are x, y, z to the right, the front and the top; an image's first axis runs down.
    array, affine = (values.T[..., None], np.diag([-1.0, -1, 1, 1])) if values.ndim == 2 else (values, np.eye(4))
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(array), affine), path)


def _panels(shown: Shown) -> list[Draw]:
    panels: list[Draw] = []
    if shown.image is not None:
        panels.append(partial(_draw_image, shown, shown.image))
        if shown.attribution is not None:
            panels.append(partial(_draw_overlay, shown, shown.image, shown.attribution))
    if shown.spatial is not None:
        panels.append(partial(_draw_spatial, shown, shown.spatial))
    if shown.subbands is not None:
        panels.append(partial(_draw_subbands, shown, shown.subbands))
    return panels


def _figure(rows: Sequence[Sequence[Draw]], names: Sequence[str], title: str) -> Figure:
    columns = max(len(row) for row in rows)
    figure = Figure(figsize=(3.3 * columns + 0.2, 3.9 * len(rows) + 0.5), layout="constrained", facecolor="white")
    figure.suptitle(f"{title}\n", fontsize=12, x=0.008, ha="left", linespacing=0.6)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for name, row, axes in zip(names, rows, grid, strict=True):
        for ax in axes[len(row) :]:
            ax.set_axis_off()
        for draw, ax in zip(row, axes, strict=False):
            draw(ax)
        if name:
            axes[0].annotate(
                name, (0, 0.5), (-14, 0), "axes fraction", "offset points", rotation=90, va="center", ha="right"
            )
    return figure


def _draw_image(shown: Shown, image: Tensor, ax: Axes) -> None:
    _bare(ax, "privatized image")
    _draw_grey(ax, shown, image)
    _colour_bar(ax, ScalarMappable(Normalize(0, 1), "gray"), [0, 1], ["0", "1"], "pixel value, privatized")


def _draw_overlay(shown: Shown, image: Tensor, attribution: Tensor, ax: Axes) -> None:
    values = flat(attribution)
    limit = _limit(values, _CLIPPED)
    _bare(ax, "attribution over it")
    _draw_grey(ax, shown, image)
    # What contributes nothing is transparent, so that the image stays readable beneath the rest.
    strength = np.clip(np.abs(values) / limit, 0, 1)
    colours = ScalarMappable(Normalize(-limit, limit), _FOR_AND_AGAINST)
    layer = colours.to_rgba(values)
    layer[..., 3] = 0.85 * np.sqrt(strength)
    ax.imshow(layer, extent=_extent(values), interpolation="nearest")
    _diverging_bar(ax, colours, limit, shown.units[0])


def _draw_spatial(shown: Shown, spatial: Tensor, ax: Axes) -> None:
    values = flat(spatial, total=True)
    top, bottom, left, right = shown.edges
    _bare(ax, "where")
    _heat(ax, values, (left, right, bottom, top), shown.units[1], shown.limits[0])
    _outline(ax, shown)
    height, width = shown.size
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)


def _draw_subbands(shown: Shown, subbands: Tensor, ax: Axes) -> None:
    values = flat(subbands if subbands.ndim == 2 else subbands.sum(-1).T)  # low frequencies at the top left
    ax.set_title("at which scale and direction", fontsize=10, loc="left")
    # Subband [r, c] holds r/2^(J+1) to (r+1)/2^(J+1) cycles a pixel down the rows, likewise along the columns.
    _heat(ax, values, (0, 0.5, 0.5, 0), shown.units[2], shown.limits[1])
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_xticks([0, 0.25, 0.5], ["0", ".25", ".5"], fontsize=8)
    ax.set_yticks([0, 0.25, 0.5], ["0", ".25", ".5"], fontsize=8)
    ax.tick_params(length=2, color="0.6")
    ax.set_xlabel("cycles per pixel, along a row", fontsize=8)
    ax.set_ylabel("down a column", fontsize=8)


def _heat(ax: Axes, values: Array, extent: tuple[float, float, float, float], unit: str, limit: float) -> None:
    limit = limit or _limit(values, 100)
    image = ax.imshow(values, cmap=_FOR_AND_AGAINST, vmin=-limit, vmax=limit, extent=extent, interpolation="nearest")
    _diverging_bar(ax, image, limit, unit)


def _draw_grey(ax: Axes, shown: Shown, image: Tensor) -> None:
    pixels = flat(image)
    ax.imshow(pixels, cmap="gray", vmin=0, vmax=1, extent=_extent(pixels))
    _outline(ax, shown)


def _outline(ax: Axes, shown: Shown) -> None:
    if shown.region is None:
        return
    region = flat(shown.region.float())
    if 0 < region.mean() < 1:
        rows, columns = (np.arange(size) + 0.5 for size in region.shape)
        ax.contour(columns, rows, region, levels=[0.5], colors=_OUTLINE, linewidths=1.1)


def _bare(ax: Axes, title: str) -> None:
    ax.set_title(title, fontsize=10, loc="left")
    ax.set_axis_off()


def _diverging_bar(ax: Axes, colours: ScalarMappable, limit: float, label: str) -> None:
    _colour_bar(ax, colours, [-limit, 0, limit], [f"-{limit:.2g}", "0", f"+{limit:.2g}"], label)


def _colour_bar(ax: Axes, colours: ScalarMappable, ticks: list[float], names: list[str], label: str) -> None:
    figure = ax.get_figure()
    if figure is None:
        return
    bar = figure.colorbar(colours, ax=ax, orientation="horizontal", shrink=0.85, aspect=28, pad=0.02)
    bar.set_ticks(ticks, labels=names)
    bar.ax.tick_params(labelsize=8, length=2, color="0.6")
    bar.outline.set_visible(False)
    bar.set_label(label, fontsize=8)


def flat(values: Tensor, total: bool = False) -> Array:
    """Two axes to draw: of a volume the middle slice of the last axis (x to the right, y up), or the sum over it."""
    array: Array = values.detach().cpu().double().numpy()
    if array.ndim == 3:
        array = (array.sum(-1) if total else array[..., array.shape[-1] // 2]).T[::-1]
    return array


def _extent(image: Array) -> tuple[float, float, float, float]:
    return (0, image.shape[1], image.shape[0], 0)


def _limit(values: Array, percentile: float) -> float:
    """The end of a colour scale around 0."""
    magnitudes = np.abs(values)
    limit = float(np.percentile(magnitudes, percentile)) or float(magnitudes.max())
    return limit or 1.0

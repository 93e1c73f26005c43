"""A figure of what a codec keeps of every image, whatever the image shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from monai_deepfixcx.attribution.describe import by, describe_codec
from monai_deepfixcx.attribution.layout import patch_edges
from monai_deepfixcx.codecs import Codec, DeepFixCXCodec, HeartSpotCodec

_INK, _KEPT, _PALE, _LOWEST = "#1f2933", "#0b6e99", "#eef2f5", "#c2410c"
_TEXT: dict[str, Any] = {"fontsize": 10, "color": _INK}


def draw_codec(codec: Codec, spatial_shape: Sequence[int], in_channels: int = 1) -> Figure:
    """Draw what a codec keeps, with the sentences of `describe_codec` below. No image goes in.

    DeepFixCX: the patch grid over the image's frame, and the subbands by frequency. HeartSpot: the kept pixels. Of
    volumes the last two axes are drawn.

    Args:
        codec: to draw.
        spatial_shape: of the images, in pixels.
        in_channels: C of the images.

    Returns:
        A figure; save it with ``figure.savefig(path)``.

    Raises:
        ValueError: the codec cannot encode images of this shape.

    >>> figure = draw_codec(DeepFixCXCodec(levels=4, patch_size=5), (320, 320))
    >>> [axes.get_title() for axes in figure.axes]
    ['where: 5 x 5 patches', 'what: 16 x 16 subbands of each patch, the lowest filled']
    """
    sentences = describe_codec(codec, spatial_shape, in_channels)
    split = isinstance(codec, DeepFixCXCodec)
    figure = Figure(figsize=(9.6 if split else 7.2, 5.4 + 0.2 * len(sentences)))
    figure.set_layout_engine("constrained", h_pad=0.12)
    FigureCanvasAgg(figure)
    figure.suptitle(_title(codec, spatial_shape), color=_INK, fontsize=12)
    axes = figure.subplots(1, 2 if split else 1, squeeze=False)[0]
    if isinstance(codec, DeepFixCXCodec):
        _draw_patches(axes[0], codec, spatial_shape)
        _draw_subbands(axes[1], codec, spatial_shape)
    else:
        _draw_pixels(axes[0], codec, spatial_shape)
    for ax in axes:
        ax.tick_params(colors=_INK, labelsize=8)
        ax.spines[:].set_visible(False)
    figure.supxlabel("\n".join(sentences), x=0.02, ha="left", fontsize=8.5, color=_INK)
    return figure


def _title(codec: Codec, spatial_shape: Sequence[int]) -> str:
    names = {"deepfixcx": "DeepFixCX", "heartspot": "HeartSpot"}
    setting = ""
    if isinstance(codec, DeepFixCXCodec):
        setting = f" J={codec.levels_for(spatial_shape)} P={by(codec.patch_size)} {codec.wavelet}"
    elif isinstance(codec, HeartSpotCodec):
        setting = f" {codec.parameters_config()['prior'] or 'without prior'}"
    return f"What {names.get(codec.name, codec.name)}{setting} keeps of a {by(spatial_shape)} image"


def _draw_patches(ax: Axes, codec: DeepFixCXCodec, spatial_shape: Sequence[int]) -> None:
    height, width = spatial_shape[-2:]
    rows, columns = patch_edges(codec, spatial_shape, decoded=False)[-2:]
    ax.add_patch(Rectangle((0, 0), width, height, facecolor=_PALE, edgecolor=_INK, linewidth=1.2))
    ax.hlines([edge for edge in rows[1:-1] if 0 < edge < height], 0, width, color=_KEPT, linewidth=1)
    ax.vlines([edge for edge in columns[1:-1] if 0 < edge < width], 0, height, color=_KEPT, linewidth=1)
    _frame(ax, height, width, "pixels")
    ax.set_title(f"where: {by(codec.patch_size)} patches", **_TEXT)


def _draw_subbands(ax: Axes, codec: DeepFixCXCodec, spatial_shape: Sequence[int]) -> None:
    bands = 2 ** codec.levels_for(spatial_shape)
    edges = [index / (2 * bands) for index in range(bands + 1)]
    ax.add_patch(Rectangle((0, 0), 0.5, 0.5, facecolor=_PALE, edgecolor=_INK, linewidth=1.2))
    ax.add_patch(Rectangle((0, 0), edges[1], edges[1], facecolor=_LOWEST))
    width = min(1.0, 16 / bands)
    ax.hlines(edges[1:-1], 0, 0.5, color=_KEPT, linewidth=width)
    ax.vlines(edges[1:-1], 0, 0.5, color=_KEPT, linewidth=width)
    _frame(ax, 0.5, 0.5, "cycles per pixel")
    ax.set_title(f"what: {by([bands] * codec.spatial_dims)} subbands of each patch, the lowest filled", **_TEXT)


def _draw_pixels(ax: Axes, codec: Codec, spatial_shape: Sequence[int]) -> None:
    height, width = spatial_shape[-2:]
    if isinstance(codec, HeartSpotCodec):
        kept = codec.mask.cpu().numpy()
    else:
        kept = torch.full((1, 1), codec.name == "identity").numpy()
    ax.imshow(kept, cmap=ListedColormap([_PALE, _KEPT]), vmin=0, vmax=1, extent=(0, width, height, 0))
    _frame(ax, height, width, "pixels")
    ax.set_title("kept pixels are blue", **_TEXT)


def _frame(ax: Axes, height: float, width: float, unit: str) -> None:
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)
    ax.set_aspect("equal")
    ax.set_xlabel(f"along a row, {unit}", fontsize=8, color=_INK)
    ax.set_ylabel(f"down a column, {unit}", fontsize=8, color=_INK)

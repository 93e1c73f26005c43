"""One picture of what a codec keeps of one image."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from monai_deepfixcx.codecs import Codec, DeepFixCXCodec, HeartSpotCodec
from monai_deepfixcx.data.reading import Color, Scale, read_image
from monai_deepfixcx.pipeline.encode import crop_to_square, encode_pixels

_LEVELS = (1, 2, 3, 4, 5, 6)
_PATCHES = (1, 3, 5, 9, 19, 37)
_PRIORS = ("hline", "rline", "rhline", "heart", "rline+heart", "rhline+heart", "median+hline", "median+rhline+heart")


def draw(
    file: Path, output: Path, codec: Codec, size: int | None = None, color: Color = "grey", scale: Scale = "auto"
) -> None:
    """Draw the original, the privatized image, and what the method's other settings keep, each with its compression.

    Args:
        file: the image. Of a volume, the middle slice of the last axis is drawn.
        output: the PNG to write.
        codec: whose privatized image to draw beside the original.
        size: as for `Settings`.
        color: as for `read_image`.
        scale: as for `read_image`.

    Raises:
        ValueError: the image cannot be read, or not be encoded by the codec.
        OSError: the file is missing or the output not writable.
    """
    pixels = torch.from_numpy(read_image(file, color=color, scale=scale).pixels)
    code, spatial_shape = encode_pixels(pixels, codec, size)
    original = pixels if size is None else crop_to_square(pixels, size)
    panels = _grid(original, codec)
    figure = Figure(figsize=(12, 6.2 + 2.15 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    top, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[6.2, 2.15 * len(panels)]).flat
    left, right = top.subplots(1, 2).flat
    _show(left, original, f"original (private)\n{_sizes(spatial_shape)}, {original.numel():,} values")
    kept = code.numel() / original.numel()
    title = f"privatized: {_describe(codec)}\n{code.numel():,} values, {_ratio(kept)}"
    _show(right, codec.decode(code[None], spatial_shape)[0], title)
    below.suptitle(_grid_title(codec), fontsize=11)
    axes = below.subplots(len(panels), len(panels[0]), squeeze=False)
    for line, panels_of_line in zip(axes, panels, strict=True):
        for ax, (title, image) in zip(line, panels_of_line, strict=True):
            _show(ax, image, title, fontsize=8)
    figure.savefig(output, dpi=100)


def _grid(original: Tensor, codec: Codec) -> list[list[tuple[str, Tensor | None]]]:
    """Rows of (title, privatized image, or None where the setting does not fit the image)."""
    if isinstance(codec, HeartSpotCodec):
        others: list[tuple[str, Codec]] = [(prior, HeartSpotCodec(prior, codec.spatial_shape)) for prior in _PRIORS]
        half = len(others) // 2
        return [[_panel(name, original, other) for name, other in part] for part in (others[:half], others[half:])]
    wavelet = codec.wavelet if isinstance(codec, DeepFixCXCodec) else "db1"
    return [
        [
            _panel(
                f"J={levels} P={patches}",
                original,
                DeepFixCXCodec(levels, patches, wavelet, spatial_dims=codec.spatial_dims),
            )
            for patches in _PATCHES
        ]
        for levels in _LEVELS
    ]


def _panel(name: str, original: Tensor, codec: Codec) -> tuple[str, Tensor | None]:
    try:
        code, spatial_shape = encode_pixels(original, codec)
    except ValueError:
        return f"{name}\ndoes not fit", None
    return f"{name}\n{_ratio(code.numel() / original.numel())}", codec.decode(code[None], spatial_shape)[0]


def _ratio(kept: float) -> str:
    """A setting can also store more numbers than there are pixels."""
    return f"{1 / kept:,.3g} times smaller" if kept < 1 else f"{kept:,.3g} times larger"


def _describe(codec: Codec) -> str:
    if isinstance(codec, HeartSpotCodec):
        return f"HeartSpot {codec.parameters_config()['prior']}"
    if isinstance(codec, DeepFixCXCodec):
        return f"DeepFixCX J={codec.levels} P={'x'.join(map(str, codec.patch_size))} {codec.wavelet}"
    return codec.name


def _grid_title(codec: Codec) -> str:
    if isinstance(codec, HeartSpotCodec):
        return "other priors"
    return "other settings: levels J down, patches P along each axis across"


def _show(ax: Axes, image: Tensor | None, title: str, fontsize: int = 10) -> None:
    ax.set_title(title, fontsize=fontsize)
    ax.set_axis_off()
    if image is not None:
        ax.imshow(_picture(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _picture(image: Tensor) -> npt.NDArray[Any]:
    if image.ndim == 4:
        image = image[..., image.shape[-1] // 2].transpose(1, 2).flip(1)  # x to the right, y upwards
    picture = image.detach().clamp(0, 1).numpy()
    return np.moveaxis(picture, 0, -1) if len(picture) == 3 else picture[0]


def _sizes(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))

"""One picture of what a codec keeps of one image."""

from dataclasses import dataclass
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
from monai_deepfixcx.codecs.wavelet_packet import subband_shape
from monai_deepfixcx.data.reading import Color, Scale
from monai_deepfixcx.pipeline.encode import crop_to_square, encode_pixels, read_quietly

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
    pixels = torch.from_numpy(read_quietly(file, color, scale).pixels)
    code, spatial_shape = encode_pixels(pixels, codec, size)
    original = pixels if size is None else crop_to_square(pixels, size)
    panels = _grid(original, codec)
    # Each picture gets the height its shape asks for, and its title's two lines.
    shape = _picture(original).shape[:2]
    heights = [6 * shape[0] / shape[1] + 0.7, len(panels) * (12 / len(panels[0]) * shape[0] / shape[1] + 0.5) + 0.4]
    figure = Figure(figsize=(12, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    top, below = figure.subfigures(2, 1, squeeze=False, height_ratios=heights).flat
    left, right = top.subplots(1, 2).flat
    _show(left, original, f"original (private)\n{_sizes(spatial_shape)}, {original.numel():,} values")
    title = f"privatized: {_describe(codec)}\n{code.numel():,} values, {_ratio(code, original)}"
    _show(right, codec.decode(code[None], spatial_shape)[0], title)
    below.suptitle("the same image with other settings", fontsize=12)
    axes = below.subplots(len(panels), len(panels[0]), squeeze=False)
    for line, panels_of_line in zip(axes, panels, strict=True):
        for ax, panel in zip(line, panels_of_line, strict=True):
            _show(ax, panel.image, panel.title, fontsize=9)
    figure.savefig(output, dpi=100)


@dataclass(frozen=True)
class _Panel:
    """A setting's name and compression, and its privatized image; white where the setting does not fit."""

    title: str
    image: Tensor


def _grid(original: Tensor, codec: Codec) -> list[list[_Panel]]:
    if isinstance(codec, HeartSpotCodec):
        panels = [_panel(prior, original, HeartSpotCodec(prior, codec.spatial_shape)) for prior in _PRIORS]
        return [panels[:4], panels[4:]]
    wavelet = codec.wavelet if isinstance(codec, DeepFixCXCodec) else "db1"

    def fits(levels: int, patches: int) -> bool:
        return all(n >= patches for n in subband_shape(original.shape[1:], levels))

    def other(levels: int, patches: int) -> Codec:
        return DeepFixCXCodec(levels, patches, wavelet, spatial_dims=codec.spatial_dims)

    # What fits at no level, or with no grid but the trivial one, would leave empty columns and rows.
    columns = [patches for patches in _PATCHES if fits(1, patches)]
    rows = [levels for levels in _LEVELS if fits(levels, columns[min(1, len(columns) - 1)])]
    return [
        [_panel(f"J={levels}  P={patches}", original, other(levels, patches)) for patches in columns] for levels in rows
    ]


def _panel(name: str, original: Tensor, codec: Codec) -> _Panel:
    try:
        code, spatial_shape = encode_pixels(original, codec)
    except ValueError:
        return _Panel(f"{name}\ndoes not fit", torch.ones_like(original))
    return _Panel(f"{name}\n{_ratio(code, original)}", codec.decode(code[None], spatial_shape)[0])


def _ratio(code: Tensor, image: Tensor) -> str:
    """How many times smaller the code is; some settings store as many numbers as there are pixels, or more."""
    ratio = image.numel() / code.numel()
    if 0.995 < ratio < 1.005:
        return "as large"
    factor = max(ratio, 1 / ratio)
    return f"{factor:,.{0 if factor >= 100 else 1}f} times {'smaller' if ratio > 1 else 'larger'}"


def _describe(codec: Codec) -> str:
    if isinstance(codec, HeartSpotCodec):
        return f"HeartSpot {codec.parameters_config()['prior']}"
    if isinstance(codec, DeepFixCXCodec):
        return f"DeepFixCX J={codec.levels} P={'x'.join(map(str, codec.patch_size))} {codec.wavelet}"
    return codec.name


def _show(ax: Axes, image: Tensor, title: str, fontsize: int = 10) -> None:
    ax.set_title(title, fontsize=fontsize)
    ax.set_axis_off()
    ax.imshow(_picture(image), cmap="gray", vmin=0, vmax=1)


def _picture(image: Tensor) -> npt.NDArray[Any]:
    if image.ndim == 4:
        image = image[..., image.shape[-1] // 2].transpose(1, 2).flip(1)  # x to the right, y upwards
    picture = image.detach().clamp(0, 1).numpy()
    return np.moveaxis(picture, 0, -1) if len(picture) == 3 else picture[0]


def _sizes(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))

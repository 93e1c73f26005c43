"""What every file format is turned into before it is scaled, and the one rule that scales it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating]
Color: TypeAlias = Literal["grey", "keep"]
Scale: TypeAlias = Literal["auto", "range", "minmax", "window", "none"]

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, table 1: the weights of R, G and B in luma


class UnreadableImage(ValueError):  # noqa: N818 - it names what the file is
    """A file that is no image, is damaged, or needs a decoder that is not installed.

    The message is one line that starts with what is wrong. It holds no path and nothing of the header
    that could identify a patient, so that it may be logged; the caller knows which file it was reading.
    """


class Window(NamedTuple):
    """A grey-scale window (VOI LUT) that the file itself carries."""

    ends: tuple[float, float]
    """The values, after the modality LUT, between which the window is open."""
    apply: Callable[[Floats], Floats]
    """Takes values ``[1, *spatial]`` after the modality LUT to [0, 1]."""


@dataclass(frozen=True, eq=False)
class StoredImage:
    """A decoded image before polarity, colour and scale are settled."""

    values: NDArray[Any] = field(repr=False)
    """``[C, *spatial]``, C is 1 or 3 (RGB), after the modality LUT and before any inversion; floating, uint8 or
    uint16."""
    affine: NDArray[np.float64]
    """``[4, 4]``: array index to RAS millimetres."""
    ends: tuple[float, float] | None
    """The lowest and highest value the stored type can hold, after the modality LUT; None for floats."""
    full_range: bool
    """Whether ``scale="auto"`` means "range" (radiographs, colour, 8 bits) rather than "minmax"."""
    inverted: bool = False
    """Whether high values are dark, as in MONOCHROME1."""
    padding: NDArray[np.bool_] | None = field(default=None, repr=False)
    """``[*spatial]``, true where there is no image (DICOM's Pixel Padding Value)."""
    window: Window | None = None
    modality: str | None = None
    warning: str = ""
    """What the user should know though the image could be read."""


def check_options(color: str, scale: str) -> None:
    """Refuse an unknown `color` or `scale`.

    Raises:
        ValueError: If one of them is not among its documented words.
    """
    for name, value, known in (("color", color, get_args(Color)), ("scale", scale, get_args(Scale))):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}; got {value!r}")


def only_to_divide(image: StoredImage, color: Color, scale: Scale) -> bool:
    """Whether `scale_image` would do nothing with these integers but divide them by the greatest of their type."""
    if image.values.dtype.kind == "f" or image.ends is None or image.ends[0] != 0:
        return False
    by_range = scale == "range" or (scale == "auto" and image.full_range)
    as_it_is = not image.inverted and image.padding is None and (color == "keep" or len(image.values) == 1)
    return by_range and as_it_is


def scale_image(
    image: StoredImage, color: Color, scale: Scale
) -> tuple[NDArray[np.float32], Scale, tuple[float, float] | None]:
    """Settle the colour, the scale and the polarity of a decoded image.

    Args:
        image: What was decoded.
        color: "grey" or "keep".
        scale: One of the rules of `read_image`.

    Returns:
        The pixels ``[C, *spatial]``, the rule that was used, and the two values that became 0 and 1.

    Raises:
        UnreadableImage: If the rule needs what the file does not have.
    """
    values: Floats = image.values if image.values.dtype.kind == "f" else image.values.astype(np.float32)
    if color == "grey":
        values = _grey(values)
    rule: Scale = scale
    if scale == "auto":
        rule = "range" if image.full_range else "minmax"
    if rule == "none":
        return _float32(_inverted(values, image.ends) if image.inverted else values), rule, None
    ends = _ends(image, values, rule)
    if image.inverted:
        ends = ends[::-1]
    if rule == "window" and image.window is not None:
        unit = image.window.apply(values)
        unit = 1 - unit if image.inverted else unit
    else:
        unit = _between(values, *ends)
    if rule != "minmax":
        unit.clip(0, 1, out=unit)
    pixels = _float32(unit, copy=False)
    if image.padding is not None:
        pixels[:, image.padding] = 0
    return pixels, rule, ends


def _grey(values: Floats) -> Floats:
    if len(values) == 1:
        return values
    # Not a matrix product: BLAS may add in another order on another machine, and codes must not differ.
    grey = values[:1] * LUMA[0]
    for i in (1, 2):
        grey += values[i] * LUMA[i]
    return grey


def _ends(image: StoredImage, values: Floats, rule: Scale) -> tuple[float, float]:
    if rule == "minmax":
        return _finite_ends(values, image.padding)
    if rule == "range":
        if image.ends is None:
            raise UnreadableImage("no stored range: the pixels are floating point; use scale='minmax'")
        return image.ends
    if image.window is None:
        raise UnreadableImage("no window: the file has neither a VOI LUT nor a window; use scale='auto'")
    return image.window.ends


def _finite_ends(values: Floats, padding: NDArray[np.bool_] | None) -> tuple[float, float]:
    seen = values if padding is None else values[:, ~padding]
    if not seen.size:
        return 0.0, 0.0
    low, high = float(seen.min()), float(seen.max())
    if math.isfinite(low) and math.isfinite(high):
        return low, high
    return _finite_ends(seen[np.isfinite(seen)], None)


def _between(values: Floats, low: float, high: float) -> Floats:
    if low == high:  # a constant image has no contrast to keep; what is not finite stays for others to judge
        return np.where(np.isfinite(values), values.dtype.type(0), values)
    with np.errstate(over="ignore", invalid="ignore"):  # doubles near the end of their range, infinities
        if low < high:
            return (values - low if low else values) / (high - low)
        return (low - values) / (low - high)  # inverted; written this way round, 0 is never -0.0


def _inverted(values: Floats, ends: tuple[float, float] | None) -> Floats:
    low, high = ends if ends is not None else _finite_ends(values, None)
    return low + high - values


def _float32(values: Floats, *, copy: bool = True) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # a double beyond float32 becomes inf, which is for others to judge
        return values.astype(np.float32, order="C", copy=copy)

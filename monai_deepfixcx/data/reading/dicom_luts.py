"""The grey-scale look-up tables of DICOM: the modality LUT (PS3.3 C.11.1) and windows, or VOI LUTs (C.11.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monai_deepfixcx.data.reading.dicom_geometry import frame_value, read_numbers
from monai_deepfixcx.data.reading.stored_image import Floats, UnreadableImage, Window

if TYPE_CHECKING:
    from monai_deepfixcx.data.reading.dicom_header import Header

Ends = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Table:
    """A table of `entries` for the values `first`, `first` + 1, ...; values beyond it get its nearest end.

    pydicom's own functions are not used: at 3.0.2 they fail for 12-bit modality tables, wrap values beyond
    255 before an 8-bit VOI table, and read a big-endian palette as a little-endian one.
    """

    first: int
    entries: NDArray[np.uint16] = field(repr=False)
    bits: int

    def look_up(self, values: NDArray[Any]) -> NDArray[np.uint16]:
        """The entry for each of `values`, of any shape."""
        index = np.rint(values).astype(np.int64) - self.first
        return np.asarray(self.entries[np.clip(index, 0, len(self.entries) - 1)])


def read_table(descriptor: Any, data: Any, header: Header) -> Table:
    """Read a look-up table of a modality LUT, a VOI LUT or a palette.

    Args:
        descriptor: Its number of entries, the first value that is looked up, bits per entry.
        data: Its entries, as numbers or as bytes in the byte order of the file.
        header: The header of the file, for that order, and for whether the values looked up have signs.

    Raises:
        UnreadableImage: If there are fewer entries than promised.
    """
    count, first, bits = (int(number) for number in descriptor)
    signed = bool(header.get("PixelRepresentation")) or float(frame_value(header, "RescaleIntercept") or 0) < 0
    count = count % 2**16 or 2**16  # 0 stands for 65,536, which 16 bits cannot hold
    if signed and first >= 2**15:  # written as an unsigned number all the same
        first -= 2**16
    order = "<u2" if header.little_endian else ">u2"
    words = np.frombuffer(data, order) if isinstance(data, bytes) else np.atleast_1d(np.asarray(data, order))
    if len(words) * 2 in (count, count + 1):  # two 8-bit entries to a word
        words = words.astype("<u2").view(np.uint8)
    if len(words) < count or not 1 <= bits <= 16:
        raise UnreadableImage(f"damaged: a look-up table promises {count} entries and has {len(words)}")
    return Table(first, words[:count].astype(np.uint16), bits)


def float_for(bits: int) -> type[np.float32 | np.float64]:
    """The smallest floating type that holds every integer of `bits` bits."""
    return np.float32 if bits <= 24 else np.float64


def apply_modality_lut(
    stored: NDArray[Any], stored_ends: tuple[int, int], header: Header, frames: int
) -> tuple[Floats, Ends]:
    """Take stored values through the modality LUT: a table, or a slope and intercept for each frame.

    Args:
        stored: Integers ``[rows, columns]``, or ``[frames, rows, columns]`` if there are several frames.
        stored_ends: The lowest and highest integer that can be stored.
        header: A DICOM header.
        frames: How many frames the image has.

    Returns:
        The values, and the lowest and highest value that any stored integer would become: a negative slope
        swaps the two ends.
    """
    if tables := header.get("ModalityLUTSequence"):
        item = tables[0]
        table = read_table(item.LUTDescriptor, item.LUTData, header)
        reached = table.entries[slice(*np.clip(np.add(stored_ends, (0, 1)) - table.first, 0, len(table.entries)))]
        reached = np.append(reached, table.look_up(np.array(stored_ends)))
        return table.look_up(stored).astype(np.float32), (float(reached.min()), float(reached.max()))
    slopes, intercepts = (
        np.array([float(frame_value(header, keyword, i) or default) for i in range(frames)])
        for keyword, default in (("RescaleSlope", 1), ("RescaleIntercept", 0))  # a slope of 0 is no slope
    )
    values: Floats = stored.astype(float_for(header.get("BitsStored")))
    if (slopes == 1).all() and not intercepts.any():
        return values, (float(stored_ends[0]), float(stored_ends[1]))
    each = (slice(None), None, None) if frames > 1 else 0
    values *= slopes[each].astype(values.dtype)
    values += intercepts[each].astype(values.dtype)
    ends = np.outer(stored_ends, slopes) + intercepts
    return values, (float(ends.min()), float(ends.max()))


def linear(values: Floats, center: Any, width: Any) -> Floats:
    """The default window, C.11.2.1.2.1; a width of 1 is a threshold.

    Args:
        values: Any shape.
        center: Window Center, a number or one for each index of the last axis.
        width: Window Width, at least 1.
    """
    offset = np.asarray(values - (center - 0.5))
    half = (width - 1) / 2
    with np.errstate(divide="ignore", invalid="ignore"):  # of a width of 1, never looked at
        inside = offset / (width - 1) + 0.5
    return np.where(offset <= -half, 0.0, np.where(offset > half, 1.0, inside)).astype(values.dtype)


def linear_exact(values: Floats, center: Any, width: Any) -> Floats:
    """LINEAR_EXACT, C.11.2.1.3.2; arguments as in `linear`, but any width above 0."""
    return np.asarray(np.clip((values - center) / width + 0.5, 0, 1)).astype(values.dtype)


def sigmoid(values: Floats, center: Any, width: Any) -> Floats:
    """SIGMOID, C.11.2.1.3.1; arguments as in `linear_exact`."""
    with np.errstate(over="ignore"):  # far below the window, 1 / inf is the 0 that is meant
        return np.asarray(1 / (1 + np.exp(-4 * (values - center) / width))).astype(values.dtype)


_WINDOWS: dict[str, Callable[..., Floats]] = {"LINEAR": linear, "LINEAR_EXACT": linear_exact, "SIGMOID": sigmoid}


def read_window(header: Header, frames: int) -> Window | None:
    """The window of a grey image: its first VOI LUT, else its first window, of each frame its own.

    Args:
        header: A DICOM header.
        frames: How many frames the image has.

    Returns:
        None if the file has no window, or one that means nothing (a width of 0, an unknown function).
    """
    if tables := header.get("VOILUTSequence"):
        item = tables[0]
        table = read_table(item.LUTDescriptor, item.LUTData, header)
        return Window((float(table.first), float(table.first + len(table.entries) - 1)), partial(_table_window, table))
    centers, widths = (_first_numbers(header, keyword, frames) for keyword in ("WindowCenter", "WindowWidth"))
    name = str(frame_value(header, "VOILUTFunction") or "LINEAR")
    if centers is None or widths is None or name not in _WINDOWS:
        return None
    is_linear = name == "LINEAR"
    if (widths < 1).any() if is_linear else (widths <= 0).any():
        return None
    middle, half = centers[0] - 0.5 * is_linear, (widths[0] - is_linear) / 2
    # Frames are the last axis of the values; a single frame has no such axis.
    center, width = (centers, widths) if frames > 1 else (float(centers[0]), float(widths[0]))
    return Window((float(middle - half), float(middle + half)), partial(_WINDOWS[name], center=center, width=width))


def _table_window(table: Table, values: Floats) -> Floats:
    return np.asarray(table.look_up(values) / (2**table.bits - 1)).astype(values.dtype)


def _first_numbers(header: Header, keyword: str, frames: int) -> NDArray[np.float64] | None:
    numbers = [read_numbers(header, keyword, frame) for frame in range(frames)]
    return np.array([each[0] for each in numbers if each is not None]) if all(n is not None for n in numbers) else None

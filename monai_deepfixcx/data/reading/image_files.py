"""Read an image file of any supported format, or a DICOM series, in one polarity and on one scale."""

from __future__ import annotations

import os
import stat
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from monai_deepfixcx.data.reading.dicom_geometry import stack_slices
from monai_deepfixcx.data.reading.nifti_files import is_nifti, read_nifti, unzip_head
from monai_deepfixcx.data.reading.picture_files import read_picture, read_tiff
from monai_deepfixcx.data.reading.stored_image import (
    Color,
    Scale,
    StoredImage,
    UnreadableImage,
    check_options,
    only_to_divide,
    scale_image,
)

PathLike: TypeAlias = str | os.PathLike[str]
Format: TypeAlias = Literal["dicom", "nifti", "picture", "tiff"]

_HEAD = 4096  # bytes that tell the format
SMALL = 2**20  # bytes that cost less to read than to look at first
_EMPTY = "empty file (0 bytes)"
_OTHERS = {
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"RIFF": "WebP or AVI",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"%PDF": "PDF",
    b"PK\x03\x04": "ZIP",
    b"\x1f\x8b": "gzip",
    b"NRRD": "NRRD",
    b"\x93NUMPY": "NumPy",
    b"\x89HDF": "HDF5",
}


@dataclass(frozen=True, eq=False)
class Radiograph:
    """An image in one polarity (more X-ray absorption is brighter) and on one scale, without its header."""

    values: NDArray[Any] = field(repr=False)
    """What, divided by `white`, is `pixels`: uint8 or uint16 where that is all there is to do, else float32."""
    white: float
    """The value that is 1 on the scale."""
    affine: NDArray[np.float64]
    """``[4, 4]``: array index (the axes after C, then 0 if there are two) to RAS millimetres."""
    source_bytes: int
    """Size of the file, or of all files of a series."""
    modality: str | None
    """DICOM's short code (``"CR"``); None for other formats."""
    polarity_inverted: bool
    """Whether stored high values were dark (MONOCHROME1, Presentation LUT Shape INVERSE, TIFF's MinIsWhite)."""
    scale: Scale
    """The rule that was used; never "auto"."""
    scaling: tuple[float, float] | None
    """The values, after the modality LUT, that became 0 and 1; None for "none"."""

    @cached_property
    def pixels(self) -> NDArray[np.float32]:
        """``[C, rows, columns]``, ``[C, rows, columns, frames]`` or, from a NIfTI volume, ``[C, X, Y, Z]``."""
        if self.values.dtype == np.float32:
            return self.values
        return np.divide(self.values, np.float32(self.white), dtype=np.float32)


def read_image(path: PathLike, *, color: Color = "grey", scale: Scale = "auto") -> Radiograph:
    """Read a DICOM, NIfTI, PNG, JPEG or TIFF file, or a folder with one DICOM series.

    What a file is, is decided by its content; its name matters only for a DICOM file without the "DICM" mark.
    Images are ``[rows, columns]`` as displayed, unlike those of MONAI's own readers, which swap the axes.

    High values are bright: MONOCHROME1 and Presentation LUT Shape INVERSE are inverted once, whichever of the
    two or both a file states, and so is TIFF's MinIsWhite.

    ==========  ======================================================================================
    `scale`     what becomes 0 and what becomes 1
    ==========  ======================================================================================
    "range"     The lowest and highest value the stored type can hold: Bits Stored of a DICOM, 8 or 16
                bits of a picture, the integer type of a NIfTI; taken through the modality LUT (slope
                and intercept, or table). Not for floating point.
    "minmax"    The lowest and highest finite value of this image, or volume, outside padding. An image
                of one value becomes 0.
    "window"    The ends of the file's first VOI LUT or, without one, of its first window; the window's
                own function between them. An error if the file has none.
    "none"      Nothing: values after the modality LUT. Where they are to be inverted, v becomes
                low + high - v, with the ends of "range" (of the image, for floating point).
    "auto"      "range" for pictures of 8 or 16 bits and for DICOM that is projection X-ray (CR, DX, RG,
                RF, XA, MG, IO, PX, DR, SC), colour, or stored in 8 bits; "minmax" for everything else
                (CT, MR, NIfTI, floating point, 32 bits).
    ==========  ======================================================================================

    Values beyond the ends are clipped by "range" and "window". NaN and infinity stay. Pixels that DICOM marks
    as padding (Pixel Padding Value) become 0, except under "none".

    Args:
        path: The file or folder.
        color: "grey" makes one channel, of colour by ITU-R BT.601 luma (0.299 R + 0.587 G + 0.114 B);
            "keep" leaves three channels where there is colour. Transparency is dropped either way.
        scale: A rule of the table.

    Returns:
        Pixels ``[C, *spatial]`` and what little a header says that identifies nobody.

    Raises:
        UnreadableImage: If this is no image, is damaged, cut off or empty, needs a decoder that is not
            installed, or lacks what `scale` asks for.
        ValueError: If `color` or `scale` is unknown.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.fromarray(np.array([[0, 51], [102, 255]], np.uint8)).save(folder + "/a.png")
        ...     image = read_image(folder + "/a.png")
        >>> image.pixels
        array([[[0. , 0.2],
                [0.4, 1. ]]], dtype=float32)
        >>> image.scale, image.scaling
        ('range', (0.0, 255.0))
    """
    check_options(color, scale)
    path = Path(path)
    status = _status(path)
    if stat.S_ISDIR(status.st_mode):
        return read_series(_dicom_files(path), color=color, scale=scale)
    return read_contents(_load(path, status), path.suffix, color=color, scale=scale)


def read_contents(data: bytes, suffix: str, *, color: Color = "grey", scale: Scale = "auto") -> Radiograph:
    """Read a file, as `read_image` does, whose contents are in memory already.

    Args:
        data: All of it.
        suffix: Of its name; matters only for a DICOM file without the "DICM" mark.
        color: As in `read_image`.
        scale: As in `read_image`.

    Raises:
        UnreadableImage: As from `read_image`.
        ValueError: If `color` or `scale` is unknown.
    """
    check_options(color, scale)
    return _radiograph(_decode(data, _known_format(data[:_HEAD], suffix)), len(data), color, scale)


def read_series(paths: Sequence[PathLike], *, color: Color = "grey", scale: Scale = "auto") -> Radiograph:
    """Read the slices of one DICOM series, in any order, as a volume [rows, columns, slices].

    The slices are sorted along their normal and scaled together. A single file is read as `read_image` reads it.

    Args:
        paths: One file for each slice.
        color: As in `read_image`.
        scale: As in `read_image`; each slice goes through its own window.

    Raises:
        UnreadableImage: If the files are not evenly spaced slices of one series, or one cannot be read.
        ValueError: If `color` or `scale` is unknown, or there is no path.
    """
    check_options(color, scale)
    if not paths:
        raise ValueError("paths must name at least one file; got none")
    if len(paths) == 1:
        return read_image(paths[0], color=color, scale=scale)
    from monai_deepfixcx.data.reading.dicom_pixels import read_dicom

    slices, size = [], 0
    for path in paths:
        data = _load(Path(path), _status(Path(path)))
        if _known_format(data[:_HEAD], Path(path).suffix) != "dicom":
            raise UnreadableImage("not a series: several files make one image only if all of them are DICOM")
        slices.append(read_dicom(data))
        size += len(data)
    return _radiograph(stack_slices(slices), size, color, scale)


def recognize(path: PathLike) -> Format:
    """What a file is, by its first bytes.

    Args:
        path: A file.

    Raises:
        UnreadableImage: If it cannot be opened or is none of the supported formats.
    """
    path = Path(path)
    return _known_format(_head(path), path.suffix)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise _unopened(error) from None
    if not head:
        raise UnreadableImage(_EMPTY)
    return head


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise _unopened(error) from None


def _load(path: Path, status: os.stat_result) -> bytes:
    try:
        if not stat.S_ISREG(status.st_mode) or status.st_size > SMALL:
            recognize(path)  # before reading what may be gigabytes of something else
        return path.read_bytes()
    except OSError as error:
        raise _unopened(error) from None


def _unopened(error: OSError) -> UnreadableImage:
    return UnreadableImage(f"cannot be opened: {error.strerror or type(error).__name__}")  # its own text has the path


def _known_format(head: bytes, suffix: str) -> Format:
    if not head:
        raise UnreadableImage(_EMPTY)
    file_format = _format(head, suffix)
    if file_format is None:
        raise UnreadableImage(f"not an image: {_what_else(head)}")
    return file_format


def _format(head: bytes, suffix: str) -> Format | None:
    if head[128:132] == b"DICM":
        return "dicom"
    if head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        return "picture"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if is_nifti(unzip_head(head, _HEAD) if head[:2] == b"\x1f\x8b" else head):
        return "nifti"
    return "dicom" if _may_lack_the_mark(head, suffix) else None


def _may_lack_the_mark(head: bytes, suffix: str) -> bool:
    """Whether this is a DICOM data set without preamble; files named by a UID have a number for a suffix."""
    named = suffix.lower() in ("", ".dcm", ".dicom", ".ima") or suffix[1:].isdigit()
    little = head[:2] in (b"\x02\0", b"\x08\0") and head[3:4] == b"\0"  # the first group is always 2 or 8
    return named and (little or head[:3] == b"\0\x08\0")


def _what_else(head: bytes) -> str:
    for start, name in _OTHERS.items():
        if head.startswith(start):
            return f"{name} files are not supported; convert it to DICOM, NIfTI, PNG or TIFF"
    if head[344:348] == b"ni1\0" or head[4:8] == b"ni2\0":
        return "a NIfTI header without its image; convert the .hdr/.img pair to one .nii"
    if sum(byte >= 32 or byte in b"\t\n\r" for byte in head) > 0.98 * len(head) and head.isascii():
        return "starts with text"
    return "unknown file type"


def _decode(data: bytes, file_format: Format) -> StoredImage:
    if file_format == "dicom":
        from monai_deepfixcx.data.reading.dicom_pixels import read_dicom

        return read_dicom(data)[0]
    return {"nifti": read_nifti, "picture": read_picture, "tiff": read_tiff}[file_format](data)


def _radiograph(image: StoredImage, size: int, color: Color, scale: Scale) -> Radiograph:
    if image.warning:
        warnings.warn(image.warning, UserWarning, stacklevel=_first_level_outside())
    if image.ends is not None and only_to_divide(image, color, scale):
        return Radiograph(image.values, image.ends[1], image.affine, size, image.modality, False, "range", image.ends)
    pixels, rule, scaling = scale_image(image, color, scale)
    return Radiograph(pixels, 1, image.affine, size, image.modality, image.inverted, rule, scaling)


def _first_level_outside() -> int:
    """The stack level at which a warning points to the code that called this package."""
    level = 2
    while sys._getframe(level).f_globals.get("__name__", "").startswith("monai_deepfixcx"):
        level += 1
    return level


def _dicom_files(folder: Path) -> list[Path]:
    """The DICOM files of a folder; viewers and export tools leave others beside them."""
    try:
        paths = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name[0] != "."]
    except OSError as error:
        raise _unopened(error) from None
    found = [path for path in paths if path.name != "DICOMDIR" and _format(_head(path), path.suffix) == "dicom"]
    if not found:
        raise UnreadableImage("a folder without DICOM files")
    return found

"""A DICOM file to values: decode, mask, modality LUT, palette, padding, and the window it carries."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_deepfixcx.data.reading.dicom_decoders import DECODERS, decode_frames, keeps_unused_bits
from monai_deepfixcx.data.reading.dicom_geometry import Place, affine_of, read_place
from monai_deepfixcx.data.reading.dicom_header import COLOURS, PIXELS, Header
from monai_deepfixcx.data.reading.dicom_luts import apply_modality_lut, float_for, read_table, read_window
from monai_deepfixcx.data.reading.stored_image import Floats, StoredImage, UnreadableImage

# Projection radiography: digital, computed and film X-ray, fluoroscopy, angiography, mammography, dental.
PROJECTION_X_RAY = frozenset({"CR", "DX", "RG", "RF", "XA", "MG", "IO", "PX", "DR", "SC"})

_NEEDED = ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation")
_SPACING_UNKNOWN = "the DICOM file states no usable pixel spacing; 1 mm is assumed"


def read_dicom(data: bytes, decoders: Sequence[str] = DECODERS) -> tuple[StoredImage, Place]:
    """Decode a DICOM file to values after the modality LUT, and say where they lie.

    Args:
        data: The whole file.
        decoders: The pixel decoders that may be used, in order.

    Returns:
        The image, ``[C, rows, columns]`` or, with several frames, ``[C, rows, columns, frames]``; and its place.

    Raises:
        UnreadableImage: If the file is damaged, has no pixel data or cannot be decoded.
    """
    try:
        with warnings.catch_warnings():
            # pydicom warns of values of the wrong form, trailing bytes, code streams that contradict the header:
            # each is either of no consequence for the pixels or refused below.
            warnings.simplefilter("ignore", UserWarning)
            header = Header(data)
            _check_header(header)
            words, colours = decode_frames(header, decoders)
            return _stored_image(header, words, colours)
    except UnreadableImage:
        raise
    except Exception as error:  # a header that contradicts itself breaks pydicom or us in countless ways
        raise UnreadableImage(f"damaged DICOM file ({type(error).__name__})") from None


def _check_header(header: Header) -> None:
    modality = f" (modality {_modality(header)})" if _modality(header) else ""
    pixels = any(keyword in header for keyword in PIXELS)
    if not pixels and "Rows" in header:
        raise UnreadableImage(f"truncated: the pixel data of this DICOM image{modality} are missing or cut off")
    if not pixels:
        raise UnreadableImage(f"DICOM without pixel data{modality}")
    missing = [keyword for keyword in _NEEDED if header.get(keyword) in (None, "")]
    if missing:
        raise UnreadableImage(f"damaged: the DICOM header lacks {', '.join(missing)}")
    allocated = header.get("BitsAllocated")
    for keyword, value in (("SamplesPerPixel", 1), ("PixelRepresentation", 0), ("BitsStored", allocated)):
        header.set_default(keyword, value)
    if header.get("PlanarConfiguration") is None and header.get("SamplesPerPixel") != 1:
        header.set_default("PlanarConfiguration", 0)
    if not 0 < header.get("BitsStored") <= allocated:
        raise UnreadableImage(f"damaged: {header.get('BitsStored')} bits stored in {allocated} allocated")


def _modality(header: Header) -> str | None:
    """The modality, if it looks like one of DICOM's codes: in a damaged or careless file it may be a name."""
    modality = str(header.get("Modality") or "")
    return modality if re.fullmatch(r"[A-Z]{2,3}|RT[A-Z]{3,6}|BDUS|IVUS|IVOCT", modality) else None


def _stored_image(header: Header, words: NDArray[Any], colours: str) -> tuple[StoredImage, Place]:
    frames = int(header.get("NumberOfFrames") or 1)
    place = read_place(header, frames)
    image = StoredImage(
        values=np.empty(0, np.float32),
        affine=affine_of(place),
        ends=None,
        full_range=True,
        modality=_modality(header),
        warning="" if place.known else _SPACING_UNKNOWN,
    )
    if colours not in ("MONOCHROME1", "MONOCHROME2"):
        return _with_colour(image, header, words, colours, frames), place
    return _with_grey(image, header, words, frames), place


def _with_colour(image: StoredImage, header: Header, words: NDArray[Any], colours: str, frames: int) -> StoredImage:
    bits = header.get("BitsStored")
    if colours == "PALETTE COLOR":
        words, bits = _apply_palette(words, header)
    elif colours != "RGB":
        raise UnreadableImage(f"colour space {colours} is not supported; convert the file to RGB")
    values: Floats = _channel_first(words, frames > 1).astype(float_for(bits))
    return replace(image, values=values, ends=(0.0, float(2**bits - 1)))


def _apply_palette(words: NDArray[Any], header: Header) -> tuple[NDArray[Any], int]:
    """Colour ``[..., 3]`` for palette indices ``[...]``, and its bits."""
    from pydicom.pixels.processing import apply_color_lut

    names = [f"{colour}PaletteColorLookupTable" for colour in COLOURS]
    if any(f"{name}Data" not in header for name in names):  # then it is segmented, a code that pydicom knows
        colours = apply_color_lut(words, header.dataset)[..., :3]
        return colours, 8 * colours.dtype.itemsize
    tables = [read_table(header.get(f"{name}Descriptor"), header.get(f"{name}Data"), header) for name in names]
    return np.stack([table.look_up(words) for table in tables], axis=-1), tables[0].bits


def _with_grey(image: StoredImage, header: Header, words: NDArray[Any], frames: int) -> StoredImage:
    stored = words
    if words.dtype.kind in "iu" and keeps_unused_bits(header.syntax):
        stored = _without_unused_bits(words, header)
    padding = _padding(words, stored, header)
    values, ends = stored, None
    if words.dtype.kind in "iu":
        values, ends = apply_modality_lut(stored, _stored_ends(header), header, frames)
    polarity = (header.get("PhotometricInterpretation"), header.get("PresentationLUTShape"))
    return replace(
        image,
        values=_channel_first(values[..., None], frames > 1),
        ends=ends,
        full_range=words.dtype.kind != "f" and (image.modality in PROJECTION_X_RAY or header.get("BitsStored") <= 8),
        inverted=polarity[0] == "MONOCHROME1" or polarity[1] == "INVERSE",  # a DX states both and means one
        padding=None if padding is None else _channel_first(padding[..., None], frames > 1)[0],
        window=read_window(header, frames),
    )


def _channel_first(array: NDArray[Any], volume: bool) -> NDArray[Any]:
    """``[(frames,) rows, columns, samples]`` to ``[samples, rows, columns(, frames)]``."""
    array = np.moveaxis(array, -1, 0)
    return np.moveaxis(array, 1, -1) if volume else array


def _without_unused_bits(words: NDArray[Any], header: Header) -> NDArray[Any]:
    """Keep the Bits Stored bits that end at High Bit: others may hold overlays or anything (PS3.5, 8.1.1)."""
    allocated, stored = 8 * words.dtype.itemsize, header.get("BitsStored")
    if header.get("BitsAllocated") == 1 or allocated == stored:
        return words
    high = header.get("HighBit")
    # Decoders shift the bits down themselves, and not every header is right.
    if header.syntax.is_encapsulated or high is None or not stored <= high + 1 <= allocated:
        high = stored - 1
    if high == stored - 1 and words.dtype.kind == "u":
        return np.asarray(words & (2**stored - 1))
    return np.asarray(
        (words << (allocated - 1 - high)) >> (allocated - stored)
    )  # on signed words the second shift repeats the sign


def _stored_ends(header: Header) -> tuple[int, int]:
    bits = header.get("BitsStored")
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if header.get("PixelRepresentation") else (0, 2**bits - 1)


def _padding(words: NDArray[Any], stored: NDArray[Any], header: Header) -> NDArray[np.bool_] | None:
    """True where a pixel is Pixel Padding Value, or between it and Pixel Padding Range Limit (PS3.3 C.7.5.1.1.2)."""
    if header.get("PixelPaddingValue") is None or words.dtype.kind not in "iu":
        return None
    limits = [header.get("PixelPaddingValue"), header.get("PixelPaddingRangeLimit")]
    bounds = [int(limit) for limit in limits if limit is not None]
    # The value is a whole word, often one that does not fit into Bits Stored, and often written with the
    # wrong sign: wrap it into the type of the words.
    wrapped = np.array(bounds, dtype=np.int64).astype(words.dtype)
    low, high = wrapped.min(), wrapped.max()
    found = (words >= low) & (words <= high)
    least, most = _stored_ends(header)
    if least <= low and high <= most:  # then an overlay above the stored bits must not hide it
        found |= (stored >= low) & (stored <= high)
    return np.asarray(found)

"""A DICOM file to values: decode, mask, modality LUT, palette, padding, and the window it carries.

Only the elements listed here are read from a file; names, identifiers and private elements never enter memory
as values, so no error message or warning of ours or of pydicom's can show them.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monai_deepfixcx.data.reading.dicom_decoders import DECODERS, decode_frames, keeps_unused_bits
from monai_deepfixcx.data.reading.dicom_geometry import Place, affine_of, read_place
from monai_deepfixcx.data.reading.dicom_luts import apply_modality_lut, float_for, read_table, read_window
from monai_deepfixcx.data.reading.stored_image import Floats, StoredImage, UnreadableImage

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

# Projection radiography: digital, computed and film X-ray, fluoroscopy, angiography, mammography, dental.
PROJECTION_X_RAY = frozenset({"CR", "DX", "RG", "RF", "XA", "MG", "IO", "PX", "DR", "SC"})

_COLOURS = ("Red", "Green", "Blue")
_ELEMENTS = (
    *("Modality", "SeriesInstanceUID", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("PlanarConfiguration", "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "PresentationLUTShape"),
    *(f"{c}PaletteColorLookupTableDescriptor" for c in _COLOURS),
    *(f"{c}PaletteColorLookupTableData" for c in _COLOURS),
    *(f"Segmented{c}PaletteColorLookupTableData" for c in _COLOURS),
    *("PixelSpacing", "ImagerPixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    *("ImagePositionPatient", "ImageOrientationPatient"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
)
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
            header, syntax = _read_header(data)
            words, colours = decode_frames(header, syntax, decoders)
            return _stored_image(header, syntax, words, colours)
    except UnreadableImage:
        raise
    except Exception as error:  # a header that contradicts itself breaks pydicom or us in countless ways
        raise UnreadableImage(f"damaged DICOM file ({type(error).__name__})") from None


def _read_header(data: bytes) -> tuple[Dataset, UID]:
    import pydicom
    from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    header = pydicom.dcmread(io.BytesIO(data), force=True, specific_tags=list(_ELEMENTS))
    _check_header(header)
    implicit, little = header.original_encoding
    guess = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    return header, UID(header.file_meta.get("TransferSyntaxUID") or guess)


def _check_header(header: Dataset) -> None:
    modality = f" (modality {_modality(header)})" if _modality(header) else ""
    pixels = [k for k in ("PixelData", "FloatPixelData", "DoubleFloatPixelData") if k in header]
    if not pixels and "Rows" in header:
        raise UnreadableImage(f"truncated: the pixel data of this DICOM image{modality} are missing or cut off")
    if not pixels:
        raise UnreadableImage(f"DICOM without pixel data{modality}")
    missing = [keyword for keyword in _NEEDED if header.get(keyword) in (None, "")]
    if missing:
        raise UnreadableImage(f"damaged: the DICOM header lacks {', '.join(missing)}")
    for keyword, value in (("SamplesPerPixel", 1), ("PixelRepresentation", 0), ("PlanarConfiguration", 0)):
        if header.get(keyword) is None:
            setattr(header, keyword, value)
    if header.get("BitsStored") is None:
        header.BitsStored = header.BitsAllocated
    if not 0 < header.BitsStored <= header.BitsAllocated:
        raise UnreadableImage(f"damaged: {header.BitsStored} bits stored in {header.BitsAllocated} allocated")


def _modality(header: Dataset) -> str | None:
    """The modality, if it looks like one of DICOM's codes: in a damaged or careless file it may be a name."""
    modality = str(header.get("Modality") or "")
    return modality if re.fullmatch(r"[A-Z]{2,3}|RT[A-Z]{3,6}|BDUS|IVUS|IVOCT", modality) else None


def _stored_image(header: Dataset, syntax: UID, words: NDArray[Any], colours: str) -> tuple[StoredImage, Place]:
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
    return _with_grey(image, header, syntax, words, frames), place


def _with_colour(image: StoredImage, header: Dataset, words: NDArray[Any], colours: str, frames: int) -> StoredImage:
    bits = header.BitsStored
    if colours == "PALETTE COLOR":
        words, bits = _apply_palette(words, header)
    elif colours != "RGB":
        raise UnreadableImage(f"colour space {colours} is not supported; convert the file to RGB")
    values: Floats = _channel_first(words, frames > 1).astype(float_for(bits))
    return replace(image, values=values, ends=(0.0, float(2**bits - 1)))


def _apply_palette(words: NDArray[Any], header: Dataset) -> tuple[NDArray[Any], int]:
    """Colour ``[..., 3]`` for palette indices ``[...]``, and its bits."""
    from pydicom.pixels.processing import apply_color_lut

    names = [f"{colour}PaletteColorLookupTable" for colour in _COLOURS]
    if any(f"{name}Data" not in header for name in names):  # then it is segmented, a code that pydicom knows
        colours = apply_color_lut(words, header)[..., :3]
        return colours, 8 * colours.dtype.itemsize
    tables = [read_table(header[f"{name}Descriptor"].value, header[f"{name}Data"].value, header) for name in names]
    return np.stack([table.look_up(words) for table in tables], axis=-1), tables[0].bits


def _with_grey(image: StoredImage, header: Dataset, syntax: UID, words: NDArray[Any], frames: int) -> StoredImage:
    stored = words
    if words.dtype.kind in "iu" and keeps_unused_bits(syntax):
        stored = _without_unused_bits(words, header, shifted=not syntax.is_encapsulated)
    padding = _padding(words, stored, header)
    values, ends = stored, None
    if words.dtype.kind in "iu":
        values, ends = apply_modality_lut(stored, _stored_ends(header), header, frames)
    polarity = (header.PhotometricInterpretation, header.get("PresentationLUTShape"))
    return replace(
        image,
        values=_channel_first(values[..., None], frames > 1),
        ends=ends,
        full_range=words.dtype.kind != "f" and (image.modality in PROJECTION_X_RAY or header.BitsStored <= 8),
        inverted=polarity[0] == "MONOCHROME1" or polarity[1] == "INVERSE",  # a DX states both and means one
        padding=None if padding is None else _channel_first(padding[..., None], frames > 1)[0],
        window=read_window(header, frames),
    )


def _channel_first(array: NDArray[Any], volume: bool) -> NDArray[Any]:
    """``[(frames,) rows, columns, samples]`` to ``[samples, rows, columns(, frames)]``."""
    array = np.moveaxis(array, -1, 0)
    return np.moveaxis(array, 1, -1) if volume else array


def _without_unused_bits(words: NDArray[Any], header: Dataset, *, shifted: bool) -> NDArray[Any]:
    """Keep the Bits Stored bits that end at High Bit: others may hold overlays or anything (PS3.5, 8.1.1)."""
    allocated, stored = 8 * words.dtype.itemsize, header.BitsStored
    if header.BitsAllocated == 1 or allocated == stored:
        return words
    high = header.get("HighBit")
    if not shifted or high is None or not stored <= high + 1 <= allocated:  # not every header is right
        high = stored - 1
    return np.asarray(
        (words << (allocated - 1 - high)) >> (allocated - stored)
    )  # on signed words the second shift repeats the sign


def _stored_ends(header: Dataset) -> tuple[int, int]:
    bits = header.BitsStored
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if header.PixelRepresentation else (0, 2**bits - 1)


def _padding(words: NDArray[Any], stored: NDArray[Any], header: Dataset) -> NDArray[np.bool_] | None:
    """True where a pixel is Pixel Padding Value, or between it and Pixel Padding Range Limit (PS3.3 C.7.5.1.1.2)."""
    if header.get("PixelPaddingValue") is None or words.dtype.kind not in "iu":
        return None
    limits = [header.PixelPaddingValue, header.get("PixelPaddingRangeLimit")]
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

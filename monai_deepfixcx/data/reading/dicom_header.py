"""The header of a DICOM file: only what reading needs of it, each element converted at most once.

Names, identifiers and private elements never enter memory as values, so no error message or warning of ours or of
pydicom's can show them.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cached_property
from typing import Any, TypeAlias

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import data_element_generator, read_partial
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pydicom.values import convert_value

COLOURS = ("Red", "Green", "Blue")
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

_ELEMENTS = (
    *("SpecificCharacterSet", "Modality", "SeriesInstanceUID"),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "PresentationLUTShape"),
    *(f"{c}PaletteColorLookupTableDescriptor" for c in COLOURS),
    *(f"{c}PaletteColorLookupTableData" for c in COLOURS),
    *(f"Segmented{c}PaletteColorLookupTableData" for c in COLOURS),
    *("PixelSpacing", "ImagerPixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    *("ImagePositionPatient", "ImageOrientationPatient"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *(*PIXELS, "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
)
_TAGS = {keyword: int(Tag(keyword)) for keyword in _ELEMENTS}
_WANTED = list(_TAGS.values())
_VRS = {tag: dictionary_VR(tag) for tag in _WANTED}
_PLAIN_VRS = frozenset({"CS", "DS", "IS", "SS", "UI", "US"})  # converted without a look at any other element
_LONG = 2**16  # longer values stay in the file
_UNDEFINED = 2**32 - 1

_Element: TypeAlias = RawDataElement | DataElement
_Elements: TypeAlias = Mapping[int, _Element]


class Header:
    """The elements of a DICOM file that reading needs.

    The commonest files (file meta information, uncompressed little endian, no sequence that matters here) are read
    by pydicom's generator of raw elements alone. All others go through its whole reader, which also understands
    what is not quite right; both ways end in the same values.

    Args:
        data: The whole file.

    Raises:
        Exception: Of many types, from pydicom, if the file is damaged; `get` may raise, too.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._values: dict[str, Any] = {}
        self._elements: _Elements
        self._syntax: UID | None
        self._elements, self._syntax = _plain_elements(data) or (dict(self.dataset.items()), None)
        if self._syntax is not None and "PixelData" in self:
            pixels: Any = self._elements[_TAGS["PixelData"]]
            self._values["PixelData"] = memoryview(data)[pixels.value_tell :][: pixels.length]

    @cached_property
    def syntax(self) -> UID:
        """How the pixel data are coded: as the file says or, if it does not, as it looks."""
        if self._syntax is not None:
            return self._syntax
        implicit, little = self.dataset.original_encoding
        guess = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        return UID(self.dataset.file_meta.get("TransferSyntaxUID") or guess)

    @cached_property
    def little_endian(self) -> bool:
        """Whether numbers start with their lowest byte, in the header and in native pixel data."""
        return self._syntax is not None or self.dataset.original_encoding[1] is not False

    @cached_property
    def dataset(self) -> Dataset:
        """The same elements in pydicom's own form, for what only it can do."""
        return read_partial(io.BytesIO(self._data), force=True, specific_tags=_WANTED)

    def __contains__(self, keyword: str) -> bool:
        return _TAGS[keyword] in self._elements

    def get(self, keyword: str) -> Any:
        """The value of an element; None if the file does not have it, or has it without a value."""
        if keyword not in self._values:
            self._values[keyword] = self._convert(keyword) if keyword in self else None
        return self._values[keyword]

    def set_default(self, keyword: str, value: Any) -> None:
        """Give an element a value if it has none."""
        if self.get(keyword) is None:
            setattr(self.dataset, keyword, value)
            self._values[keyword] = value

    def _convert(self, keyword: str) -> Any:
        tag = _TAGS[keyword]
        element = self._elements[tag]
        vr = element.VR or _VRS[tag]
        if vr in _PLAIN_VRS and isinstance(element, RawDataElement):
            return convert_value(vr, element)
        return self.dataset.get(keyword)


def _plain_elements(data: bytes) -> tuple[_Elements, UID] | None:
    """The raw elements and transfer syntax of a file that leaves nothing to guess; None for any other file."""
    if data[128:140] != b"DICM\2\0\0\0UL\4\0":  # file meta information starts with its length
        return None
    stream = io.BytesIO(data)
    stream.seek(132)
    try:
        meta = {e.tag: e for e in data_element_generator(stream, False, True, lambda tag, *_: tag >> 16 != 2)}
        syntax = _native_syntax(meta)
        if syntax is None or _starts_implicit(data[stream.tell() : stream.tell() + 6]) is not syntax.is_implicit_VR:
            return None
        elements: dict[int, _Element] = {}
        for element in data_element_generator(stream, syntax.is_implicit_VR, True, None, _LONG, specific_tags=_WANTED):
            if not _is_plain(element):
                return None
            elements[element.tag] = element
    except (EOFError, NotImplementedError):  # after these, pydicom's reader goes on
        return None
    return elements, syntax


def _native_syntax(meta: Mapping[Any, Any]) -> UID | None:
    """Explicit or Implicit VR Little Endian, if the file meta information is sound and says so."""
    length, stated = meta[0x0002_0000], meta.get(0x0002_0010)
    if length.VR != "UL" or len(length.value) != 4 or stated is None or stated.VR != "UI":
        return None
    value = (stated.value or b"").rstrip(b"\0 ")
    return next((uid for uid in (ExplicitVRLittleEndian, ImplicitVRLittleEndian) if uid.encode() == value), None)


def _starts_implicit(element: bytes) -> bool:
    """Whether the first element of a data set has no VR: two capitals after the tag."""
    vr = element[4:6]
    return not (vr.isalpha() and vr.isupper())


def _is_plain(element: _Element) -> bool:
    """Whether the value of an element can be had without pydicom's reader; no sequence can."""
    if not isinstance(element, RawDataElement):
        return False
    vr = element.VR or _VRS[element.tag]
    if vr in _PLAIN_VRS:
        return element.value is not None or element.length == 0
    return vr in ("OB", "OW", "OB or OW") and element.tag == _TAGS["PixelData"] and element.length != _UNDEFINED

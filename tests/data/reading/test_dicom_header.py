"""The short way through a DICOM file says what pydicom's whole reader and decoder say, or leaves the file to them."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from monai_deepfixcx.data.phantom import PhantomRadiographs
from monai_deepfixcx.data.reading import UnreadableImage, dicom_decoders, dicom_header
from monai_deepfixcx.data.reading.dicom_header import Header
from monai_deepfixcx.data.reading.dicom_pixels import read_dicom
from tests.data.reading.dicom_files import CAT, dicom_bytes, item, lut_item, make_dicom, random_words, real

NATIVE = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


@contextmanager
def the_long_way() -> Iterator[None]:
    """Everything through pydicom's reader and decoders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dicom_header, "_plain_elements", lambda _: None)
        patch.setattr(dicom_decoders, "_plain_words", lambda _: None)
        yield


@contextmanager
def only_the_short_way() -> Iterator[None]:
    """Without pydicom's reader and decoders."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("left to pydicom")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dicom_header, "read_partial", refuse)
        patch.setattr(dicom_decoders, "_decode", refuse)
        yield


def outcome(data: bytes) -> Any:
    """All that reading says, or what it is refused for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image, place = read_dicom(data)
        except UnreadableImage as error:
            return str(error)
        windowed = None if image.window is None else (image.window.ends, image.window.apply(image.values).tobytes())
    facts = (image.ends, image.full_range, image.inverted, image.modality, image.warning, windowed, place.series)
    arrays = (image.values, image.affine, np.zeros(0) if image.padding is None else image.padding)
    return (*facts, *((a.dtype, a.shape, np.ascontiguousarray(a).tobytes()) for a in arrays))


def assert_both_ways_agree(data: bytes) -> None:
    with the_long_way():
        expected = outcome(data)
    assert outcome(data) == expected


def coded(dataset: pydicom.Dataset, stored: Any, syntax: UID) -> bytes:
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = stored.astype(stored.dtype.newbyteorder(">")).tobytes()
    return dicom_bytes(dataset)


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_both_ways_read_the_same(data: st.DataObject) -> None:
    draw = data.draw
    dtype = np.dtype(draw(st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4"])))
    allocated = 8 * dtype.itemsize
    bits = draw(st.integers(max(allocated // 2, 2), allocated))
    frames = draw(st.sampled_from([(), (1,), (3,)]))
    stored = random_words(draw(st.integers(0, 99)), (*frames, 5, draw(st.integers(1, 7))), dtype)
    elements: dict[str, Any] = {"BitsStored": bits}
    optional = {
        "HighBit": st.integers(bits - 1, allocated),
        "PhotometricInterpretation": st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
        "RescaleSlope": st.sampled_from([1, 2.5, -1, 0, 1e-3, ""]),
        "RescaleIntercept": st.sampled_from([0, -1024, 0.25, ""]),
        "PixelPaddingValue": st.integers(0, 2 ** (bits - 1) - 1).map(lambda value: min(value, 2**15 - 1)),
        "WindowCenter": st.sampled_from([40, [40, 7], ""]),
        "WindowWidth": st.sampled_from([100, 0]),
        "PixelSpacing": st.sampled_from([[0.1, 0.2], [0, 0], None]),
        "ImagerPixelSpacing": st.just([0.3, 0.4]),
        "PresentationLUTShape": st.sampled_from(["IDENTITY", "INVERSE"]),
        "Modality": st.sampled_from(["CT", "DX", ""]),
        "ImagePositionPatient": st.just([1, 2, 3]),
        "ImageOrientationPatient": st.just([1, 0, 0, 0, 1, 0]),
        "VOILUTSequence": st.just([lut_item(0, np.arange(9, dtype=np.uint16), 8)]),
        "SharedFunctionalGroupsSequence": st.just([item(PixelMeasuresSequence=[item(PixelSpacing=[5, 6])])]),
    }
    for keyword in draw(st.sets(st.sampled_from(sorted(optional)), max_size=6)):
        elements[keyword] = draw(optional[keyword])
    assert_both_ways_agree(coded(make_dicom(stored, **elements), stored, draw(st.sampled_from(NATIVE))))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32])
@pytest.mark.parametrize("syntax", NATIVE[:2])
@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7)])
def test_a_plain_file_needs_only_the_short_way(dtype: Any, syntax: UID, shape: tuple[int, ...]) -> None:
    stored = random_words(0, shape, dtype)  # of bytes, an odd number, and so padded by one
    data = coded(make_dicom(stored, RescaleSlope=2, WindowCenter=3, WindowWidth=4), stored, syntax)
    with only_the_short_way():
        image, _ = read_dicom(data)
    np.testing.assert_array_equal(
        image.values[0], 2.0 * np.moveaxis(stored, 0, -1) if len(shape) == 3 else 2.0 * stored
    )


def test_a_phantom_and_a_real_radiograph_need_only_the_short_way(tmp_path: Path) -> None:
    paths = [*PhantomRadiographs(patients=4, visits_per_patient=1, size=64, seed=0).write_dicom(tmp_path), CAT]
    with only_the_short_way():
        images = [read_dicom(path.read_bytes())[0] for path in paths]
    assert {image.inverted for image in images} == {True, False}
    for path, image in zip(paths, images, strict=True):
        np.testing.assert_array_equal(image.values[0], pydicom.dcmread(path).pixel_array)


@pytest.mark.parametrize("size", [2**15, 2**15 + 1])
def test_the_pixels_are_the_same_whether_they_are_short_or_long(size: int) -> None:
    stored = random_words(0, (2, size), np.uint8)
    with only_the_short_way():
        np.testing.assert_array_equal(read_dicom(dicom_bytes(make_dicom(stored)))[0].values[0], stored)


@pytest.mark.parametrize(
    "name",
    [
        *("CT_small.dcm", "MR_small.dcm", "MR_truncated.dcm", "emri_small.dcm", "rtdose.dcm", "rtdose_1frame.dcm"),
        *("MR_small_bigendian.dcm", "MR_small_expb.dcm", "MR_small_implicit.dcm", "MR_small_padded.dcm"),
        *("ExplVR_BigEnd.dcm", "image_dfl.dcm", "color-pl.dcm", "SC_rgb_small_odd.dcm", "liver.dcm", "mlut_18.dcm"),
        *("vlut_04.dcm", "693_UNCI.dcm", "eCT_Supplemental.dcm", "nested_priv_SQ.dcm", "priv_SQ.dcm", "badVR.dcm"),
        *("no_meta.dcm", "no_meta_group_length.dcm", "empty_charset_LEI.dcm", "meta_missing_tsyntax.dcm"),
        *("explicit_VR-UN.dcm", "UN_sequence.dcm", "reportsi.dcm", "OT-PAL-8-face.dcm"),
    ],
)
def test_both_ways_read_real_files_the_same(name: str) -> None:
    assert_both_ways_agree(real(name).read_bytes())


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_both_ways_refuse_the_same_wherever_a_file_is_cut_off(dtype: Any, syntax: UID) -> None:
    stored = random_words(0, (3, 5), dtype)
    data = coded(make_dicom(stored, RescaleSlope=1, WindowCenter=9, WindowWidth=9), stored, syntax)
    whole = len(data) - (syntax != DeflatedExplicitVRLittleEndian and stored.nbytes % 2)  # less a byte of padding
    for cut in range(128, len(data)):
        assert_both_ways_agree(data[:cut])
        assert isinstance(outcome(data[:cut]), str) == (cut < whole)


@given(seed=st.integers(0, 2**32), syntax=st.sampled_from(NATIVE[:2]))
@settings(max_examples=300, deadline=None)
def test_both_ways_say_the_same_of_a_damaged_header(seed: int, syntax: UID) -> None:
    rng = np.random.default_rng(seed)
    stored = random_words(seed, (3, 5), np.uint16)
    data = bytearray(coded(make_dicom(stored, BitsStored=12, WindowCenter=5, WindowWidth=3), stored, syntax))
    for at in rng.integers(128, len(data), rng.integers(1, 6)):
        data[at] = rng.integers(256)
    assert_both_ways_agree(bytes(data))


@pytest.mark.parametrize(
    "change",
    [
        (b"\2\0\0\0UL\4\0", b"\2\0\0\0OB\4\0"),  # no length of the file meta information
        (b"\2\0\x10\0UI", b"\2\0\x10\0LO"),
        (b"\2\0\x10\0UI", b"\2\0\x10\0FD"),
        (b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1."),
        (b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0"),  # says implicit, is explicit
        (b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0"),  # says big-endian
        (b"\x08\0\x16\0UI", b"\x08\0\x16\0ui"),
        (b"\x28\0\x10\0US", b"\x28\0\x10\0SL"),
        (b"\x28\0\x10\0US", b"\x28\0\x10\0??"),
        (b"\x28\0\x10\0US\2\0", b"\x28\0\x10\0US\3\0"),
        (b"\xe0\x7f\x10\0OW", b"\xe0\x7f\x10\0UN"),
        (b"\xe0\x7f\x10\0OW\0\0\x1e\0\0\0", b"\xe0\x7f\x10\0OW\0\0\xff\xff\xff\xff"),
        (b"\xe0\x7f\x10\0OW\0\0\x1e\0\0\0", b"\xe0\x7f\x10\0OW\0\0\xff\xff\xff\x7f"),
    ],
)
def test_what_is_not_quite_right_is_left_to_pydicom(change: tuple[bytes, bytes]) -> None:
    data = dicom_bytes(make_dicom(random_words(0, (3, 5), np.uint16)))
    assert change[0] in data
    assert_both_ways_agree(data.replace(*change))


@pytest.mark.parametrize("there", [30, 26])
def test_pixels_end_where_their_element_ends(there: int) -> None:
    data = dicom_bytes(make_dicom(random_words(0, (3, 5), np.uint16)))
    head, pixels = data[:-42], data[-30:][:there]
    padding = b"\xfc\xff\xfc\xffOB\0\0\x08\0\0\0" + bytes(8)  # Data Set Trailing Padding
    known = head + b"\xe0\x7f\x10\0OW\0\0" + there.to_bytes(4, "little") + pixels + padding
    unknown = head + b"\xe0\x7f\x10\0OW\0\0\xff\xff\xff\xff" + pixels + b"\xfe\xff\xdd\xe0\0\0\0\0" + padding
    for whole in (known, unknown):
        assert_both_ways_agree(whole)
        assert (outcome(whole) == "truncated: 26 of 30 pixel bytes are there") == (there == 26)


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize(
    "elements",
    [
        {"Rows": 0},
        {"Columns": 0},
        {"NumberOfFrames": 0},
        {"NumberOfFrames": -1},
        {"NumberOfFrames": [1, 1]},
        {"Rows": [3, 5]},
        {"SamplesPerPixel": 2},
        {"SamplesPerPixel": 3, "Rows": 1},
        {"SamplesPerPixel": 3, "Rows": 1, "PhotometricInterpretation": "RGB"},
        {"PhotometricInterpretation": "RGB"},
        {"PhotometricInterpretation": "MONOCHROME3"},
        {"PixelRepresentation": 2},
        {"BitsAllocated": 12, "BitsStored": 12},
        {"BitsAllocated": 1, "BitsStored": 1},
        {"BitsAllocated": 64, "BitsStored": 12, "Rows": 1, "Columns": 3},
        {"BitsStored": 0, "HighBit": 11},
        {"PlanarConfiguration": 1},
    ],
)
def test_both_ways_say_the_same_of_unusual_elements(elements: dict[str, Any], syntax: UID) -> None:
    stored = random_words(0, (3, 5), np.uint16)
    assert_both_ways_agree(coded(make_dicom(stored, **elements), stored, syntax))


@pytest.mark.parametrize("vr", ["OB", "OW"])
def test_bytes_of_big_endian_words_are_swapped(vr: str) -> None:
    stored = random_words(0, (3, 5), np.uint8)
    dataset = make_dicom(stored)
    dataset["PixelData"].VR = vr
    words = [pair[:: -1 if vr == "OW" else 1] for pair in np.append(stored.ravel(), 0).reshape(-1, 2).tolist()]
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset.PixelData = bytes(byte for pair in words for byte in pair)
    data = dicom_bytes(dataset)
    assert_both_ways_agree(data)
    np.testing.assert_array_equal(read_dicom(data)[0].values[0], stored)


def test_a_command_set_before_the_data_set_is_left_to_pydicom() -> None:
    data = dicom_bytes(make_dicom(random_words(0, (3, 5), np.uint16)))
    start = data.index(b"\x08\0\x16\0UI")
    assert_both_ways_agree(data[:start] + b"\0\0\2\0\4\0\0\0" + b"1.2\0" + data[start:])


@pytest.mark.parametrize("syntax", NATIVE)
def test_values_are_pydicoms_and_absent_or_empty_ones_are_none(syntax: UID) -> None:
    stored = random_words(0, (3, 5), np.int16)
    elements: dict[str, Any] = {"PixelSpacing": [0.25, 0.5], "PixelPaddingValue": -7, "RescaleSlope": None}
    data = coded(make_dicom(stored, **elements), stored, syntax)
    header, dataset = Header(data), pydicom.dcmread(io.BytesIO(data))
    for keyword in ("Rows", "PixelSpacing", "PixelPaddingValue", "Modality", "SeriesInstanceUID", "PixelData"):
        assert header.get(keyword) == dataset[keyword].value
        assert keyword in header
    assert (header.get("RescaleSlope"), "RescaleSlope" in header) == (None, True)
    assert (header.get("WindowCenter"), "WindowCenter" in header) == (None, False)


def test_a_default_fills_only_what_is_missing_for_pydicom_too() -> None:
    header = Header(dicom_bytes(make_dicom(random_words(0, (3, 5), np.uint8))))
    header.set_default("Rows", 99)
    header.set_default("PlanarConfiguration", 1)
    assert (header.get("Rows"), header.get("PlanarConfiguration")) == (3, 1)
    assert (header.dataset.Rows, header.dataset.PlanarConfiguration) == (3, 1)


def test_syntax_and_byte_order_are_told() -> None:
    stored = random_words(0, (3, 5), np.uint16)
    headers = [Header(coded(make_dicom(stored), stored, syntax)) for syntax in NATIVE]
    assert [header.syntax for header in headers] == NATIVE
    assert [header.little_endian for header in headers] == [True, True, False, True]

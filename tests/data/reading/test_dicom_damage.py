"""Headers that lie, lack something or are cut off; nothing of a patient may come out of them."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_deepfixcx.data.reading import UnreadableImage, read_image
from monai_deepfixcx.data.reading.dicom_pixels import read_dicom
from tests.data.reading.dicom_files import SECRET, dicom_bytes, item, make_dicom, random_words, real, write_dicom


@pytest.mark.parametrize("name", ["reportsi.dcm", "test-SR.dcm"])
def test_a_report_is_no_image(name: str) -> None:
    with pytest.raises(UnreadableImage, match=r"^DICOM without pixel data \(modality SR\)$"):
        read_image(real(name))


def test_a_header_without_its_pixels_is_truncated(tmp_path: Path) -> None:
    dataset = make_dicom(np.zeros((3, 4), np.uint8))
    del dataset.PixelData
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(UnreadableImage, match=r"truncated: the pixel data .* \(modality CR\) are missing"):
        read_image(tmp_path / "a.dcm")


def test_native_pixel_data_are_counted() -> None:
    with pytest.raises(UnreadableImage, match=r"^truncated: 8,130 of 8,192 pixel bytes are there$"):
        read_image(real("MR_truncated.dcm"))
    data = real("RG1_UNCR.dcm").read_bytes()[: 1955 * 1000]
    with pytest.raises(UnreadableImage, match=r"^truncated: 1,9\d\d,\d\d\d of 7,198,310 pixel bytes are there$"):
        read_dicom(data)


def test_pixel_data_longer_than_needed_do_no_harm(read: Any) -> None:
    stored = random_words(0, (4, 4), np.uint8)
    np.testing.assert_array_equal(read(stored, Rows=3).pixels, read(stored[:3]).pixels)


def test_a_name_in_the_wrong_element_is_not_repeated(tmp_path: Path) -> None:
    colour = random_words(0, (3, 4, 3), np.uint8)
    with pytest.raises(UnreadableImage, match=r"^damaged DICOM file \(ValueError\)$"):
        read_image(write_dicom(tmp_path / "a", colour, PhotometricInterpretation=SECRET))
    assert read_image(write_dicom(tmp_path / "a", colour, Modality=SECRET)).modality is None
    data = dicom_bytes(make_dicom(colour)).replace(
        b"1.2.840.10008.1.2.1\0", b"1.2.840." + (SECRET * 2).encode() + b"  "
    )
    with pytest.raises(UnreadableImage, match=r"^no decoder for a transfer syntax that is no UID; no Python package"):
        read_dicom(data)


@pytest.mark.parametrize("keyword", ["Columns", "BitsAllocated", "PhotometricInterpretation"])
def test_a_header_without_a_needed_element_is_damaged(tmp_path: Path, keyword: str) -> None:
    dataset = make_dicom(np.zeros((3, 4), np.uint8))
    delattr(dataset, keyword)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(UnreadableImage, match=f"damaged: the DICOM header lacks {keyword}"):
        read_image(tmp_path / "a.dcm")


def test_elements_that_have_an_obvious_default_may_be_missing(tmp_path: Path) -> None:
    stored = random_words(0, (3, 4), np.uint16)
    dataset = make_dicom(stored)
    for keyword in ("SamplesPerPixel", "PixelRepresentation", "BitsStored", "HighBit", "Modality"):
        delattr(dataset, keyword)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    image = read_image(tmp_path / "a.dcm", scale="none")
    assert image.modality is None
    np.testing.assert_array_equal(image.pixels[0], stored)


def test_more_bits_stored_than_allocated_are_damage(read: Any) -> None:
    with pytest.raises(UnreadableImage, match="damaged: 17 bits stored in 16 allocated"):
        read(np.zeros((3, 4), np.uint16), BitsStored=17)


def test_what_breaks_pydicom_is_reported_by_type_alone() -> None:
    with pytest.raises(UnreadableImage, match=r"^damaged DICOM file \(ValueError\)$"):
        read_image(real("badVR.dcm"))


@pytest.mark.parametrize("modality", ["CR", "ECG", "RTDOSE", "RTIMAGE", "IVUS"])
def test_a_modality_is_kept(read: Any, modality: str) -> None:
    assert read(np.zeros((3, 4), np.uint8), Modality=modality).modality == modality


def test_a_file_without_transfer_syntax_is_read_as_it_looks() -> None:
    with pytest.warns(UserWarning, match="spacing"):
        assert read_image(real("OT-PAL-8-face.dcm"), color="keep").pixels.shape == (3, 480, 640)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_file_cut_off_anywhere_is_whole_or_refused(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["MR_small.dcm", "MR_small_RLE.dcm", "SC_rgb_jpeg_gdcm.dcm", "image_dfl.dcm"]))
    whole = real(name).read_bytes()
    cut = data.draw(st.integers(132, len(whole) - 1))
    try:
        image, _ = read_dicom(whole[:cut])
    except UnreadableImage:
        return
    np.testing.assert_array_equal(image.values, read_dicom(whole)[0].values)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_a_damaged_header_is_read_or_refused_and_names_nobody(seed: int) -> None:
    rng = np.random.default_rng(seed)
    stored = random_words(seed, (6, 5), np.uint16)
    groups = [item(PixelMeasuresSequence=[item(PixelSpacing=[1, 2])])]
    data = bytearray(
        dicom_bytes(make_dicom(stored, WindowCenter=5, WindowWidth=3, SharedFunctionalGroupsSequence=groups))
    )
    for at in rng.integers(132, len(data), rng.integers(1, 6)):
        data[at] = rng.integers(256)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            image, _ = read_dicom(bytes(data))
            said = repr(image)
        except UnreadableImage as error:
            said = str(error)
    assert SECRET not in said + "".join(str(warning.message) for warning in caught)

"""The modality LUT and the windows, against the Standard's formulas and against pydicom where pydicom is right."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.pixels.processing import apply_modality_lut, apply_voi, apply_windowing

from monai_deepfixcx.data.reading import UnreadableImage, read_image
from monai_deepfixcx.data.reading.dicom_luts import linear, linear_exact, sigmoid
from monai_deepfixcx.data.reading.dicom_pixels import read_dicom
from tests.data.reading.dicom_files import dicom_bytes, item, lut_item, make_dicom, random_words, real, write_dicom

# Modality LUT


@given(slope=st.floats(-8, 8).filter(lambda s: abs(s) > 1e-3), intercept=st.floats(-2000, 2000))
@settings(deadline=None)
def test_slope_and_intercept_move_values_and_range_together(slope: float, intercept: float) -> None:
    slope, intercept = round(slope, 4), round(intercept, 3)
    stored = np.array([[0, 1000, 4095]], np.uint16)
    dataset = make_dicom(stored, BitsStored=12, RescaleSlope=slope, RescaleIntercept=intercept)
    image, _ = read_dicom(dicom_bytes(dataset))
    np.testing.assert_allclose(image.values[0], stored * slope + intercept, rtol=1e-5, atol=1e-2)
    assert image.ends == pytest.approx(tuple(sorted((intercept, 4095 * slope + intercept))))


def test_a_negative_slope_swaps_the_ends_of_the_range(tmp_path: Path) -> None:
    stored = np.array([[0, 4095]], np.uint16)
    path = write_dicom(tmp_path / "a", stored, BitsStored=12, RescaleSlope=-2, RescaleIntercept=100)
    image = read_image(path, scale="range")
    assert image.scaling == (100.0 - 2 * 4095, 100.0)
    np.testing.assert_allclose(image.pixels, [[[1, 0]]])


def test_a_slope_of_zero_is_no_slope(tmp_path: Path) -> None:
    stored = random_words(0, (2, 3), np.uint8)
    path = write_dicom(tmp_path / "a", stored, RescaleSlope=0, RescaleIntercept=0)
    np.testing.assert_array_equal(read_image(path, scale="none").pixels[0], stored)


@pytest.mark.parametrize(("first", "dtype"), [(0, np.uint16), (100, np.uint16), (-500, np.int16)])
def test_a_modality_table_is_looked_up_and_its_reach_is_the_range(tmp_path: Path, first: int, dtype: Any) -> None:
    entries = np.sort(random_words(4, (300,), np.uint16, 50, 4000))[::-1]  # falling: it inverts
    low, high = (-2048, 2047) if np.dtype(dtype).kind == "i" else (0, 4095)
    stored = random_words(5, (20, 30), dtype, low, high)
    path = write_dicom(tmp_path / "a", stored, BitsStored=12, ModalityLUTSequence=[lut_item(first, entries, 12)])
    image = read_image(path, scale="none")
    expected = [[entries[min(max(int(v) - first, 0), 299)] for v in row] for row in stored]
    np.testing.assert_array_equal(image.pixels[0], expected)
    assert read_image(path, scale="range").scaling == (entries[-1], entries[0])


def test_the_range_is_what_the_stored_bits_can_reach_in_a_longer_table(tmp_path: Path) -> None:
    entries = np.arange(1000, 2000, dtype=np.uint16)
    path = write_dicom(
        tmp_path / "a", np.zeros((2, 2), np.uint8), BitsStored=6, ModalityLUTSequence=[lut_item(0, entries, 16)]
    )
    assert read_image(path, scale="range").scaling == (1000, 1063)


def test_the_real_modality_table_agrees_with_pydicom() -> None:
    dataset = pydicom.dcmread(real("mlut_18.dcm"))
    image, _ = read_dicom(real("mlut_18.dcm").read_bytes())
    np.testing.assert_array_equal(image.values[0], apply_modality_lut(dataset.pixel_array, dataset))


def test_a_modality_table_counts_before_inversion(tmp_path: Path) -> None:
    entries = np.array([0, 10, 20, 100], np.uint16)
    path = write_dicom(
        tmp_path / "a",
        np.array([[0, 1, 2, 3]], np.uint8),
        BitsStored=2,
        ModalityLUTSequence=[lut_item(0, entries, 16)],
        PhotometricInterpretation="MONOCHROME1",
    )
    np.testing.assert_allclose(read_image(path).pixels, [[[1, 0.9, 0.8, 0]]], atol=1e-7)
    np.testing.assert_allclose(read_image(path, scale="none").pixels, [[[100, 90, 80, 0]]])


def test_a_table_of_bytes_is_unpacked(tmp_path: Path) -> None:
    lut = item()
    lut.add_new("LUTDescriptor", "US", [4, 0, 8])
    lut.add_new("LUTData", "OW", bytes([9, 8, 7, 6]))
    path = write_dicom(tmp_path / "a", np.array([[0, 1, 2, 3]], np.uint8), ModalityLUTSequence=[lut])
    np.testing.assert_array_equal(read_image(path, scale="none").pixels, [[[9, 8, 7, 6]]])


def test_a_table_with_too_few_entries_is_damage(tmp_path: Path) -> None:
    lut = lut_item(0, np.arange(10, dtype=np.uint16), 16)
    lut.LUTDescriptor = [50, 0, 16]
    path = write_dicom(tmp_path / "a", np.zeros((2, 2), np.uint8), ModalityLUTSequence=[lut])
    with pytest.raises(UnreadableImage, match="damaged: a look-up table promises 50 entries and has 10"):
        read_image(path)


def test_every_frame_has_its_own_slope(tmp_path: Path) -> None:
    frames = [
        item(PixelValueTransformationSequence=[item(RescaleSlope=s, RescaleIntercept=i, RescaleType="US")])
        for s, i in ((1, 0), (2, -5), (-1, 7))
    ]
    stored = random_words(0, (3, 4, 5), np.uint8)
    path = write_dicom(tmp_path / "a", stored, PerFrameFunctionalGroupsSequence=frames)
    expected = stored * np.array([1, 2, -1])[:, None, None] + np.array([0, -5, 7])[:, None, None]
    np.testing.assert_array_equal(read_image(path, scale="none").pixels[0], np.moveaxis(expected, 0, -1))
    assert read_image(path, scale="range").scaling == (-248, 505)


def test_the_shared_slope_of_the_real_enhanced_ct_is_found() -> None:
    image, _ = read_dicom(real("eCT_Supplemental.dcm").read_bytes())
    stored = pydicom.dcmread(real("eCT_Supplemental.dcm")).pixel_array
    np.testing.assert_array_equal(image.values[0], np.moveaxis(stored.astype(np.float32) - 1024, 0, -1))


# Windows


@given(center=st.floats(-1000, 1000), width=st.floats(1, 2000), seed=st.integers(0, 2**32))
@settings(deadline=None)
def test_the_windows_are_the_standards(center: float, width: float, seed: int) -> None:
    x = np.random.default_rng(seed).uniform(-1500, 1500, 40)
    header = item(WindowCenter=center, WindowWidth=width, PhotometricInterpretation="MONOCHROME2", BitsStored=12)
    header.PixelRepresentation = 0
    for name, ours in (("LINEAR", linear), ("LINEAR_EXACT", linear_exact), ("SIGMOID", sigmoid)):
        if name == "LINEAR" and width == 1:
            continue  # pydicom divides by 0
        header.VOILUTFunction = name
        with np.errstate(over="ignore"):
            theirs = apply_windowing(x, header)
        np.testing.assert_allclose(ours(x, center, width), theirs / 4095, atol=1e-9)


def test_a_linear_window_of_width_one_is_a_threshold() -> None:
    np.testing.assert_array_equal(linear(np.array([9.4, 9.5, 9.6]), 10, 1), [0, 0, 1])


def test_the_sigmoid_of_values_far_outside_is_quiet() -> None:
    np.testing.assert_array_equal(sigmoid(np.array([-1e6, 1e6], np.float32), 0.0, 1.0), [0, 1])


@pytest.mark.parametrize(
    ("function", "scaling"),
    [(None, (-10, 89)), ("LINEAR", (-10, 89)), ("LINEAR_EXACT", (-10, 90)), ("SIGMOID", (-10, 90))],
)
def test_the_window_of_a_file_is_used_and_recorded(tmp_path: Path, function: Any, scaling: tuple[int, int]) -> None:
    how = {} if function is None else {"VOILUTFunction": function}
    stored = np.array([[0, 90, 140, 255]], np.uint8)
    path = write_dicom(
        tmp_path / "a", stored, WindowCenter=[40, 7], WindowWidth=[100, 9], RescaleIntercept=-100, RescaleSlope=1, **how
    )
    image = read_image(path, scale="window")
    assert (image.scale, image.scaling) == ("window", scaling)
    expected = {"LINEAR": linear, "LINEAR_EXACT": linear_exact, "SIGMOID": sigmoid}[function or "LINEAR"]
    np.testing.assert_allclose(image.pixels[0], expected(stored - 100.0, 40.0, 100.0), atol=1e-6)


def test_the_real_ct_window_agrees_with_pydicom() -> None:
    dataset = pydicom.dcmread(real("693_UNCR.dcm"))
    theirs = apply_windowing(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    theirs = (theirs - theirs.min()) / np.ptp(theirs)
    theirs[dataset.pixel_array == -2000] = 0
    np.testing.assert_allclose(read_image(real("693_UNCR.dcm"), scale="window").pixels[0], theirs, atol=1e-6)


def test_a_window_is_turned_over_after_it_was_applied(tmp_path: Path) -> None:
    path = write_dicom(
        tmp_path / "a",
        np.array([[0, 50, 100, 250]], np.uint8),
        WindowCenter=100,
        WindowWidth=100,
        VOILUTFunction="LINEAR_EXACT",
        PhotometricInterpretation="MONOCHROME1",
    )
    image = read_image(path, scale="window")
    np.testing.assert_allclose(image.pixels, [[[1, 1, 0.5, 0]]])
    assert image.scaling == (150, 50)


def test_the_real_voi_table_agrees_with_pydicom() -> None:
    dataset = pydicom.dcmread(real("vlut_04.dcm"))
    bits = dataset.VOILUTSequence[0].LUTDescriptor[2]
    with pytest.warns(UserWarning, match="spacing"):
        ours = read_image(real("vlut_04.dcm"), scale="window")
    np.testing.assert_allclose(ours.pixels[0], apply_voi(dataset.pixel_array, dataset) / (2**bits - 1), atol=1e-7)


def test_an_eight_bit_voi_table_for_twelve_bit_values_does_not_wrap(tmp_path: Path) -> None:
    entries = (np.arange(4096) // 16).astype(np.uint16)
    stored = np.array([[0, 255, 256, 4095]], np.uint16)
    path = write_dicom(tmp_path / "a", stored, BitsStored=12, VOILUTSequence=[lut_item(0, entries, 8)])
    image = read_image(path, scale="window")
    np.testing.assert_allclose(image.pixels[0, 0], np.array([0, 15, 16, 255]) / 255, atol=1e-7)
    assert image.scaling == (0, 4095)


def test_a_voi_table_comes_before_a_window_and_after_the_modality_lut(tmp_path: Path) -> None:
    path = write_dicom(
        tmp_path / "a",
        np.array([[0, 1, 2, 3]], np.uint16),
        RescaleSlope=1,
        RescaleIntercept=-2,
        VOILUTSequence=[lut_item(-2, np.array([0, 50, 100, 255], np.uint16), 8)],
        WindowCenter=1,
        WindowWidth=1,
    )
    np.testing.assert_allclose(read_image(path, scale="window").pixels[0, 0], np.array([0, 50, 100, 255]) / 255)


def test_the_first_value_of_a_table_may_be_negative_and_written_unsigned(tmp_path: Path) -> None:
    lut = lut_item(2**16 - 2, np.array([0, 50, 100, 255], np.uint16), 8)
    path = write_dicom(tmp_path / "a", np.array([[-2, -1, 0, 1]], np.int16), VOILUTSequence=[lut])
    np.testing.assert_allclose(read_image(path, scale="window").pixels[0, 0], np.array([0, 50, 100, 255]) / 255)


def test_every_frame_goes_through_its_own_window(tmp_path: Path) -> None:
    frames = [
        item(FrameVOILUTSequence=[item(WindowCenter=c, WindowWidth=w, VOILUTFunction="LINEAR_EXACT")])
        for c, w in ((100, 200), (50, 100))
    ]
    stored = np.full((2, 1, 4), [0, 50, 100, 200], np.uint8)
    path = write_dicom(tmp_path / "a", stored, PerFrameFunctionalGroupsSequence=frames)
    pixels = read_image(path, scale="window").pixels
    np.testing.assert_allclose(pixels[0, 0], np.array([[0, 0], [0.25, 0.5], [0.5, 1], [1, 1]]))


def test_a_window_that_is_no_number_only_matters_if_it_is_wanted(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", np.zeros((2, 2), np.uint8), WindowCenter=1234, WindowWidth=100)
    path.write_bytes(path.read_bytes().replace(b"1234", b"left"))
    assert not read_image(path).pixels.any()
    with pytest.raises(UnreadableImage, match="no window"):
        read_image(path, scale="window")


@pytest.mark.parametrize(
    "window",
    [
        {},
        {"WindowCenter": 5},
        {"WindowCenter": 5, "WindowWidth": 0},
        {"WindowCenter": 5, "WindowWidth": 9, "VOILUTFunction": "MAGIC"},
        {"WindowCenter": "", "WindowWidth": ""},
    ],
)
def test_without_a_usable_window_scale_window_is_an_error(tmp_path: Path, window: dict[str, Any]) -> None:
    path = write_dicom(tmp_path / "a", np.zeros((2, 2), np.uint8), **window)
    with pytest.raises(UnreadableImage, match="no window: the file has neither a VOI LUT nor a window"):
        read_image(path, scale="window")

"""Spacing, affines and series of slices."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import ITKReader

from monai_deepfixcx.data.reading import UnreadableImage, read_image, read_series
from monai_deepfixcx.data.reading.dicom_geometry import Place, affine_of
from tests.data.reading.dicom_files import item, random_words, real, write_dicom

AXIAL = [1, 0, 0, 0, 1, 0]
UNKNOWN = "states no usable pixel spacing; 1 mm is assumed"


# Spacing


def test_pixel_spacing_comes_before_imager_pixel_spacing(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", np.zeros((2, 2), np.uint8), PixelSpacing=[0.3, 0.2], ImagerPixelSpacing=[9, 9])
    np.testing.assert_allclose(read_image(path).affine, np.diag([0.3, 0.2, 1, 1]))


@pytest.mark.parametrize("useless", [None, [0, 0], [0.0, 0.2], [-1, 1], [0.5]])
def test_imager_pixel_spacing_stands_in_for_a_useless_one(tmp_path: Path, useless: Any) -> None:
    spacing = {"PixelSpacing": useless, "ImagerPixelSpacing": [0.3, 0.2]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(write_dicom(tmp_path / "a", np.zeros((2, 2), np.uint8), **spacing))
    np.testing.assert_allclose(image.affine, np.diag([0.3, 0.2, 1, 1]))


def test_without_a_usable_spacing_one_millimetre_is_assumed_with_a_warning(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", np.zeros((2, 2), np.uint8), PixelSpacing=[0, 0])
    with pytest.warns(UserWarning, match=UNKNOWN) as caught:
        image = read_image(path)
    np.testing.assert_array_equal(image.affine, np.eye(4))
    assert caught[0].filename == __file__  # it points to whoever called us


def test_a_spacing_that_is_no_number_is_not_worth_losing_an_image_over(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", np.zeros((2, 2), np.uint8), PixelSpacing=[0.12, 0.34])
    path.write_bytes(path.read_bytes().replace(b"0.12\\0.34", b"left\\0.34"))
    with pytest.warns(UserWarning, match=UNKNOWN):
        read_image(path)


def test_the_spacing_of_zero_of_the_real_chest_radiograph_is_not_believed() -> None:
    with pytest.warns(UserWarning, match=UNKNOWN):
        np.testing.assert_array_equal(read_image(real("RG1_UNCR.dcm")).affine, np.eye(4))


# Affines


@given(st.lists(st.floats(-500, 500), min_size=3, max_size=3), st.integers(0, 2**32))
@settings(deadline=None)
def test_the_first_voxel_lies_at_image_position_and_rows_and_columns_where_the_standard_says(
    position: list[float], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    columns, rows = np.linalg.qr(rng.normal(size=(3, 3)))[0][:2]
    place = Place((0.7, 0.4), 3, True, np.stack([columns, rows]), np.array([position]), "")
    affine = affine_of(place)
    for i, j in ((0, 0), (5, 0), (0, 9), (3, 4)):
        # PS3.3 C.7.6.2.1.1: i counts rows here, j columns; DICOM's LPS to RAS negates x and y.
        lps = position + columns * 0.4 * j + rows * 0.7 * i
        np.testing.assert_allclose((affine @ [i, j, 0, 1])[:3], lps * [-1, -1, 1], atol=1e-9)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm"])
def test_the_affine_is_itks_with_rows_and_columns_swapped(name: str) -> None:
    itk = ITKReader()
    _, meta = itk.get_data(itk.read(real(name)))
    theirs = np.asarray(meta["affine"])[:, [1, 0, 2, 3]]
    np.testing.assert_allclose(read_image(real(name)).affine[:, [0, 1, 3]], theirs[:, [0, 1, 3]], atol=1e-4)


@pytest.mark.parametrize("orientation", [[1, 0, 0, 1, 0, 0], [0] * 6, [2, 0, 0, 0, 1, 0]])
def test_an_orientation_that_is_none_is_ignored(tmp_path: Path, orientation: list[int]) -> None:
    path = write_dicom(
        tmp_path / "a", np.zeros((2, 2), np.uint8), ImagePositionPatient=[1, 2, 3], ImageOrientationPatient=orientation
    )
    np.testing.assert_array_equal(read_image(path).affine, np.eye(4))


def test_frames_of_an_enhanced_file_lie_where_each_says(tmp_path: Path) -> None:
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[2, 3], SliceThickness=9)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=AXIAL)],
    )
    frames = [item(PlanePositionSequence=[item(ImagePositionPatient=[10, 20, z])]) for z in (5, 1, -3)]
    path = write_dicom(
        tmp_path / "a",
        np.zeros((3, 4, 5), np.uint8),
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=frames,
        PixelSpacing=None,
    )
    image = read_image(path)
    assert image.pixels.shape == (1, 4, 5, 3)
    np.testing.assert_allclose(image.affine, [[0, -3, 0, -10], [-2, 0, 0, -20], [0, 0, -4, 5], [0, 0, 0, 1]])


def test_frames_at_one_place_are_apart_by_the_slice_spacing(tmp_path: Path) -> None:
    frames = [item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, 0])])] * 2
    path = write_dicom(
        tmp_path / "a",
        np.zeros((2, 4, 5), np.uint8),
        ImageOrientationPatient=AXIAL,
        PerFrameFunctionalGroupsSequence=frames,
        SpacingBetweenSlices=7,
    )
    np.testing.assert_allclose(read_image(path).affine[:3, 2], [0, 0, 7])


def test_the_real_enhanced_ct_has_its_spacing() -> None:
    image = read_image(real("eCT_Supplemental.dcm"))
    assert image.affine[1, 0] == pytest.approx(-0.388672)
    np.testing.assert_allclose(image.affine[:3, 3], [-99.5, 301.5, -159])


# Series


def write_series(folder: Path, heights: list[float], **elements: Any) -> tuple[list[Path], np.ndarray[Any, Any]]:
    """Slices in the order of `heights`; returns the paths and the words ``[slices, rows, columns]``."""
    stored = random_words(0, (len(heights), 4, 5), np.int16, -1000, 1000)
    common: dict[str, Any] = {"Modality": "CT", "ImageOrientationPatient": AXIAL, "PixelSpacing": [2, 3], **elements}
    paths = [
        write_dicom(folder / f"slice{i}", words, ImagePositionPatient=[10, 20, z], **common)
        for i, (z, words) in enumerate(zip(heights, stored, strict=True))
    ]
    return paths, stored


def test_slices_are_sorted_along_their_normal_and_scaled_together(tmp_path: Path) -> None:
    paths, stored = write_series(tmp_path, [7.5, 2.5, 10, 5])
    image = read_series(paths)
    order = [1, 3, 0, 2]
    values: np.ndarray[Any, Any] = np.moveaxis(stored[order], 0, -1).astype(np.float32)
    np.testing.assert_allclose(image.pixels[0], (values - values.min()) / np.ptp(values), atol=1e-6)
    np.testing.assert_allclose(
        image.affine, np.array([[0, -3, 0, -10], [-2, 0, 0, -20], [0, 0, 2.5, 2.5], [0, 0, 0, 1]])
    )
    assert image.source_bytes == sum(path.stat().st_size for path in paths)
    assert image.scaling == (values.min(), values.max())


def test_a_folder_is_its_series_and_other_files_do_not_matter(tmp_path: Path) -> None:
    paths, _ = write_series(tmp_path, [0, 1, 2])
    (tmp_path / "README.txt").write_text("hello")
    (tmp_path / ".DS_Store").write_bytes(b"")
    shutil.copy(real("DICOMDIR"), tmp_path / "DICOMDIR")
    np.testing.assert_array_equal(read_image(tmp_path).pixels, read_series(paths[::-1]).pixels)


def test_a_folder_of_one_file_is_that_image(tmp_path: Path) -> None:
    write_series(tmp_path, [0])
    assert read_image(tmp_path).pixels.shape == (1, 4, 5)


def test_a_slice_that_cannot_be_opened_is_not_left_out(tmp_path: Path) -> None:
    write_series(tmp_path, [0, 1, 2])
    (tmp_path / "slice1").write_bytes(b"")
    with pytest.raises(UnreadableImage, match="empty file"):
        read_image(tmp_path)


def test_a_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.txt").write_text("hello")
    with pytest.raises(UnreadableImage, match=r"^a folder without DICOM files$"):
        read_image(tmp_path)


def test_no_path_at_all_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="paths must name at least one file; got none"):
        read_series([])


def test_padding_and_windows_of_slices_are_stacked(tmp_path: Path) -> None:
    stored = np.array([[0, 50, 100]], np.uint8)
    places: dict[str, Any] = {"ImageOrientationPatient": AXIAL, "VOILUTFunction": "LINEAR_EXACT"}
    paths = [
        write_dicom(
            tmp_path / f"{z}",
            stored,
            ImagePositionPatient=[0, 0, z],
            WindowCenter=50 * (z + 1),
            WindowWidth=100 * (z + 1),
            **({"PixelPaddingValue": 100} if z else {}),
            **places,
        )
        for z in (0, 1)
    ]
    windowed, ranged = read_series(paths, scale="window"), read_series(paths, scale="range")
    np.testing.assert_allclose(windowed.pixels[0, 0], np.array([[0, 0], [0.5, 0.25], [1, 0]]))
    np.testing.assert_allclose(ranged.pixels[0, 0, 2], np.array([100 / 255, 0]), atol=1e-7)


def test_a_series_of_which_one_slice_has_no_window_has_none(tmp_path: Path) -> None:
    paths, stored = write_series(tmp_path, [0, 1], WindowCenter=5, WindowWidth=10)
    write_dicom(
        paths[1], stored[1], ImagePositionPatient=[10, 20, 1], ImageOrientationPatient=AXIAL, PixelSpacing=[2, 3]
    )
    with pytest.raises(UnreadableImage, match="no window"):
        read_series(paths, scale="window")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"SeriesInstanceUID": "2.25.1"}, "not one series: the files belong to two or more; read them one by one"),
        ({"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}, "not one volume: the slices have different orientations"),
        ({"ImagePositionPatient": [10, 20, 1]}, "not one volume: two slices lie at the same place"),
        ({"ImagePositionPatient": [10, 20, 5]}, "a slice is missing: the gaps run from 1 to 4 mm"),
        ({"ImagePositionPatient": None}, r"not a series: a slice has no Image Position \(Patient\) or Orientation"),
        ({"PixelSpacing": [2, 4]}, "not one volume: the slices differ in pixel spacing or polarity"),
        (
            {"PhotometricInterpretation": "MONOCHROME1"},
            "not one volume: the slices differ in pixel spacing or polarity",
        ),
    ],
)
def test_slices_that_do_not_belong_together_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    paths, stored = write_series(tmp_path, [0, 1, 2])
    elements: dict[str, Any] = {
        "Modality": "CT",
        "ImageOrientationPatient": AXIAL,
        "PixelSpacing": [2, 3],
        "ImagePositionPatient": [10, 20, 2],
    }
    write_dicom(paths[2], stored[2], **{**elements, **change})
    with pytest.raises(UnreadableImage, match=message):
        read_series(paths)


def test_slices_of_two_sizes_are_refused(tmp_path: Path) -> None:
    paths, _ = write_series(tmp_path, [0, 1])
    write_dicom(paths[1], np.zeros((4, 6), np.int16), ImageOrientationPatient=AXIAL, ImagePositionPatient=[10, 20, 1])
    with pytest.raises(UnreadableImage, match="not one series: slices of 4 x 5 and 4 x 6 pixels"):
        read_series(paths)


def test_a_file_of_several_frames_is_no_slice(tmp_path: Path) -> None:
    paths, _ = write_series(tmp_path, [0, 1])
    write_dicom(paths[1], np.zeros((2, 4, 5), np.int16), ImageOrientationPatient=AXIAL, ImagePositionPatient=[0, 0, 0])
    with pytest.raises(UnreadableImage, match="not a series: "):
        read_series(paths)


def test_several_files_that_are_not_dicom_are_no_series(tmp_path: Path) -> None:
    from PIL import Image

    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        Image.new("L", (2, 2)).save(path)
    with pytest.raises(UnreadableImage, match="several files make one image only if all of them are DICOM"):
        read_series(paths)


def test_the_real_ct_slices_are_stacked_and_a_missing_one_is_noticed() -> None:
    paths = list((real("CT_small.dcm").parent / "dicomdirtests/98892001/CT5N").iterdir())
    image = read_series(paths)
    assert image.pixels.shape == (1, 16, 16, 5)
    heights = [float(read_image(path).affine[2, 3]) for path in paths]
    assert image.affine[2, 3] == min(heights)
    assert image.affine[2, 2] == pytest.approx((max(heights) - min(heights)) / 4)
    del paths[heights.index(sorted(heights)[2])]
    with pytest.raises(UnreadableImage, match=r"^a slice is missing: the gaps run from"):
        read_series(paths)

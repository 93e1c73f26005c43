"""NIfTI volumes and single slices."""

import gzip
from importlib.resources import files
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import NibabelReader
from numpy.typing import NDArray

from monai_deepfixcx.data.reading import UnreadableImage, read_image
from monai_deepfixcx.data.reading.nifti_files import read_nifti
from tests.data.reading.dicom_files import random_words

REAL = Path(str(files("nibabel") / "tests/data"))


def nifti(array: NDArray[Any], affine: NDArray[Any] | None = None, kind: Any = nibabel.Nifti1Image) -> bytes:
    return bytes(kind(array, np.eye(4) if affine is None else affine).to_bytes())


# Volumes


def test_the_real_volume_is_what_monai_reads() -> None:
    image = read_image(REAL / "anatomical.nii", scale="none")
    reader = NibabelReader()
    theirs, meta = reader.get_data(reader.read(REAL / "anatomical.nii"))
    np.testing.assert_allclose(image.pixels[0], theirs, rtol=1e-6)
    np.testing.assert_allclose(image.affine, meta["affine"])


def test_auto_scales_a_volume_by_its_own_range() -> None:
    image = read_image(REAL / "anatomical.nii")
    assert (image.scale, image.scaling) == ("minmax", (-610, 30393))
    assert (image.pixels.min(), image.pixels.max()) == (0, 1)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "u1", "<f4", "<f8", "<u4"])
@pytest.mark.parametrize("zipped", [False, True])
def test_both_versions_all_types_and_gzip(kind: Any, dtype: str, zipped: bool) -> None:
    array = random_words(0, (4, 5, 6), np.int16, 0, 100).astype(dtype)
    data = nifti(array, np.diag([2, 3, 4, 1]), kind)
    image = read_nifti(gzip.compress(data) if zipped else data)
    np.testing.assert_array_equal(image.values[0], array)
    np.testing.assert_array_equal(image.affine, np.diag([2, 3, 4, 1]))


def test_gzip_in_several_members_is_one_file() -> None:
    array = random_words(0, (4, 5, 6), np.int16)
    data = nifti(array)
    zipped = gzip.compress(data[:400]) + gzip.compress(data[400:])
    np.testing.assert_array_equal(read_nifti(zipped).values[0], array)


def test_integers_have_a_range_through_slope_and_intercept() -> None:
    volume = nibabel.Nifti1Image(random_words(0, (2, 3, 4), np.int16), np.eye(4))
    volume.header.set_slope_inter(-0.5, 10)
    image = read_nifti(volume.to_bytes())
    assert image.ends == (32767 * -0.5 + 10, 32768 * 0.5 + 10)
    assert read_nifti(nifti(np.zeros((2, 2, 2), np.float32))).ends is None


def test_what_is_not_finite_stays_and_does_not_set_the_scale(tmp_path: Path) -> None:
    array = np.array([[[1, np.nan, np.inf], [-np.inf, 2, 3]]], np.float32)
    (tmp_path / "a").write_bytes(nifti(array))
    image = read_image(tmp_path / "a")
    assert image.scaling == (1.0, 3.0)
    np.testing.assert_array_equal(image.pixels[0], [[[0, np.nan, np.inf], [-np.inf, 0.5, 1]]])


@pytest.mark.parametrize("value", [7.0, np.nan, 1e300])
def test_a_volume_of_one_value_is_zero_and_divides_by_nothing(tmp_path: Path, value: float) -> None:
    (tmp_path / "a").write_bytes(nifti(np.full((2, 3, 4), value)))
    expected = np.nan if np.isnan(value) else 0
    np.testing.assert_array_equal(read_image(tmp_path / "a").pixels, np.full((1, 2, 3, 4), expected))


def test_doubles_at_the_end_of_their_range_do_not_crash(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(nifti(np.array([[[-1.7e308, 0, 1.7e308]]])))
    assert read_image(tmp_path / "a").pixels.shape == (1, 1, 1, 3)
    assert np.isinf(read_image(tmp_path / "a", scale="none").pixels).sum() == 2


def test_trailing_axes_of_one_are_dropped_and_others_refused() -> None:
    array = random_words(0, (2, 3, 4), np.int16)
    np.testing.assert_array_equal(read_nifti(nifti(array[..., None, None])).values[0], array)
    with pytest.raises(UnreadableImage, match=r"4-D NIfTI \(128 x 96 x 24 x 2\): split it into volumes"):
        read_image(REAL / "example4d.nii.gz")


@pytest.mark.parametrize("dtype", [np.complex64, [("R", "u1"), ("G", "u1"), ("B", "u1")]])
def test_colour_and_complex_numbers_are_refused(dtype: Any) -> None:
    with pytest.raises(UnreadableImage, match=r"NIfTI of type \d+ \(colour or complex\) is not supported; save grey"):
        read_nifti(nifti(np.zeros((2, 2, 2), dtype)))


# Single slices


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 1), (7, 5, 1, 1)])
@pytest.mark.parametrize("signs", list(product((1, -1), repeat=3)))
@pytest.mark.parametrize("axes", list(permutations(range(3))))
def test_a_slice_is_shown_as_radiology_shows_it(
    shape: tuple[int, ...], signs: tuple[int, int, int], axes: tuple[int, int, int]
) -> None:
    # Voxel axis k runs along patient axis axes[k], forwards or backwards.
    affine = np.zeros((4, 4))
    for voxel, patient in enumerate(axes):
        affine[patient, voxel] = signs[voxel] * (voxel + 2)
    affine[:, 3] = [11, 12, 13, 1]
    array = random_words(0, shape, np.int16)
    volume = nibabel.Nifti1Image(array, None)
    volume.header.set_data_shape(shape)
    volume.set_sform(affine, 1)
    image = read_nifti(volume.to_bytes())
    # Columns go to the left, or in a sagittal image to the back; rows to the back, or in others to the feet.
    down, right = {2: ([0, -1, 0], [-1, 0, 0]), 1: ([0, 0, -1], [-1, 0, 0]), 0: ([0, 0, -1], [0, -1, 0])}[axes[2]]
    unit = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    np.testing.assert_array_equal(unit[:, 0], down)
    np.testing.assert_array_equal(unit[:, 1], right)
    # Every pixel is still where it was.
    for i, j in ((0, 0), (6, 0), (0, 4), (3, 2)):
        there = np.linalg.solve(image.affine, affine @ [i, j, 0, 1])
        row, column, through, _ = np.rint(there).astype(int)
        assert through == 0
        assert image.values[0, row, column] == array.reshape(7, 5)[i, j]


def test_a_slice_in_two_dimensions_needs_no_thickness() -> None:
    volume = nibabel.Nifti1Image(random_words(0, (3, 4), np.int16), None)
    volume.set_sform(np.diag([2, 3, 0, 1]), 1)
    assert np.linalg.det(read_nifti(volume.to_bytes()).affine) != 0


@pytest.mark.parametrize(("at", "value", "word"), [(280, 0, "singular"), (280, np.nan, "not finite")])
def test_an_affine_that_leads_nowhere_is_damage(at: int, value: float, word: str) -> None:
    volume = nibabel.Nifti1Image(np.zeros((3, 4, 1), np.int16), None)
    volume.set_sform(np.eye(4), 1)
    data = bytearray(volume.to_bytes())
    data[at : at + 4] = np.float32(value).tobytes()  # srow_x[0]
    with pytest.raises(UnreadableImage, match=f"damaged: the affine of this NIfTI is {word}"):
        read_nifti(bytes(data))


# Damage


def test_missing_pixels_are_counted() -> None:
    data = nifti(np.zeros((10, 10, 10), np.int16))
    with pytest.raises(UnreadableImage, match=r"^truncated: 1,000 of 2,000 pixel bytes are there$"):
        read_nifti(data[: 352 + 1000])


def test_a_cut_off_gzip_stream_is_refused_even_if_all_pixels_are_there() -> None:
    data = gzip.compress(nifti(random_words(0, (10, 10, 10), np.int16)))
    with pytest.raises(UnreadableImage, match=r"truncated: the gzip stream of this NIfTI stops after 2,352 bytes"):
        read_nifti(data[:-5])
    with pytest.raises(UnreadableImage, match="damaged: the gzip stream of this NIfTI is broken"):
        read_nifti(data[:300] + b"\xff" * 300 + data[600:])


@given(cut=st.integers(352, 351 + 2000))
@settings(max_examples=20, deadline=None)
def test_a_volume_cut_off_anywhere_is_refused(cut: int) -> None:
    with pytest.raises(UnreadableImage, match="truncated"):
        read_nifti(nifti(random_words(0, (10, 10, 10), np.int16))[:cut])


@given(seed=st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_a_damaged_header_is_read_or_refused_and_nothing_is_printed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(nifti(random_words(0, (5, 4, 3), np.int16)))
    for at in rng.integers(40, 348, rng.integers(1, 6)):
        data[at] = rng.integers(256)
    try:
        assert read_nifti(bytes(data)).values.ndim in (3, 4)
    except UnreadableImage as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_nibabel_prints_nothing_of_what_it_mends(capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(nifti(np.zeros((3, 3, 3), np.int16)))
    data[76:80] = np.float32(0.5).tobytes()  # pixdim[0], which should be 1 or -1
    read_nifti(bytes(data))
    assert capfd.readouterr() == ("", "")

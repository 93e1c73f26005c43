"""From stored words to values: polarity, scale, bits, padding, frames and colour."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import ITKReader
from numpy.typing import NDArray
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from monai_deepfixcx.data.reading import Scale, UnreadableImage, read_image
from monai_deepfixcx.data.reading.dicom_pixels import read_dicom
from tests.data.reading.dicom_files import CAT, dicom_bytes, make_dicom, random_words, real

PROJECTIONS = ["CR", "DX", "RG", "RF", "XA", "MG", "IO", "PX", "DR", "SC"]


# Polarity


def test_the_chest_radiograph_has_the_polarity_of_monais_default_reader() -> None:
    path = real("RG1_UNCR.dcm")
    with pytest.warns(UserWarning, match="no usable pixel spacing; 1 mm is assumed"):
        ours = read_image(path, scale="none")
    itk = ITKReader()
    theirs, _ = itk.get_data(itk.read(path))
    assert ours.pixels.mean() == pytest.approx(25_375.5, abs=0.1)  # FIELD_NOTES.md: 7,391 if not inverted
    np.testing.assert_array_equal(ours.pixels[0], np.squeeze(theirs).T)


@pytest.mark.parametrize("scale", ["range", "minmax", "window", "none"])
@pytest.mark.parametrize("dark", [{"PhotometricInterpretation": "MONOCHROME1"}, {"PresentationLUTShape": "INVERSE"}])
def test_twins_of_opposite_polarity_are_equal(read: Any, scale: Scale, dark: dict[str, str]) -> None:
    stored = random_words(0, (7, 5), np.uint16, 0, 4095)
    bright = read(stored, scale, BitsStored=12, WindowCenter=2048, WindowWidth=1000, VOILUTFunction="LINEAR_EXACT")
    inverted = read(
        4095 - stored, scale, BitsStored=12, WindowCenter=2047, WindowWidth=1000, VOILUTFunction="LINEAR_EXACT", **dark
    )
    assert (bright.polarity_inverted, inverted.polarity_inverted) == (False, True)
    np.testing.assert_allclose(inverted.pixels, bright.pixels, atol=1e-6)
    if scale != "window":
        np.testing.assert_array_equal(inverted.pixels, bright.pixels)


def test_black_is_never_a_negative_zero(read: Any) -> None:
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        for scale in ("range", "minmax"):
            pixels = read(np.array([[0, 255]], np.uint8), scale, PhotometricInterpretation=photometric).pixels
            assert not np.signbit(pixels).any()  # or equal images would be different bytes


def test_monochrome1_and_inverse_together_mean_one_inversion(read: Any) -> None:
    stored = random_words(0, (7, 5), np.uint16)
    once = read(stored, PhotometricInterpretation="MONOCHROME1")
    both = read(stored, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    np.testing.assert_array_equal(once.pixels, both.pixels)


def test_presentation_lut_shape_identity_changes_nothing(read: Any) -> None:
    stored = random_words(0, (7, 5), np.uint16)
    np.testing.assert_array_equal(read(stored, PresentationLUTShape="IDENTITY").pixels, read(stored).pixels)


@given(seed=st.integers(0, 2**32), bits=st.integers(2, 16), signed=st.booleans())
@settings(deadline=None)
def test_inversion_is_a_reflection_for_any_number_of_bits(seed: int, bits: int, signed: bool) -> None:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    stored = random_words(seed, (3, 4), np.int16 if signed else np.uint16, low, high)
    common = {"BitsStored": bits}
    bright, _ = read_dicom(dicom_bytes(make_dicom(stored, **common)))
    dark, _ = read_dicom(
        dicom_bytes(make_dicom(low + high - stored, PhotometricInterpretation="MONOCHROME1", **common))
    )
    assert bright.ends == dark.ends == (low, high)
    np.testing.assert_array_equal(low + high - dark.values, bright.values)


# The rule of "auto"


@pytest.mark.parametrize("modality", PROJECTIONS)
def test_auto_is_range_for_projection_x_ray(read: Any, modality: str) -> None:
    image = read(np.array([[0, 1023]], np.uint16), Modality=modality, BitsStored=12)
    assert image.scale == "range"
    np.testing.assert_allclose(image.pixels, [[[0, 1023 / 4095]]], atol=1e-7)


@pytest.mark.parametrize("modality", ["CT", "MR", "NM", ""])
def test_auto_is_minmax_for_other_modalities(read: Any, modality: str) -> None:
    image = read(np.array([[7, 9, 11]], np.int16), Modality=modality)
    assert (image.scale, image.scaling) == ("minmax", (7, 11))
    np.testing.assert_allclose(image.pixels, [[[0, 0.5, 1]]])


def test_auto_is_range_for_colour_and_for_eight_bits(read: Any) -> None:
    assert read(np.array([[7, 9]], np.uint8), Modality="US").scaling == (0, 255)
    assert read(random_words(0, (3, 4, 3), np.uint8), Modality="US").scaling == (0, 255)


def test_the_real_dx_is_scaled_by_its_twelve_bits() -> None:
    image = read_image(CAT)
    stored = pydicom.dcmread(CAT).pixel_array
    assert (image.modality, image.scale, image.scaling, image.polarity_inverted) == ("DX", "range", (0, 4095), False)
    assert image.source_bytes == CAT.stat().st_size
    np.testing.assert_allclose(image.pixels[0], stored / 4095, atol=1e-7)


def test_a_constant_image_is_zero_and_divides_by_nothing(read: Any) -> None:
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        image = read(np.full((3, 4), 77, np.uint16), "minmax", PhotometricInterpretation=photometric)
        assert not image.pixels.any()


# Bits


def test_bits_above_the_stored_ones_are_masked(read: Any) -> None:
    clean = random_words(1, (9, 8), np.uint16, 0, 4095)
    overlay = random_words(2, (9, 8), np.uint16) & 0xF000
    np.testing.assert_array_equal(
        read(clean | overlay, "none", BitsStored=12).pixels, read(clean, "none", BitsStored=12).pixels
    )


def test_bits_above_a_signed_value_are_its_sign_again(read: Any) -> None:
    clean = random_words(1, (9, 8), np.int16, -2048, 2047)
    dirty = (clean & 0x0FFF) | 0x5000
    np.testing.assert_array_equal(read(dirty.astype(np.int16), "none", BitsStored=12).pixels[0], clean)


def test_values_that_end_at_a_high_bit_of_their_own_are_shifted_down(read: Any) -> None:
    clean = random_words(1, (9, 8), np.uint16, 0, 1023)
    stored = clean << 5 | 0b1000_0000_0001_0101
    image = read(stored.astype(np.uint16), "none", BitsStored=10, HighBit=14)
    np.testing.assert_array_equal(image.pixels[0], clean)


@pytest.mark.parametrize("high", [0, 10, 16, 99])
def test_a_high_bit_that_cannot_be_is_not_believed(read: Any, high: int) -> None:
    stored = random_words(1, (9, 8), np.uint16, 0, 4095)
    np.testing.assert_array_equal(read(stored, "none", BitsStored=12, HighBit=high).pixels[0], stored)


def test_overlays_in_high_bits_of_a_real_file_are_gone() -> None:
    image, _ = read_dicom(real("MR-SIEMENS-DICOM-WithOverlays.dcm").read_bytes())
    assert image.values.max() <= 4095


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32])
@pytest.mark.parametrize("syntax", [None, ExplicitVRBigEndian, ImplicitVRLittleEndian])
def test_every_integer_type_and_byte_order_is_read(tmp_path: Path, dtype: Any, syntax: Any) -> None:
    stored = random_words(3, (6, 4), dtype)
    dataset = make_dicom(stored)
    if syntax is not None:
        dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = stored.astype(stored.dtype.newbyteorder(">")).tobytes()
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    image, _ = read_dicom((tmp_path / "a").read_bytes())
    np.testing.assert_array_equal(image.values[0], stored)


def test_one_bit_segmentations_are_unpacked() -> None:
    image = read_image(real("liver.dcm"))
    assert image.pixels.shape == (1, 512, 512, 3)
    assert set(np.unique(image.pixels)) == {0, 1}


def test_float_pixel_data_have_no_stored_range(read: Any) -> None:
    stored = np.array([[-1.5, 2.5], [np.nan, np.inf]], np.float32)
    image = read(stored, Modality="CR", BitsAllocated=32)
    assert (image.scale, image.scaling) == ("minmax", (-1.5, 2.5))
    np.testing.assert_array_equal(image.pixels, [[[0, 1], [np.nan, np.inf]]])
    with pytest.raises(UnreadableImage, match="no stored range: the pixels are floating point; use scale='minmax'"):
        read(stored, "range", BitsAllocated=32)


# Padding


def test_padding_neither_sets_the_scale_nor_keeps_a_value(read: Any) -> None:
    stored = np.array([[-2000, 100, 150, 200]], np.int16)
    image = read(stored, Modality="CT", RescaleIntercept=-1024, RescaleSlope=1, PixelPaddingValue=-2000)
    assert image.scaling == (100 - 1024, 200 - 1024)
    np.testing.assert_allclose(image.pixels, [[[0, 0, 0.5, 1]]])


def test_padding_is_black_in_an_inverted_image_too(read: Any) -> None:
    stored = np.array([[0, 100, 4095]], np.uint16)
    elements = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "PixelPaddingValue": 0}
    np.testing.assert_allclose(read(stored, **elements).pixels, [[[0, 3995 / 4095, 0]]], atol=1e-7)
    np.testing.assert_array_equal(read(stored, "none", **elements).pixels, [[[4095, 3995, 0]]])


@pytest.mark.parametrize(("value", "limit"), [(10, 20), (20, 10)])
def test_a_padding_range_covers_all_between_its_limits(read: Any, value: int, limit: int) -> None:
    stored = np.array([[9, 10, 15, 20, 21, 31]], np.uint16)
    image = read(stored, "minmax", PixelPaddingValue=value, PixelPaddingRangeLimit=limit)
    assert image.scaling == (9, 31)
    np.testing.assert_allclose(image.pixels[0, 0], [0, 0, 0, 0, 12 / 22, 1], atol=1e-7)


def test_padding_wider_than_the_stored_bits_or_of_the_wrong_sign_is_found(tmp_path: Path) -> None:
    stored = np.array([[-2000, 5, 2047]], np.int16)  # -2000 is the word 63536, and 2096 in 12 bits
    dataset = make_dicom(stored, BitsStored=12, Modality="CT")
    dataset.add_new("PixelPaddingValue", "US", 63536)
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    assert read_image(tmp_path / "a").scaling == (5, 2047)


def test_padding_under_an_overlay_is_found(read: Any) -> None:
    stored = np.array([[0x8000 | 7, 7, 100, 200]], np.uint16)
    image = read(stored, "minmax", BitsStored=12, PixelPaddingValue=7)
    assert image.scaling == (100, 200)


def test_an_image_of_nothing_but_padding_is_black(read: Any) -> None:
    image = read(np.full((2, 3), 9, np.uint16), "minmax", PixelPaddingValue=9)
    assert (image.scaling, image.pixels.any()) == ((0, 0), False)


def test_padding_of_the_real_ct_is_not_in_its_range() -> None:
    raw = pydicom.dcmread(real("693_UNCR.dcm"))
    assert raw.pixel_array.min() == raw.PixelPaddingValue == -2000
    assert read_image(real("693_UNCR.dcm")).scaling == (-1024, 1468)


# Frames and colour


def test_frames_are_the_last_axis(read: Any) -> None:
    stored = random_words(0, (5, 3, 4), np.uint8)
    np.testing.assert_array_equal(read(stored, "none").pixels, np.moveaxis(stored, 0, -1)[None])
    colour = random_words(0, (5, 3, 4, 3), np.uint8)
    np.testing.assert_array_equal(read(colour, "none", "keep").pixels, np.transpose(colour, (3, 1, 2, 0)))


def test_one_frame_is_an_image_and_not_a_volume(read: Any) -> None:
    assert read(np.zeros((3, 4), np.uint8), NumberOfFrames=1).pixels.shape == (1, 3, 4)


def test_padding_in_several_frames(read: Any) -> None:
    stored = np.array([[[1, 2]], [[3, 65535]]], np.uint16)
    pixels = read(stored, "minmax", PixelPaddingValue=65535).pixels
    np.testing.assert_allclose(pixels, np.array([[[[0, 1], [0.5, 0]]]]), atol=1e-7)


def test_colour_is_kept_or_made_grey_by_bt601(read: Any) -> None:
    stored = random_words(0, (3, 4, 3), np.uint8)
    kept, grey = read(stored, color="keep"), read(stored, color="grey")
    np.testing.assert_allclose(kept.pixels, np.moveaxis(stored, -1, 0) / 255, atol=1e-7)
    np.testing.assert_allclose(grey.pixels[0], stored @ [0.299, 0.587, 0.114] / 255, atol=1e-6)
    assert read(stored[..., 0], color="keep").pixels.shape == (1, 3, 4)


def test_planar_colour_is_the_same(tmp_path: Path, read: Any) -> None:
    stored = random_words(0, (3, 4, 3), np.uint8)
    dataset = make_dicom(stored, PlanarConfiguration=1)
    dataset.PixelData = np.moveaxis(stored, -1, 0).tobytes()
    dataset.save_as(tmp_path / "planar", enforce_file_format=True)
    np.testing.assert_array_equal(
        read_image(tmp_path / "planar", color="keep").pixels, read(stored, color="keep").pixels
    )


def rgb_by_jfif(ybr: NDArray[Any]) -> NDArray[Any]:
    """ITU-T T.871 (JFIF), section 7, which PS3.3 C.7.6.3.1.2 repeats for YBR_FULL."""
    y, blue, red = np.moveaxis(ybr.astype(float), -1, 0) - np.array([0, 128, 128])[:, None, None]
    rgb = [y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue]
    return np.asarray(np.clip(rgb, 0, 255))


def test_ybr_becomes_rgb(read: Any) -> None:
    stored = random_words(0, (6, 8, 3), np.uint8)
    full = read(stored, "none", "keep", PhotometricInterpretation="YBR_FULL")
    np.testing.assert_allclose(full.pixels, rgb_by_jfif(stored), atol=1)


def test_ybr_with_halved_colour_becomes_rgb(tmp_path: Path) -> None:
    stored = random_words(0, (6, 8, 3), np.uint8)
    stored[:, 1::2, 1:] = stored[:, ::2, 1:]  # a pair of pixels shares its colour
    dataset = make_dicom(stored, PhotometricInterpretation="YBR_FULL_422")
    pairs = stored.reshape(6, 4, 2, 3)
    dataset.PixelData = np.stack([pairs[..., 0, 0], pairs[..., 1, 0], pairs[..., 0, 1], pairs[..., 0, 2]], -1).tobytes()
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    half = read_image(tmp_path / "a", scale="none", color="keep")
    np.testing.assert_allclose(half.pixels, rgb_by_jfif(stored), atol=1)
    dataset.PixelData = dataset.PixelData[:94]
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    with pytest.raises(UnreadableImage, match="truncated: 94 of 96 pixel bytes are there"):
        read_image(tmp_path / "a")


@pytest.mark.parametrize("name", ["OBXXXX1A_2frame.dcm", "examples_palette.dcm", "gdcm-US-ALOKA-16.dcm"])
def test_a_palette_is_looked_up(name: str) -> None:
    dataset = pydicom.dcmread(real(name))
    theirs = np.moveaxis(apply_color_lut(dataset.pixel_array, dataset), -1, 0)
    image, _ = read_dicom(real(name).read_bytes())
    np.testing.assert_array_equal(image.values, np.moveaxis(theirs, 1, -1) if theirs.ndim == 4 else theirs)


def test_a_big_endian_palette_is_the_same_palette() -> None:
    little, big = (read_dicom(real(f"OBXXXX1A{kind}.dcm").read_bytes())[0] for kind in ("", "_expb"))
    np.testing.assert_array_equal(little.values, big.values)


def test_a_segmented_palette_is_expanded(read: Any) -> None:
    def segmented(top: int) -> bytes:
        return np.array([0, 1, 0, 1, 3, top], "<u2").tobytes()  # one entry 0, then a line of 3 entries up to `top`

    palette: dict[str, Any] = {"SamplesPerPixel": 1, "PhotometricInterpretation": "PALETTE COLOR"}
    for colour, top in (("Red", 300), ("Green", 600), ("Blue", 900)):
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
        palette[f"Segmented{colour}PaletteColorLookupTableData"] = segmented(top)
    image = read(np.array([[0, 1, 2, 3]], np.uint8), "none", "keep", **palette)
    np.testing.assert_array_equal(image.pixels[:, 0], [[0, 100, 200, 300], [0, 200, 400, 600], [0, 300, 600, 900]])


def test_a_colour_space_beyond_ours_is_refused(read: Any) -> None:
    with pytest.raises(UnreadableImage, match="colour space HSV is not supported; convert the file to RGB"):
        read(random_words(0, (3, 4, 3), np.uint8), PhotometricInterpretation="HSV")

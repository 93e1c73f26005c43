"""Every decoder gives the same stored values; what none can decode is refused by name."""

import io
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import compress
from pydicom.uid import (
    MPEG4HP41,
    UID,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from monai_deepfixcx.data.reading import UnreadableImage, dicom_decoders, read_image
from monai_deepfixcx.data.reading.dicom_decoders import DECODERS
from monai_deepfixcx.data.reading.dicom_pixels import read_dicom
from tests.data.reading.dicom_files import dicom_bytes, make_dicom, random_words, real

MINE = ("itk", "gdcm", "pillow")


def values(name: str, *decoders: str) -> NDArray[Any]:
    return read_dicom(real(name).read_bytes(), decoders or ("pydicom",))[0].values


def written(dataset: pydicom.Dataset, path: Path, **how: Any) -> Path:
    dataset.save_as(path, enforce_file_format=True, **how)
    return path


@pytest.mark.parametrize("decoder", MINE)
@pytest.mark.parametrize(
    ("compressed", "plain"),
    [
        ("RG3_J2KR.dcm", "RG3_UNCR.dcm"),
        ("RG3_J2KI.dcm", "RG3_UNCI.dcm"),
        ("MR2_J2KR.dcm", "MR2_UNCR.dcm"),
        ("693_J2KR.dcm", "693_UNCR.dcm"),
        ("693_J2KI.dcm", "693_UNCI.dcm"),
        ("JPEG2000.dcm", "JPEG2000_UNC.dcm"),
        ("MR_small_jp2klossless.dcm", "MR_small.dcm"),
        ("emri_small_jpeg_2k_lossless.dcm", "emri_small.dcm"),
        ("US1_J2KR.dcm", "US1_UNCR.dcm"),
        ("SC_rgb_gdcm_KY.dcm", "SC_rgb_gdcm2k_uncompressed.dcm"),
    ],
)
def test_jpeg_2000_equals_its_uncompressed_sibling(compressed: str, plain: str, decoder: str) -> None:
    # 'I' siblings were made by decoding the lossy file, so they too must be equal.
    np.testing.assert_array_equal(values(compressed, decoder), values(plain))


@pytest.mark.parametrize("decoder", ["itk", "gdcm"])
@pytest.mark.parametrize(
    ("compressed", "plain"),
    [
        ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm"),
        ("emri_small_jpeg_ls_lossless.dcm", "emri_small.dcm"),
        ("SC_rgb_jpeg_gdcm.dcm", "SC_rgb.dcm"),
    ],
)
def test_jpeg_ls_and_jpeg_lossless_equal_their_uncompressed_sibling(compressed: str, plain: str, decoder: str) -> None:
    np.testing.assert_array_equal(values(compressed, decoder), values(plain))


@pytest.mark.parametrize(
    ("compressed", "plain"),
    [
        ("MR_small_RLE.dcm", "MR_small.dcm"),
        ("emri_small_RLE.dcm", "emri_small.dcm"),
        ("SC_rgb_rle_16bit_2frame.dcm", "SC_rgb_16bit_2frame.dcm"),
        ("rtdose_rle.dcm", "rtdose.dcm"),
        ("OBXXXX1A_rle_2frame.dcm", "OBXXXX1A_2frame.dcm"),
    ],
)
def test_rle_equals_its_uncompressed_sibling(compressed: str, plain: str) -> None:
    np.testing.assert_array_equal(values(compressed), values(plain))


@pytest.mark.parametrize("name", ["JPEG-LL.dcm", "JPGLosslessP14SV1_1s_1f_8b.dcm", "bad_sequence.dcm"])
def test_jpeg_lossless_is_the_same_through_itk_and_gdcm(name: str) -> None:
    np.testing.assert_array_equal(values(name, "itk"), values(name, "gdcm"))


@pytest.mark.parametrize("decoder", MINE)
@pytest.mark.parametrize(
    ("compressed", "plain"),
    [
        ("SC_rgb_dcmtk_+eb+cr.dcm", "SC_rgb_dcmtk_ebcr_dcmd.dcm"),
        ("SC_rgb_dcmtk_+eb+cy+n1.dcm", "SC_rgb_dcmtk_ebcyn1_dcmd.dcm"),
        ("SC_rgb_dcmtk_+eb+cy+n2.dcm", "SC_rgb_dcmtk_ebcyn2_dcmd.dcm"),
        ("SC_rgb_dcmtk_+eb+cy+np.dcm", "SC_rgb_dcmtk_ebcynp_dcmd.dcm"),
        ("SC_rgb_dcmtk_+eb+cy+s2.dcm", "SC_rgb_dcmtk_ebcys2_dcmd.dcm"),
        ("SC_rgb_jpeg.dcm", "SC_rgb_jpeg_dcmd.dcm"),
    ],
)
def test_jpeg_colour_is_rgb_once_whoever_decodes(compressed: str, plain: str, decoder: str) -> None:
    # DCMTK wrote the plain siblings; decoders of lossy JPEG may round a level apart, colour conversion one more.
    difference = values(compressed, decoder) - values(plain)
    assert np.abs(difference).max() <= 3
    assert np.abs(difference).mean() < 0.5


@pytest.mark.parametrize("decoder", MINE)
def test_the_chest_radiograph_is_bright_where_x_rays_were_absorbed_whoever_decodes(decoder: str) -> None:
    plain, coded = (read_dicom(real(f"RG1_{kind}.dcm").read_bytes(), (decoder,))[0] for kind in ("UNCR", "J2KR"))
    assert plain.inverted
    assert coded.inverted
    np.testing.assert_array_equal(coded.values, plain.values)


def test_rle_of_the_chest_radiograph_equals_the_original(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(real("RG1_UNCR.dcm"))
    dataset.Rows = 400  # its top, so that the slow encoder has less to do
    dataset.PixelData = dataset.PixelData[: 400 * dataset.Columns * 2]
    plain = written(dataset, tmp_path / "plain.dcm")
    compress(dataset, RLELossless, generate_instance_uid=False)
    coded = written(dataset, tmp_path / "rle.dcm")
    with pytest.warns(UserWarning, match="no usable pixel spacing"):
        first, second = read_image(plain), read_image(coded)
    assert first.polarity_inverted
    assert second.polarity_inverted
    np.testing.assert_array_equal(first.pixels, second.pixels)


@pytest.mark.parametrize("decoder", MINE)
def test_jpeg_2000_inside_a_jp2_file_is_decoded_too(decoder: str) -> None:
    stored = random_words(2, (64, 48), np.uint8)
    file = io.BytesIO()
    Image.fromarray(stored).save(file, "JPEG2000", irreversible=False)  # with the boxes of a .jp2, as some devices send
    assert file.getvalue().startswith(b"\0\0\0\x0cjP")
    dataset = make_dicom(stored)
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.PixelData = encapsulate([file.getvalue()])
    dataset["PixelData"].is_undefined_length = True
    np.testing.assert_array_equal(read_dicom(dicom_bytes(dataset), (decoder,))[0].values[0], stored)


@pytest.mark.parametrize("decoder", ["itk", "gdcm"])
@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_signed_values_keep_their_sign(dtype: Any, decoder: str, tmp_path: Path) -> None:
    stored = random_words(3, (64, 70), dtype)
    plain, coded = written(make_dicom(stored), tmp_path / "plain"), tmp_path / "coded"
    _to_jpeg_ls(plain, coded)
    np.testing.assert_array_equal(read_dicom(coded.read_bytes(), (decoder,))[0].values[0], stored)


@pytest.mark.parametrize("decoder", ["itk", "gdcm"])
def test_sixteen_bit_colour_keeps_sixteen_bits(decoder: str, tmp_path: Path) -> None:
    stored = random_words(1, (64, 70, 3), np.uint16)
    plain, coded = written(make_dicom(stored), tmp_path / "plain"), tmp_path / "coded"
    _to_jpeg_ls(plain, coded)
    image, _ = read_dicom(coded.read_bytes(), (decoder,))
    np.testing.assert_array_equal(np.moveaxis(image.values, 0, -1), stored)


def _to_jpeg_ls(source: Path, target: Path) -> None:
    gdcm = pytest.importorskip("gdcm")
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLSLossless))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(target))
    assert writer.Write()


def test_twelve_bit_jpeg_is_never_taken_from_itk_or_gdcm() -> None:
    words = r"JPEG Extended \(Process 2 and 4\) \(1.2.840.10008.1.2.4.51\) with 12 bits.*pylibjpeg-libjpeg"
    with pytest.raises(UnreadableImage, match=words):
        values("JPGExtended.dcm", "itk", "gdcm", "pillow")


def test_twelve_bit_jpeg_through_pylibjpeg_is_right() -> None:
    pytest.importorskip("libjpeg")
    # The same picture, lossless: the corpus has it as JPEG-LL.dcm.
    assert (
        np.corrcoef(values("JPGExtended.dcm", "pylibjpeg").ravel(), values("JPEG-LL.dcm", "itk").ravel())[0, 1] > 0.98
    )


def test_the_code_stream_and_not_the_header_says_that_jpeg_has_twelve_bits() -> None:
    dataset = pydicom.dcmread(real("JPGExtended.dcm"))
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.BitsStored, dataset.HighBit = 8, 7
    with pytest.raises(UnreadableImage, match=r"no decoder for .*JPEG Baseline .*with 12 bits"):
        read_dicom(dicom_bytes(dataset), MINE)


@pytest.mark.parametrize(
    ("syntax", "message"),
    [
        (
            HTJ2KLossless,
            r"High-Throughput JPEG 2000.*\(1.2.840.10008.1.2.4.201\); pip install pylibjpeg pylib.*-openjpeg",
        ),
        (MPEG4HP41, r"MPEG-4 AVC.*\(1.2.840.10008.1.2.4.102\); no Python package"),
        ("1.2.840.10008.1.2.4.110", r"1.2.840.10008.1.2.4.110\); no Python package"),
        ("1.2.840.113619.5.2.1234", r"no decoder for transfer syntax unknown \(1.2.840.113619.5.2.1234\); no Python"),
        (JPEGLosslessSV1, r"1.2.840.10008.1.2.4.70\); pip install itk-io or python-gdcm \(monai-deepfixcx\[gdcm\]\)"),
        (RLELossless, r"RLE Lossless \(1.2.840.10008.1.2.5\)"),
    ],
)
def test_what_cannot_be_decoded_is_refused_with_syntax_and_package(syntax: str, message: str) -> None:
    dataset = make_dicom(np.zeros((4, 4), np.uint8))
    known = UID(syntax).is_transfer_syntax
    dataset.file_meta.TransferSyntaxUID = UID(syntax) if known else HTJ2KLossless
    dataset.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
    dataset["PixelData"].is_undefined_length = True
    data = dicom_bytes(dataset)
    if not known:  # pydicom does not write what it does not know; these have as many letters
        data = data.replace(HTJ2KLossless.encode(), syntax.encode())
    with pytest.raises(UnreadableImage, match=message):
        read_dicom(data, () if syntax.startswith("1.2.840.10008.1.2") and syntax != MPEG4HP41 else DECODERS)


@pytest.mark.parametrize("decoder", ["itk", "pillow"])
def test_the_decoder_that_refused_a_damaged_frame_is_named(decoder: str) -> None:
    dataset = pydicom.dcmread(real("MR_small_jp2klossless.dcm"))
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[:60] + b"\xff\x00" * 40 + b"\xff\xd9"])
    message = rf"^damaged pixel data: transfer syntax JPEG 2000 .* was refused by {decoder}; ask its source for another"
    with pytest.raises(UnreadableImage, match=message):
        read_dicom(dicom_bytes(dataset), (decoder,))


@pytest.mark.parametrize("end", [-2, -40, -2000])
@pytest.mark.parametrize("name", ["MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "SC_rgb_jpeg_gdcm.dcm"])
def test_a_code_stream_without_its_end_is_refused_though_decoders_might_fill_it_up(name: str, end: int) -> None:
    dataset = pydicom.dcmread(real(name))
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([frame.rstrip(b"\0")[:end]])
    with pytest.raises(UnreadableImage, match="truncated: a compressed frame has no end marker"):
        read_dicom(dicom_bytes(dataset))


def test_missing_compressed_frames_are_counted() -> None:
    dataset = pydicom.dcmread(real("emri_small_jpeg_ls_lossless.dcm"))
    frames = list(generate_frames(dataset.PixelData, number_of_frames=10))
    dataset.PixelData = encapsulate(frames[:7])
    with pytest.raises(UnreadableImage, match="truncated: 7 of 10 frames are there"):
        read_dicom(dicom_bytes(dataset))


def test_more_frames_than_promised_are_left_alone() -> None:
    dataset = pydicom.dcmread(real("emri_small_jpeg_ls_lossless.dcm"))
    dataset.NumberOfFrames = 4
    np.testing.assert_array_equal(read_dicom(dicom_bytes(dataset))[0].values, values("emri_small.dcm")[..., :4])


def test_compressed_pixel_data_that_are_no_frames_are_refused() -> None:
    dataset = make_dicom(np.zeros((4, 4), np.uint8))
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.PixelData = encapsulate([b"\xff\xd9"])
    dataset["PixelData"].is_undefined_length = True
    data = dicom_bytes(dataset).replace(b"\xfe\xff\x00\xe0\x04\x00\x00\x00", b"\xfe\xff\x00\x77\x04\x00\x00\x00")
    with pytest.raises(UnreadableImage, match="damaged: the compressed pixel data are not a sequence of frames"):
        read_dicom(data)


def test_jpeg_without_a_frame_header_is_refused() -> None:
    dataset = make_dicom(np.zeros((4, 4), np.uint8))
    dataset.file_meta.TransferSyntaxUID = JPEGExtended12Bit
    dataset.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
    dataset["PixelData"].is_undefined_length = True
    with pytest.raises(UnreadableImage, match="damaged: a compressed frame has no header"):
        read_dicom(dicom_bytes(dataset))


@pytest.mark.parametrize("name", ["MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "JPEG-LL.dcm"])
def test_a_frame_of_another_size_than_the_header_says_reaches_no_decoder(name: str) -> None:
    dataset = pydicom.dcmread(real(name))
    rows, columns = dataset.Rows, dataset.Columns
    dataset.Rows = 63
    size = f"{rows} x {columns} x 1 values, the DICOM header says 63 x {columns} x 1"
    with pytest.raises(UnreadableImage, match=f"damaged: a compressed frame holds {size}"):
        read_dicom(dicom_bytes(dataset))


@pytest.mark.parametrize("bits", [0, 9, 28, 224])
def test_a_frame_of_impossible_depth_reaches_no_decoder(bits: int) -> None:
    data = real("SC_rgb_jpeg_gdcm.dcm").read_bytes()
    at = data.index(b"\xff\xc3") + 4
    with pytest.raises(UnreadableImage, match=f"damaged: a compressed frame claims {bits} bits for 8"):
        read_dicom(data[:at] + bytes([bits]) + data[at + 1 :])


def test_itk_would_notice_a_frame_of_another_size_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_decoders, "check_code_stream", lambda *_: 8)
    dataset = pydicom.dcmread(real("MR_small_jp2klossless.dcm"))
    dataset.Rows = 63
    with pytest.raises(UnreadableImage, match="damaged pixel data: transfer syntax JPEG 2000"):
        read_dicom(dicom_bytes(dataset), ("itk",))


@pytest.mark.parametrize("name", ["MR_small_jpeg_ls_lossless.dcm", "SC_rgb_jpeg_dcmtk.dcm", "RG3_J2KR.dcm"])
def test_without_itk_the_pixels_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_itk, _ = read_dicom(real(name).read_bytes())
    monkeypatch.setattr(dicom_decoders, "is_available", lambda _: False)
    without, _ = read_dicom(real(name).read_bytes())
    assert without.inverted == with_itk.inverted
    np.testing.assert_array_equal(without.values, with_itk.values)


def test_threads_may_read_at_once() -> None:
    names = ["MR_small_jpeg_ls_lossless.dcm", "SC_rgb_jpeg_dcmtk.dcm", "MR_small_jp2klossless.dcm", "MR_small_RLE.dcm"]
    alone = {name: read_dicom(real(name).read_bytes())[0].values for name in names}
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda name: read_dicom(real(name).read_bytes())[0].values, names * 10))
    for name, found in zip(names * 10, together, strict=True):
        np.testing.assert_array_equal(found, alone[name])


def test_no_laxer_decoder_is_asked_for_what_itk_has_refused() -> None:
    dataset = pydicom.dcmread(real("MR_small_jpeg_ls_lossless.dcm"))
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[:60] + b"\xff\xd9"])
    with pytest.raises(UnreadableImage, match=r"JPEG-LS Lossless .* was refused by itk; ask its source"):
        read_dicom(dicom_bytes(dataset))


def test_itk_without_memory_files_leaves_nothing_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    np.testing.assert_array_equal(values("MR_small_jp2klossless.dcm", "itk"), values("MR_small.dcm"))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="memory files are Linux's")
def test_itk_with_memory_files_writes_nothing_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    np.testing.assert_array_equal(values("MR_small_jp2klossless.dcm", "itk"), values("MR_small.dcm"))


@pytest.mark.parametrize("name", ["JPEG-LL.dcm", "RG3_J2KI.dcm", "JPGExtended.dcm", "MR_truncated.dcm"])
def test_nothing_is_printed(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with suppress(UnreadableImage):
        read_dicom(real(name).read_bytes())
    assert capfd.readouterr() == ("", "")


def test_reading_leaves_pydicoms_own_decoders_as_they_are() -> None:
    values("MR_small_jp2klossless.dcm", "itk")
    assert "itk" not in get_decoder(JPEG2000Lossless).available_plugins


@pytest.mark.parametrize(
    "name", ["JPEG-LL.dcm", "SC_rgb_jpeg_gdcm.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm"]
)
def test_damaged_code_streams_are_decoded_or_refused_and_never_end_the_process(name: str) -> None:
    whole = real(name).read_bytes()
    start = whole.index(b"\xff\x4f\xff\x51" if "jp2k" in name else b"\xff\xd8\xff")
    for seed in range(40):
        rng, data = np.random.default_rng(seed), bytearray(whole)
        for at in rng.integers(start, start + 200 if seed % 2 else len(data) - 20, 3):
            data[at] = rng.integers(256)
        try:
            image, _ = read_dicom(bytes(data))
        except UnreadableImage as error:
            assert "\n" not in str(error)  # noqa: PT017 - some damage is only to the picture
        else:
            assert image.values.ndim == 3

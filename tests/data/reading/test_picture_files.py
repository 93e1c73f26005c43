"""PNG, JPEG and TIFF."""

import io
import logging
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from monai_deepfixcx.data.reading import UnreadableImage, picture_files, read_image
from monai_deepfixcx.data.reading.picture_files import read_picture, read_tiff
from tests.data.reading.dicom_files import random_words

ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def png_16_bit(pixels: NDArray[np.uint16], *, interlaced: bool = False) -> bytes:
    """A PNG of 16 bits a sample, written from the specification (ISO/IEC 15948), for Pillow cannot write colour."""
    rows, columns = pixels.shape[:2]
    samples = 1 if pixels.ndim == 2 else pixels.shape[2]
    passes = [pixels[i::di, j::dj] for i, j, di, dj in ADAM7] if interlaced else [pixels]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for part in passes if part.size for line in part)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    colour = {1: 0, 2: 4, 3: 2, 4: 6}[samples]
    header = struct.pack(">IIBBBBB", columns, rows, 16, colour, 0, 0, int(interlaced))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def saved(picture: Image.Image, kind: str, **how: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **how)
    return file.getvalue()


def tiff(pixels: NDArray[Any], **how: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **how)
    return file.getvalue()


@pytest.fixture
def grey() -> NDArray[np.uint8]:
    return np.asarray(random_words(0, (9, 7), np.uint8))


@pytest.fixture
def rgb() -> NDArray[np.uint8]:
    return np.asarray(random_words(1, (9, 7, 3), np.uint8))


def first(values: NDArray[Any]) -> NDArray[Any]:
    return np.moveaxis(np.atleast_3d(values), -1, 0)


# PNG


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_png_of_eight_bits_is_read_without_its_alpha(mode: str, rgb: NDArray[np.uint8]) -> None:
    picture = Image.fromarray(rgb).convert(mode)
    if mode.endswith("A"):
        picture.putalpha(Image.fromarray(rgb[..., 0]))
    expected = np.asarray(Image.fromarray(rgb).convert("L" if mode[0] == "L" else "RGB"))
    image = read_picture(saved(picture, "PNG"))
    assert image.ends == (0.0, 255.0)
    assert image.full_range
    np.testing.assert_array_equal(image.values, first(expected))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_png_of_sixteen_bits_keeps_them_all(samples: int, interlaced: bool) -> None:
    pixels = random_words(2, (9, 7, samples), np.uint16)
    image = read_picture(png_16_bit(pixels[..., 0] if samples == 1 else pixels, interlaced=interlaced))
    assert image.ends == (0.0, 65535.0)
    np.testing.assert_array_equal(image.values, first(pixels[..., : 1 if samples < 3 else 3]))


def test_png_of_one_bit_is_black_and_white(grey: NDArray[np.uint8]) -> None:
    image = read_picture(saved(Image.fromarray(grey > 99), "PNG"))
    np.testing.assert_array_equal(image.values[0], (grey > 99) * 255)


@pytest.mark.parametrize("transparent", [{}, {"transparency": 3}])
def test_png_palettes_are_looked_up(rgb: NDArray[np.uint8], transparent: dict[str, int]) -> None:
    picture = Image.fromarray(rgb).quantize(16)
    image = read_picture(saved(picture, "PNG", **transparent))
    np.testing.assert_array_equal(image.values, first(np.asarray(picture.convert("RGB"))))


@given(cut=st.integers(30, 20_000), mode=st.sampled_from(["L", "RGB", "I;16", "JPEG", "grey JPEG"]))
@settings(max_examples=100, deadline=None)
def test_a_picture_cut_off_anywhere_is_whole_or_refused(cut: int, mode: str) -> None:
    smooth = np.add.outer(np.arange(120), np.arange(90)).astype(np.uint16) * 200
    if mode == "I;16":
        whole = saved(Image.fromarray(smooth), "PNG")
    else:
        picture = Image.fromarray((smooth >> 8).astype(np.uint8))
        grey = mode in ("L", "grey JPEG")
        whole = saved(picture if grey else picture.convert("RGB"), "JPEG" if mode.endswith("JPEG") else "PNG")
    try:
        values = read_picture(whole[: cut % len(whole)]).values
    except UnreadableImage as error:
        assert "truncated or damaged picture" in str(error)  # noqa: PT017 - not every cut is an error
        return
    np.testing.assert_array_equal(values, read_picture(whole).values)


@given(seed=st.integers(0, 2**32), kind=st.sampled_from(["PNG", "JPEG"]))
@settings(max_examples=80, deadline=None)
def test_a_damaged_picture_is_read_or_refused(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(saved(Image.fromarray(random_words(seed, (9, 7, 3), np.uint8)), kind))
    for at in rng.integers(4, len(data), rng.integers(1, 6)):
        data[at] = rng.integers(256)
    try:
        assert read_picture(bytes(data)).values.ndim == 3
    except UnreadableImage as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_a_decompression_bomb_is_named(monkeypatch: pytest.MonkeyPatch, grey: NDArray[np.uint8]) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 62)
    words = "too large: 63 pixels, more than 62, may be a decompression bomb; raise PIL.Image.MAX_IMAGE_PIXELS"
    with pytest.raises(UnreadableImage, match=words):
        read_picture(saved(Image.fromarray(grey), "PNG"))
    with pytest.raises(UnreadableImage, match=words):
        read_picture(saved(Image.fromarray(grey), "JPEG"))
    with pytest.raises(UnreadableImage, match=words):
        read_tiff(tiff(grey))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # here Pillow itself refuses
    with pytest.raises(UnreadableImage, match="DecompressionBombError"):
        read_picture(saved(Image.fromarray(grey), "PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    np.testing.assert_array_equal(read_picture(saved(Image.fromarray(grey), "PNG")).values[0], grey)


# JPEG


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_is_read_as_pillow_shows_it(mode: str, rgb: NDArray[np.uint8]) -> None:
    data = saved(Image.fromarray(rgb).convert(mode), "JPEG", quality=95)
    expected = Image.open(io.BytesIO(data)).convert("L" if mode == "L" else "RGB")
    np.testing.assert_array_equal(read_picture(data).values, first(np.asarray(expected)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, kind: str, grey: NDArray[np.uint8]) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    data = saved(Image.fromarray(grey), kind, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(read_picture(data).values[0], np.asarray(expected))


@pytest.mark.parametrize("how", [{}, {"progressive": True}, {"quality": 3}, {"restart_marker_rows": 1}])
def test_a_grey_jpeg_needs_no_pillow(
    how: dict[str, Any], monkeypatch: pytest.MonkeyPatch, grey: NDArray[np.uint8]
) -> None:
    data = saved(Image.fromarray(grey), "JPEG", **how)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    monkeypatch.setattr(Image, "open", None)
    image = read_picture(data)
    assert image.values.dtype == np.uint8
    assert image.ends == (0.0, 255.0)
    np.testing.assert_array_equal(image.values[0], expected)
    image.values[0, 0, 0] = 1  # is ours to write to, as torch demands


@given(seed=st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_a_damaged_grey_jpeg_is_what_pillow_says_it_is(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(saved(Image.fromarray(random_words(seed, (19, 27), np.uint8)), "JPEG"))
    for at in rng.integers(2, len(data), rng.integers(1, 4)):
        data[at] = rng.integers(256)

    def outcome() -> NDArray[Any] | str:
        try:
            return read_picture(bytes(data)).values
        except UnreadableImage as error:
            return str(error)

    ours = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(picture_files, "_grey_jpeg", lambda data: None)
        theirs = outcome()
    np.testing.assert_array_equal(ours, theirs)


def test_an_orientation_in_xmp_is_applied_to_a_grey_jpeg(grey: NDArray[np.uint8]) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><r:Description'
    xmp += b' xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="3"/></r:RDF></x:xmpmeta>'
    data = saved(Image.fromarray(grey), "JPEG", xmp=xmp)
    expected = np.asarray(Image.open(io.BytesIO(data)))[::-1, ::-1]
    np.testing.assert_array_equal(read_picture(data).values[0], expected)


# TIFF


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.float32, np.float64])
def test_tiff_of_every_type(dtype: Any, compression: Any) -> None:
    integer = np.dtype(dtype).kind in "iu"
    pixels = random_words(3, (9, 7), dtype) if integer else np.random.default_rng(3).normal(size=(9, 7)).astype(dtype)
    image = read_tiff(tiff(pixels, compression=compression))
    info = np.iinfo(dtype) if integer else None
    assert image.ends == (None if info is None else (info.min, info.max))
    assert image.full_range == (integer and np.dtype(dtype).itemsize <= 2)
    np.testing.assert_array_equal(image.values[0], pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("samples", [3, 4])
def test_tiff_colour_without_alpha(dtype: Any, planar: Any, samples: int) -> None:
    pixels = random_words(4, (9, 7, samples), dtype)
    stored = np.moveaxis(pixels, -1, 0) if planar == "separate" else pixels
    data = tiff(stored, photometric="rgb", planarconfig=planar)
    np.testing.assert_array_equal(read_tiff(data).values, first(pixels[..., :3]))


def test_tiff_grey_with_alpha_is_grey() -> None:
    pixels = random_words(4, (9, 7, 2), np.uint8)
    data = tiff(pixels, photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read_tiff(data).values[0], pixels[..., 0])


def test_tiff_pages_are_the_last_axis() -> None:
    pixels = random_words(5, (4, 9, 7), np.uint16)
    data = tiff(pixels, photometric="minisblack")
    np.testing.assert_array_equal(read_tiff(data).values, np.moveaxis(pixels, 0, -1)[None])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("decoder", ["tifffile", "pillow"])
def test_min_is_white_is_turned_over_once_whoever_decodes(tmp_path: Path, dtype: Any, decoder: str) -> None:
    pixels = random_words(6, (9, 7), dtype)
    path = tmp_path / "white"
    if decoder == "tifffile":
        path.write_bytes(tiff(pixels, photometric="miniswhite"))
    else:
        # Pillow alone reads LZW; it writes MinIsBlack, whose tag (262, a SHORT) is turned here.
        black, tag = saved(Image.fromarray(pixels), "TIFF", compression="tiff_lzw"), struct.pack("<HHI", 262, 3, 1)
        path.write_bytes(black.replace(tag + struct.pack("<I", 1), tag + struct.pack("<I", 0)))
    image = read_image(path)
    assert image.polarity_inverted == (decoder == "tifffile" or dtype == np.uint16)
    top = np.iinfo(dtype).max
    np.testing.assert_allclose(image.pixels[0], (top - pixels.astype(float)) / top, atol=1e-6)


def test_tiff_palettes_are_looked_up(rgb: NDArray[np.uint8]) -> None:
    picture = Image.fromarray(rgb).quantize(16)
    image = read_tiff(saved(picture, "TIFF"))
    assert image.ends == (0.0, 65535.0)
    np.testing.assert_allclose(image.values / 257, first(np.asarray(picture.convert("RGB"))), atol=1)


def test_tiff_of_one_bit(grey: NDArray[np.uint8]) -> None:
    image = read_tiff(tiff(grey > 99, photometric="minisblack"))
    assert image.ends == (0.0, 1.0)
    np.testing.assert_array_equal(image.values[0], grey > 99)


@pytest.mark.parametrize("decoder", ["tifffile", "pillow"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_orientation_is_applied_once(orientation: int, decoder: str, grey: NDArray[np.uint8]) -> None:
    if decoder == "tifffile":
        data = tiff(grey, extratags=[(274, 3, 1, orientation, True)])
    else:
        data = saved(Image.fromarray(grey), "TIFF", compression="tiff_lzw", tiffinfo={274: orientation})
    exif = Image.Exif()
    exif[274] = orientation
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(saved(Image.fromarray(grey), "PNG", exif=exif))))
    np.testing.assert_array_equal(read_tiff(data).values[0], np.asarray(expected))


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "jpeg"])
def test_compressions_that_tifffile_alone_lacks_are_read(compression: str, rgb: NDArray[np.uint8]) -> None:
    for picture in (Image.fromarray(rgb), Image.fromarray(rgb[..., 0])):
        data = saved(picture, "TIFF", compression=compression)
        expected = np.asarray(Image.open(io.BytesIO(data)))
        np.testing.assert_array_equal(read_tiff(data).values, first(expected))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_wide_grey_that_pillow_decodes_keeps_its_type(dtype: Any) -> None:
    pixels = (np.random.default_rng(0).normal(size=(9, 7)) * 1e6).astype(dtype)
    image = read_tiff(saved(Image.fromarray(pixels), "TIFF", compression="tiff_lzw"))
    assert not image.full_range
    assert (image.ends is None) == (dtype is np.float32)
    np.testing.assert_array_equal(image.values[0], pixels)


def test_cmyk_becomes_rgb(rgb: NDArray[np.uint8]) -> None:
    picture = Image.fromarray(rgb).convert("CMYK")
    np.testing.assert_array_equal(read_tiff(saved(picture, "TIFF")).values, first(np.asarray(picture.convert("RGB"))))


def test_pages_that_pillow_decodes_are_stacked_too() -> None:
    pixels = random_words(7, (3, 9, 7), np.uint16)
    pictures = [Image.fromarray(page) for page in pixels]
    data = saved(pictures[0], "TIFF", compression="tiff_lzw", save_all=True, append_images=pictures[1:])
    np.testing.assert_array_equal(read_tiff(data).values[0], np.moveaxis(pixels, 0, -1))


def test_a_compression_that_nothing_here_reads_names_the_package() -> None:
    data = tiff(random_words(0, (9, 7), np.uint8), compression=None)
    tag = struct.pack("<HHI", 259, 3, 1)
    strange = data.replace(tag + struct.pack("<I", 1), tag + struct.pack("<I", 34712))  # JPEG 2000
    with pytest.raises(UnreadableImage, match=r"\(MINISBLACK, compression JPEG2000, 8 bits\): pip install imagecodecs"):
        read_tiff(strange)


def test_pages_of_two_sizes_are_refused() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(np.zeros((4, 5), np.uint8))
        writer.write(np.zeros((4, 6), np.uint8))
    with pytest.raises(UnreadableImage, match="the pages of this TIFF differ in size or type; split them into files"):
        read_tiff(file.getvalue())


def test_thumbnails_are_no_pages() -> None:
    pixels = random_words(0, (8, 6), np.uint8)
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(pixels)
        writer.write(pixels[::2, ::2], subfiletype=1)
    np.testing.assert_array_equal(read_tiff(file.getvalue()).values[0], pixels)


def test_thumbnails_between_pages_that_pillow_decodes_are_skipped() -> None:
    words = random_words(0, (3, 8, 6), np.uint8)
    pages = [Image.fromarray(page) for page in words]
    data = saved(pages[0], "TIFF", compression="tiff_lzw", save_all=True, append_images=pages[1:], tiffinfo={254: 0})
    full, reduced = struct.pack("<HHII", 254, 4, 1, 0), struct.pack("<HHII", 254, 4, 1, 1)  # NewSubfileType
    head, first_page, second_page, third_page = data.split(full)
    data = head + full + first_page + reduced + second_page + full + third_page
    np.testing.assert_array_equal(read_tiff(data).values[0], np.moveaxis(words[::2], 0, -1))


def test_a_stack_that_states_only_its_first_page_is_refused() -> None:
    pixels = random_words(0, (5, 9, 7), np.uint16)
    with pytest.raises(UnreadableImage, match="a TIFF stack that states only its first page"):
        read_tiff(tiff(pixels, photometric="minisblack", truncate=True))
    whole = read_tiff(tiff(pixels, photometric="minisblack", imagej=True))
    np.testing.assert_array_equal(whole.values[0], np.moveaxis(pixels, 0, -1))


def test_a_page_that_is_a_volume_itself_is_refused() -> None:
    data = tiff(np.zeros((16, 16, 16), np.uint8), volumetric=True, tile=(16, 16, 16), photometric="minisblack")
    with pytest.raises(UnreadableImage, match="a TIFF page with axes ZYX is not supported; save one slice a page"):
        read_tiff(data)


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_a_tiff_cut_off_anywhere_is_whole_or_refused(data: st.DataObject) -> None:
    pixels = random_words(8, (3, 32, 32), np.uint16)
    how: Any = data.draw(st.sampled_from([{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"rowsperstrip": 5}]))
    whole = tiff(pixels, photometric="minisblack", **how)
    cut = data.draw(st.integers(8, len(whole) - 1))
    try:
        values = read_tiff(whole[:cut]).values
    except UnreadableImage as error:
        assert "truncated" in str(error) or "damaged" in str(error)  # noqa: PT017
        return
    np.testing.assert_array_equal(values, read_tiff(whole).values)


def test_tifffile_prints_nothing_of_a_damaged_file(capfd: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("tifffile").handlers.clear()
    with pytest.raises(UnreadableImage, match="truncated or damaged TIFF: there is no page"):
        read_tiff(tiff(np.zeros((40, 30), np.uint16))[:8])
    assert capfd.readouterr() == ("", "")

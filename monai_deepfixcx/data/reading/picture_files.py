"""PNG, JPEG and TIFF to values."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monai_deepfixcx.data.reading.stored_image import StoredImage, UnreadableImage

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage
    from tifffile import TiffFile, TiffPage

_EXIF_ORIENTATION = 274  # the same tag in TIFF
_TIFF_COLOURS = ("MINISBLACK", "MINISWHITE", "RGB", "PALETTE")


def read_picture(data: bytes) -> StoredImage:
    """Decode a PNG or JPEG.

    Args:
        data: The whole file.

    Returns:
        ``[1 or 3, rows, columns]`` as displayed: EXIF orientation is applied, a palette is looked up, CMYK becomes
        RGB, transparency is dropped.

    Raises:
        UnreadableImage: If the file is damaged, cut off, or a decompression bomb.
    """
    try:
        grey = _grey_jpeg(data)
        if grey is not None:
            return _picture(grey, 8)
        with _quiet_pillow():
            return _read_picture(data)
    except UnreadableImage:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, ... for bad files
        raise UnreadableImage(_damaged("truncated or damaged picture", error)) from None


def read_tiff(data: bytes) -> StoredImage:
    """Decode a TIFF of one or several pages.

    Args:
        data: The whole file.

    Returns:
        ``[1 or 3, rows, columns]`` or, for several pages of one size, ``[1 or 3, rows, columns, pages]``.

    Raises:
        UnreadableImage: If the file is damaged or cut off, its pages do not make one image, or its compression
            needs another package.
    """
    import tifffile

    log = logging.getLogger("tifffile")
    if not log.handlers:  # or Python prints tifffile's complaints about damaged files, which we raise instead
        log.addHandler(logging.NullHandler())
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            pages = _tiff_pages(tiff, data)
            return _stack_pages([_read_page(page, data) for page in pages])
    except UnreadableImage:
        raise
    except Exception as error:
        raise UnreadableImage(_damaged("truncated or damaged TIFF", error)) from None


def _damaged(what: str, error: Exception) -> str:
    return f"{what} ({type(error).__name__})"


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of damaged EXIF, where only the orientation matters
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # _refuse_bomb raises instead
        yield


def _read_picture(data: bytes) -> StoredImage:
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
        _refuse_bomb(picture.width * picture.height)
        orientation = picture.getexif().get(_EXIF_ORIENTATION, 1)
        # The PNG header says how many bits there are (PNG, 11.2.1); Pillow would cut colour to 8.
        deep_colour = picture.format == "PNG" and data[24] == 16 and data[25] != 0
        pixels = _deep_png(data, picture.mode) if deep_colour else _samples(picture)
    return _picture(_oriented(pixels, orientation), 16 if pixels.dtype == np.uint16 else 8)


def _grey_jpeg(data: bytes) -> NDArray[np.uint8] | None:
    """``[rows, columns]`` of a whole grey JPEG that is not to be turned, faster than by Pillow; else None."""
    import simplejpeg

    if not data.startswith(b"\xff\xd8") or not _is_upright(data):
        return None
    try:
        rows, columns, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours != "Gray":
            return None
        _refuse_bomb(rows * columns)
        return simplejpeg.decode_jpeg(data, "GRAY")[..., 0]
    except ValueError as error:  # damaged: Pillow decides whether it can still be read
        if isinstance(error, UnreadableImage):
            raise
        return None


def _is_upright(jpeg: bytes) -> bool:
    """Whether all segments before the pixels (ITU-T T.81, B.1.1) are whole, and none can be EXIF or XMP."""
    at = 2
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF and 0xC0 <= jpeg[at + 1] < 0xFF:
        if jpeg[at + 1] == 0xDA:  # start of scan
            return True
        if jpeg[at + 1] == 0xE1:  # APP1
            return False
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return False


def _refuse_bomb(pixels: int) -> None:
    from PIL import Image

    most = Image.MAX_IMAGE_PIXELS
    if most is not None and pixels > most:
        raise UnreadableImage(
            f"too large: {pixels:,} pixels, more than {most:,}, may be a decompression bomb; "
            "raise PIL.Image.MAX_IMAGE_PIXELS if it is not"
        )


def _picture(pixels: NDArray[Any], bits: int, *, inverted: bool = False) -> StoredImage:
    """Pixels ``[rows, columns(, samples)]`` to an image on a grid of its own: pictures state no millimetres."""
    values = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    kind = pixels.dtype.kind
    low = -(2.0 ** (bits - 1)) if kind == "i" else 0.0
    if values.dtype not in (np.uint8, np.uint16):
        values = values.astype(np.float32 if values.dtype.itemsize <= 2 or values.dtype == np.float32 else np.float64)
    return StoredImage(
        values=np.require(values, requirements=["C", "W"]),
        affine=np.eye(4),
        ends=None if kind == "f" else (low, low + 2.0**bits - 1),
        full_range=kind != "f" and bits <= 16,
        inverted=inverted,
    )


def _samples(picture: PILImage) -> NDArray[Any]:
    """Grey ``[rows, columns]`` or RGB ``[rows, columns, 3]``, 8 or 16 bits, from an opened picture."""
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG"):
        return np.asarray(picture).astype(np.uint16)  # 16-bit grey, for which Pillow's name has changed
    if picture.mode in ("I", "F"):
        return np.asarray(picture)
    mode = "L" if picture.mode in ("1", "L", "LA") else "RGB"
    return np.asarray(picture if picture.mode == mode else picture.convert(mode))


def _deep_png(data: bytes, mode: str) -> NDArray[np.uint16]:
    """16-bit colour or grey and alpha, decoded once for the high bytes of the samples and once for the low ones."""
    from PIL import Image

    def decode(raw_mode: str) -> NDArray[np.uint16]:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            ((codec, box, offset, _),) = picture.tile
            picture.tile = [(codec, box, offset, raw_mode)]  # type: ignore[list-item]
            return np.asarray(picture).astype(np.uint16)

    if data[25] == 4:  # grey and alpha: four bytes a pixel, as RGBA has
        high_low = decode("RGBA")
        high, low = high_low[..., 0], high_low[..., 1]
    else:
        high, low = decode(f"{mode};16B")[..., :3], decode(f"{mode};16L")[..., :3]
    return np.asarray(high * 256 + low, dtype=np.uint16)


def _oriented(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn and mirror as EXIF's Orientation says (CIPA DC-008, 4.6.5): 1 as is, 3 upside down, 6 and 8 lying."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _tiff_pages(tiff: TiffFile, data: bytes) -> list[TiffPage]:
    from tifffile import TiffPage

    pages = [page for page in tiff.pages if isinstance(page, TiffPage) and not page.is_reduced]  # no thumbnails
    if not pages:
        raise UnreadableImage("truncated or damaged TIFF: there is no page")
    last = tiff.pages.next_page_offset  # where the last page states that it is the last; tifffile stops without, too
    if not last or data[last : last + tiff.tiff.offsetsize] != bytes(tiff.tiff.offsetsize):
        raise UnreadableImage("truncated: the list of pages in this TIFF has no end")
    if (tiff.is_imagej or tiff.is_shaped) and tiff.series[0].size > sum(page.size for page in pages):
        raise UnreadableImage("a TIFF stack that states only its first page; save it again with every slice a page")
    if len({(page.shape, page.dtype, page.photometric) for page in pages}) > 1:
        raise UnreadableImage("the pages of this TIFF differ in size or type; split them into files")
    _refuse_bomb(pages[0].imagewidth * pages[0].imagelength)
    for page in pages:
        # tifffile fills what is missing with zeros where whole strips lie beyond the end.
        end = max(offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True))
        if end > len(data):
            raise UnreadableImage(f"truncated: {len(data):,} of {end:,} bytes are there")
    return pages


def _read_page(page: TiffPage, data: bytes) -> StoredImage:
    colours = getattr(page.photometric, "name", "unknown")
    try:
        if colours not in _TIFF_COLOURS:
            raise ValueError
        pixels = page.asarray()
    except ValueError:  # a compression or colour space that tifffile alone does not decode
        return _read_page_with_pillow(page, data, colours)
    if page.axes == "SYX":
        pixels = np.moveaxis(pixels, 0, -1)
    if page.axes not in ("YX", "YXS", "SYX"):
        raise UnreadableImage(f"a TIFF page with axes {page.axes} is not supported; save one slice a page")
    bits = page.bitspersample
    if colours == "PALETTE" and page.colormap is not None:
        pixels, bits = np.moveaxis(page.colormap[:, pixels], 0, -1), 16
    elif pixels.ndim == 3:
        pixels = pixels[..., : 3 if colours == "RGB" else 1]  # without alpha
    orientation = page.tags.valueof(_EXIF_ORIENTATION, default=1)
    return _picture(_oriented(pixels, orientation), bits, inverted=colours == "MINISWHITE")


def _read_page_with_pillow(page: TiffPage, data: bytes, colours: str) -> StoredImage:
    from PIL import Image

    try:
        with _quiet_pillow(), Image.open(io.BytesIO(data), formats=("TIFF",)) as picture:
            picture.seek(page.index)
            pixels = _samples(picture)
            # Pillow has turned the page already, and dropped the tag that says so.
            pixels = _oriented(pixels, picture.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:
        compression = getattr(page.compression, "name", "unknown")
        raise UnreadableImage(
            f"damaged, or a TIFF that needs another decoder ({colours}, compression {compression}, "
            f"{page.bitspersample} bits): pip install imagecodecs would help"
        ) from None
    # Pillow has turned 8-bit MinIsWhite over itself, but not 16-bit.
    inverted = colours == "MINISWHITE" and pixels.dtype != np.uint8
    return _picture(pixels, 8 * pixels.dtype.itemsize, inverted=inverted)


def _stack_pages(pages: list[StoredImage]) -> StoredImage:
    if len(pages) == 1:
        return pages[0]
    return replace(pages[0], values=np.stack([page.values for page in pages], axis=-1))

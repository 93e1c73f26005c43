"""Stored pixel values out of a DICOM file, the same whichever decoder is installed.

ITK decodes, because it is always installed; python-gdcm, Pillow and pylibjpeg, through pydicom, what it does not.
ITK's DICOM reader applies the rescale slope and inverts MONOCHROME1 on its own. It therefore never sees
the file: each compressed frame is handed to it inside a new DICOM object that says nothing but how the
frame is coded, so what comes back are stored values and polarity is decided in one place.

This module is also the pydicom decoding plugin for ITK: `is_available`, `DECODER_DEPENDENCIES` and
`decode_frame_with_itk` are what pydicom asks of a plugin.
"""

from __future__ import annotations

import importlib.util
import io
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monai_deepfixcx.data.reading.code_streams import check_code_stream, read_code_streams
from monai_deepfixcx.data.reading.dicom_header import PIXELS, Header
from monai_deepfixcx.data.reading.stored_image import UnreadableImage

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import DecodeRunner
    from pydicom.uid import UID

# The first of these that is installed decides. The next is not asked if it refuses: some are lax and would make up
# the rest of a damaged frame, so that one machine read what another refuses; and python-gdcm, which wraps the same
# library as ITK, ends the process over some of them.
DECODERS = ("pydicom", "itk", "gdcm", "pillow", "pylibjpeg")

_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")  # Baseline and Extended: 8 or 12 bits
_JPEG_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_ITK_SYNTAXES = _JPEG + _JPEG_LOSSLESS + _JPEG_LS + _JPEG_2000
_HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")
_CODE_STREAMS = _ITK_SYNTAXES + _HTJ2K
_SELF_DESCRIBING = _JPEG_LS + _JPEG_2000  # the code stream, not the header, says how many bits there are

DECODER_DEPENDENCIES = {syntax: ("itk-io>=5.4",) for syntax in _ITK_SYNTAXES}
_ITK_TYPES = {"uint8": "UC", "int8": "SS", "int16": "SS", "uint16": "US"}  # there is no signed char


def decode_frames(header: Header, decoders: Sequence[str] = DECODERS) -> tuple[NDArray[Any], str]:
    """Decode every frame to the words that were stored, before any look-up table.

    Args:
        header: The elements of the Image Pixel module and the pixel data.
        decoders: The decoders that may be used; the first that is installed is.

    Returns:
        Words ``[rows, columns]``, with a leading frame axis if there are several frames and a trailing
        sample axis if there are several samples; and their photometric interpretation, RGB for YBR.

    Raises:
        UnreadableImage: If the pixel data are cut off, or no decoder here understands them; the transfer
            syntax and the package that would help are named.
    """
    syntax = header.syntax
    if not syntax.is_transfer_syntax:  # private, or newer than pydicom: it cannot even tell whether it is compressed
        raise UnreadableImage(f"no decoder for {_named(syntax, 8)}; {_help(syntax, 8)}")
    if not syntax.is_encapsulated:
        _check_length(header)
        words = _plain_words(header)
        return (words, header.get("PhotometricInterpretation")) if words is not None else _decode(header, "native")
    usable = [name for name in decoders if _has_decoder(syntax, name)]
    precision = _check_code_streams(header) if usable else 8
    if precision > 8:
        # ITK complains on stderr of 12-bit JPEG and returns an array all the same: there is nothing to hold it against.
        usable = [name for name in usable if name == "pylibjpeg"]
    if not usable:
        raise UnreadableImage(f"no decoder for {_named(syntax, precision)}; {_help(syntax, precision)}")
    try:
        return _decode(header, usable[0])
    except Exception:  # decoders raise RuntimeError, ValueError, NotImplementedError, what C++ throws, ...
        refused = f"damaged pixel data: {_named(syntax, precision)} was refused by {usable[0]}"
        raise UnreadableImage(f"{refused}; ask its source for another copy") from None


def keeps_unused_bits(syntax: UID) -> bool:
    """Whether bits above Bits Stored may hold something else, such as an overlay."""
    return syntax not in _SELF_DESCRIBING


def is_available(uid: str) -> bool:
    """Whether ITK is installed and knows the transfer syntax `uid`; part of pydicom's plugin protocol."""
    return uid in _ITK_SYNTAXES and importlib.util.find_spec("itk") is not None


def decode_frame_with_itk(code: bytes, runner: DecodeRunner) -> bytes:
    """Decode one compressed frame to its stored values; part of pydicom's plugin protocol.

    Args:
        code: The code stream of one frame.
        runner: pydicom's description of the frame.

    Returns:
        The stored values, row by row, the samples of a pixel side by side.
    """
    import itk

    precision = runner.get_option("j2k_precision", runner.get_option("jls_precision"))
    if precision is not None:
        runner.set_option("bits_allocated", 8 if precision <= 8 else 16)
    with _readable_path(_bare_dicom(code, runner, precision or runner.bits_stored)) as path:
        # A vector image, because 16-bit RGB is not among the scalar types ITK ships for Python.
        pixel = getattr(itk, _ITK_TYPES[runner.pixel_dtype.name])
        reader = itk.ImageFileReader[itk.VectorImage[pixel, 3]].New(ImageIO=itk.GDCMImageIO.New(), FileName=path)
        reader.Update()
        values = itk.array_from_image(reader.GetOutput())
    if runner.photometric_interpretation in ("YBR_ICT", "YBR_RCT"):  # undone by the JPEG 2000 decoder itself
        runner.set_option("photometric_interpretation", "RGB")
    runner.set_option("planar_configuration", 0)
    return bytes(values.astype(runner.pixel_dtype, copy=False).tobytes())


def _plain_words(header: Header) -> NDArray[Any] | None:
    """The words of a native grey image as they lie in the file; None if pydicom is to unpack, swap or convert them."""
    bits, sign = header.get("BitsAllocated"), header.get("PixelRepresentation")
    shape = (int(header.get("NumberOfFrames") or 1), header.get("Rows"), header.get("Columns"))
    order = "<" if header.syntax.is_little_endian else ">"
    plain = (
        "PixelData" in header
        and header.get("SamplesPerPixel") == 1
        and header.get("PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2")
        and all(type(number) is int for number in (bits, sign, *shape))
        and bits in ((8, 16, 32) if order == "<" else (16, 32))  # pairs of bytes may be swapped
        and sign in (0, 1)
        and 0 < min(shape) <= max(shape) < 2**16
    )
    if not plain:
        return None
    words = np.frombuffer(header.get("PixelData"), f"{order}{'ui'[sign]}{bits // 8}", math.prod(shape))
    return words.reshape(shape[1:] if shape[0] == 1 else shape)


def _decode(header: Header, name: str) -> tuple[NDArray[Any], str]:
    from pydicom.pixels.decoders.base import Decoder, get_decoder

    syntax = header.syntax
    decoder = get_decoder(syntax)
    if name == "itk":
        decoder = Decoder(syntax)  # our own, so that pydicom's shared one stays as it is
        decoder.add_plugin("itk", (__name__, "decode_frame_with_itk"))
    plugin = "" if name == "native" else name
    options: dict[str, Any] = {"allow_excess_frames": False}
    if keeps_unused_bits(syntax):
        options["correct_unused_bits"] = False  # padding is looked for in whole words first
    words, properties = decoder.as_array(header.dataset, decoding_plugin=plugin, **options)
    return words, str(properties["photometric_interpretation"])


def _has_decoder(syntax: UID, name: str) -> bool:
    from pydicom.pixels.decoders.base import get_decoder

    if name == "itk":
        return is_available(syntax)
    try:
        return name in get_decoder(syntax).available_plugins
    except NotImplementedError:  # pydicom knows no decoder for this syntax: video, JPEG XL, private ones
        return False


def _check_length(header: Header) -> None:
    """Refuse native pixel data that end early; more bytes than needed do no harm."""
    keyword = next(keyword for keyword in PIXELS if keyword in header)
    samples = 2 if header.get("PhotometricInterpretation") == "YBR_FULL_422" else header.get("SamplesPerPixel")
    bits = {"PixelData": header.get("BitsAllocated"), "FloatPixelData": 32, "DoubleFloatPixelData": 64}[keyword]
    frames = int(header.get("NumberOfFrames") or 1)
    needed = -(-frames * header.get("Rows") * header.get("Columns") * samples * bits // 8)
    there = len(header.get(keyword) or b"")
    if there < needed:
        raise UnreadableImage(f"truncated: {there:,} of {needed:,} pixel bytes are there")


def _check_code_streams(header: Header) -> int:
    """Refuse damaged frames; return the bits per sample of JPEG that is 8-bit, or 12-bit in disguise."""
    streams = read_code_streams(header.dataset)
    bits = [check_code_stream(stream, header.dataset) for stream in streams if header.syntax in _CODE_STREAMS]
    return max(bits) if header.syntax in _JPEG else 8


def _bare_dicom(code: bytes, runner: DecodeRunner, precision: int) -> bytes:
    """A DICOM file that holds one compressed frame and nothing that ITK would act upon."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID, SecondaryCaptureImageStorage

    bare = Dataset()
    bare.file_meta = FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = runner.transfer_syntax
    bare.file_meta.MediaStorageSOPClassUID = bare.SOPClassUID = SecondaryCaptureImageStorage
    bare.file_meta.MediaStorageSOPInstanceUID = bare.SOPInstanceUID = UID("2.25.1")
    bare.Rows, bare.Columns = runner.rows, runner.columns
    bare.SamplesPerPixel = runner.samples_per_pixel
    # Never MONOCHROME1, PALETTE COLOR or YBR, or ITK would convert; pydicom converts the colour for all decoders.
    bare.PhotometricInterpretation = "MONOCHROME2" if runner.samples_per_pixel == 1 else "RGB"
    if runner.samples_per_pixel > 1:
        bare.PlanarConfiguration = 0
    bare.BitsAllocated = runner.bits_allocated
    bare.BitsStored, bare.HighBit = precision, precision - 1
    bare.PixelRepresentation = runner.pixel_representation
    bare.PixelData = encapsulate([code])
    bare["PixelData"].VR = "OB"
    bare["PixelData"].is_undefined_length = True
    file = io.BytesIO()
    bare.save_as(file, enforce_file_format=True)
    return file.getvalue()


@contextmanager
def _readable_path(data: bytes) -> Iterator[str]:
    """A path under which `data` can be read while the context lasts; in memory where the system can."""
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        with os.fdopen(os.memfd_create("frame"), "wb") as file:
            file.write(data)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
        return
    with tempfile.TemporaryDirectory() as folder:  # only its owner may enter it, and it goes at once
        path = Path(folder) / "frame"
        path.write_bytes(data)
        yield str(path)


def _named(syntax: UID, precision: int) -> str:
    if not syntax.is_valid:  # a damaged length makes it swallow what follows, and that may be a name
        return "a transfer syntax that is no UID"
    name = syntax.name if syntax.name != syntax else "unknown"
    return f"transfer syntax {name} ({syntax})" + (f" with {precision} bits" if precision > 8 else "")


def _help(syntax: UID, precision: int) -> str:
    if syntax not in _ITK_SYNTAXES + _HTJ2K:
        return "no Python package we know reads it: convert the file to Explicit VR Little Endian first"
    package = "itk-io or python-gdcm (monai-deepfixcx[gdcm])"
    if precision > 8:
        package = "pylibjpeg pylibjpeg-libjpeg (GPL-3.0, so it is yours to choose)"
    elif syntax in _HTJ2K:
        package = "pylibjpeg pylibjpeg-openjpeg"
    return f"pip install {package} would help"

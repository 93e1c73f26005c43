"""The compressed frames of a DICOM file, checked before a decoder written in C sees them.

Some decoders fill up a frame that stops early, write past the end of one that claims another size, or end the
process over a number that cannot be; one damaged file must not cost a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from monai_deepfixcx.data.reading.stored_image import UnreadableImage

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_NO_FRAME_HEADER = (0xC4, 0xC8, 0xCC)  # DHT, JPG and DAC lie between the start-of-frame markers


class FrameHeader(NamedTuple):
    """What a code stream says of its frame."""

    rows: int
    columns: int
    samples: int
    bits: int


def read_code_streams(header: Dataset) -> list[bytes]:
    """The code stream of every frame.

    Args:
        header: With encapsulated Pixel Data.

    Raises:
        UnreadableImage: If there are fewer streams than frames.
    """
    from pydicom.encaps import generate_frames

    frames = int(header.get("NumberOfFrames") or 1)
    offsets = tuple(header[k].value for k in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths") if k in header)
    extended = (offsets[0], offsets[1]) if len(offsets) == 2 else None
    try:
        streams = list(generate_frames(header.PixelData, number_of_frames=frames, extended_offsets=extended))
    except Exception:
        raise UnreadableImage("damaged: the compressed pixel data are not a sequence of frames") from None
    if len(streams) < frames:
        raise UnreadableImage(f"truncated: {len(streams)} of {frames} frames are there")
    return streams[:frames]


def check_code_stream(stream: bytes, header: Dataset) -> int:
    """Refuse a JPEG, JPEG-LS or JPEG 2000 frame that is cut off or contradicts the DICOM header.

    Args:
        stream: One frame.
        header: The elements of the Image Pixel module.

    Returns:
        Bits per sample.

    Raises:
        UnreadableImage: If the frame is damaged.
    """
    if not stream.rstrip(b"\x00\xff").endswith(b"\xff\xd9"):  # but for fill bytes: the end of image, or of code stream
        raise UnreadableImage("truncated: a compressed frame has no end marker")
    found = read_frame_header(stream)
    if found is None:
        return int(header.BitsStored)
    expected = (header.Rows, header.Columns, header.SamplesPerPixel)
    if found[:3] != expected:
        sizes = (" x ".join(map(str, size)) for size in (found[:3], expected))
        raise UnreadableImage("damaged: a compressed frame holds {} values, the DICOM header says {}".format(*sizes))
    if not 1 <= found.bits <= header.BitsAllocated:  # ITK's JPEG decoder would write past its buffer
        raise UnreadableImage(f"damaged: a compressed frame claims {found.bits} bits for {header.BitsAllocated}")
    return found.bits


def read_frame_header(stream: bytes) -> FrameHeader | None:
    """What the stream says of itself; None for JPEG 2000 inside another file format, which a few devices send.

    Args:
        stream: JPEG or JPEG-LS (ITU-T T.81, B.2.2; T.87, C.2.2) or JPEG 2000 (T.800, A.5.1).

    Raises:
        UnreadableImage: If it is none of these.
    """
    if stream.startswith(b"\xff\x4f\xff\x51"):
        x1, y1, x0, y0 = (int.from_bytes(stream[at : at + 4], "big") for at in range(8, 24, 4))
        return FrameHeader(y1 - y0, x1 - x0, int.from_bytes(stream[40:42], "big"), (stream[42] & 0x7F) + 1)
    if stream.startswith(b"\0\0\0\x0cjP  "):
        return None
    at = 2
    while at + 10 < len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if (0xC0 <= marker <= 0xCF and marker not in _NO_FRAME_HEADER) or marker == 0xF7:
            rows, columns = (int.from_bytes(stream[i : i + 2], "big") for i in (at + 5, at + 7))
            return FrameHeader(rows, columns, stream[at + 9], stream[at + 4])
        at += 1 if marker == 0xFF else 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    raise UnreadableImage("damaged: a compressed frame has no header")

"""NIfTI to values."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_deepfixcx.data.reading.stored_image import StoredImage, UnreadableImage

_GZIP_MARK = b"\x1f\x8b"
_GZIP = 31  # zlib's code for a gzip header and checksum


def is_nifti(head: bytes) -> bool:
    """Whether a file that starts with `head` (352 bytes or more) is a NIfTI-1 or NIfTI-2, header and image in one."""
    sizes = {int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")}
    return (348 in sizes and head[344:348] == b"n+1\0") or (540 in sizes and head[4:8] == b"n+2\0")


def unzip_head(head: bytes, size: int) -> bytes:
    """The first `size` bytes that gzipped `head` unpacks to; empty if it does not unpack."""
    try:
        return zlib.decompressobj(_GZIP).decompress(head, size)
    except zlib.error:
        return b""


def read_nifti(data: bytes) -> StoredImage:
    """Decode a NIfTI, gzipped or not.

    Args:
        data: The whole file.

    Returns:
        A volume ``[1, X, Y, Z]`` in its own axes; or, for a single slice (``[X, Y]``, ``[X, Y, 1]``), an image
        ``[1, rows, columns]`` as radiology displays it: columns to the patient's left (in a sagittal image, to
        the back), rows to the back in an axial image and to the feet in others.

    Raises:
        UnreadableImage: If the file is damaged or cut off, or holds more than one grey volume.
    """
    try:
        return _read_nifti(_unzipped(data) if data[:2] == _GZIP_MARK else data)
    except UnreadableImage:
        raise
    except Exception as error:  # nibabel raises ImageFileError, HeaderDataError, ValueError, ... for bad headers
        raise UnreadableImage(f"damaged NIfTI ({type(error).__name__})") from None


def _unzipped(data: bytes) -> bytes:
    unzipped = b""
    while data[:2] == _GZIP_MARK:  # parallel compressors write several members one after the other
        unzip = zlib.decompressobj(_GZIP)
        try:
            unzipped += unzip.decompress(data)
        except zlib.error:
            raise UnreadableImage("damaged: the gzip stream of this NIfTI is broken") from None
        if not unzip.eof:
            raise UnreadableImage(f"truncated: the gzip stream of this NIfTI stops after {len(unzipped):,} bytes")
        data = unzip.unused_data
    return unzipped


def _read_nifti(data: bytes) -> StoredImage:
    import nibabel
    from nibabel.imageglobals import LoggingOutputSuppressor

    kind = nibabel.Nifti2Image if 540 in (data[0] | data[1] << 8, data[3] | data[2] << 8) else nibabel.Nifti1Image
    with LoggingOutputSuppressor():  # nibabel prints what it mends in a header
        image: Any = kind.from_bytes(data)
    header = image.header
    dtype, shape = header.get_data_dtype(), header.get_data_shape()
    if dtype.kind not in "iuf":
        raise UnreadableImage(f"NIfTI of type {header['datatype']} (colour or complex) is not supported; save grey")
    there, needed = len(data) - int(image.dataobj.offset), dtype.itemsize * math.prod(shape)
    if there < needed:
        raise UnreadableImage(f"truncated: {max(there, 0):,} of {needed:,} pixel bytes are there")
    kept = np.float32 if dtype.itemsize <= 2 or dtype.kind + str(dtype.itemsize) == "f4" else np.float64
    volume = _volume(np.asarray(image.get_fdata(dtype=kept)), shape)
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all():
        raise UnreadableImage("damaged: the affine of this NIfTI is not finite")
    if volume.shape[2] == 1:
        volume, affine = _as_displayed(volume, affine)
    ends = _ends(dtype, image.dataobj.slope, image.dataobj.inter)
    return StoredImage(values=volume[None], affine=affine, ends=ends, full_range=False)


def _volume(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Three axes, from two or from more of which the last have one element."""
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or not array.size:
        size = " x ".join(map(str, shape))
        raise UnreadableImage(f"{len(shape)}-D NIfTI ({size}): split it into volumes, e.g. with nibabel.four_to_three")
    return array


def _ends(dtype: np.dtype[Any], slope: float, intercept: float) -> tuple[float, float] | None:
    if dtype.kind == "f":
        return None
    info = np.iinfo(dtype)
    first, last = (end * slope + intercept for end in (info.min, info.max))
    return float(min(first, last)), float(max(first, last))


def _as_displayed(volume: NDArray[Any], affine: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """One slice ``[X, Y, 1]`` to ``[rows, columns]``, and its affine with the axes row, column, slice."""
    from nibabel import orientations

    affine = affine.copy()
    if not affine[:3, 2].any():  # a header for two dimensions need not say how thick the slice is
        affine[:3, 2] = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] /= np.linalg.norm(affine[:3, 2]) or 1
    now = orientations.io_orientation(affine)
    if np.isnan(now).any():
        raise UnreadableImage("damaged: the affine of this NIfTI is singular")
    axial = now[2, 0] == 2
    turn = orientations.ornt_transform(now, orientations.axcodes2ornt("LPS" if axial else "LPI"))
    affine = affine @ orientations.inv_ornt_aff(turn, volume.shape)
    volume = orientations.apply_orientation(volume, turn)
    through = int(now[2, 0])  # after the turn, axes are those of the patient
    columns, rows = (axis for axis in range(3) if axis != through)
    order = [rows, columns, through]
    return volume.transpose(order)[..., 0], affine[:, [*order, 3]]

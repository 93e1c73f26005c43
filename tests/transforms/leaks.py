"""Files full of identifying values, and a search for them in everything reachable from an object."""

import contextlib
import io
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from nibabel.nifti1 import Nifti1Extension
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from torch import Tensor

SIZE = 32
RUN = 16  # pixels in a row that count as a piece of the original

DICOM_TAGS = {
    "PatientName": "ZQDOE^ZQJANE",
    "PatientID": "ZQ-MRN-4711",
    "OtherPatientIDs": "ZQ-OLDMRN-22",
    "PatientBirthDate": "19470312",
    "PatientBirthTime": "041559",
    "PatientAge": "079Y",
    "PatientSize": "1.61803",
    "PatientWeight": "61.8034",
    "PatientAddress": "ZQ Elm Street 12",
    "PatientTelephoneNumbers": "+49 555 010199",
    "PatientMotherBirthName": "ZQMOTHER",
    "PatientComments": "ZQ known to the staff",
    "Occupation": "ZQASTRONAUT",
    "EthnicGroup": "ZQETHNIC",
    "AccessionNumber": "ZQACC8842",
    "InstitutionName": "ZQ General Hospital",
    "InstitutionAddress": "ZQ Hill Road 3",
    "InstitutionalDepartmentName": "ZQRADIOLOGY",
    "ReferringPhysicianName": "ZQREFER^ANN",
    "PerformingPhysicianName": "ZQPERFORM^BOB",
    "OperatorsName": "ZQOPERATOR^CY",
    "RequestingPhysician": "ZQREQUEST^DI",
    "StationName": "ZQSTATION9",
    "DeviceSerialNumber": "ZQSERIAL777",
    "StudyDate": "20190823",
    "SeriesDate": "20190824",
    "ContentDate": "20190825",
    "StudyTime": "134711.25",
    "StudyID": "ZQSTUDY5",
    "StudyDescription": "ZQ thorax after fall",
    "SeriesDescription": "ZQ supine bedside",
    "ProtocolName": "ZQPROTOCOL",
    "ImageComments": "ZQ scar from 1962",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.11111111",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.22222222",
    "SOPInstanceUID": "1.2.826.0.1.3680043.8.498.33333333",
    "FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.44444444",
}
PRIVATE_TAG = "ZQPRIVATE bed 14"

NIFTI_TEXTS = {"descrip": b"ZQNIFTI DOE", "aux_file": b"zqaux_doe", "db_name": b"ZQDB4711", "intent_name": b"ZQINTENT"}
NIFTI_COMMENT = b"ZQCOMMENT Jane Doe, born 1947"
NIFTI_NUMBER = 19470312.0  # a birth date where a float belongs


@dataclass(frozen=True)
class Identified:
    """A file that identifies a patient, and what must not be found of it."""

    path: Path
    texts: tuple[bytes, ...]
    pixels: NDArray[np.uint16]

    def path_texts(self) -> tuple[bytes, ...]:
        return tuple(part.encode() for part in (self.path.parent.name, self.path.name, self.path.name.split(".")[0]))

    def pixel_runs(self, permitted: frozenset[int] = frozenset()) -> Iterator[bytes]:
        """Original pixels in a row, along every axis and in every type, but for those made of `permitted` values."""
        orders = [self.pixels, *(np.moveaxis(self.pixels, axis, -1) for axis in range(self.pixels.ndim - 1))]
        for run in np.concatenate([order.reshape(-1, RUN) for order in orders]):
            if not permitted.issuperset(run.tolist()):
                for dtype in (np.float32, np.float64, np.uint16, np.int16, np.int32):
                    yield run.astype(dtype).tobytes()


def distinct_pixels(*shape: int) -> NDArray[np.uint16]:
    """No value twice, so that a value says which pixel it came from."""
    values = np.random.default_rng(7).permutation(np.prod(shape)) + 300
    return values.reshape(shape).astype(np.uint16)


def write_dicom(folder: Path) -> Identified:
    path = folder / "zqdoe_jane_ward7" / "zqmrn4711_chest.dcm"
    path.parent.mkdir(parents=True)
    pixels = distinct_pixels(SIZE, SIZE)
    file_meta = FileMetaDataset()
    file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    file_meta.MediaStorageSOPInstanceUID = UID(DICOM_TAGS["SOPInstanceUID"])
    file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=file_meta, preamble=bytes(128))
    for keyword, value in DICOM_TAGS.items():
        setattr(dataset, keyword, value)
    dataset.private_block(0x0099, "ZQVENDOR", create=True).add_new(0x01, "LO", PRIVATE_TAG)
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.Modality = "OT"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelSpacing = [0.5, 0.25]
    dataset.ImagePositionPatient = [10, 20, 30]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)
    texts = (*(str(value).encode() for value in DICOM_TAGS.values()), PRIVATE_TAG.encode(), b"ZQVENDOR")
    return Identified(path, texts, pixels)


def write_nifti(folder: Path) -> Identified:
    path = folder / "zqdoe_jane_ward7" / "zqmrn4711_head.nii.gz"
    path.parent.mkdir(parents=True)
    pixels = distinct_pixels(SIZE, SIZE, 4)
    affine = np.array([[2.0, 0, 0, 5], [0, 3, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]])
    image: Any = nibabel.Nifti1Image(pixels, affine)
    for field, text in NIFTI_TEXTS.items():
        image.header[field] = text
    image.header["intent_p1"] = NIFTI_NUMBER
    image.header.extensions.append(Nifti1Extension("comment", NIFTI_COMMENT))
    nibabel.save(image, path)
    number = np.float32(NIFTI_NUMBER).tobytes()
    return Identified(path, (*NIFTI_TEXTS.values(), NIFTI_COMMENT, number), pixels)


def found(haystack: Any, identified: Identified, permitted: frozenset[int] = frozenset()) -> set[str]:
    """Which kinds of identifying thing, "tags", "path" and "pixels", are reachable from `haystack`."""
    blob = everything(haystack)
    kinds = {
        "tags": identified.texts,
        "path": identified.path_texts(),
        "pixels": identified.pixel_runs(permitted),
    }
    return {kind for kind, needles in kinds.items() if any(needle in blob for needle in needles)}


def found_texts(haystack: Any, identified: Identified) -> list[bytes]:
    blob = everything(haystack)
    return [text for text in identified.texts if text in blob]


def everything(haystack: Any) -> bytes:
    """All text and bytes reachable from an object, its pickle, its print and its saved form, one after the other."""
    saved = io.BytesIO()
    torch.save(haystack, saved)
    forms = [pickle.dumps(haystack), saved.getvalue(), repr(haystack).encode(), str(haystack).encode()]
    return b"\n".join([*forms, *_reachable(haystack, set())])


def _reachable(node: Any, seen: set[int]) -> Iterator[bytes]:
    if id(node) in seen or isinstance(node, type):
        return
    seen.add(id(node))
    children: list[Any] = [getattr(node, "__dict__", None)]
    if isinstance(node, bytes | bytearray):
        yield bytes(node)
    elif isinstance(node, str | Path):
        yield str(node).encode()
    elif isinstance(node, Tensor):
        yield _whole_storage(node)
        children += [node.grad, node.grad_fn and node.grad_fn.metadata]
    elif isinstance(node, np.ndarray):
        yield node.tobytes()
        children += [node.base, node.tolist() if node.dtype == object else None]
    elif isinstance(node, np.generic):
        yield node.tobytes()
    elif isinstance(node, Mapping):
        children += [*node.keys(), *node.values()]
    elif isinstance(node, list | tuple | set | frozenset):
        children += node
    elif isinstance(node, float):
        yield np.float32(node).tobytes()
    for child in children:
        yield from _reachable(child, seen)


def _whole_storage(tensor: Tensor) -> bytes:
    """The bytes the tensor keeps alive, also those it does not show."""
    plain = tensor.detach().as_subclass(torch.Tensor)
    with contextlib.suppress(RuntimeError):  # a tensor without storage
        return torch.empty(0, dtype=torch.uint8).set_(plain.untyped_storage()).numpy().tobytes()
    return b""


def files_below(folder: Path) -> list[Any]:
    """Names and bytes of all files below a folder."""
    return [(str(path.relative_to(folder)), path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()]

"""Small DICOM files made for one test each, and the real ones that come with installed packages."""

import io
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

CAT = Path(str(files("deid_data") / "data/animals/cat.dcm"))
SECRET = "ZYXWV"  # stands in every identifying element of the files made here; must come out nowhere


def real(name: str) -> Path:
    """A test file of pydicom or pydicom-data."""
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str), f"{name} is not installed"
    return Path(path)


def make_dicom(stored: NDArray[Any], **elements: Any) -> Dataset:
    """A data set around stored words, ``[rows, columns]``, ``[frames, rows, columns]`` or with 3 samples at the end."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = UID("2.25.7")
    dataset.SOPInstanceUID = UID("2.25.7")
    dataset.PatientName = f"{SECRET}^{SECRET}"
    dataset.PatientID = dataset.AccessionNumber = dataset.InstitutionName = SECRET
    dataset.SeriesInstanceUID = "2.25.99887766"
    dataset.Modality = "CR"
    colour = stored.ndim > 2 and stored.shape[-1] == 3
    dataset.SamplesPerPixel = 3 if colour else 1
    if colour:
        dataset.PlanarConfiguration = 0
    spatial = stored.shape[:-1] if colour else stored.shape
    if len(spatial) == 3:
        dataset.NumberOfFrames = spatial[0]
    dataset.Rows, dataset.Columns = spatial[-2:]
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * stored.dtype.itemsize
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelSpacing = [1, 1]
    if stored.dtype.kind == "f":
        dataset.FloatPixelData = stored.astype("<f4").tobytes()
    else:
        dataset.PixelData = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
        dataset["PixelData"].VR = "OB" if dataset.BitsAllocated == 8 else "OW"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.HighBit = elements.get("HighBit", dataset.BitsStored - 1)
    return dataset


def write_dicom(path: Path, stored: NDArray[Any], **elements: Any) -> Path:
    """Write what `make_dicom` makes."""
    make_dicom(stored, **elements).save_as(path, enforce_file_format=True)
    return path


def dicom_bytes(dataset: Dataset) -> bytes:
    """The file that a data set would be."""
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def item(**elements: Any) -> Dataset:
    """One item of a sequence."""
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def lut_item(first: int, entries: NDArray[Any], bits: int) -> Dataset:
    """An item with a look-up table."""
    lut = Dataset()
    lut.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) % 2**16, first, bits])
    lut.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return lut


def random_words(seed: int, shape: tuple[int, ...], dtype: Any, low: int | None = None, high: int | None = None) -> Any:
    """Random integers of any dtype, over its whole range unless told otherwise."""
    info = np.iinfo(dtype)
    low, high = info.min if low is None else low, info.max if high is None else high
    return np.random.default_rng(seed).integers(low, high, shape, dtype, endpoint=True)

"""What works on this machine: every reader and decoder is tried on a real file, every extra imported."""

import importlib
import importlib.metadata
import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom.data

from monai_deepfixcx.data.reading import UnreadableImage
from monai_deepfixcx.pipeline.encode import read_quietly

# A file that comes with pydicom for every way DICOM pixels are commonly stored, and whether its decoder is required.
_DICOM_FILES = {
    "DICOM uncompressed": ("MR_small.dcm", True),
    "DICOM big endian": ("MR_small_bigendian.dcm", True),
    "DICOM deflated": ("image_dfl.dcm", True),
    "DICOM RLE": ("MR_small_RLE.dcm", True),
    "DICOM JPEG baseline": ("SC_rgb_jpeg_dcmtk.dcm", True),
    "DICOM JPEG extended, 12 bits": ("JPGExtended.dcm", False),
    "DICOM JPEG lossless": ("SC_rgb_jpeg_gdcm.dcm", True),
    "DICOM JPEG-LS": ("MR_small_jpeg_ls_lossless.dcm", True),
    "DICOM JPEG 2000": ("MR_small_jp2klossless.dcm", True),
}
_PACKAGES = (
    "torch",
    "monai",
    "numpy",
    "pydicom",
    "itk-io",
    "nibabel",
    "pillow",
    "simplejpeg",
    "tifffile",
    "PyWavelets",
    "numba",
    "distributed",
)
_EXTRAS = {
    "opacus": ("differentially private training", "dp"),
    "dask_jobqueue": ("runs in SLURM jobs", "slurm"),
    "gdcm": ("a second DICOM decoder", "gdcm"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that works or does not."""

    what: str
    works: bool
    state: str
    remedy: str = ""
    required: bool = True


def examine() -> list[Finding]:
    """Try everything; nothing is changed and nothing is fetched."""
    return [*_packages(), *_file_formats(), *_dicom_decoders(), *_extras(), _cuda()]


def _packages() -> Iterator[Finding]:
    yield Finding("Python", True, platform.python_version())
    for name in _PACKAGES:
        try:
            yield Finding(name, True, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, False, "not installed", f"pip install {name}")


def _file_formats() -> Iterator[Finding]:
    import nibabel
    import tifffile
    from PIL import Image

    picture = np.arange(64, dtype=np.uint8).reshape(8, 8)
    writers: dict[str, Callable[[Path], object]] = {
        "png": Image.fromarray(picture).save,
        "jpg": Image.fromarray(picture).save,
        "tif": lambda path: tifffile.imwrite(path, picture),
        "nii.gz": lambda path: nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4)), np.eye(4)), path),
    }
    with tempfile.TemporaryDirectory() as folder:
        for suffix, write in writers.items():
            path = Path(folder) / f"image.{suffix}"
            write(path)
            yield _try_reading(f".{suffix}", path, required=True)


def _dicom_decoders() -> Iterator[Finding]:
    for what, (name, required) in _DICOM_FILES.items():
        path = pydicom.data.get_testdata_file(name, download=False)
        if path is None:
            yield Finding(
                what, False, f"not tried: pydicom came without {name}", "pip install --force-reinstall pydicom", False
            )
        else:
            yield _try_reading(what, Path(str(path)), required)


def _try_reading(what: str, path: Path, required: bool) -> Finding:
    try:
        shape = read_quietly(path).pixels.shape
    except UnreadableImage as error:
        return Finding(what, False, "cannot be decoded", str(error), required)
    return Finding(what, True, f"decoded {'x'.join(map(str, shape))}", required=required)


def _extras() -> Iterator[Finding]:
    for module, (purpose, extra) in _EXTRAS.items():
        remedy = f'pip install "monai-deepfixcx[{extra}]"'
        try:
            importlib.import_module(module)
        except ImportError:
            yield Finding(purpose, False, f"{module} is not installed", remedy, required=False)
        else:
            yield Finding(purpose, True, module, remedy, required=False)


def _cuda() -> Finding:
    import torch

    works = torch.cuda.is_available()
    state = torch.cuda.get_device_name() if works else "no CUDA device: encoding runs on the CPU"
    return Finding("GPU", works, state, "optional", required=False)

"""What several tests of reading need."""

from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from monai_deepfixcx.data.reading import Radiograph, Scale, read_image
from tests.data.reading.dicom_files import write_dicom


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """Write a DICOM file around stored words, and read it."""

    def write_and_read(stored: NDArray[Any], scale: Scale = "auto", color: Any = "grey", **elements: Any) -> Radiograph:
        return read_image(write_dicom(tmp_path / "image.dcm", stored, **elements), scale=scale, color=color)

    return write_and_read

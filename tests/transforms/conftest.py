from collections.abc import Iterator
from pathlib import Path

import pytest
from monai.data import set_track_meta

from tests.transforms.leaks import Identified, write_dicom, write_nifti


@pytest.fixture(params=[True, False], ids=["tracked", "untracked"])
def track_meta(request: pytest.FixtureRequest) -> Iterator[bool]:
    set_track_meta(request.param)
    yield request.param
    set_track_meta(True)


@pytest.fixture
def untracked() -> Iterator[None]:
    set_track_meta(False)
    yield
    set_track_meta(True)


@pytest.fixture
def dicom(tmp_path: Path) -> Identified:
    return write_dicom(tmp_path / "source")


@pytest.fixture
def nifti(tmp_path: Path) -> Identified:
    return write_nifti(tmp_path / "source")

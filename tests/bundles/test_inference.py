"""A folder in; a table and privatized images out, and nothing that identifies anyone."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from nibabel import Nifti1Image
from nibabel import save as save_nifti
from PIL import Image

from monai_deepfixcx.data import PhantomRadiographs
from tests.bundles.conftest import BUNDLES, ROOT, Train, config, overlay, workflow

# The values that PhantomRadiographs plants in every header.
PLANTED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientAddress", "AccessionNumber", "InstitutionName"),
    *("InstitutionAddress", "ReferringPhysicianName", "OperatorsName", "StudyDate", "StudyInstanceUID"),
    *("SeriesInstanceUID", "SOPInstanceUID", "DeviceSerialNumber", "StationName"),
)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DICOM, NIfTI, PNG and JPEG films in folders, a volume, a damaged file and a text."""
    folder = tmp_path_factory.mktemp("mixed")
    PhantomRadiographs(2, 1, 96, seed=9).write_dicom(folder / "ward")
    (folder / "ward" / "labels.csv").rename(folder / "notes.txt")
    film = (PhantomRadiographs(1, 1, 128, seed=8)[0]["image"][0].numpy() * 255).astype(np.uint8)
    Image.fromarray(film[:, 20:]).save(folder / "narrow.png")
    Image.fromarray(film).save(folder / "film.jpg")
    save_nifti(Nifti1Image(film.T, np.eye(4)), folder / "film.nii.gz")
    save_nifti(Nifti1Image(np.stack([film] * 5, -1), np.eye(4)), folder / "volume.nii")
    Image.fromarray(np.full((80, 80), 7, np.uint8)).save(folder / "blank.png")
    damaged = (folder / "ward" / "phantom_000000_00.dcm").read_bytes()
    (folder / "ward" / "cut.dcm").write_bytes(damaged[: len(damaged) // 2])
    (folder / ".hidden.png").write_bytes(b"")
    return folder


def rows(output: Path) -> dict[str, dict[str, str]]:
    with (output / "predictions.csv").open(newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def planted(folder: Path) -> set[bytes]:
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in folder.rglob("phantom_*.dcm")]
    values = {str(header[keyword].value).encode() for header in headers for keyword in PLANTED}
    return values | {b"PHANTOM^PRIVATE", str(folder).encode()}


@pytest.mark.parametrize("bundle", BUNDLES)
def test_a_mixed_folder(bundle: str, mixed: Path, tmp_path: Path) -> None:
    """The shipped weights, at once."""
    before = sorted(mixed.rglob("*"))
    made = workflow(bundle, "inference.yaml", dataset_dir=str(mixed), output_dir=str(tmp_path), progress=False)
    made.run()
    table = rows(tmp_path)
    readable = {"film.jpg", "film.nii.gz", "narrow.png", "ward/phantom_000000_00.dcm", "ward/phantom_000001_00.dcm"}
    assert {path for path, row in table.items() if not row["problem"]} == readable
    assert set(table) - readable == {"blank.png", "notes.txt", "volume.nii", "ward/cut.dcm"}
    assert "3-D image" in table["volume.nii"]["problem"]
    assert "one value" in table["blank.png"]["problem"]
    for row in table.values():
        numbers = [value for name, value in row.items() if name not in ("path", "problem")]
        assert all(0 <= float(value) <= 1 for value in numbers) if not row["problem"] else not any(numbers)
    images = {path.relative_to(tmp_path / "images").as_posix() for path in (tmp_path / "images").rglob("*.png")}
    assert images == {f"{path}.png" for path in readable}
    assert sorted(mixed.rglob("*")) == before


@pytest.mark.parametrize("bundle", BUNDLES)
def test_the_images_are_what_the_code_still_shows(bundle: str, mixed: Path, tmp_path: Path) -> None:
    made = workflow(bundle, "inference.yaml", dataset_dir=str(mixed / "ward"), output_dir=str(tmp_path), progress=False)
    made.run()
    item = next(item for item in made.dataset if item["path"] == "phantom_000001_00.dcm")
    privatized = made.network_def.codec(item["image"][None])[0, 0].clamp(0, 1)
    with Image.open(tmp_path / "images" / "phantom_000001_00.dcm.png") as picture:
        assert picture.mode == "L"
        assert not picture.info
        shown = torch.from_numpy(np.array(picture)).float() / 255
    torch.testing.assert_close(shown, privatized, atol=0.003, rtol=0)
    assert (shown - item["image"][0].clamp(0, 1)).abs().mean() > 0.02


@pytest.mark.parametrize("bundle", BUNDLES)
def test_no_planted_identifier_leaves(
    bundle: str,
    mixed: Path,
    train: Train,
    data_dir: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, _ = train(bundle)
    smoke = overlay("smoke.yaml")
    places = {"ckpt_dir": str(folder), "output_dir": str(tmp_path)}
    with caplog.at_level("DEBUG"):
        workflow(bundle, "evaluate.yaml", smoke, dataset_dir=data_dir, **places).run()
        caplog.clear()  # the workflow's own summary of its arguments names the folder of the data
        made = workflow(bundle, "inference.yaml", smoke, dataset_dir=str(mixed), **places)
        capfd.readouterr()
        caplog.clear()
        made.run()
    # The phantom's films are DICOM below data_dir, those of the inference below mixed.
    secrets = planted(mixed) | planted(Path(data_dir))
    assert len(secrets) > 50
    said = capfd.readouterr()
    outputs = {"log": (caplog.text + said.out + said.err).encode()}
    outputs |= {str(path): path.read_bytes() for top in (tmp_path, folder) for path in top.rglob("*") if path.is_file()}
    assert len(outputs) > 10
    found = {(name, secret) for name, content in outputs.items() for secret in secrets if secret in content}
    assert found == set()


def test_a_missing_folder_names_its_key(tmp_path: Path) -> None:
    made = workflow(BUNDLES[0], "inference.yaml", dataset_dir=str(tmp_path / "absent"), output_dir=str(tmp_path))
    with pytest.raises(RuntimeError) as caught:
        made.run()
    assert "dataset_dir must be a folder of DICOM" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("name", "key"), [("inference", "ckpt_path"), ("evaluate", "ckpt_path"), ("train", "resume_from")]
)
def test_missing_weights_name_their_key(name: str, key: str, mixed: Path, data_dir: str, tmp_path: Path) -> None:
    places = {"ckpt_dir": str(tmp_path), "output_dir": str(tmp_path), key: str(tmp_path / "absent.pt")}
    data = str(mixed) if name == "inference" else data_dir
    made = workflow(BUNDLES[0], f"{name}.yaml", overlay("smoke.yaml"), dataset_dir=data, **places)
    with pytest.raises(RuntimeError) as caught:
        made.run()
    assert f"{key} must be a file" in str(caught.value.__cause__)


def test_the_command_runs_from_anywhere(mixed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", config(BUNDLES[1], "inference.yaml")]
    command += ["--dataset_dir", str(mixed), "--output_dir", str(tmp_path / "out"), "--progress", "False"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert len(rows(tmp_path / "out")) == 9
    assert str(ROOT / "bundles" / BUNDLES[1] / "models" / "model.pt") in result.stdout

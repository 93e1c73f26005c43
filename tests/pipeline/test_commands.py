"""`deepfixcx verify`, `index`, `inspect`, `doctor` and `demo`."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader
from PIL import Image

from monai_deepfixcx.data import CodeStore, LoadCoded
from monai_deepfixcx.pipeline.workspace import Workspace
from tests.pipeline.conftest import GOOD, Run, write_picture

SMALL = ("--levels", 2, "--patch-size", 3, "--workers", 0)


@pytest.fixture
def output(mixed: Path, tmp_path: Path, run: Run) -> Path:
    run("privatize", mixed, tmp_path / "out", *SMALL)
    return tmp_path / "out"


def test_verify_names_the_damaged_shard(output: Path, run: Run) -> None:
    (shard,) = (output / "shards").glob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-1] + b"\0")
    status, out, _ = run("verify", output)
    assert status == 1
    assert f"damaged  shard {shard.stem}: {shard.name} has changed since it was written" in out
    assert "1 of 1 shards are damaged" in out


def test_a_folder_without_a_store_is_one_line(tmp_path: Path, run: Run) -> None:
    for command in ("verify", "index"):
        status, _, err = run(command, tmp_path)
        assert status == 2
        assert "is no code store: it has no store.json" in err
        assert err.count("\n") == 1


def test_index_feeds_monai(output: Path, tmp_path: Path, run: Run) -> None:
    status, out, _ = run("index", output, "-o", tmp_path / "list.json")
    assert status == 0
    assert "4 training" in out
    items = json.loads((tmp_path / "list.json").read_text())["training"]
    assert {tuple(item) for item in items} == {("code", "id", "spatial_shape")}
    for item in items:
        item.pop("spatial_shape")  # images of several sizes
    (batch,) = DataLoader(CacheDataset(items, LoadCoded("code"), progress=False), batch_size=4)
    assert torch.equal(batch["code"], torch.stack([item["code"] for item in CodeStore(output)]))


def write_labels(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_index_joins_labels_but_no_path(output: Path, mixed: Path, tmp_path: Path, run: Run) -> None:
    rows = [
        {"image": GOOD[0], "patient": "0017", "age": 61, "dose": "0.5", "part": "training"},
        {"image": f"{mixed.name}/{GOOD[1]}", "patient": "18", "age": -1, "dose": "1.25", "part": "validation"},
        {"image": "deep.tif", "patient": "P19", "age": 0, "dose": "", "part": "training"},
        {"image": "elsewhere/other.png", "patient": "x", "age": 1, "dose": "", "part": "training"},
    ]
    labels = write_labels(tmp_path / "labels.csv", rows)
    status, out, _ = run("index", output, "--labels", labels, "--split", "part", "-o", tmp_path / "list.json")
    assert status == 0
    assert "2 training" in out
    assert "1 validation" in out
    assert "1 codes have no row" in out
    parts, pseudonym = json.loads((tmp_path / "list.json").read_text()), Workspace.reopen(output).pseudonym
    by_id = {item["id"]: item for part in parts.values() for item in part}
    assert by_id[pseudonym(GOOD[0])]["patient"] == "0017"  # an identifier, not a number
    assert by_id[pseudonym(GOOD[0])]["age"] == 61
    assert by_id[pseudonym(GOOD[0])]["dose"] == 0.5
    assert by_id[pseudonym(GOOD[1])] == parts["validation"][0]
    assert by_id[pseudonym(GOOD[3])]["dose"] == ""
    assert "ward" not in (tmp_path / "list.json").read_text()


def test_index_names_what_is_missing(output: Path, tmp_path: Path, run: Run) -> None:
    labels = write_labels(tmp_path / "labels.csv", [{"file": GOOD[0], "y": 1}])
    for arguments, text in [
        (("--labels", labels), "has no column 'image'; it has file, y"),
        (("--labels", labels, "--key", "file", "--split", "part"), "has no column 'part'"),
        (("--labels", tmp_path / "none.csv"), "none.csv: No such file"),
        (("--labels", labels, "--key", "file", "--private", tmp_path / "nowhere"), "Say where with --private"),
        (("-o", tmp_path / "no" / "list.json"), "cannot write"),
    ]:
        status, _, err = run("index", output, *arguments)
        assert status == 2
        assert text in err
        assert err.count("\n") == 1


@pytest.mark.parametrize("method", ["deepfixcx", "heartspot"])
def test_inspect_draws(tmp_path: Path, run: Run, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_picture(tmp_path / "chest.png", 3, (150, 140))
    monkeypatch.chdir(tmp_path)
    status, out, _ = run("inspect", tmp_path / "chest.png", "--method", method)
    assert status == 0
    assert "chest-inspect.png (it shows the original: keep it private)" in out
    picture = np.asarray(Image.open(tmp_path / "chest-inspect.png").convert("L"))
    assert picture.shape[1] == 1200
    assert picture.std() > 20


def test_inspect_draws_a_volume(mixed: Path, tmp_path: Path, run: Run) -> None:
    arguments = ("--spatial-dims", 3, "--levels", 1, "--patch-size", 2, "-o", tmp_path / "volume.png")
    assert run("inspect", mixed / "volume.nii.gz", *arguments)[0] == 0
    assert (tmp_path / "volume.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("name", "text"),
    [("letter.dcm", "not an image"), ("tiny.png", "patch_size must be at most"), ("gone.png", "No such file")],
)
def test_inspect_says_why_not(mixed: Path, tmp_path: Path, run: Run, name: str, text: str) -> None:
    status, _, err = run("inspect", mixed / name, "-o", tmp_path / "x.png")
    assert status == 2
    assert text in err
    assert err.count("\n") == 1
    assert not (tmp_path / "x.png").exists()


def test_doctor_tries_everything(run: Run) -> None:
    status, out, _ = run("doctor")
    assert status == 0
    for what in ("DICOM JPEG 2000", ".nii.gz", "torch", "GPU"):
        assert what in out


def test_demo_deletes_nothing_of_others(tmp_path: Path, run: Run) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("chapter 1")
    (tmp_path / "file").touch()
    status, _, err = run("demo", "-o", tmp_path / "mine")
    assert status == 2
    assert "holds files that no demo wrote: choose another folder" in err
    assert (tmp_path / "mine" / "thesis.txt").exists()
    status, _, err = run("demo", "-o", tmp_path / "file" / "out")
    assert status == 2
    assert "cannot write to" in err


@pytest.mark.slow
def test_demo(tmp_path: Path, run: Run) -> None:
    for number in range(3):
        write_picture(tmp_path / "mine" / f"{number}.png", number)
    status, out, _ = run("demo", "--data", tmp_path / "mine", "-o", tmp_path / "demo")
    assert status == 0
    assert out.count("every shard verified") == 4
    assert out.count("AUROC Cardiomegaly") == 2
    for name in ("deepfixcx", "heartspot", "volumes"):
        assert (tmp_path / "demo" / f"{name}.png").stat().st_size > 50_000

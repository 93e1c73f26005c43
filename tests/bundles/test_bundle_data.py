"""What configurations call: each error names the key to mend."""

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from monai_deepfixcx.codecs import DeepFixCXCodec
from monai_deepfixcx.data import PhantomRadiographs
from monai_deepfixcx.data.bundle_data import (
    CheckFilmd,
    ReadableDataset,
    bundle_datalist,
    bundle_folder,
    check_file,
    class_weights,
    folder_items,
    phantom_folder,
    required,
)
from monai_deepfixcx.data.reading import UnreadableImage
from tests.bundles.conftest import BUNDLES, ROOT

PHANTOM = {"patients": 10, "visits_per_patient": 1, "size": 64}


def test_bundle_folder_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = ROOT / "bundles" / BUNDLES[0]
    for place in (tmp_path, ROOT, home):
        monkeypatch.chdir(place)
        assert bundle_folder(BUNDLES[0]) == str(home)
    monkeypatch.chdir(home)
    assert bundle_folder(BUNDLES[1]) == str(ROOT / "bundles" / BUNDLES[1])


@pytest.mark.parametrize(
    "style", ["--config_file {0}", "--config_file={0}", "--config_file ['{0}','configs/nih.yaml']"]
)
def test_bundle_folder_is_that_of_the_config_file(style: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "renamed"
    shutil.copytree(ROOT / "bundles" / BUNDLES[0] / "configs", copy / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run", *style.format("renamed/configs/train.yaml").split(" ")])
    assert bundle_folder(BUNDLES[0]) == str(copy)


def test_bundle_folder_names_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"bundle_root: no bundle 'absent' in .*Pass --bundle_root FOLDER"):
        bundle_folder("absent")


def test_required_names_the_key() -> None:
    with pytest.raises(ValueError, match=r"dataset_dir must be given: a folder. Pass --dataset_dir VALUE"):
        required("dataset_dir", "a folder")


def test_a_file_that_must_be_there(tmp_path: Path) -> None:
    check_file("ckpt_path", Path(__file__))
    with pytest.raises(FileNotFoundError, match=r"ckpt_path must be a file; .*model.pt is not there. Train first"):
        check_file("ckpt_path", tmp_path / "model.pt")


def test_the_phantom_is_written_once(tmp_path: Path) -> None:
    folder = phantom_folder(tmp_path, 2, 1, 64)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(before) == 3
    assert phantom_folder(tmp_path, 2, 1, 64) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert phantom_folder(tmp_path, 2, 1, 64, seed=1) != folder


def test_a_second_process_may_be_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = PhantomRadiographs.write_dicom

    def write_late(self: PhantomRadiographs, folder: str | Path) -> list[Path]:
        monkeypatch.undo()
        phantom_folder(tmp_path, 2, 1, 64)  # the other process
        return write(self, folder)

    monkeypatch.setattr(PhantomRadiographs, "write_dicom", write_late)
    folder = phantom_folder(tmp_path, 2, 1, 64)
    assert list(tmp_path.iterdir()) == [folder]
    assert len(list(folder.glob("*.dcm"))) == 2


def test_parts_of_the_phantom(tmp_path: Path) -> None:
    parts = bundle_datalist("phantom", tmp_path, ["Effusion", "Cardiomegaly"], phantom=PHANTOM)
    assert {part: len(items) for part, items in parts.items()} == {"training": 6, "validation": 2, "testing": 2}
    assert bundle_datalist("phantom", tmp_path, ["Effusion", "Cardiomegaly"], phantom=PHANTOM) == parts
    swapped = bundle_datalist("phantom", tmp_path, ["Cardiomegaly", "Effusion"], phantom=PHANTOM)
    assert [item["label"][::-1] for item in swapped["training"]] == [item["label"] for item in parts["training"]]


def test_a_csv_of_ones_own(tmp_path: Path) -> None:
    rows = "".join(f"{n}.png,p{n},{n % 2}\n" for n in range(10))
    (tmp_path / "mine.csv").write_text("file,patient,Big heart\n" + rows)
    options = {"table": "mine.csv", "columns": {"image": "file"}, "missing": "keep"}
    aliases = {"Cardiomegaly": "Big heart"}
    parts = bundle_datalist("csv", tmp_path, ["Cardiomegaly"], label_aliases=aliases, source_options=options)
    assert (
        sorted(label for items in parts.values() for item in items for label in item["label"]) == [0.0] * 5 + [1.0] * 5
    )


def test_classes_become_one_number_each(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{name}{number}.png")
    parts = bundle_datalist("folder", tmp_path, ["c", "a"], fractions=(0.5, 0.25, 0.25))
    for items in parts.values():
        assert all(item["label"] == [float("/c/" in item["image"]), float("/a/" in item["image"])] for item in items)


ITEM = {"image": "a.png", "patient": 1, "label": [0, 1]}
WRONG_DATALISTS: list[tuple[Any, str]] = [
    ("{", "dataset_dir: datalist.json is no JSON"),
    ([ITEM], 'dataset_dir: datalist.json must hold an object with a list "training"'),
    ({"training": []}, "dataset_dir: datalist.json lists no image"),
    ({"training": [{"image": "a", "label": [0, 1]}]}, "label_names: every item of datalist.json .* lacks patient"),
    ({"training": [{"patient": 1, "label": [0, 1]}]}, "label_names: every item .* lacks image and code"),
    ({"training": [{"image": "a", "patient": 1, "A": 0}]}, "label_names: every item of datalist.json .* lacks B"),
    ({"training": [ITEM | {"label": [1]}]}, r"label_names: a label of datalist.json must be 2 values .* got \[1\]"),
    ({"training": [ITEM | {"label": [1, 3]}]}, r"label_names: a label .* must be 2 values of 0, 1 or 2; got \[1, 3\]"),
]


@pytest.mark.parametrize(("content", "message"), WRONG_DATALISTS)
def test_a_wrong_datalist_names_the_key(content: Any, message: str, tmp_path: Path) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "datalist.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        bundle_datalist("datalist", tmp_path, ["A", "B"])


def test_a_datalist_keeps_its_own_parts(tmp_path: Path) -> None:
    parts = {part: [ITEM | {"patient": part}] for part in ("training", "validation", "testing")}
    (tmp_path / "own.json").write_text(json.dumps(parts))
    read = bundle_datalist("datalist", tmp_path, ["A", "B"], source_options={"file": "own.json"})
    expected = {"image": str(tmp_path / "a.png"), "label": [0.0, 1.0]}
    assert read == {part: [expected | {"patient": part}] for part in parts}


def test_errors_of_the_source_name_the_keys(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"source must be one of phantom, datalist, nih, .*; got 'nhi'"):
        bundle_datalist("nhi", tmp_path, ["A"])
    with pytest.raises(ValueError, match=r"dataset_dir must be the folder of the data \(nih\); got ''"):
        bundle_datalist("nih", "", ["A"])
    with pytest.raises(
        FileNotFoundError, match=r"dataset_dir must be the folder of the data \(nih\); .*absent is not there"
    ):
        bundle_datalist("nih", tmp_path / "absent", ["A"])
    with pytest.raises(
        FileNotFoundError, match=r"dataset_dir, label_names or source_options \(source 'nih'\): .* must hold"
    ):
        bundle_datalist("nih", tmp_path, ["A"])
    with pytest.raises(
        FileNotFoundError, match=r"dataset_dir must hold datalist.json, a MONAI datalist; .* is not there"
    ):
        bundle_datalist("datalist", tmp_path, ["A"])
    with pytest.raises(ValueError, match=r"dataset_dir, label_names or source_options .*: labels must be names that"):
        bundle_datalist("phantom", tmp_path, ["Fracture"], phantom=PHANTOM)
    with pytest.raises(ValueError, match=r"source_options must be options of make_datalist; got \['colour'\]"):
        bundle_datalist("phantom", tmp_path, ["Effusion"], phantom=PHANTOM, source_options={"colour": 1})


def test_codes_need_their_store(tmp_path: Path) -> None:
    item = {"code": f"{tmp_path / 'absent'}#1", "patient": 1, "label": [0]}
    (tmp_path / "datalist.json").write_text(json.dumps({"training": [item], "validation": [item]}))
    with pytest.raises(FileNotFoundError, match=r"dataset_dir: .* it has no store.json. Set the keys of the codec"):
        bundle_datalist("datalist", tmp_path, ["A"], codec=DeepFixCXCodec(2, 8))


def test_class_weights() -> None:
    items = [{"label": [1.0, 0.0]}] * 3 + [{"label": [0.0, 1.0]}]
    torch.testing.assert_close(class_weights(items), torch.tensor([0.5, 1.5]))
    with pytest.raises(ValueError, match="label_names: no training image of class number 1"):
        class_weights(items[:3])


def test_folder_items(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dataset_dir must hold at least one file"):
        folder_items(tmp_path)
    with pytest.raises(ValueError, match="dataset_dir must be a folder of DICOM"):
        folder_items(tmp_path / "absent")
    for name in ("b/2.png", "a.dcm", ".git/config", "out/old.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [item["path"] for item in folder_items(tmp_path, tmp_path / "out")] == ["a.dcm", "b/2.png"]


def test_films_that_no_network_can_judge() -> None:
    check = CheckFilmd()
    assert check({"image": torch.rand(1, 4, 4), "path": "a"})["path"] == "a"
    with pytest.raises(ValueError, match="a 3-D image; this bundle reads 2-D ones"):
        check({"image": torch.rand(1, 4, 4, 4)})
    with pytest.raises(ValueError, match="has NaN or infinite pixels"):
        check({"image": torch.tensor([[[0.0, float("nan")]]])})
    with pytest.raises(ValueError, match="all pixels have one value"):
        check({"image": torch.ones(1, 4, 4)})


def test_unreadable_files_cost_no_more_than_themselves() -> None:
    errors = {"a": UnreadableImage("truncated"), "b": KeyError("JANE DOE"), "c": None}

    def read(item: Mapping[str, Any]) -> dict[str, Any]:
        error = errors[item["image"]]
        if error is not None:
            raise error
        return {**item, "image": torch.ones(1, 2, 2)}

    dataset = ReadableDataset([{"image": name, "path": name} for name in "abc"], read, (1, 2, 2))
    items = [dataset[index] for index in range(3)]
    assert [item["problem"] for item in items] == ["truncated", "cannot be read (KeyError)", ""]
    assert [item["image"].sum() for item in items] == [0, 0, 4]
    assert [item["path"] for item in items] == ["a", "b", "c"]

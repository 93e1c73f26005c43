"""The overlays of configs/ on tiny data of each kind."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from monai_deepfixcx.codecs import Codec, DeepFixCXCodec, HeartSpotCodec
from monai_deepfixcx.data import CodeStore, PhantomRadiographs
from tests.bundles.conftest import BUNDLES, ROOT, config, overlay, workflow

SIZE = 64
PHANTOM = PhantomRadiographs(20, 2, SIZE, seed=5)
SMALL = {
    "size": SIZE,
    "levels": 2,
    "patch_size": 8,
    "widths": [16, 8],
    "max_epochs": 1,
    "batch_size": 8,
    "progress": False,
}


def write_film(path: Path, index: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((PHANTOM[index]["image"][0] * 255).byte().numpy()).save(path)


def write_nih(folder: Path) -> None:
    with (folder / "Data_Entry_2017_v2020.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(
            [
                "Image Index",
                "Finding Labels",
                "Follow-up #",
                "Patient ID",
                "Patient Age",
                "Patient Gender",
                "View Position",
            ]
        )
        for index, item in enumerate(PHANTOM):
            name = f"{item['patient']:08d}_{item['visit']:03d}.png"
            write_film(folder / "images_001" / "images" / name, index)
            found = [label for label, value in zip(PHANTOM.labels, item["label"], strict=True) if value]
            table.writerow([name, "|".join(found) or "No Finding", 0, item["patient"], 50, item["sex"], "PA"])
    names = {patient: [f"{patient:08d}_{visit:03d}.png" for visit in range(2)] for patient in range(20)}
    parts = {"train_val_list.txt": range(14), "test_list.txt": range(14, 20)}
    for listed, patients in parts.items():
        (folder / listed).write_text("\n".join(name for patient in patients for name in names[patient]))


def write_chexpert(folder: Path) -> None:
    for file, patients in (("train.csv", range(14)), ("valid.csv", range(14, 20))):
        with (folder / file).open("w", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "Cardiomegaly", "Pleural Effusion"])
            for index, item in enumerate(PHANTOM):
                if item["patient"] in patients:
                    place = f"patient{item['patient']:05d}/study{item['visit']}/view1_frontal.jpg"
                    write_film(folder / "train" / place, index)
                    marks = [-1.0 if index % 7 == 0 else float(value) for value in item["label"]]
                    table.writerow([f"CheXpert-v1.0/train/{place}", "Male", 50, "Frontal", "PA", *marks])


def write_mimic(folder: Path) -> None:
    tables: dict[str, list[list[object]]] = {
        "metadata": [["dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate"]],
        "chexpert": [["subject_id", "study_id", "Cardiomegaly", "Pleural Effusion"]],
        "split": [["dicom_id", "study_id", "subject_id", "split"]],
    }
    for index, item in enumerate(PHANTOM):
        subject, study, part = 10000000 + item["patient"], 50000000 + index, "train"
        if item["patient"] >= 12:
            part = "validate" if item["patient"] < 16 else "test"
        write_film(folder / "files" / "p10" / f"p{subject}" / f"s{study}" / f"d{index}.jpg", index)
        tables["metadata"].append([f"d{index}", subject, study, "PA", 21800101])
        tables["chexpert"].append([subject, study, *(float(value) for value in item["label"])])
        tables["split"].append([f"d{index}", study, subject, part])
    for name, content in tables.items():
        with (folder / f"mimic-cxr-2.0.0-{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(content)


def write_datalist(folder: Path) -> None:
    items = []
    for index, item in enumerate(PHANTOM):
        write_film(folder / f"{index}.png", index)
        labels = dict(zip(PHANTOM.labels, item["label"].tolist(), strict=True))
        items.append({"image": f"{index}.png", "patient": item["patient"], **labels})
    (folder / "datalist.json").write_text(json.dumps({"training": items}))


WRITERS = {"nih": write_nih, "chexpert": write_chexpert, "mimic": write_mimic, "datalist": write_datalist}


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("name", sorted(WRITERS))
def test_an_overlay_trains_on_its_source(bundle: str, name: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    WRITERS[name](data)
    places = {"dataset_dir": str(data), "ckpt_dir": str(tmp_path), "output_dir": str(tmp_path)}
    made = workflow(bundle, "train.yaml", overlay(f"{name}.yaml"), **SMALL, **places)
    assert made.check_properties() == []
    made.run()
    parts = made.parser.get_parsed_content("datalist")
    assert all(parts.values())
    patients = [{item["patient"] for item in items} for items in parts.values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 20
    labels = {value for items in parts.values() for item in items for value in item["label"]}
    assert labels == ({0.0, 1.0, 2.0} if name == "chexpert" else {0.0, 1.0})
    assert (tmp_path / "model.pt").is_file()


@pytest.mark.parametrize("name", ["nih", "chexpert", "mimic", "datalist", "store", "colour"])
def test_a_missing_dataset_dir_names_its_key(name: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        workflow(BUNDLES[0], "train.yaml", overlay(f"{name}.yaml"), label_names=["a", "b"])
    error: BaseException | None = caught.value
    while error is not None and not isinstance(error, ValueError):
        error = error.__cause__
    assert "dataset_dir must be given: the folder of" in str(error)


def test_an_unknown_source_names_its_key(data_dir: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        workflow(BUNDLES[0], "train.yaml", overlay("smoke.yaml"), source="padchst", dataset_dir=data_dir)
    error: BaseException | None = caught.value
    while error is not None and not isinstance(error, ValueError):
        error = error.__cause__
    assert "source must be one of phantom, datalist, nih" in str(error)


def write_store(folder: Path, codec: Codec) -> None:
    """A store and its datalist, as ``deepfixcx privatize`` and ``deepfixcx index --labels`` write them."""
    store = CodeStore.open(folder / "store", codec)
    films = PHANTOM.arrays()
    rows = [{"id": f"code{index}", "spatial_shape": [SIZE, SIZE]} for index in range(len(PHANTOM))]
    store.append("first", codec.encode(films["images"]), rows)  # type: ignore[arg-type]
    items = [
        {**item, "patient": int(patient), **dict(zip(PHANTOM.labels, label.int().tolist(), strict=True))}
        for item, patient, label in zip(store.datalist(), films["patients"], films["labels"], strict=True)
    ]
    (folder / "datalist.json").write_text(json.dumps({"training": items}))


@pytest.mark.parametrize(
    ("bundle", "codec"),
    [(BUNDLES[0], DeepFixCXCodec(2, 8)), (BUNDLES[1], HeartSpotCodec("rhline+heart", (SIZE, SIZE)))],
    ids=BUNDLES,
)
def test_codes_from_a_store(bundle: str, codec: Codec, tmp_path: Path) -> None:
    write_store(tmp_path, codec)
    places = {"dataset_dir": str(tmp_path), "ckpt_dir": str(tmp_path), "output_dir": str(tmp_path / "out")}
    made = workflow(bundle, "train.yaml", overlay("store.yaml"), **SMALL, **places)
    made.run()
    expected = {tuple(code.flatten().tolist()) for code in codec.encode(PHANTOM.arrays()["images"])}
    assert {tuple(item["image"].flatten().tolist()) for item in made.train_dataset} <= expected
    evaluated = workflow(bundle, "evaluate.yaml", overlay("store.yaml"), **SMALL, bootstrap_samples=20, **places)
    evaluated.run()
    assert (tmp_path / "out" / "metrics.json").is_file()


def test_a_store_of_another_codec_is_refused(tmp_path: Path) -> None:
    write_store(tmp_path, DeepFixCXCodec(2, 4))
    with pytest.raises(RuntimeError) as caught:
        workflow(BUNDLES[0], "train.yaml", overlay("store.yaml"), **SMALL, dataset_dir=str(tmp_path))
    error: BaseException | None = caught.value
    while error is not None and not isinstance(error, ValueError):
        error = error.__cause__
    assert "dataset_dir: " in str(error)
    assert "patch_size: [4, 4] there, [8, 8] now" in str(error)


def test_colour_photographs_of_several_classes(tmp_path: Path) -> None:
    """Discs of three colours; the rarest class weighs most, and no shade of grey tells them apart."""
    generator = np.random.default_rng(0)
    colours = {"blue": (40, 60, 200), "green": (40, 160, 40), "red": (200, 40, 60)}
    counts = {"blue": 12, "green": 24, "red": 24}
    row, column = np.mgrid[:80, :80] - 40
    for name, colour in colours.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(counts[name]):
            picture = generator.integers(0, 60, (80, 80, 3))
            radius = generator.integers(15, 35)
            picture[row**2 + column**2 < radius**2] += np.array(colour)
            picture = np.clip(picture, 0, 255).astype(np.uint8)
            Image.fromarray(picture).save(tmp_path / "data" / name / f"{name}{number}.png")
    names = sorted(colours)
    places = {"dataset_dir": str(tmp_path / "data"), "ckpt_dir": str(tmp_path), "output_dir": str(tmp_path / "out")}
    run = {**SMALL, "max_epochs": 8, "label_names": names, **places}
    made = workflow(BUNDLES[0], "train.yaml", overlay("colour.yaml"), **run)
    made.run()
    weight = made.parser.get_parsed_content("loss").weight
    assert weight.argmax() == names.index("blue")
    assert weight.mean() == pytest.approx(1)
    assert made.parser.get_parsed_content("validate#evaluator").state.best_metric > 0.8
    evaluated = workflow(BUNDLES[0], "evaluate.yaml", overlay("colour.yaml"), **run, bootstrap_samples=20)
    evaluated.run()
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert set(report["labels"]) == set(names)
    assert report["overall"]["accuracy"]["value"] > 0.5
    output = {"dataset_dir": str(tmp_path / "data" / "red"), "output_dir": str(tmp_path / "seen")}
    workflow(BUNDLES[0], "inference.yaml", overlay("colour.yaml"), **{**run, **output}).run()
    with (tmp_path / "seen" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    torch.testing.assert_close(
        torch.tensor([sum(float(row[name]) for name in names) for row in rows]), torch.ones(24), atol=1e-4, rtol=0
    )
    with Image.open(tmp_path / "seen" / "images" / "red0.png.png") as picture_out:
        assert picture_out.mode == "RGB"


def test_overlays_change_few_keys() -> None:
    for path in (ROOT / "configs").glob("*.yaml"):
        changed = ConfigParser.load_config_file(str(path))
        assert len(changed) <= 10, path
        known = {key.removeprefix("+") for key in changed} - {"bootstrap_samples", "auxiliary"}
        keys = {key for bundle in BUNDLES for name in ("train", "evaluate") for key in read_keys(bundle, name)}
        assert {key.partition("#")[0] for key in known} <= keys, path


def read_keys(bundle: str, name: str) -> set[str]:
    return set(ConfigParser.load_config_file(config(bundle, f"{name}.yaml")))

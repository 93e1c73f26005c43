"""`deepfixcx attack` and `deepfixcx report`: from images to a privacy card."""

import csv
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image

from monai_deepfixcx.codecs import DeepFixCXCodec, HeartSpotCodec
from monai_deepfixcx.data.code_store import CodeStore
from monai_deepfixcx.data.phantom import PhantomRadiographs
from monai_deepfixcx.pipeline.attack import AttackSettings, attack_population, headlines
from monai_deepfixcx.pipeline.attack_data import (
    Pictures,
    Population,
    folder_population,
    make_gallery,
    parse_spec,
    phantom_population,
    read_codec,
    read_population,
    split_patients,
)
from monai_deepfixcx.pipeline.demo import attack_phantom
from monai_deepfixcx.report import Gallery, card_schema
from monai_deepfixcx.report.pictures import png
from tests.pipeline.conftest import Run, write_picture

jsonschema = pytest.importorskip("jsonschema")

QUICK = ("--attacks", "MeanImage,LinearMMSE,EuclideanLinkage", "--samples", 20)
J2P4 = ("--codec", "deepfixcx:levels=2,patch_size=4")
SETTINGS = AttackSettings(("MeanImage", "LinearMMSE"), samples=10)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom as PNG files with its labels.csv: eight patients, two visits."""
    folder = tmp_path_factory.mktemp("films")
    PhantomRadiographs(8, 2, 64, seed=2).write_png(folder)
    return folder


@pytest.fixture(scope="module")
def population() -> Population:
    return phantom_population({"patients": 10, "visits": 2}, 64, seed=4)


def test_a_phantom_becomes_a_card(tmp_path: Path, run: Run) -> None:
    out_dir = tmp_path / "card"
    arguments = ("attack", "phantom:patients=10,visits=2", *J2P4, "--codec", "heartspot:prior=hline", *QUICK)
    status, out, _ = run(*arguments, "-o", out_dir, "--title", "Ward 7")
    assert status == 0
    card = json.loads((out_dir / "card.json").read_text())
    jsonschema.validate(card, card_schema())
    assert [entry["name"] for entry in card["codecs"]] == ["DeepFixCX J=2 P=4", "HeartSpot hline"]
    assert card["codecs"][1]["config"]["spatial_shape"] == [64, 64]
    assert card["data"]["synthetic"]
    assert card["data"]["labels"] == ["Cardiomegaly", "Effusion"]
    assert "The strongest attack, LinearMMSE, recovered" in out
    assert "of what distinguishes one patient's image from the average; with the undefended image it recovers" in out
    page = (out_dir / "card.html").read_text()
    assert "<h1>Ward 7</h1>" in page
    assert card["date"] in page

    status, out, _ = run("report", out_dir, "-o", tmp_path / "again.html")
    assert status == 0
    assert (tmp_path / "again.html").read_text() == page


def test_the_same_run_gives_the_same_card(population: Population) -> None:
    def timeless(card: Any) -> Any:
        if isinstance(card, dict):
            return {key: timeless(value) for key, value in card.items() if key != "seconds"}
        return [timeless(item) for item in card] if isinstance(card, list) else card

    first, second = (attack_population(population, [DeepFixCXCodec(2, 4)], SETTINGS) for _ in range(2))
    assert timeless(first) == timeless(second)


def test_a_folder_with_a_csv(films: Path, tmp_path: Path, run: Run) -> None:
    arguments = ("attack", films, *J2P4, *QUICK, "--patients", films / "labels.csv", "--labels", "Cardiomegaly")
    status, _, _ = run(*arguments, "-o", tmp_path)
    assert status == 0
    card = json.loads((tmp_path / "card.json").read_text())
    assert not card["data"]["synthetic"]
    assert card["data"]["victims"] == {"images": 8, "patients": 4}
    assert set(card["codecs"][0]["utility"]) == {"Cardiomegaly", "mean"}
    text = (tmp_path / "card.json").read_text() + (tmp_path / "card.html").read_text()
    assert "PHANTOM-" not in text  # the patients' names
    assert str(films) not in text
    assert "phantom_00" not in text  # the files' names


def test_originals_are_told_to_be_private(films: Path, tmp_path: Path, run: Run) -> None:
    arguments = ("attack", films, *J2P4, "--attacks", "NearestNeighbor", "--patients", r"phantom_(\d+)_")
    for pictures, private in (("phantom", False), ("auxiliary", True)):
        status, out, _ = run(*arguments, "--size", 64, "--pictures", pictures, "--victims", 0.25, "-o", tmp_path)
        assert status == 3  # labels.csv is no image
        assert ("they show originals of auxiliary patients: keep them private" in out) is private


def test_a_folder_whose_names_name_the_patients(films: Path) -> None:
    by_name = folder_population(films, r"phantom_(\d+)_", side=64)
    by_table = folder_population(films, str(films / "labels.csv"), ["Effusion", "Cardiomegaly"], side=64)
    assert len(set(by_name.patients)) == 8
    assert [name[-6:] for name in by_table.patients] == list(by_name.patients)
    assert torch.equal(by_name.images, by_table.images)
    assert by_name.labels is None
    truth = PhantomRadiographs(8, 2, 64, seed=2).arrays()
    assert by_table.labels is not None
    assert torch.equal(by_table.labels, truth["labels"].flip(1))
    torch.testing.assert_close(by_table.images, truth["images"], atol=1 / 255, rtol=0)
    assert [entry.source for entry in by_name.left_out] == ["labels.csv"]


def test_other_column_names_and_uncertain_labels(films: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    names = sorted(path.name for path in films.glob("*.png"))[:3]
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([["file", "who", "Mass"], [names[0], "a", "-1"], [names[1], "b", ""], [names[2], "", "1"]])
    found = folder_population(films, str(table), ["Mass"], 64, {"image": "file", "patient": "who"})
    assert found.patients == ("a", "b")
    assert found.labels is not None
    assert found.labels.tolist() == [[2.0], [2.0]]
    assert [entry.reason for entry in found.left_out] == ["has no patient in the CSV"]


def test_bad_files_are_named_and_survived(tmp_path: Path, run: Run) -> None:
    for number in range(8):
        write_picture(tmp_path / "in" / f"patient{number // 2}" / f"{number}.png", number, (70, 80))
    (tmp_path / "in" / "patient0" / "letter.dcm").write_text("Dear colleague")
    Image.fromarray(np.zeros((70, 80), np.uint8)).save(tmp_path / "in" / "patient1" / "black.png")
    write_picture(tmp_path / "in" / "stray.png", 9)
    status, out, _ = run("attack", tmp_path / "in", *J2P4, *QUICK, "-o", tmp_path / "card", "--pictures", "none")
    assert status == 3
    for text in (
        "patient0/letter.dcm: not an image",
        "patient1/black.png: has NaN",
        "stray.png: its path names no patient",
    ):
        assert text in out
    card = json.loads((tmp_path / "card" / "card.json").read_text())
    assert card["data"]["left_out"] == 3
    assert card["pictures"] is None
    assert card["codecs"][0]["utility"] is None
    assert "letter.dcm" not in (tmp_path / "card" / "card.html").read_text()


def test_images_of_another_shape_are_left_out(tmp_path: Path) -> None:
    import nibabel

    for number in range(4):
        (tmp_path / f"p{number}").mkdir()
        shape = (16, 16, 16) if number else (16, 16, 12)
        volume = np.random.default_rng(number).random(shape, np.float32)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / f"p{number}" / "v.nii.gz")
    found = folder_population(tmp_path)
    assert tuple(found.images.shape) == (3, 1, 16, 16, 16)
    assert [entry.reason for entry in found.left_out] == ["is 1x16x16x12, most are 1x16x16x16"]
    gallery, reason = make_gallery({"images": found.images, "patients": list(found.patients)}, False, "phantom", 0)
    assert gallery is None
    assert "these are 1x16x16x16" in reason


def test_volumes_are_attacked(tmp_path: Path, run: Run) -> None:
    import nibabel

    for number in range(8):
        volume = np.random.default_rng(number // 2).random((16, 16, 16), np.float32)
        path = tmp_path / "in" / f"p{number // 2}" / f"{number}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), path)
    arguments = ("--codec", "deepfixcx:levels=1,patch_size=4,spatial_dims=3", "--attacks", "NearestNeighbor")
    status, out, err = run("attack", tmp_path / "in", *arguments, "--samples", 0, "-o", tmp_path)
    assert (status, err) == (0, "")
    assert "The strongest attack, NearestNeighbor, recovered" in out


def test_no_victim_is_pictured(population: Population) -> None:
    """Other victims, the same pictures; and no victim's picture is anywhere in the card."""
    auxiliary, victims = split_patients(population, SETTINGS.seed, SETTINGS.victims)
    ours = set(victims["patients"])
    rows = torch.tensor([name in ours for name in population.patients])
    images = population.images.clone()
    images[rows] = images[rows].flip(-1)
    others = Population(
        images, population.patients, population.labels, population.label_names, population.description, synthetic=True
    )
    codecs = [DeepFixCXCodec(2, 4)]
    one, other = (attack_population(people, codecs, SETTINGS) for people in (population, others))
    assert one["pictures"] == other["pictures"]
    assert one["codecs"][0]["pictures"] == other["codecs"][0]["pictures"]
    assert one["codecs"][0]["attacks"] != other["codecs"][0]["attacks"]
    text = json.dumps(one)
    assert not [image for image in victims["images"] if png(image) in text]
    assert png(auxiliary["images"][0]) in text


def test_real_patients_are_pictured_only_if_asked_for(population: Population) -> None:
    real = Population(population.images, population.patients, None, (), "Images.", synthetic=False)
    shown = {}
    for pictures in get_args(Pictures):
        settings = AttackSettings(("LinearMMSE",), samples=0, pictures=pictures)
        card = attack_population(real, [DeepFixCXCodec(2, 4)], settings)
        shown[pictures] = json.dumps(card)
        if pictures != "none":
            assert card["pictures"]["synthetic"] is (pictures == "phantom")
    holds = {name: any(png(image) in text for image in real.images) for name, text in shown.items()}
    assert holds == {"phantom": False, "auxiliary": True, "none": False}
    assert "Auxiliary patients', and their original images are shown" in shown["auxiliary"]


def test_the_parts_share_no_patient(population: Population) -> None:
    auxiliary, victims = split_patients(population, 0, 0.3)
    assert len(set(victims["patients"])) == 3
    assert not set(auxiliary["patients"]) & set(victims["patients"])
    assert len(auxiliary["patients"]) + len(victims["patients"]) == len(population.patients)
    gallery, _ = make_gallery(auxiliary, True, "phantom", 0)
    assert isinstance(gallery, Gallery)
    gallery.refuse(victims["patients"])


def test_an_attack_that_fails_is_told_and_costs_nothing_else(tmp_path: Path, run: Run) -> None:
    # One image a patient: nobody can be linked.
    status, out, _ = run("attack", "phantom:patients=10,visits=1", *J2P4, *QUICK, "-o", tmp_path)
    assert status == 1
    assert "EuclideanLinkage failed: " in out
    assert "pair" in out
    assert "The strongest attack, LinearMMSE" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("phantom:patients=3", *J2P4), "of at least four patients, two to learn from and two to attack; got 3"),
        (
            ("phantom:patients=10,visits=1", *J2P4, "--victims", "0.1"),
            "each part must have two patients; of 10, 9 would",
        ),
        (("phantom:people=3", *J2P4), "phantom takes patients and visits; got people"),
        (("phantom:patients", *J2P4), "'patients' has no value"),
        (("nowhere", *J2P4), "nowhere is no folder. Give a folder of images, or phantom"),
        (("phantom:patients=6", "--codec", "magic:levels=2"), "codec must be one of"),
        (("phantom:patients=6", "--codec", "deepfixcx:level=2"), "unexpected keyword argument 'level'"),
        (("phantom:patients=6", "--codec", "deepfixcx:levels=2,patch_size=99"), "patch_size must be at most"),
        (("phantom:patients=6", *J2P4, "--attacks", "Telepathy"), "attack must be one of MeanImage"),
        (("phantom:patients=6", *J2P4, "--size", "32"), "size must be a whole number from 64 to 512"),
    ],
)
def test_what_cannot_be_attacked_is_one_line(
    tmp_path: Path, run: Run, arguments: tuple[str, ...], message: str
) -> None:
    status, _, err = run("attack", *arguments, "-o", tmp_path / "card")
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "card").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "has no image that can be read and whose patient is known"),
        (("--patients", "no group"), "a regular expression with a group, such as"),
        (("--patients", "("), "a regular expression with a group, such as"),
        (("--labels", "Mass"), "labels need a CSV that has them"),
        (("--columns", "image=file"), "columns are those of a CSV"),
        (("--patients", "TABLE", "--labels", "Mass"), "labels.csv has no label Mass; it has visit"),
        (("--patients", "TABLE", "--columns", "patient=who"), "must have a column 'who'"),
    ],
)
def test_patients_that_cannot_be_told(
    films: Path, tmp_path: Path, run: Run, options: tuple[str, ...], message: str
) -> None:
    given = [str(films / "labels.csv") if option == "TABLE" else option for option in options]
    status, _, err = run("attack", films, *J2P4, *given, "-o", tmp_path / "card")
    assert status == 2
    assert message in err


def test_a_place_that_cannot_be_written(tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").touch()
    status, _, err = run(
        "attack", "phantom:patients=6,visits=1", *J2P4, "--attacks", "MeanImage", "-o", tmp_path / "file"
    )
    assert status == 1
    assert "cannot write to" in err


def test_codecs_come_from_a_line_a_file_or_a_store(tmp_path: Path) -> None:
    assert parse_spec("heartspot:prior=rhline+heart,zero_top_fraction=0.2") == (
        "heartspot",
        {"prior": "rhline+heart", "zero_top_fraction": 0.2},
    )
    codec = DeepFixCXCodec(2, (3, 5), features=["l1", "max"])
    (tmp_path / "codec.json").write_text(json.dumps(codec.config()))
    CodeStore.open(tmp_path / "store", codec)
    for text in (
        "deepfixcx:levels=2,patch_size=[3,5],features=[l1,max]",
        str(tmp_path / "codec.json"),
        str(tmp_path / "store"),
        str(tmp_path / "store" / "store.json"),
    ):
        assert read_codec(text, 64).fingerprint() == codec.fingerprint()
    assert read_codec("heartspot:prior=hline", 96).fingerprint() == HeartSpotCodec("hline", (96, 96)).fingerprint()


def test_files_that_hold_no_codec(tmp_path: Path) -> None:
    (tmp_path / "codec.json").write_text("[1]")
    with pytest.raises(ValueError, match="must hold a codec's configuration as JSON"):
        read_codec(str(tmp_path / "codec.json"), 64)
    with pytest.raises(ValueError, match="is no code store"):
        read_codec(str(tmp_path), 64)


def test_no_codec_is_an_error(population: Population) -> None:
    with pytest.raises(ValueError, match="codecs must be one or more; got none"):
        attack_population(population, [], SETTINGS)


def test_a_codec_counts_once_and_progress_is_told(population: Population) -> None:
    told: list[str] = []
    card = attack_population(population, [DeepFixCXCodec(2, 4), DeepFixCXCodec(2, 4)], SETTINGS, told.append)
    assert told == ["DeepFixCX J=2 P=4"]
    assert len(card["codecs"]) == 1
    assert headlines(card)[0] == "DeepFixCX J=2 P=4:"


def test_a_picture_that_fails_does_not_cost_the_card(population: Population, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("pixel 0.5")

    monkeypatch.setattr("monai_deepfixcx.pipeline.attack.draw_pictures", fail)
    (entry,) = attack_population(population, [DeepFixCXCodec(2, 4)], SETTINGS)["codecs"]
    assert entry["pictures"] is None
    assert {"name": "Pictures of LinearMMSE", "reason": "RuntimeError"} in entry["failed"]


def test_reports_of_several_cards(tmp_path: Path, run: Run) -> None:
    for name, codec in (("one", "deepfixcx:levels=2,patch_size=4"), ("two", "heartspot:prior=hline")):
        run("attack", "phantom:patients=10,visits=1", "--codec", codec, "--attacks", "MeanImage", "-o", tmp_path / name)
    status, out, _ = run("report", tmp_path / "one", tmp_path / "two" / "card.json")
    assert status == 0
    assert "card.html" in out
    page = (tmp_path / "one" / "card.html").read_text()
    assert "DeepFixCX J=2 P=4" in page
    assert "HeartSpot hline" in page

    run("attack", "phantom:patients=12,visits=1", *J2P4, "--attacks", "MeanImage", "-o", tmp_path / "three")
    status, _, err = run("report", tmp_path / "one", tmp_path / "three")
    assert status == 2
    assert "they differ in data" in err


def test_report_says_what_is_wrong(tmp_path: Path, run: Run) -> None:
    status, _, err = run("report", tmp_path)
    assert status == 2
    assert "No such file" in err
    (tmp_path / "card.json").write_text("{}")
    status, _, err = run("report", tmp_path / "card.json")
    assert status == 2
    assert "is no privacy card" in err


@pytest.mark.slow
def test_the_demo_ends_with_a_card(tmp_path: Path) -> None:
    lines, page = attack_phantom(tmp_path / "demo")
    assert page == tmp_path / "demo" / "privacy_card.html"
    assert "Synthetic data." in page.read_text()
    assert sum("of what distinguishes one patient's image from the average" in line for line in lines) == 3
    assert not [line for line in lines if "failed" in line]
    jsonschema.validate(json.loads(page.with_suffix(".json").read_text()), card_schema())


def test_read_population_takes_both(films: Path) -> None:
    assert read_population("phantom:patients=4,visits=1", side=64).synthetic
    assert not read_population(str(films), r"phantom_(\d+)_").synthetic

"""The handler that both bundles' configurations attach."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from monai_deepfixcx.data import PhantomRadiographs
from tests.bundles.conftest import BUNDLES, Train, overlay, workflow


def read(folder: Path) -> Any:
    return json.loads((folder / "explanations" / "attributions.json").read_text())


@pytest.mark.parametrize("bundle", BUNDLES)
def test_inference_explains_the_codes_that_it_predicted_from(bundle: str, tmp_path: Path) -> None:
    PhantomRadiographs(3, 1, 128, seed=4).write_png(tmp_path / "in")
    (tmp_path / "in" / "labels.csv").unlink()
    places = {"dataset_dir": str(tmp_path / "in"), "output_dir": str(tmp_path / "out"), "progress": False}
    workflow(bundle, "inference.yaml", **places, explain_limit=2).run()
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    labels = read(tmp_path / "out")["labels"]
    assert set(labels) == set(rows[0]) - {"path", "problem"}
    for name, entry in labels.items():
        assert [case["case"] for case in entry["each"]] == [0, 1]
        assert set(entry["cohort"]) == {"all"}
        assert {"deletion_auc", "infidelity", "spearman", "mass_inside"} <= set(entry["metrics"])
        for case in entry["each"]:
            probability = 1 / (1 + math.exp(-case["output"]))
            assert probability == pytest.approx(float(rows[case["case"]][name]), abs=2e-5)
    pictures = {path.name for path in (tmp_path / "out" / "explanations" / "cases").glob("*.png")}
    assert pictures == {f"case_000{row}_{name}.png" for row in (0, 1) for name in labels}


@pytest.mark.parametrize("bundle", BUNDLES)
def test_evaluation_explains_the_test_patients(bundle: str, train: Train, data_dir: str, tmp_path: Path) -> None:
    folder, _ = train(bundle)
    places = {"dataset_dir": data_dir, "ckpt_dir": str(folder), "output_dir": str(tmp_path)}
    workflow(bundle, "evaluate.yaml", overlay("smoke.yaml"), **places, explain_limit=6).run()
    cohort = read(tmp_path)["labels"]["Cardiomegaly"]["cohort"]
    assert cohort["all"]["cases"] == 6
    assert cohort.get("positive", {"cases": 0})["cases"] + cohort.get("negative", {"cases": 0})["cases"] == 6
    assert not (tmp_path / "validation" / "explanations").exists()


def test_explanations_can_be_turned_off(tmp_path: Path) -> None:
    PhantomRadiographs(1, 1, 64).write_png(tmp_path / "in")
    places = {"dataset_dir": str(tmp_path / "in"), "output_dir": str(tmp_path / "out"), "progress": False}
    workflow(BUNDLES[0], "inference.yaml", **places, explain=False).run()
    assert (tmp_path / "out" / "predictions.csv").is_file()
    assert not (tmp_path / "out" / "explanations").exists()

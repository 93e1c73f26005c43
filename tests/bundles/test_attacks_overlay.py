"""configs/attacks.yaml on both bundles: attacks on the test patients of a tiny SYNTHETIC phantom."""

import json
from pathlib import Path

import pytest

from monai_deepfixcx.attacks import EuclideanLinkage, MeanImage
from tests.bundles.conftest import BUNDLES, Train, overlay, workflow


@pytest.mark.parametrize("bundle", BUNDLES)
def test_an_evaluation_attacks_its_own_codes(bundle: str, train: Train, data_dir: str, tmp_path: Path) -> None:
    folder, _ = train(bundle)
    places = {"dataset_dir": data_dir, "ckpt_dir": str(folder), "output_dir": str(tmp_path)}
    made = workflow(bundle, "evaluate.yaml", overlay("smoke.yaml"), overlay("attacks.yaml"), **places)
    assert made.check_properties() == []
    made.run()
    metrics = made.parser.get_parsed_content("evaluator").state.metrics
    assert metrics["auroc"] >= 0  # the report is still there
    # 12 of 48 patients are tested, two films each.
    assert metrics["EuclideanLinkage_auc"] > 0.6
    assert metrics["EuclideanLinkage_precision_at_1_baseline"] == pytest.approx(1 / 23)
    assert metrics["LearnedLinkage_advantage"] > 0
    assert metrics["LinearMMSE_explained_variance"] > metrics["MeanImage_explained_variance"]
    linked = json.loads((tmp_path / "reidentification.json").read_text())
    names = [result["attack"] for result in linked["attacks"]]
    assert names == ["EuclideanLinkage", "FeatureLinkage", "LearnedLinkage", "LearnedLinkage code to raw"]
    counts = linked["attacks"][0]["auxiliary"], linked["attacks"][0]["victims"]
    assert counts == ({"images": 58, "patients": 29}, {"images": 24, "patients": 12})
    drawn = json.loads((tmp_path / "reconstruction.json").read_text())
    assert drawn["attacks"][0]["attack"] == MeanImage.name
    assert set(drawn["not_run"]) == (set() if bundle == BUNDLES[0] else {"LowPassThumbnail"})
    assert EuclideanLinkage.name in (tmp_path / "metrics.csv").read_text()
    assert list(tmp_path.glob("events.out.tfevents*"))
    everything = "".join(path.read_text(errors="ignore") for path in tmp_path.rglob("*") if path.is_file())
    assert "PHANTOM" not in everything  # no name of a file or a patient


def test_training_and_inference_never_keep_an_original(data_dir: str, tmp_path: Path) -> None:
    made = workflow(BUNDLES[0], "evaluate.yaml", overlay("smoke.yaml"), dataset_dir=data_dir, output_dir=str(tmp_path))
    item = made.parser.get_parsed_content("dataset")[0]
    assert "original" not in item
    attacked = workflow(
        BUNDLES[0],
        "evaluate.yaml",
        overlay("smoke.yaml"),
        overlay("attacks.yaml"),
        dataset_dir=data_dir,
        output_dir=str(tmp_path),
    )
    original = attacked.parser.get_parsed_content("dataset")[0]["original"]
    assert original.shape == (1, 64, 64)
    assert not any("/" in str(value) for value in getattr(original, "meta", {}).values())

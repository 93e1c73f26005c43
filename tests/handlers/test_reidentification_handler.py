"""Re-identification at the end of a MONAI evaluation, on one process and on two."""

import csv
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import MetricsSaver, TensorBoardStatsHandler

from monai_deepfixcx.attacks import EuclideanLinkage, LearnedLinkage, MeanImage, run_attack
from monai_deepfixcx.codecs import ConstantCodec, IdentityCodec
from monai_deepfixcx.handlers import ReidentificationHandler
from tests.handlers.reidentification_ranks import CODEC, SHARES, evaluate, people, run_rank
from tests.two_ranks import on_two_ranks


def items(part: dict[str, Any]) -> list[dict[str, Any]]:
    meta = {"filename_or_obj": "SECRET.dcm"}
    return [
        {"original": MetaTensor(image, meta=meta), "image": CODEC.encode(image[None])[0], "patient": patient}
        for image, patient in zip(part["images"], part["patients"], strict=True)
    ]


def run(handlers: list[Any], decollate: bool = True) -> dict[str, float]:
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items(people(100))), batch_size=7),
        network=torch.nn.Identity(),
        val_handlers=handlers,
        decollate=decollate,
    )
    evaluator.run()
    return dict(evaluator.state.metrics)


@pytest.mark.parametrize("decollate", [True, False])
def test_an_evaluation_tells_how_well_patients_are_found(
    tmp_path: Path, decollate: bool, caplog: pytest.LogCaptureFixture
) -> None:
    known, victims = people(0), people(100)
    handler = ReidentificationHandler(CODEC, Dataset(items(known)), samples=30, output_dir=tmp_path)
    with caplog.at_level(logging.INFO):
        savers = [MetricsSaver(str(tmp_path)), TensorBoardStatsHandler(log_dir=str(tmp_path), iteration_log=False)]
        found = run([handler, *savers], decollate)
    for attack in (EuclideanLinkage(), LearnedLinkage("raw")):
        expected = run_attack(attack, CODEC, known, victims, samples=0).metrics
        for name in ("auc", "precision_at_1"):
            assert found[f"{attack.name}_{name}"] == pytest.approx(expected[name].value, abs=1e-6)
            assert found[f"{attack.name}_{name}_baseline"] == pytest.approx(expected[name].baseline)
    assert found["EuclideanLinkage_auc"] > 0.9
    assert 0 < found["LearnedLinkage_advantage"] < 1.2
    written = json.loads((tmp_path / "reidentification.json").read_text())
    assert [entry["attack"] for entry in written["attacks"]][-1] == "LearnedLinkage code to raw"
    assert written["attacks"][0]["metrics"]["auc"]["low"] <= found["EuclideanLinkage_auc"]
    with (tmp_path / "metrics.csv").open() as file:
        saved = {row[0]: float(row[1]) for row in csv.reader(file) if len(row) == 2}
    assert saved["EuclideanLinkage_auc"] == pytest.approx(found["EuclideanLinkage_auc"])
    assert list(tmp_path.glob("events.out.tfevents*"))
    assert "EuclideanLinkage: auc" in caplog.text
    everything = caplog.text + "".join(path.read_text(errors="ignore") for path in tmp_path.iterdir())
    assert "SECRET" not in everything


def test_both_ends() -> None:
    known = people(0)
    attacks = [EuclideanLinkage(), LearnedLinkage()]
    ends: dict[str, dict[str, float]] = {}
    for codec in (IdentityCodec(), ConstantCodec()):
        handler = ReidentificationHandler(codec, known, attacks, code_key=None, samples=0)
        ends[codec.name] = run([handler])
    for attack in attacks:
        assert ends["identity"][f"{attack.name}_auc"] > 0.9
        assert ends["identity"][f"{attack.name}_advantage"] == pytest.approx(1)
        assert ends["constant"][f"{attack.name}_auc"] == 0.5
        assert ends["constant"][f"{attack.name}_advantage"] == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    return on_two_ranks(run_rank, folder, seconds=120)


@pytest.mark.parametrize("share", SHARES)
def test_two_ranks_find_what_one_finds(ranks: list[dict[str, Any]], folder: Path, tmp_path: Path, share: str) -> None:
    assert ranks[0][share] == ranks[1][share] == pytest.approx(evaluate(slice(0, 30), tmp_path))
    assert (folder / f"{share} of 0" / "reidentification.json").is_file()
    assert not (folder / f"{share} of 1").exists()


def test_errors_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="attacks must be linkage attacks; got MeanImage"):
        ReidentificationHandler(CODEC, people(0), [MeanImage()])
    with pytest.raises(ValueError, match="auxiliary and victims must be different patients; 10 in both"):
        run([ReidentificationHandler(CODEC, people(100), [EuclideanLinkage()], samples=0)])

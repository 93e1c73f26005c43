"""Attacks at the end of a MONAI evaluation, in one process and in two."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import MetricsSaver, TensorBoardStatsHandler

from monai_deepfixcx.attacks import DecoderAttack, LinearInverse, LowPassThumbnail, MeanFill, MeanImage, run_attack
from monai_deepfixcx.attacks.reidentification import EuclideanLinkage
from monai_deepfixcx.codecs import HeartSpotCodec
from monai_deepfixcx.handlers import ReconstructionAttackHandler
from monai_deepfixcx.handlers.attack_gathering import GatheredVictims
from monai_deepfixcx.metrics.classification_report import patient_code
from tests.handlers.attack_ranks import CODEC, SPLITS, evaluate, films, run_rank
from tests.two_ranks import on_two_ranks


def items(first: int = 100, count: int = 14) -> list[dict[str, Any]]:
    """As a privatizing pipeline makes them: the code in the image's place, the original under its own key."""
    victims = films(first, count)
    return [
        {
            "image": MetaTensor(CODEC.encode(image[None])[0], meta={"filename_or_obj": "SECRET.dcm"}),
            "original": MetaTensor(image, meta={"filename_or_obj": "SECRET.dcm"}),
            "patient": patient,
        }
        for image, patient in zip(victims["images"], victims["patients"], strict=True)
    ]


def run(data: list[dict[str, Any]], handlers: list[Any], **options: Any) -> SupervisedEvaluator:
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(data), batch_size=5),
        network=torch.nn.Identity(),
        val_handlers=handlers,
        **options,
    )
    evaluator.run()
    return evaluator


@pytest.mark.parametrize("decollate", [True, False])
def test_an_evaluation_reports_what_run_attack_measures(
    tmp_path: Path, decollate: bool, caplog: pytest.LogCaptureFixture
) -> None:
    attacks = [MeanImage(), LowPassThumbnail(), MeanFill()]
    handler = ReconstructionAttackHandler(CODEC, films(0, 12), attacks, output_dir=tmp_path, samples=20, seed=3)
    saver = MetricsSaver(save_dir=str(tmp_path), metrics="*", delimiter=",")
    board = TensorBoardStatsHandler(log_dir=str(tmp_path / "board"), iteration_log=False)
    with caplog.at_level(logging.INFO):
        evaluator = run(items(), [handler, saver, board], decollate=decollate)
    found = evaluator.state.metrics
    victims = films(100, 14)
    victims["patients"] = [str(patient_code(name)) for name in victims["patients"]]  # the draws follow the names
    expected = run_attack(LowPassThumbnail(), CODEC, films(0, 12), victims, seed=3, samples=20)
    for name, estimate in expected.metrics.items():
        assert found[f"LowPassThumbnail_{name}"] == pytest.approx(estimate.value)
        assert found[f"LowPassThumbnail_{name}_baseline"] == pytest.approx(estimate.baseline)
    written = json.loads((tmp_path / "reconstruction.json").read_text())
    assert [entry["attack"] for entry in written["attacks"]] == ["MeanImage", "LowPassThumbnail"]
    interval = written["attacks"][1]["metrics"]["ssim"]
    assert interval["low"] == pytest.approx(expected.metrics["ssim"].low)
    assert "needs the pixels that HeartSpot keeps" in written["not_run"]["MeanFill"]
    assert "LowPassThumbnail_ssim" in (tmp_path / "metrics.csv").read_text()
    assert list((tmp_path / "board").iterdir())
    assert "LowPassThumbnail: mse" in caplog.text
    assert "MeanFill was not run: needs the pixels" in caplog.text
    everything = caplog.text + "".join(path.read_text() for path in tmp_path.glob("*.*"))
    assert "SECRET" not in everything
    assert handler.victims.of_all_ranks() is None  # no original outlives the run
    assert all(result.output.numel() == 0 for result in handler.results)


def test_codes_are_made_of_the_originals_where_there_are_none() -> None:
    options: dict[str, Any] = {"samples": 0, "undefended": False}
    given = ReconstructionAttackHandler(CODEC, films(0, 12), [LinearInverse()], **options)
    made = ReconstructionAttackHandler(CODEC, films(0, 12), [LinearInverse()], code_key=None, **options)
    found = run(items(), [given]).state.metrics
    assert run(items(), [made]).state.metrics == pytest.approx(found)
    wrong = [{**item, "image": item["image"] * 0} for item in items()]
    assert run(wrong, [given]).state.metrics["LinearInverse_mse"] > found["LinearInverse_mse"]


def test_auxiliary_patients_may_come_as_a_dataset() -> None:
    options: dict[str, Any] = {"samples": 0, "undefended": False}
    mapping = ReconstructionAttackHandler(CODEC, films(0, 12), [MeanImage()], **options)
    dataset = ReconstructionAttackHandler(CODEC, Dataset(items(0, 12)), [MeanImage()], **options)
    assert run(items(), [dataset]).state.metrics == run(items(), [mapping]).state.metrics


def test_the_undefended_twin_gives_the_advantage() -> None:
    handler = ReconstructionAttackHandler(CODEC, films(0, 12), [LinearInverse()], samples=0)
    metrics = run(items(), [handler]).state.metrics
    assert metrics["LinearInverse_advantage"] == pytest.approx(metrics["LinearInverse_explained_variance"], abs=1e-6)


def test_the_default_attacks_are_those_that_suit(tmp_path: Path) -> None:
    codec = HeartSpotCodec("hline", (16, 16))
    handler = ReconstructionAttackHandler(codec, films(0, 12), code_key=None, output_dir=tmp_path, samples=0)
    run(items(), [handler])
    written = json.loads((tmp_path / "reconstruction.json").read_text())
    ran = [entry["attack"] for entry in written["attacks"]]
    assert ran == ["MeanImage", "DecoderAttack", "MeanFill", "LinearMMSE"]
    assert list(written["not_run"]) == ["LowPassThumbnail"]


def test_errors_say_what_was_expected() -> None:
    known = films(0, 12)
    with pytest.raises(ValueError, match="attacks must be one or more, of different names; got none"):
        ReconstructionAttackHandler(CODEC, known, [])
    with pytest.raises(ValueError, match="of different names; got MeanImage, MeanImage"):
        ReconstructionAttackHandler(CODEC, known, [MeanImage(), MeanImage()])
    with pytest.raises(ValueError, match="attacks must be reconstruction attacks; EuclideanLinkage is not"):
        ReconstructionAttackHandler(CODEC, known, [EuclideanLinkage()])
    with pytest.raises(ValueError, match="samples must be at least 0"):
        ReconstructionAttackHandler(CODEC, known, [MeanImage()], samples=-1)
    with pytest.raises(KeyError, match="image_key: there is no 'film' in the engine's state"):
        run(items(), [ReconstructionAttackHandler(CODEC, known, [MeanImage()], image_key="film")])
    with pytest.raises(ValueError, match=r"auxiliary must hold images .* one is missing"):
        run(items(), [ReconstructionAttackHandler(CODEC, {"images": known["images"]}, [MeanImage()])])
    with pytest.raises(ValueError, match="auxiliary and victims must be different patients; 7 in both"):
        run(items(), [ReconstructionAttackHandler(CODEC, films(100, 14), [DecoderAttack()])])
    with pytest.raises(ValueError, match=r"codes \[B, C, D\] and B patients; .* set code_key to null"):
        run(items(), [ReconstructionAttackHandler(CODEC, known, [MeanImage()], code_key="original")])


def test_images_of_one_shape_are_asked_for() -> None:
    gathered = GatheredVictims()
    gathered.add(torch.rand(1, 1, 4, 6), None, ["a"])
    gathered.add(torch.rand(1, 1, 6, 4), None, ["b"])
    with pytest.raises(ValueError, match=r"images must have one shape \[C, \*S\]; got several"):
        gathered.of_all_ranks()
    with pytest.raises(ValueError, match=r"got originals .* and 2 patients"):
        gathered.add(torch.rand(1, 1, 4, 6), None, ["a", "b"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("attack ranks")


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    return on_two_ranks(run_rank, folder, seconds=120)


def test_two_ranks_report_what_one_does(ranks: list[dict[str, Any]], folder: Path, tmp_path: Path) -> None:
    expected = evaluate(slice(0, 14), tmp_path)
    for split in SPLITS:
        assert ranks[0][split] == ranks[1][split]
        assert ranks[0][split] == pytest.approx(expected, rel=1e-5)
        assert [path.name for path in folder.glob(f"{split} of *")] == [f"{split} of 0"]


def test_a_failure_on_the_first_rank_reaches_the_others(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["patient in both"].startswith("ValueError: auxiliary and victims must be different patients")
    assert ranks[1]["patient in both"].startswith("RuntimeError: ReconstructionAttackHandler failed on the first rank")
    for found in ranks:
        assert "has seen no image on any rank" in found["all empty"]

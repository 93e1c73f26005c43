"""The handlers inside MONAI's evaluator, decollating or not."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import CheckpointSaver, from_engine

from monai_deepfixcx.handlers import ClassificationReportHandler, MaskedAUROC, read_thresholds
from monai_deepfixcx.metrics import ClassificationReport, functional

NAMES = ["Edema", "Mass"]


def items(seed: int = 0, classes: bool = False) -> list[dict[str, Any]]:
    """Images whose two values are the logits; the file name and the patient must reach no file and no log."""
    generator = torch.Generator().manual_seed(seed)
    found: list[dict[str, Any]] = []
    for number in range(22):
        label = torch.randint(0, 2 if classes else 3, (2,), generator=generator).float()
        image = MetaTensor(torch.randn(2, generator=generator) + (label == 1), meta={"filename_or_obj": "SECRET.dcm"})
        found.append({"image": image, "label": int(label[0]) if classes else label, "patient": f"SECRET-{number // 2}"})
    return found


def evaluate(data: list[dict[str, Any]], handlers: list[Any], **options: Any) -> SupervisedEvaluator:
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(data), batch_size=5),
        network=torch.nn.Identity(),
        val_handlers=handlers,
        **options,
    )
    evaluator.run()
    return evaluator


def expected(data: list[dict[str, Any]], thresholds: dict[str, float] | None = None, samples: int = 30) -> Any:
    report = ClassificationReport(NAMES, samples=samples)
    scores = torch.stack([item["image"].as_tensor().double().sigmoid() for item in data])
    report(scores, [item["label"] for item in data], [item["patient"] for item in data])
    return report.aggregate(thresholds)


@pytest.mark.parametrize("decollate", [True, False])
def test_an_evaluation_writes_its_report(tmp_path: Path, decollate: bool, caplog: pytest.LogCaptureFixture) -> None:
    data = items()
    thresholds = {"Edema": 0.5, "Mass": 0.3}
    handler = ClassificationReportHandler(tmp_path / "out", NAMES, thresholds=thresholds, samples=30)
    with caplog.at_level(logging.INFO):
        evaluator = evaluate(data, [handler], decollate=decollate)
        evaluator.run()
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written == expected(data, thresholds)
    found = evaluator.state.metrics
    assert found["auroc"] == written["mean"]["auroc"]["value"]
    assert found["sensitivity_Mass"] == written["labels"]["Mass"]["sensitivity"]["value"]
    kinds = ["auroc", "auprc", "ece", "sensitivity", "specificity"]
    assert set(found) == {*kinds[:3], *(f"{kind}_{name}" for kind in kinds for name in NAMES)}
    table = (tmp_path / "out" / "metrics.md").read_text()
    tables = [record for record in caplog.records if table in record.getMessage()]
    assert len(tables) == 2  # one a run
    everything = caplog.text + "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert "SECRET" not in everything
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["metrics.json", "metrics.md"]


def test_thresholds_go_from_validation_to_test(tmp_path: Path) -> None:
    path = tmp_path / "model" / "thresholds.json"
    validation, test = items(1), items(2)
    evaluate(validation, [ClassificationReportHandler(tmp_path / "val", NAMES, save_thresholds=path, samples=0)])
    chosen = json.loads(path.read_text())
    scores = torch.stack([item["image"].as_tensor().double().sigmoid() for item in validation])
    labels = torch.stack([item["label"] for item in validation])
    assert chosen == {name: functional.youden_threshold(scores[:, k], labels[:, k]) for k, name in enumerate(NAMES)}
    assert "threshold" not in json.loads((tmp_path / "val" / "metrics.json").read_text())["labels"]["Edema"]
    evaluate(test, [ClassificationReportHandler(tmp_path / "test", NAMES, thresholds=str(path), samples=30)])
    assert json.loads((tmp_path / "test" / "metrics.json").read_text()) == expected(test, chosen)


def test_an_undefined_threshold_survives_the_way_through_json(tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"
    data = items()
    for item in data:
        item["label"][1] = 0
    evaluate(data, [ClassificationReportHandler(tmp_path, NAMES, save_thresholds=path, samples=0)])
    assert json.loads(path.read_text())["Mass"] is None
    evaluator = evaluate(items(3), [ClassificationReportHandler(tmp_path, NAMES, thresholds=path, samples=0)])
    assert math.isnan(evaluator.state.metrics["sensitivity_Mass"])
    assert not math.isnan(evaluator.state.metrics["sensitivity_Edema"])


@pytest.mark.parametrize("decollate", [True, False])
def test_classes_from_logits(tmp_path: Path, decollate: bool) -> None:
    data = items(classes=True)
    handler = ClassificationReportHandler(tmp_path, ["no", "yes"], task="multiclass", samples=10)
    auroc = MaskedAUROC(output_transform=from_engine(["pred", "label"]), task="multiclass")
    evaluator = evaluate(data, [handler], decollate=decollate, key_val_metric={"key": auroc})
    logits = torch.stack([item["image"].as_tensor() for item in data])
    classes = [item["label"] for item in data]
    assert evaluator.state.metrics["accuracy"] == pytest.approx(functional.accuracy(logits, classes))
    assert evaluator.state.metrics["key"] == pytest.approx(functional.macro_auroc(logits, classes))
    assert evaluator.state.metrics["auroc"] == pytest.approx(
        functional.macro_auroc(logits.double().softmax(dim=1), classes)
    )


def test_probabilities_are_taken_as_they_are_and_labels_may_stay_in_the_batch(tmp_path: Path) -> None:
    handler = ClassificationReportHandler(tmp_path, ["Edema"], label_key="truth", activation="none", samples=0)
    engine = Engine(lambda _, batch: {"pred": batch["image"]})
    handler.attach(engine)
    batch = {"image": torch.tensor([[0.9], [0.2]]), "truth": torch.tensor([[1.0], [0.0]]), "patient": [7, 8]}
    assert engine.run([batch]).metrics["ece"] == pytest.approx(0.15)


def test_masked_auroc_is_a_key_metric_that_checkpoints_are_chosen_by(tmp_path: Path) -> None:
    data = items()
    saver = CheckpointSaver(
        save_dir=str(tmp_path), save_dict={"net": torch.nn.Linear(1, 1)}, save_key_metric=True, key_metric_name="auroc"
    )
    report = ClassificationReportHandler(tmp_path / "report", NAMES, samples=0)
    key = MaskedAUROC(output_transform=from_engine(["pred", "label"]))
    evaluator = evaluate(data, [report, saver], key_val_metric={"val_auroc": key})
    logits = torch.stack([item["image"].as_tensor() for item in data])
    labels = torch.stack([item["label"] for item in data])
    assert evaluator.state.best_metric == pytest.approx(functional.macro_auroc(logits, labels))
    assert evaluator.state.metrics["auroc"] == pytest.approx(evaluator.state.best_metric)
    assert list(tmp_path.glob("net_key_metric=*.pt"))
    evaluator.run()
    assert evaluator.state.metrics["val_auroc"] == pytest.approx(evaluator.state.best_metric)


def test_errors_say_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='activation must be "sigmoid", "softmax" or "none"; got \'tanh\''):
        ClassificationReportHandler(tmp_path, NAMES, activation="tanh")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='activation must be "softmax" or "none" for task="multiclass"'):
        ClassificationReportHandler(tmp_path, NAMES, task="multiclass", activation="sigmoid")
    with pytest.raises(FileNotFoundError, match=r"thresholds: .* is not there. Run .* with save_thresholds first"):
        evaluate(items(), [ClassificationReportHandler(tmp_path, NAMES, thresholds=tmp_path / "none.json")])
    with pytest.raises(KeyError, match="patient_key: there is no 'case' in the engine's state"):
        evaluate(items(), [ClassificationReportHandler(tmp_path, NAMES, patient_key="case")])
    with pytest.raises(KeyError, match="pred_key: there is no 'logit' in the engine's state"):
        evaluate(items(), [ClassificationReportHandler(tmp_path, NAMES, pred_key="logit")])
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(ValueError, match=r"thresholds: .* is no JSON file"):
        read_thresholds(broken)
    for wrong in ("[0.5]", '{"Edema": "high"}', '{"Edema": true}'):
        broken.write_text(wrong)
        with pytest.raises(ValueError, match="must hold an object such as"):
            read_thresholds(broken)

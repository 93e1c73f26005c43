"""The cumulative metrics: they say what `functional` says, of all ranks, and nothing of who the patients are."""

import inspect
import json
import math
import pkgutil
import sys
from importlib import import_module
from typing import Any

import monai
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_deepfixcx import handlers, metrics
from monai_deepfixcx.metrics import ClassificationReport, MaskedAUROCMetric, functional, report_table
from tests.metrics.predictions import NAMES, predictions

FUNCTIONS: dict[str, Any] = {
    "auroc": functional.auroc,
    "auprc": functional.average_precision,
    "ece": functional.expected_calibration_error,
}


def filled(samples: int = 60, batch: int = 8) -> ClassificationReport:
    scores, labels, patients = predictions()
    report = ClassificationReport(NAMES, samples=samples)
    for start in range(0, len(patients), batch):
        part = slice(start, start + batch)
        report(scores[part], labels[part], patients=patients[part])
    return report


def test_each_figure_is_what_the_functions_say() -> None:
    scores, labels, patients = predictions()
    thresholds = {"Edema": 0.4, "Mass": 0.7}
    result = filled().aggregate(thresholds)
    assert (result["images"], result["patients"], result["task"]) == (30, 15, "multilabel")
    assert result["bootstrap"] == {"samples": 60, "confidence": 0.95, "seed": 0, "unit": "patient"}
    for column, name in enumerate(NAMES):
        found, p, y = result["labels"][name], scores[:, column], labels[:, column]
        certain = y != 2
        assert found["images"] == certain.sum() == 30 - found["uncertain"]
        assert found["positives"] == (y == 1).sum()
        assert found["patients"] == len({patient for patient, kept in zip(patients, certain, strict=True) if kept})
        for kind, metric in FUNCTIONS.items():
            assert found[kind]["value"] == pytest.approx(metric(p, y))
            assert found[kind]["low"] <= found[kind]["value"] <= found[kind]["high"]
            assert result["mean"][kind]["value"] == pytest.approx(
                np.mean([metric(scores[:, k], labels[:, k]) for k in range(2)])
            )
        assert found["auroc"]["baseline"] == 0.5
        assert found["auprc"]["baseline"] == pytest.approx(float((y == 1).sum() / certain.sum()))
        assert found["ece"]["baseline"] is None
        assert found["threshold"] == thresholds[name]
        pair = functional.sensitivity_specificity(p, y, thresholds[name])
        assert (found["sensitivity"]["value"], found["specificity"]["value"]) == pytest.approx(pair)
    assert result["mean"]["auroc"]["value"] == pytest.approx(functional.macro_auroc(scores, labels))
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_intervals_are_those_of_the_patient_bootstrap() -> None:
    scores, labels, patients = predictions()
    report = filled(samples=200)
    codes = report.gathered()[2][:, 0].tolist()
    assert len(set(codes)) == len(set(patients))
    for column, name in enumerate(NAMES):
        expected = functional.patient_bootstrap(
            functional.auroc, [scores[:, column], labels[:, column]], codes, samples=200
        )
        found = report.aggregate()["labels"][name]["auroc"]
        assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high), abs=1e-12)
    # The interval of the mean takes both labels from the same resample: not the mean of the intervals.
    mean = report.aggregate()["mean"]["auroc"]
    ends = [report.aggregate()["labels"][name]["auroc"] for name in NAMES]
    assert mean["high"] - mean["low"] < np.mean([end["high"] - end["low"] for end in ends])


def test_thresholds_chosen_are_youdens_and_absent_ones_leave_decisions_out() -> None:
    scores, labels, _ = predictions()
    report = filled(samples=0)
    best = report.best_thresholds()
    assert best == {name: functional.youden_threshold(scores[:, k], labels[:, k]) for k, name in enumerate(NAMES)}
    assert "sensitivity" not in report.aggregate()["labels"]["Edema"]
    again = json.loads(json.dumps(best))
    assert report.aggregate(again) == report.aggregate(best)
    with pytest.raises(ValueError, match="thresholds must have an entry for each label; missing: Mass"):
        report.aggregate({"Edema": 0.5})


def test_the_order_and_size_of_batches_do_not_count() -> None:
    scores, labels, patients = predictions()
    order = np.random.default_rng(1).permutation(30)
    moved = ClassificationReport(NAMES, samples=60)
    moved([MetaTensor(scores[i]) for i in order], [labels[i].tolist() for i in order], [patients[i] for i in order])
    assert moved.aggregate({"Edema": 0.4, "Mass": 0.5}) == filled(batch=3).aggregate({"Edema": 0.4, "Mass": 0.5})


def test_labels_without_both_classes_are_null_and_the_mean_is_over_the_others() -> None:
    scores, labels, patients = predictions()
    labels[:, 1] = 0
    labels[3, 1] = 2
    report = ClassificationReport(NAMES, samples=20)
    report(scores, labels, patients)
    result = report.aggregate(report.best_thresholds())
    mass = result["labels"]["Mass"]
    assert mass["auroc"] == {"value": None, "low": None, "high": None, "baseline": 0.5}
    assert mass["auprc"]["value"] is mass["threshold"] is mass["sensitivity"]["value"] is None
    assert mass["specificity"]["value"] is None
    assert result["mean"]["auroc"]["value"] == result["labels"]["Edema"]["auroc"]["value"]
    assert "| Mass | 29 | 15 | 0 | - | - | 0.000 |" in report_table(result)
    report.reset()
    report(scores, torch.full_like(labels, 2), patients)
    nothing = report.aggregate()
    assert nothing["mean"]["auroc"]["value"] is nothing["labels"]["Edema"]["auprc"]["baseline"] is None
    assert nothing["labels"]["Edema"]["patients"] == 0
    json.dumps(nothing, allow_nan=False)


def test_classes() -> None:
    generator = np.random.default_rng(0)
    probabilities, classes = generator.dirichlet(np.ones(3), 40), generator.integers(0, 3, 40)
    report = ClassificationReport(["normal", "suspect", "glaucoma"], task="multiclass", samples=30)
    report(torch.tensor(probabilities[:10]), torch.tensor(classes[:10]), patients=torch.arange(10))
    report(list(torch.tensor(probabilities[10:20])), classes[10:20].tolist(), patients=list(range(10, 20)))
    report(torch.tensor(probabilities[20:30]), torch.tensor(classes[20:30, None]), patients=np.arange(20, 30))
    report(torch.tensor(probabilities[30:]), torch.eye(3)[classes[30:]], patients=[str(n) for n in range(30, 40)])
    result = report.aggregate()
    overall = result["overall"]
    assert result["patients"] == 40
    assert result["mean"]["auroc"]["value"] == pytest.approx(functional.macro_auroc(probabilities, classes))
    assert overall["accuracy"]["value"] == pytest.approx(functional.accuracy(probabilities, classes))
    assert overall["accuracy"]["baseline"] == pytest.approx(np.bincount(classes).max() / 40)
    balanced = functional.balanced_accuracy(probabilities, classes)
    assert overall["balanced_accuracy"]["value"] == pytest.approx(balanced)
    assert overall["balanced_accuracy"]["baseline"] == pytest.approx(1 / 3)
    calibration = functional.expected_calibration_error(probabilities, classes)
    assert overall["ece"]["value"] == pytest.approx(calibration)
    assert overall["balanced_accuracy"]["low"] < balanced < overall["balanced_accuracy"]["high"]
    assert f"balanced accuracy {balanced:.3f} (" in report_table(result)


def test_two_classes_may_be_given_as_a_column_of_indices() -> None:
    metric = MaskedAUROCMetric("multiclass")
    metric(torch.tensor([[0.8, 0.2], [0.4, 0.6]]), torch.tensor([[0], [1]]))
    assert metric.aggregate() == 1


def test_masked_auroc_where_monais_gives_up() -> None:
    scores, labels, _ = predictions()
    metric = MaskedAUROCMetric()
    metric(scores[:20].float(), labels[:20])
    metric(list(scores[20:]), list(labels[20:]))
    assert metric.aggregate() == pytest.approx(functional.macro_auroc(scores, labels), abs=1e-6)
    stock = monai.metrics.ROCAUCMetric()
    stock(scores, labels)
    with pytest.warns(UserWarning, match="y values must be 0 or 1"):
        assert np.isnan(stock.aggregate())
    certain = torch.where(labels == 2, 0, labels)
    stock.reset()
    stock(scores, certain)
    metric.reset()
    metric(scores, certain)
    assert metric.aggregate() == pytest.approx(stock.aggregate())


def test_no_name_of_a_patient_is_kept() -> None:
    report = filled()
    state = repr(report.__dict__) + repr(report.aggregate()) + report_table(report.aggregate())
    assert "patient 1" not in state
    with pytest.raises(TypeError) as caught:
        report(torch.rand(1, 2), torch.ones(1, 2), patients=[("Doe", "Jane")])
    assert "Doe" not in str(caught.value)


def test_the_table_escapes_names_and_closes_its_rows() -> None:
    report = ClassificationReport(["a|b", "c"], samples=0)
    report(torch.rand(4, 2), torch.tensor([[0, 1], [1, 0], [1, 1], [0, 2]]), [1, 2, 3, 4])
    lines = report_table(report.aggregate({"a|b": 0.5, "c": 0.5})).splitlines()
    rows = [line.replace(r"\|", "") for line in lines if line.startswith("|")]
    assert len(rows) == 5
    assert {row.count("|") for row in rows} == {12}
    assert not any("resamples" in line for line in lines)


@pytest.mark.parametrize("module", [metrics, handlers])
def test_no_name_is_monais(module: Any) -> None:
    for found in pkgutil.iter_modules(monai.__path__):
        if found.name in {"metrics", "handlers", "losses", "engines", "networks", "data", "transforms"}:
            import_module(f"monai.{found.name}")
    taken = {
        name
        for key, loaded in list(sys.modules.items())
        if key.startswith("monai.")
        for name, value in vars(loaded).items()
        if inspect.isclass(value)
    }
    assert len(taken) > 500
    assert not taken & set(module.__all__)


def test_errors_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="label_names must be a list of different names; got 'Edema'"):
        ClassificationReport("Edema")
    with pytest.raises(ValueError, match="label_names must be a list of different names"):
        ClassificationReport(["Edema", "Edema"])
    with pytest.raises(ValueError, match="label_names must name two or more classes for task='multiclass'"):
        ClassificationReport(["normal"], task="multiclass")
    with pytest.raises(ValueError, match=r'task must be "multilabel" or "multiclass"; got \'binary\''):
        MaskedAUROCMetric("binary")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="samples must be at least 0"):
        ClassificationReport(NAMES, samples=-5)
    report = ClassificationReport(NAMES)
    p, y = torch.rand(2, 2), torch.ones(2, 2)
    with pytest.raises(ValueError, match="ClassificationReport has seen no image on any rank"):
        report.aggregate()
    with pytest.raises(ValueError, match="y must be a tensor or a list of labels; got none"):
        report(p, None, ["a", "b"])
    with pytest.raises(ValueError, match="patients must hold one name per image, 2 in this batch; got 0"):
        report(p, y)
    with pytest.raises(TypeError, match="patients must be names or whole numbers; got float"):
        report(p, y, [math.nan, 1.0])
    with pytest.raises(ValueError, match="a column for each of 2 label_names; got 1 columns"):
        report(p[:, :1], y[:, :1], ["a", "b"])
    with pytest.raises(ValueError, match=r"both be \[B, L\].*got \[2, 2\] and \[2, 3\] with task='multilabel'"):
        report(p, torch.ones(2, 3), ["a", "b"])
    with pytest.raises(ValueError, match="labels must be 0, 1, or 2"):
        report(p, y * 3, ["a", "b"])
    with pytest.raises(ValueError, match=r"probabilities must lie between 0 and 1; got .* Apply a sigmoid"):
        report(p + 2, y, ["a", "b"])
    classes = ClassificationReport(NAMES, task="multiclass")
    with pytest.raises(ValueError, match="probabilities of classes must add up to 1"):
        classes(torch.full((2, 2), 0.9), torch.tensor([0, 1]), ["a", "b"])
    with pytest.raises(ValueError, match="one-hot labels must hold a single 1 per image"):
        classes(torch.full((2, 2), 0.5), torch.ones(2, 2), ["a", "b"])
    with pytest.raises(ValueError, match="classes must be indices from 0 to 1; got 2"):
        classes(torch.full((2, 2), 0.5), torch.tensor([0, 2]), ["a", "b"])
    with pytest.raises(ValueError, match="scores must be numbers"):
        MaskedAUROCMetric()(torch.full((2, 2), math.nan), y)
    with pytest.raises(NotImplementedError, match="GatheredScores must implement aggregate"):
        metrics.gathered_scores.GatheredScores().aggregate()

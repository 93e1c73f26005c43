"""The fairness handler inside MONAI's evaluator, decollating or not, on one process and on two."""

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

from monai_deepfixcx.handlers import FairnessHandler
from monai_deepfixcx.metrics import FairnessReport
from tests.handlers.fairness_ranks import COUNT, SPLITS, evaluate, run_rank
from tests.metrics.cohort import CUTS, NAMES, Cohort, cohort
from tests.two_ranks import on_two_ranks

ATTRIBUTES: list[Any] = ["sex", "age", "comorbidity", ["sex", "view"]]
BATCH = 7


def items(data: Cohort) -> list[dict[str, Any]]:
    """Images whose three values are the logits; the file name and the patient must reach no file and no log."""
    return [
        {
            "image": MetaTensor(torch.logit(torch.tensor(data.scores[row])), meta={"filename_or_obj": "SECRET.dcm"}),
            "label": torch.tensor(data.labels[row]),
            "patient": f"SECRET-{data.patients[row]}",
            **{name: values[row] for name, values in data.columns.items()},
        }
        for row in range(len(data.patients))
    ]


def run(data: Cohort, handler: FairnessHandler, **options: Any) -> SupervisedEvaluator:
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items(data)), batch_size=BATCH),
        network=torch.nn.Identity(),
        val_handlers=[handler],
        **options,
    )
    evaluator.run()
    return evaluator


@pytest.mark.parametrize("decollate", [True, False])
def test_an_evaluation_writes_its_report(tmp_path: Path, decollate: bool, caplog: pytest.LogCaptureFixture) -> None:
    data = cohort(patients=50)
    thresholds = tmp_path / "thresholds.json"
    thresholds.write_text(json.dumps(CUTS))
    handler = FairnessHandler(tmp_path / "out", NAMES, ATTRIBUTES, thresholds=thresholds, samples=20, min_patients=3)
    with caplog.at_level(logging.INFO):
        evaluator = run(data, handler, decollate=decollate)
        evaluator.run()
    written = json.loads((tmp_path / "out" / "fairness.json").read_text())
    report = FairnessReport(NAMES, ATTRIBUTES, samples=20, min_patients=3)
    for start in range(0, len(data.patients), BATCH):  # the same batches: a sigmoid of many rounds unlike one of few
        part = data.rows(slice(start, start + BATCH))
        scores = torch.logit(torch.tensor(part.scores)).sigmoid()
        report(scores, torch.tensor(part.labels), [f"SECRET-{patient}" for patient in part.patients], part.columns)
    assert written == report.aggregate(CUTS)
    found = evaluator.state.metrics
    kinds = ["worst_auroc", "auroc_gap", "ece_gap", "tpr_gap", "fpr_gap", "accuracy_gap"]
    kinds += ["demographic_parity_difference"]
    names = ["sex", "age", "comorbidity", "sex & view"]
    assert set(found) == {f"{name}_{kind}" for name in names for kind in kinds}
    assert found["sex_auroc_gap"] == written["attributes"]["sex"]["mean"]["gaps"]["auroc_gap"]["value"]
    assert found["sex_worst_auroc"] == written["attributes"]["sex"]["mean"]["worst"]["auroc"]["estimate"]["value"]
    table = (tmp_path / "out" / "fairness.md").read_text()
    assert len([record for record in caplog.records if table in record.getMessage()]) == 2
    everything = caplog.text + "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert "SECRET" not in everything
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["fairness.json", "fairness.md"]


def test_without_thresholds_nothing_is_decided(tmp_path: Path) -> None:
    evaluator = run(cohort(), FairnessHandler(tmp_path, NAMES, ["sex"], samples=0))
    assert set(evaluator.state.metrics) == {"sex_worst_auroc", "sex_auroc_gap", "sex_ece_gap"}


def test_what_is_undefined_is_nan(tmp_path: Path) -> None:
    data = cohort()
    data.labels[:] = 0
    evaluator = run(data, FairnessHandler(tmp_path, NAMES, ["sex"], samples=0))
    assert math.isnan(evaluator.state.metrics["sex_worst_auroc"])
    assert not math.isnan(evaluator.state.metrics["sex_ece_gap"])


@pytest.mark.parametrize("decollate", [True, False])
def test_errors_say_what_was_expected(tmp_path: Path, decollate: bool) -> None:
    with pytest.raises(ValueError, match="there is no column 'race'; there are age, comorbidity, image, sex, view"):
        run(cohort(), FairnessHandler(tmp_path, NAMES, ["race"]), decollate=decollate)
    with pytest.raises(ValueError, match="no subgroup of 'sex' has min_patients=500 patients"):
        run(cohort(), FairnessHandler(tmp_path, NAMES, ["sex"], min_patients=500), decollate=decollate)
    with pytest.raises(KeyError, match="patient_key: there is no 'case' in the engine's state"):
        run(cohort(), FairnessHandler(tmp_path, NAMES, ["sex"], patient_key="case"), decollate=decollate)
    with pytest.raises(ValueError, match='activation must be "softmax" or "none" for task="multiclass"'):
        FairnessHandler(tmp_path, NAMES, ["sex"], task="multiclass", activation="sigmoid")


def test_labels_may_stay_in_the_batch(tmp_path: Path) -> None:
    handler = FairnessHandler(
        tmp_path, ["Edema"], ["sex"], label_key="truth", activation="none", samples=0, min_patients=1
    )
    engine = Engine(lambda _, batch: {"pred": batch["image"]})
    handler.attach(engine)
    batch: dict[str, Any] = {"image": torch.tensor([[0.9], [0.2]]), "truth": torch.tensor([[1.0], [0.0]])}
    assert engine.run([{**batch, "patient": [7, 8], "sex": ["F", "F"]}]).metrics["sex_ece_gap"] != 0


def test_two_ranks_report_what_one_does(tmp_path: Path) -> None:
    """Also if one has no image, and if one alone has seen a group."""
    ranks = on_two_ranks(run_rank, tmp_path)
    expected = evaluate(slice(0, COUNT), tmp_path / "alone")
    for split in SPLITS:
        assert ranks[0][split] == ranks[1][split] == expected, split
        assert not (tmp_path / f"{split} of 1").exists()
        for path in (tmp_path / "alone").iterdir():
            assert (tmp_path / f"{split} of 0" / path.name).read_bytes() == path.read_bytes()
    assert "LATERAL" in (tmp_path / "alone" / "fairness.md").read_text()

"""Writes how a classifier fares in subgroups of patients: fairness.json and tables."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine

from monai_deepfixcx.handlers.classification_report_handler import (
    Activation,
    ClassificationReportHandler,
    Thresholds,
    column_of,
    holds,
)
from monai_deepfixcx.metrics.fairness import Attribute, FairnessReport, fairness_table
from monai_deepfixcx.metrics.gathered_scores import Task


class FairnessHandler(ClassificationReportHandler):
    """Collects predictions over an epoch of a MONAI evaluator, reports on subgroups, and writes the report on rank 0.

    After each epoch `output_dir` holds ``fairness.json`` (see `FairnessReport.aggregate`) and ``fairness.md``, and
    `engine.state.metrics` on every rank holds, per attribute, ``<attribute>_worst_auroc`` (of the mean over labels),
    ``<attribute>_auroc_gap``, ``<attribute>_ece_gap`` and, with thresholds, ``<attribute>_tpr_gap``,
    ``<attribute>_fpr_gap``, ``<attribute>_accuracy_gap`` and ``<attribute>_demographic_parity_difference`` (means over
    labels); nan is undefined. No file name and no patient's name is written, logged or kept; names of groups are.

    Args:
        output_dir: folder to write into; made if absent.
        label_names: L different names.
        attributes: columns of the batch to split by, "comorbidity", or lists of them (intersections).
        task: "multilabel" or "multiclass".
        thresholds: per label, or the JSON file that a validation run of `ClassificationReportHandler` wrote, read when
            an epoch starts; without them no figure that needs a decision is given.
        min_patients: of a subgroup; smaller ones are left out and named.
        bins: column -> edges, for columns of numbers; default the third paper's ages for "age".
        patient_key: where `engine.state.batch` holds the patients.
        label_key: where `engine.state.output` (or else the batch) holds the labels.
        pred_key: where `engine.state.output` holds the predictions.
        samples: bootstrap resamples of patients; 0 for no intervals.
        seed: of the resamples.
        activation: see `ClassificationReportHandler`.

    Raises:
        ValueError: what `FairnessReport` or `ClassificationReportHandler` refuses; while it runs, an attribute that is
            no column of the batch (the error names those there are), or one without a group that is large enough.

    Source: Tayebi Arasteh et al., arXiv:2302.01622.

    >>> from tempfile import TemporaryDirectory
    >>> batch = {"pred": torch.tensor([[2.0], [-1.0], [0.5], [1.0]]), "label": torch.tensor([[1.0], [0], [1], [0]])}
    >>> batch |= {"patient": ["a", "b", "c", "d"], "sex": ["F", "F", "M", "M"]}
    >>> engine = Engine(lambda _, batch: batch)
    >>> with TemporaryDirectory() as folder:
    ...     FairnessHandler(folder, ["Edema"], ["sex"], samples=0, min_patients=2).attach(engine)
    ...     metrics = engine.run([batch]).metrics
    ...     sorted(path.name for path in Path(folder).iterdir()), metrics["sex_worst_auroc"], metrics["sex_auroc_gap"]
    (['fairness.json', 'fairness.md'], 0.0, 1.0)
    """

    report: FairnessReport

    def __init__(
        self,
        output_dir: str | Path,
        label_names: Sequence[str],
        attributes: Sequence[Attribute],
        task: Task = "multilabel",
        thresholds: str | Path | Thresholds | None = None,
        min_patients: int = 10,
        bins: Mapping[str, Sequence[float]] | None = None,
        patient_key: str = "patient",
        label_key: str = "label",
        pred_key: str = "pred",
        samples: int = 1000,
        seed: int = 0,
        activation: Activation | None = None,
    ) -> None:
        super().__init__(
            output_dir,
            label_names,
            task,
            thresholds,
            None,
            patient_key,
            label_key,
            pred_key,
            samples,
            seed,
            activation,
        )
        self.report = FairnessReport(label_names, attributes, task, samples, seed, min_patients, bins)

    def _collect(self, engine: Engine) -> None:
        output, batch = engine.state.output, engine.state.batch
        logits = column_of(output, self.pred_key, "pred_key")
        labels = column_of(output if holds(output, self.label_key) else batch, self.label_key, "label_key")
        patients = column_of(batch, self.patient_key, "patient_key")
        scores = logits if isinstance(logits, torch.Tensor) else torch.stack([torch.as_tensor(row) for row in logits])
        self.report(
            self._probabilities(scores.detach().cpu().double()),
            list(labels),
            patients=patients,
            columns=self._columns(batch),
        )

    def _columns(self, batch: Any) -> dict[str, Any]:
        """Every column of the batch by name, so that an error can tell which there are; read where they are needed."""
        first = batch[0] if isinstance(batch, list) else batch
        own = {self.pred_key, self.label_key, self.patient_key}
        return {
            name: column_of(batch, name, "attributes") if name in self.report.columns else ()
            for name in first
            if name not in own
        }

    def _finish(self, engine: Engine) -> None:
        first = idist.get_rank() == 0
        result = self.report.aggregate(self._cuts, intervals=first)
        engine.state.metrics.update(_scalars(result))
        if not first:
            return
        table = fairness_table(result)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        (self.output_dir / "fairness.json").write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
        (self.output_dir / "fairness.md").write_text(table)
        engine.logger.info("\n%s", table)


def _scalars(report: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float | None] = {}
    for attribute, entry in report["attributes"].items():
        mean = entry["mean"]
        worst = mean["worst"]["auroc"]
        found[f"{attribute}_worst_auroc"] = None if worst is None else worst["estimate"]["value"]
        found |= {f"{attribute}_{gap}": estimate["value"] for gap, estimate in mean["gaps"].items()}
    return {name: math.nan if value is None else value for name, value in found.items()}

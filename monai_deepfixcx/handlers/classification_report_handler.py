"""Writes what an evaluation found: metrics.json, a table, and the thresholds that a validation run chose."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events

from monai_deepfixcx.metrics.classification_report import ClassificationReport
from monai_deepfixcx.metrics.gathered_scores import Task
from monai_deepfixcx.metrics.report_table import report_table

Activation = Literal["sigmoid", "softmax", "none"]
Thresholds = Mapping[str, float | None]


class ClassificationReportHandler:
    """Collects predictions over an epoch of a MONAI evaluator, reports on them, and writes the report on rank 0.

    After each epoch `output_dir` holds ``metrics.json`` and ``metrics.md`` (see `ClassificationReport.aggregate`), and
    `engine.state.metrics` on every rank holds ``auroc``, ``auprc`` and ``ece`` (means over labels), the same per label
    as ``auroc_<label>``, ``sensitivity_<label>`` and ``specificity_<label>`` if there are thresholds, and ``accuracy``
    and ``balanced_accuracy`` of classes; nan is undefined. Attach it before a CheckpointSaver that reads them. No file
    name and no patient's name is written, logged or kept.

    Args:
        output_dir: folder to write into; made if absent.
        label_names: L different names.
        task: "multilabel" or "multiclass".
        thresholds: per label, or the JSON file that `save_thresholds` wrote, read when an epoch starts.
        save_thresholds: JSON file to write the thresholds to that suit this data best (Youden); null is undefined.
            For validation data: the report of the same run does not use them.
        patient_key: where `engine.state.batch` holds the patients.
        label_key: where `engine.state.output` (or else the batch) holds the labels.
        pred_key: where `engine.state.output` holds the predictions.
        samples: bootstrap resamples of patients; 0 for no intervals, which suits validation within training.
        seed: of the resamples.
        activation: what turns the predictions into probabilities: "sigmoid", "softmax", or "none" if they are;
            default sigmoid for "multilabel" and softmax for "multiclass".

    Raises:
        ValueError: an unknown activation, a sigmoid for classes, or what `ClassificationReport` refuses.

    >>> from tempfile import TemporaryDirectory
    >>> def evaluate(engine, batch):
    ...     return {"pred": batch["logit"], "label": batch["label"]}
    >>> batch = {"logit": torch.tensor([[2.0], [-1.0]]), "label": torch.tensor([[1.0], [0.0]]), "patient": ["a", "b"]}
    >>> engine = Engine(evaluate)
    >>> with TemporaryDirectory() as folder:
    ...     ClassificationReportHandler(folder, ["Edema"], samples=50).attach(engine)
    ...     metrics = engine.run([batch]).metrics
    ...     sorted(path.name for path in Path(folder).iterdir()), metrics["auroc"], metrics["auroc_Edema"]
    (['metrics.json', 'metrics.md'], 1.0, 1.0)
    """

    def __init__(
        self,
        output_dir: str | Path,
        label_names: Sequence[str],
        task: Task = "multilabel",
        thresholds: str | Path | Thresholds | None = None,
        save_thresholds: str | Path | None = None,
        patient_key: str = "patient",
        label_key: str = "label",
        pred_key: str = "pred",
        samples: int = 1000,
        seed: int = 0,
        activation: Activation | None = None,
    ) -> None:
        self.report = ClassificationReport(label_names, task, samples, seed)
        activation = activation or ("softmax" if task == "multiclass" else "sigmoid")
        if activation not in ("sigmoid", "softmax", "none"):
            raise ValueError(f'activation must be "sigmoid", "softmax" or "none"; got {activation!r}.')
        if task == "multiclass" and activation == "sigmoid":
            raise ValueError('activation must be "softmax" or "none" for task="multiclass"; got "sigmoid".')
        self.output_dir = Path(output_dir)
        self.thresholds = thresholds
        self.save_thresholds = None if save_thresholds is None else Path(save_thresholds)
        self.patient_key, self.label_key, self.pred_key = patient_key, label_key, pred_key
        self.activation = activation
        self._cuts: Thresholds | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator, decollating or not.

        Args:
            engine: runs over the images once per epoch.
        """
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        self.report.reset()
        read = isinstance(self.thresholds, str | Path)
        self._cuts = read_thresholds(self.thresholds) if read else self.thresholds  # type: ignore[arg-type,assignment]

    def _collect(self, engine: Engine) -> None:
        output, batch = engine.state.output, engine.state.batch
        logits = column_of(output, self.pred_key, "pred_key")
        labels = column_of(output if holds(output, self.label_key) else batch, self.label_key, "label_key")
        patients = column_of(batch, self.patient_key, "patient_key")
        scores = logits if isinstance(logits, torch.Tensor) else torch.stack([torch.as_tensor(row) for row in logits])
        self.report(self._probabilities(scores.detach().cpu().double()), list(labels), patients=patients)

    def _probabilities(self, scores: torch.Tensor) -> torch.Tensor:
        if self.activation == "none":
            return scores
        return scores.sigmoid() if self.activation == "sigmoid" else scores.softmax(dim=1)

    def _finish(self, engine: Engine) -> None:
        # Every rank takes part in gathering; only one need spend time on intervals.
        first = idist.get_rank() == 0
        result = self.report.aggregate(self._cuts, intervals=first)
        engine.state.metrics.update(_scalars(result))
        best = None if self.save_thresholds is None else self.report.best_thresholds()
        if not first:
            return
        table = report_table(result)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        (self.output_dir / "metrics.json").write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
        (self.output_dir / "metrics.md").write_text(table)
        if best is not None and self.save_thresholds is not None:
            self.save_thresholds.parent.mkdir(parents=True, exist_ok=True)
            known = {name: None if math.isnan(cut) else cut for name, cut in best.items()}
            self.save_thresholds.write_text(json.dumps(known, indent=2) + "\n")
        engine.logger.info("\n%s", table)


def read_thresholds(path: str | Path) -> Thresholds:
    """Thresholds per label from the JSON file that a validation run wrote.

    Args:
        path: a JSON object of label names and numbers or null.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it holds anything else.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "thresholds.json").write_text('{"Edema": 0.4}')
    ...     read_thresholds(Path(folder, "thresholds.json"))
    {'Edema': 0.4}
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"thresholds: {path} is not there. Run the evaluation on validation data with save_thresholds first."
        )
    try:
        found = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"thresholds: {path} is no JSON file: {error}") from error
    if not isinstance(found, dict) or not all(
        value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in found.values()
    ):
        raise ValueError(f'thresholds: {path} must hold an object such as {{"Edema": 0.4}}, numbers or null.')
    return found


def holds(data: Any, key: str) -> bool:
    """Whether a decollated list of dictionaries, or one dictionary of a batch, has a key."""
    first = data[0] if isinstance(data, list) and data else data
    return isinstance(first, Mapping) and key in first


def column_of(data: Any, key: str, argument: str) -> Any:
    """What a decollated list of dictionaries, or one dictionary of a batch, holds under a key."""
    if not holds(data, key):
        raise KeyError(f"{argument}: there is no {key!r} in the engine's state; name the key that it has there.")
    return [item[key] for item in data] if isinstance(data, list) else data[key]


def _scalars(report: Mapping[str, Any]) -> dict[str, float]:
    entries = dict(report["mean"])
    entries |= {kind: entry for kind, entry in report.get("overall", {}).items() if kind != "ece"}
    for name, label in report["labels"].items():
        entries |= {f"{kind}_{name}": entry for kind, entry in label.items() if isinstance(entry, dict)}
    return {name: math.nan if entry["value"] is None else entry["value"] for name, entry in entries.items()}

"""The report of a classifier: discrimination, calibration and decisions, per label, with intervals over patients."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_deepfixcx.metrics import weighted
from monai_deepfixcx.metrics.bootstrap import (
    Estimate,
    check_bootstrap,
    number_patients,
    percentile_estimate,
    resample_patients,
)
from monai_deepfixcx.metrics.functional import mean_defined, youden_threshold
from monai_deepfixcx.metrics.gathered_scores import GatheredScores, Task
from monai_deepfixcx.metrics.inputs import as_array, check_probabilities, top_label
from monai_deepfixcx.metrics.weighted import IGNORED, Floats, Ints, Ranking

_CONFIDENCE = 0.95
_METRICS = ("auroc", "auprc", "ece")

Statistic = Callable[[Floats], Floats]


@dataclass(frozen=True)
class _Collected:
    probabilities: Floats  # [N, L]
    labels: Floats  # [N, L] of 0, 1, 2
    patients: Ints  # [N], 0 to P - 1


class ClassificationReport(GatheredScores):
    """AUROC, AUPRC, calibration and, at given thresholds, sensitivity and specificity, of all images of all ranks.

    Patients' names are hashed as they come in and reach no result. The report depends neither on the order of the
    images nor on how ranks share them. MONAI's DistributedSampler repeats images to even out the ranks unless
    ``even_divisible=False``: repeated images count twice.

    Args:
        label_names: L different names; for one probability per image, one name.
        task: "multilabel", or "multiclass" (probabilities of a softmax), which also reports accuracies.
        samples: bootstrap resamples of patients; 0 for no intervals.
        seed: of the resamples.

    Raises:
        ValueError: names that are missing or repeated, another task, one class, or a negative number of samples.

    Sources: Hanley & McNeil, Radiology 143 (1982), for AUROC; Naeini et al., AAAI 2015, for the calibration error;
    Efron & Tibshirani, An Introduction to the Bootstrap (1993), section 13.3, for intervals.

    >>> report = ClassificationReport(["Cardiomegaly"], samples=100)
    >>> probabilities = torch.tensor([[0.9], [0.7], [0.2], [0.4], [0.1]])
    >>> _ = report(probabilities, torch.tensor([[1.0], [1.0], [0.0], [2.0], [0.0]]), patients=["a", "b", "c", "c", "d"])
    >>> result = report.aggregate(thresholds={"Cardiomegaly": 0.5})
    >>> result["labels"]["Cardiomegaly"]["auroc"]["value"], result["labels"]["Cardiomegaly"]["uncertain"]
    (1.0, 1)
    >>> round(report.best_thresholds()["Cardiomegaly"], 4)
    0.7
    """

    dtypes = (torch.float64, torch.float64, torch.int64)

    def __init__(
        self, label_names: Sequence[str], task: Task = "multilabel", samples: int = 1000, seed: int = 0
    ) -> None:
        super().__init__(task)
        names = list(label_names)
        if isinstance(label_names, str) or not names or len(set(names)) != len(names):
            raise ValueError(f"label_names must be a list of different names; got {label_names!r}.")
        if task == "multiclass" and len(names) < 2:
            raise ValueError(f"label_names must name two or more classes for task='multiclass'; got {names}.")
        check_bootstrap(samples)
        self.label_names, self.samples, self.seed = names, samples, seed

    def __call__(  # type: ignore[override]
        self, y_pred: Any, y: Any = None, patients: Iterable[Any] | Tensor | None = None
    ) -> Any:
        """Add a batch.

        Args:
            y_pred: probabilities ``[B, L]``, or a list of B of ``[L]``.
            y: labels ``[B, L]`` of 0, 1, or 2 (uncertain: left out); with task="multiclass" class indices ``[B]`` or
                ``[B, 1]``, or one-hot ``[B, L]``; or a list of B of them.
            patients: whose each image is: B names or whole numbers.

        Raises:
            TypeError: a patient that is neither a name nor a whole number.
            ValueError: shapes that do not fit, another label value, or a value that is no probability.
        """
        return super().__call__(y_pred, y, patients=patients)

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, patients: Any = None, **kwargs: Any) -> Any:
        scores, labels = super()._compute_tensor(y_pred, y)
        if scores.shape[1] != len(self.label_names):
            raise ValueError(
                f"predictions must have a column for each of {len(self.label_names)} label_names; got "
                f"{scores.shape[1]} columns."
            )
        check_probabilities(scores.numpy()[labels.numpy() != IGNORED])
        if self.task == "multiclass" and not torch.allclose(scores.sum(dim=1), scores.new_ones(len(scores)), atol=1e-2):
            raise ValueError("probabilities of classes must add up to 1 per image. Apply a softmax to logits.")
        codes = [patient_code(patient) for patient in patients] if patients is not None else []
        if len(codes) != len(scores):
            raise ValueError(f"patients must hold one name per image, {len(scores)} in this batch; got {len(codes)}.")
        return [scores, labels, torch.tensor(codes, dtype=torch.int64).reshape(-1, 1)]

    def aggregate(self, thresholds: Mapping[str, float | None] | None = None, intervals: bool = True) -> dict[str, Any]:
        """The report, ready for JSON; whatever the labels leave undefined is None.

        Args:
            thresholds: per label, chosen on other data (`best_thresholds` of a validation run); None for a label
                whose threshold is undefined.
            intervals: False leaves the bootstrap out, on ranks that do not write the report.

        Returns:
            ``task``, ``images``, ``patients``, ``bootstrap``; ``mean`` over labels (those with both classes) of
            ``auroc``, ``auprc`` and ``ece``; for classes, ``overall`` ``accuracy``, ``balanced_accuracy`` and ``ece``
            of the likeliest class; ``labels``: per name ``images`` (certain ones), ``patients``, ``positives``,
            ``uncertain``, ``auroc`` (baseline .5), ``auprc`` (baseline: prevalence), ``ece`` (no baseline) and, with
            thresholds, ``threshold``, ``sensitivity`` and ``specificity``. Each metric holds ``value``, ``low``,
            ``high`` (95 % interval) and ``baseline``.

        Raises:
            ValueError: no rank has an image, or a label has no threshold.
        """
        if thresholds is not None and (missing := [name for name in self.label_names if name not in thresholds]):
            raise ValueError(f"thresholds must have an entry for each label; missing: {', '.join(missing)}.")
        data = self._collected()
        cuts = {name: _or_nan(value) for name, value in (thresholds or {}).items()}
        statistics = self._statistics(data, cuts)
        ones = np.ones((1, len(data.patients)))
        values = {key: float(statistic(ones)[0]) for key, statistic in statistics.items()}
        samples = self.samples if intervals else 0
        drawn = resample_patients(list(statistics.values()), data.patients, samples, self.seed)
        resampled = dict(zip(statistics, drawn, strict=True))

        def entry(key: tuple[str, str], baseline: float | None = None) -> dict[str, float | None]:
            return percentile_estimate(values[key], resampled[key], _CONFIDENCE, baseline).as_dict()

        labels = {}
        for name, truth in zip(self.label_names, data.labels.T, strict=True):
            counted = _counts(truth, data.patients)
            prevalence = counted["positives"] / counted["images"] if counted["images"] else None
            labels[name] = {
                **counted,
                "auroc": entry((name, "auroc"), 0.5),
                "auprc": entry((name, "auprc"), prevalence),
                "ece": entry((name, "ece")),
            }
            if name in cuts:
                labels[name] |= {"threshold": None if math.isnan(cuts[name]) else cuts[name]}
                labels[name] |= {kind: entry((name, kind)) for kind in ("sensitivity", "specificity")}
        report: dict[str, Any] = {
            "task": self.task,
            "images": len(data.patients),
            "patients": int(data.patients.max()) + 1,
            "bootstrap": {"samples": samples, "confidence": _CONFIDENCE, "seed": self.seed, "unit": "patient"},
            "mean": {kind: self._mean(kind, values, resampled, labels) for kind in _METRICS},
        }
        if self.task == "multiclass":
            largest = float(data.labels.mean(axis=0).max())
            baselines = {"accuracy": largest, "balanced_accuracy": 1 / len(self.label_names), "ece": None}
            report["overall"] = {kind: entry(("", kind), baseline) for kind, baseline in baselines.items()}
        return report | {"labels": labels}

    def best_thresholds(self) -> dict[str, float]:
        """Per label, the threshold that maximises sensitivity + specificity - 1 here; nan if a class is missing.

        Raises:
            ValueError: no rank has an image.
        """
        data = self._collected()
        columns = zip(self.label_names, data.probabilities.T, data.labels.T, strict=True)
        return {name: youden_threshold(scores, truth) for name, scores, truth in columns}

    def _collected(self) -> _Collected:
        scores, labels, codes = (as_array(rows) for rows in self.gathered())
        patients = number_patients(codes[:, 0], len(codes))
        # One order for any order of arrival: sums of floats then agree to the last bit.
        order = np.lexsort((*labels.T, *scores.T, patients))
        return _Collected(scores[order], labels[order], patients[order])

    def _statistics(self, data: _Collected, cuts: Mapping[str, float]) -> dict[tuple[str, str], Statistic]:
        statistics: dict[tuple[str, str], Statistic] = {}
        for name, scores, truth in zip(self.label_names, data.probabilities.T, data.labels.T, strict=True):
            ranking = Ranking.of(scores, truth)
            statistics[name, "auroc"] = ranking.auroc
            statistics[name, "auprc"] = ranking.average_precision
            statistics[name, "ece"] = _calibration(scores, truth)
            if name in cuts:
                known = not math.isnan(cuts[name])
                statistics[name, "sensitivity"] = _share(scores >= cuts[name], (truth == 1) & known)
                statistics[name, "specificity"] = _share(scores < cuts[name], (truth == 0) & known)
        if self.task == "multiclass":
            classes, predicted = data.labels.argmax(axis=1), data.probabilities.argmax(axis=1)
            statistics["", "accuracy"] = _share(predicted == classes, np.ones(len(classes), bool))
            statistics["", "balanced_accuracy"] = lambda w: weighted.balanced_accuracy(predicted, classes, w)
            statistics["", "ece"] = _calibration(*top_label(data.probabilities, classes))
        return statistics

    def _mean(
        self,
        kind: str,
        values: Mapping[tuple[str, str], float],
        resampled: Mapping[tuple[str, str], Floats],
        labels: Mapping[str, Mapping[str, Any]],
    ) -> dict[str, float | None]:
        """Mean over the labels for which the metric is defined; a resample that loses one of them is left out."""
        defined = [name for name in self.label_names if not math.isnan(values[name, kind])]
        if not defined:
            return Estimate(math.nan, math.nan, math.nan).as_dict()
        baselines = [labels[name][kind]["baseline"] for name in defined]
        return percentile_estimate(
            mean_defined([values[name, kind] for name in defined]),
            np.mean([resampled[name, kind] for name in defined], axis=0),
            _CONFIDENCE,
            None if None in baselines else float(np.mean(baselines)),
        ).as_dict()


def _counts(truth: Floats, patients: Ints) -> dict[str, int]:
    certain = truth != IGNORED
    return {
        "images": int(certain.sum()),
        "patients": len(np.unique(patients[certain])),
        "positives": int((truth == 1).sum()),
        "uncertain": int((~certain).sum()),
    }


def _calibration(confidences: Floats, outcomes: Floats) -> Statistic:
    return lambda weights: weighted.calibration_error(confidences, outcomes, 15, weights)


def _share(hits: NDArray[np.bool_], among: NDArray[np.bool_]) -> Statistic:
    return lambda weights: weighted.share(hits, among, weights)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)


def patient_code(patient: Any) -> int:
    """64 bits in place of a patient's name: alike on all ranks, gathered as one number, never written."""
    if isinstance(patient, Tensor | np.ndarray | np.generic):
        patient = patient.tolist()
    if not isinstance(patient, str | Integral):
        raise TypeError(f"patients must be names or whole numbers; got {type(patient).__name__}.")
    name = patient if isinstance(patient, str) else str(int(patient))
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little", signed=True)

"""The report of a classifier by subgroups of patients, with intervals over patients."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.utils import string_list_all_gather
from torch import Tensor

from monai_deepfixcx.metrics.bootstrap import Estimate, number_patients, percentile_estimate, resample_patients
from monai_deepfixcx.metrics.classification_report import ClassificationReport
from monai_deepfixcx.metrics.fairness.groups import (
    AGE_EDGES,
    COMORBIDITY,
    UNKNOWN,
    Attribute,
    attribute_name,
    attribute_parts,
    check_attributes,
    comorbidity,
    group_code,
    intersect,
    split_by_size,
    value_name,
)
from monai_deepfixcx.metrics.fairness.statistics import (
    DECIDED,
    RANKED,
    SPD,
    WORST_IS_HIGH,
    Statistic,
    accuracy_spd,
    by_group,
    gap_name,
    of_rows,
    statistic,
)
from monai_deepfixcx.metrics.functional import mean_defined
from monai_deepfixcx.metrics.gathered_scores import Task
from monai_deepfixcx.metrics.inputs import as_array
from monai_deepfixcx.metrics.weighted import IGNORED, Floats, Ints

_CONFIDENCE = 0.95


class _Subgroups(NamedTuple):
    """One attribute: the images of its groups, and what was left out."""

    kept: dict[str, Ints]
    excluded: dict[str, dict[str, int]]
    unknown: int


class _Key(NamedTuple):
    attribute: str
    label: str
    group: str
    kind: str


class _Figures(NamedTuple):
    """Every figure of every group: its value, and its values ``[S]`` over the resamples."""

    values: dict[_Key, float]
    resampled: dict[_Key, Floats]

    def estimate(self, key: _Key) -> Estimate:
        return percentile_estimate(self.values[key], self.resampled[key], _CONFIDENCE)


class FairnessReport(ClassificationReport):
    """What `ClassificationReport` says, and the same by subgroup: figures, worst subgroup, and gaps.

    Subgroups of fewer than `min_patients` patients are left out and named. Images whose group is not known are left
    out of that attribute and counted. Intervals resample whole patients; the order of the images does not matter, nor
    how ranks share them. Names of groups reach the report; those of patients do not.

    Args:
        label_names: L different names.
        attributes: what to split by, each a column of the data, "comorbidity" (the number of positive labels of the
            image), or a list of them (their intersection, such as ``["sex", "age"]``).
        task: "multilabel", or "multiclass", whose classes are judged one against the rest.
        samples: bootstrap resamples of patients; 0 for no intervals.
        seed: of the resamples.
        min_patients: of a subgroup.
        bins: column -> edges of half-open bins, for columns of numbers; default the third paper's ages for "age".

    Raises:
        ValueError: what `ClassificationReport` refuses, no attribute, one twice, or edges that do not rise.

    Sources: Tayebi Arasteh et al., arXiv:2302.01622, for ages, comorbidity and `accuracy_spd`; Verma & Rubin, FairWare
    2018, for demographic parity; Hardt et al., NeurIPS 2016, for gaps of TPR and FPR.

    >>> report = FairnessReport(["Edema"], ["sex"], samples=0, min_patients=2)
    >>> columns = {"sex": ["F", "F", "M", "M", "X"]}
    >>> _ = report([[0.9], [0.1], [0.2], [0.4], [0.3]], [[1.0], [0.0], [1.0], [0.0], [0.0]], [1, 2, 3, 4, 5], columns)
    >>> sex = report.aggregate(thresholds={"Edema": 0.5})["attributes"]["sex"]
    >>> sex["labels"]["Edema"]["gaps"]["auroc_gap"]["value"], sex["labels"]["Edema"]["worst"]["auroc"]["group"]
    (1.0, 'M')
    >>> sex["labels"]["Edema"]["gaps"]["demographic_parity_difference"]["value"], sex["excluded"]
    (0.5, {'X': {'images': 1, 'patients': 1}})
    """

    def __init__(
        self,
        label_names: Sequence[str],
        attributes: Sequence[Attribute],
        task: Task = "multilabel",
        samples: int = 1000,
        seed: int = 0,
        min_patients: int = 10,
        bins: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        super().__init__(label_names, task, samples, seed)
        self.bins = {"age": AGE_EDGES} if bins is None else dict(bins)
        check_attributes(attributes, self.bins)
        if min_patients < 1:
            raise ValueError(f"min_patients must be at least 1; got {min_patients}.")
        self.attributes, self.min_patients = list(attributes), min_patients
        parts = dict.fromkeys(part for attribute in attributes for part in attribute_parts(attribute))
        self.columns = [part for part in parts if part != COMORBIDITY]
        self._names: dict[int, str] = {}

    def __call__(  # type: ignore[override]
        self,
        y_pred: Any,
        y: Any = None,
        patients: Iterable[Any] | Tensor | None = None,
        columns: Mapping[str, Sequence[Any] | Tensor] | None = None,
    ) -> Any:
        """Add a batch.

        Args:
            y_pred: probabilities ``[B, L]``, or a list of B of ``[L]``.
            y: labels ``[B, L]`` of 0, 1, or 2 (uncertain: left out); see `ClassificationReport`.
            patients: whose each image is: B names or whole numbers.
            columns: name -> B values, those that `attributes` names among them; None, nan and "" are unknown.

        Raises:
            ValueError: a column that is not there, or of another length; what `ClassificationReport` refuses.
        """
        codes = self._codes(columns or {})
        return super(ClassificationReport, self).__call__(y_pred, y, patients=patients, codes=codes)

    def _codes(self, columns: Mapping[str, Any]) -> list[list[int]]:
        unknown = [name for name in self.columns if name not in columns]
        if unknown:
            there = ", ".join(sorted({*columns, COMORBIDITY}))
            raise ValueError(f"attributes: there is no column {unknown[0]!r}; there are {there}.")
        codes = []
        for column in self.columns:
            names = [value_name(value, self.bins.get(column)) for value in columns[column]]
            codes.append([group_code(name) for name in names])
            self._names |= {code: name for code, name in zip(codes[-1], names, strict=True) if name is not None}
        return codes

    def _compute_tensor(
        self, y_pred: Tensor, y: Tensor | None = None, patients: Any = None, codes: Any = (), **kwargs: Any
    ) -> Any:
        scores, labels, owners = super()._compute_tensor(y_pred, y, patients=patients)
        wrong = [name for name, column in zip(self.columns, codes, strict=True) if len(column) != len(scores)]
        if wrong:
            raise ValueError(f"columns[{wrong[0]!r}] must hold a value for each of {len(scores)} images in this batch.")
        table = torch.tensor(codes, dtype=torch.int64).reshape(len(codes), len(scores))
        return [scores, labels, torch.cat([owners, table.T], dim=1)]

    def reset(self) -> None:
        """Forget what was collected."""
        super().reset()
        self._names = {}

    def aggregate(self, thresholds: Mapping[str, float | None] | None = None, intervals: bool = True) -> dict[str, Any]:
        """The report, ready for JSON; whatever the labels leave undefined is None.

        Args:
            thresholds: per label, chosen on other data; without them no figure that needs a decision is given.
            intervals: False leaves the bootstrap out.

        Returns:
            What `ClassificationReport.aggregate` gives, ``min_patients``, and ``attributes``: per name ``excluded``
            groups, ``unknown`` images, ``labels`` and their ``mean``. Per label ``groups``: ``images`` (certain ones),
            ``patients``, ``positives``, ``auroc``, ``ece`` and, with thresholds, ``selection_rate``, ``tpr``, ``fpr``,
            ``accuracy`` and ``accuracy_spd`` (the accuracy less that of all other groups together, which the third
            paper calls statistical parity difference); ``gaps``: the largest differences between groups,
            ``auroc_gap``, ``ece_gap``, ``tpr_gap``, ``fpr_gap``, ``accuracy_gap`` and
            ``demographic_parity_difference``; ``worst``: per figure the worst ``group`` and the ``estimate`` of the
            worst. ``mean`` holds the mean AUROC of each group that has any, over the labels for which all of them
            have one, the worst group by it, and the mean of each gap over labels. Each figure holds ``value``,
            ``low`` and ``high``.

        Raises:
            ValueError: no rank has an image, a label has no threshold, or no group of an attribute is large enough.
        """
        report = super().aggregate(thresholds, intervals)
        data, groups = self._grouped()
        cuts = {name: _or_nan(value) for name, value in (thresholds or {}).items()}
        figures = self._figures(data, groups, cuts, self.samples if intervals else 0)
        report |= {"min_patients": self.min_patients, "attributes": {}}
        for attribute, split in groups.items():
            labels = {}
            for column, label in enumerate(self.label_names):
                labels[label] = self._label(figures, data, split, (attribute, label), column)
                if label in cuts:
                    labels[label]["threshold"] = None if math.isnan(cuts[label]) else cuts[label]
            report["attributes"][attribute] = {
                "excluded": split.excluded,
                "unknown": split.unknown,
                "labels": labels,
                "mean": self._mean_over_labels(figures, attribute, list(split.kept)),
            }
        return report

    def _grouped(self) -> tuple[tuple[Floats, Floats, Ints], dict[str, _Subgroups]]:
        """Scores, labels and patients in one order for any order of arrival, and the groups of each attribute."""
        scores, labels, codes = (as_array(rows) for rows in self.gathered())
        patients = number_patients(codes[:, 0], len(codes))
        order = np.lexsort((*codes[:, 1:].T, *labels.T, *scores.T, patients))
        scores, labels, codes, patients = scores[order], labels[order], codes[order], patients[order]
        names = string_list_all_gather(sorted(self._names.values()), delimiter="\x1f")
        known = {group_code(name): name for name in names}
        columns: dict[str, Sequence[str | None]] = {
            name: [None if code == UNKNOWN else known[code] for code in codes[:, 1 + index]]
            for index, name in enumerate(self.columns)
        }
        columns[COMORBIDITY] = comorbidity(labels)
        groups = {}
        for attribute in self.attributes:
            name = attribute_name(attribute)
            owners = intersect([columns[part] for part in attribute_parts(attribute)])
            groups[name] = _Subgroups(*split_by_size(owners, patients, self.min_patients, name), owners.count(None))
        return (scores, labels, patients), groups

    def _figures(
        self,
        data: tuple[Floats, Floats, Ints],
        groups: Mapping[str, _Subgroups],
        cuts: Mapping[str, float],
        samples: int,
    ) -> _Figures:
        values: dict[_Key, float] = {}
        statistics: dict[_Key, Statistic] = {}
        ones = np.ones((1, len(data[2])))
        for attribute, split in groups.items():
            for label, scores, truth in zip(self.label_names, data[0].T, data[1].T, strict=True):
                cut = cuts.get(label)
                for kind in RANKED + (DECIDED if label in cuts else ()):
                    found = by_group(kind, split.kept, scores, truth, cut)
                    for group, rows in split.kept.items():
                        key = _Key(attribute, label, group, kind)
                        values[key] = found.get(group, math.nan)
                        statistics[key] = of_rows(statistic(kind, scores[rows], truth[rows], cut), rows)
                for group in split.kept if label in cuts else ():
                    key = _Key(attribute, label, group, SPD)
                    statistics[key] = accuracy_spd(group, split.kept, scores, truth, cut)
                    values[key] = float(statistics[key](ones)[0])
        drawn = resample_patients(list(statistics.values()), data[2], samples, self.seed)
        return _Figures(values, dict(zip(statistics, drawn, strict=True)))

    def _label(
        self,
        figures: _Figures,
        data: tuple[Floats, Floats, Ints],
        split: _Subgroups,
        place: tuple[str, str],
        column: int,
    ) -> dict[str, Any]:
        """What is reported of one label by one attribute."""
        kinds = list(dict.fromkeys(key.kind for key in figures.values if key[:2] == place))
        groups: dict[str, Any] = {}
        for group, rows in split.kept.items():
            truth = data[1][rows, column]
            groups[group] = {
                "images": int((truth != IGNORED).sum()),
                "patients": len(np.unique(data[2][rows][truth != IGNORED])),
                "positives": int((truth == 1).sum()),
                **{kind: _entry(figures.estimate(_Key(*place, group, kind))) for kind in kinds},
            }
        compared = {kind: [_Key(*place, group, kind) for group in split.kept] for kind in kinds if kind != SPD}
        return {
            "groups": groups,
            "gaps": {gap_name(kind): _entry(_gap(figures, keys)) for kind, keys in compared.items()},
            "worst": {kind: _worst(figures, compared[kind]) for kind in kinds if kind not in (SPD, "selection_rate")},
        }

    def _mean_over_labels(self, figures: _Figures, attribute: str, groups: list[str]) -> dict[str, Any]:
        def undefined(label: str, group: str) -> bool:
            return math.isnan(figures.values[_Key(attribute, label, group, "auroc")])

        # Images with no positive label, or with all, have no AUROC at all: they must not cost the other groups theirs.
        ranked = [group for group in groups if not all(undefined(label, group) for label in self.label_names)]
        whole = [label for label in self.label_names if not any(undefined(label, group) for group in ranked)]
        means = _Figures({}, {})
        for group in ranked if whole else ():
            keys = [_Key(attribute, label, group, "auroc") for label in whole]
            mean = _Key(attribute, "", group, "auroc")
            means.values[mean] = mean_defined([figures.values[key] for key in keys])
            means.resampled[mean] = np.mean([figures.resampled[key] for key in keys], axis=0)
        gaps = {}
        for kind in dict.fromkeys(key.kind for key in figures.values if key.kind != SPD):
            found = [
                _spread(figures, [_Key(attribute, label, group, kind) for group in groups])
                for label in self.label_names
                if _Key(attribute, label, groups[0], kind) in figures.values
            ]
            defined = [(value, drawn) for value, drawn in found if not math.isnan(value)]
            estimate = Estimate(math.nan, math.nan, math.nan)
            if defined:
                drawn = np.mean([drawn for _, drawn in defined], axis=0)
                estimate = percentile_estimate(mean_defined([value for value, _ in defined]), drawn, _CONFIDENCE)
            gaps[gap_name(kind)] = _entry(estimate)
        return {
            "labels": whole,
            "auroc": {key.group: _entry(means.estimate(key)) for key in means.values},
            "worst": {"auroc": _worst(means, list(means.values))},
            "gaps": gaps,
        }


def _defined(figures: _Figures, keys: Sequence[_Key]) -> list[_Key]:
    return [key for key in keys if not math.isnan(figures.values[key])]


def _spread(figures: _Figures, keys: Sequence[_Key]) -> tuple[float, Floats]:
    """The largest difference between groups, and over resamples; nan unless two groups are defined."""
    keys = _defined(figures, keys)
    if len(keys) < 2:
        return math.nan, np.zeros(0)
    values = [figures.values[key] for key in keys]
    return max(values) - min(values), np.ptp([figures.resampled[key] for key in keys], axis=0)


def _gap(figures: _Figures, keys: Sequence[_Key]) -> Estimate:
    return percentile_estimate(*_spread(figures, keys), _CONFIDENCE)


def _worst(figures: _Figures, keys: Sequence[_Key]) -> dict[str, Any] | None:
    """The worst group, and the worst figure of any group with the interval of just that: of the least, or greatest."""
    keys = _defined(figures, keys)
    if not keys:
        return None
    pick, over = (max, np.max) if keys[0].kind in WORST_IS_HIGH else (min, np.min)
    group = pick(keys, key=lambda key: figures.values[key])
    drawn = over([figures.resampled[key] for key in keys], axis=0)
    return {"group": group.group, "estimate": _entry(percentile_estimate(figures.values[group], drawn, _CONFIDENCE))}


def _entry(estimate: Estimate) -> dict[str, float | None]:
    found = estimate.as_dict()
    del found["baseline"]
    return found


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)

"""Subgroups against fairlearn, scikit-learn, Ignite and slow loops, and under what must not change them."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ignite.metrics.fairness.accuracy_difference import SubgroupAccuracyDifference
from ignite.metrics.fairness.demographic_parity import DemographicParityDifference
from numpy.typing import NDArray

from monai_deepfixcx.metrics import ClassificationReport, FairnessReport, auroc, fairness_table, patient_bootstrap
from monai_deepfixcx.metrics.classification_report import patient_code
from monai_deepfixcx.metrics.fairness import AGE_EDGES, bin_name
from monai_deepfixcx.metrics.functional import expected_calibration_error
from tests.metrics.cohort import CUTS, NAMES, Cohort, cohort

fairlearn = pytest.importorskip("fairlearn.metrics")
ATTRIBUTES = ["sex", "age", "view", "comorbidity", ["sex", "age"]]
FIGURES = {
    "selection_rate": fairlearn.selection_rate,
    "tpr": fairlearn.true_positive_rate,
    "fpr": fairlearn.false_positive_rate,
    "accuracy": lambda y_true, y_pred: float(np.mean(np.asarray(y_true) == np.asarray(y_pred))),
}


def filled(data: Cohort, attributes: Any = ATTRIBUTES, batch: int = 50, **options: Any) -> FairnessReport:
    report = FairnessReport(NAMES, attributes, **{"samples": 0, "min_patients": 1, **options})
    for start in range(0, len(data.patients), batch):
        part = data.rows(slice(start, start + batch))
        report(torch.tensor(part.scores), torch.tensor(part.labels), part.patients, part.columns)
    return report


def groups_of(data: Cohort, attribute: Any) -> NDArray[Any]:
    """The same subgroups by a slower way; "" is unknown."""
    if not isinstance(attribute, str):
        columns = [groups_of(data, part) for part in attribute]
        return np.array([" & ".join(row) if all(row) else "" for row in zip(*columns, strict=True)])
    if attribute == "comorbidity":
        return np.array([str(sum(value == 1 for value in row)) for row in data.labels])
    if attribute == "age":
        names = ["[0,30)", "[30,60)", "[60,70)", "[70,80)", "[80,100)"]
        return np.array([names[sum(age >= edge for edge in (30, 60, 70, 80))] for age in data.columns["age"]])
    return np.array(data.columns[attribute])


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_figures_and_gaps_are_fairlearns(attribute: Any, seed: int) -> None:
    data = cohort(seed)
    name = attribute if isinstance(attribute, str) else " & ".join(attribute)
    found = filled(data, [attribute]).aggregate(CUTS)["attributes"][name]["labels"]
    groups = groups_of(data, attribute)
    for column, label in enumerate(NAMES):
        known = (data.labels[:, column] != 2) & (groups != "")
        truth, called = data.labels[known, column], data.scores[known, column] >= CUTS[label]
        frame = fairlearn.MetricFrame(
            metrics=FIGURES, y_true=truth, y_pred=called.astype(float), sensitive_features=groups[known]
        )
        counts = fairlearn.MetricFrame(
            metrics=fairlearn.count, y_true=truth, y_pred=truth, sensitive_features=groups[known]
        ).by_group
        assert sorted(found[label]["groups"]) == sorted(frame.by_group.index)
        for group, figures in found[label]["groups"].items():
            assert figures["images"] == counts[group]
            for kind in FIGURES:
                # Where a class is missing fairlearn says 0, and we that the rate is not defined.
                expected = frame.by_group[kind][group]
                assert figures[kind]["value"] in (None, pytest.approx(expected, abs=1e-12)), (group, kind)
        difference = frame.difference()
        complete = all(
            figures[kind]["value"] is not None for figures in found[label]["groups"].values() for kind in FIGURES
        )
        assert complete or attribute == ["sex", "age"] or attribute == "comorbidity"
        for kind in FIGURES if complete else ():
            gap = "demographic_parity_difference" if kind == "selection_rate" else f"{kind}_gap"
            assert found[label]["gaps"][gap]["value"] == pytest.approx(difference[kind], abs=1e-12), gap
        parity = fairlearn.demographic_parity_difference(truth, called, sensitive_features=groups[known])
        assert found[label]["gaps"]["demographic_parity_difference"]["value"] == pytest.approx(parity, abs=1e-12)


def test_auroc_and_calibration_by_group_are_those_of_the_group_alone() -> None:
    data = cohort()
    found = filled(data).aggregate()["attributes"]
    for attribute in ATTRIBUTES:
        name = attribute if isinstance(attribute, str) else " & ".join(attribute)
        groups = groups_of(data, attribute)
        for column, label in enumerate(NAMES):
            entry = found[name]["labels"][label]
            own = {
                group: (data.scores[groups == group, column], data.labels[groups == group, column])
                for group in sorted({*groups} - {""})
            }
            values = {group: auroc(*pair) for group, pair in own.items()}
            errors = {group: expected_calibration_error(*pair) for group, pair in own.items()}
            assert list(entry["groups"]) == list(own)
            for group, figures in entry["groups"].items():
                assert _or_nan(figures["auroc"]["value"]) == pytest.approx(values[group], abs=1e-12, nan_ok=True)
                assert _or_nan(figures["ece"]["value"]) == pytest.approx(errors[group], abs=1e-12, nan_ok=True)
            defined = {group: value for group, value in values.items() if not math.isnan(value)}
            assert entry["gaps"]["auroc_gap"]["value"] == pytest.approx(max(defined.values()) - min(defined.values()))
            assert entry["worst"]["auroc"]["group"] == min(defined, key=lambda group: defined[group])
            assert entry["worst"]["auroc"]["estimate"]["value"] == pytest.approx(min(defined.values()))
            assert entry["worst"]["ece"]["group"] == max(errors, key=lambda group: np.nan_to_num(errors[group], nan=-1))


def test_gaps_are_ignites() -> None:
    data = cohort(uncertain=False)
    codes = torch.tensor([["F", "M"].index(sex) for sex in data.columns["sex"]])
    gaps = filled(data, ["sex"]).aggregate(CUTS)["attributes"]["sex"]["labels"]
    for column, label in enumerate(NAMES):
        called = torch.tensor(data.scores[:, column] >= CUTS[label]).long()
        for metric, gap in (
            (DemographicParityDifference(groups=[0, 1]), "demographic_parity_difference"),
            (SubgroupAccuracyDifference(groups=[0, 1]), "accuracy_gap"),
        ):
            metric.update((called, torch.tensor(data.labels[:, column]).long(), codes))
            assert gaps[label]["gaps"][gap]["value"] == pytest.approx(metric.compute(), abs=1e-6)


def test_the_papers_parity_difference_is_one_of_accuracies() -> None:
    data = cohort()
    found = filled(data, ["sex", "age"]).aggregate(CUTS)["attributes"]
    for attribute in ("sex", "age"):
        groups = groups_of(data, attribute)
        for column, label in enumerate(NAMES):
            truth = data.labels[:, column]
            right = (data.scores[:, column] >= CUTS[label]) == (truth == 1)
            sizes = {group: int(((groups == group) & (truth != 2)).sum()) for group in {*groups}}
            accuracy = {group: right[(groups == group) & (truth != 2)].mean() for group in sizes}
            figures = found[attribute]["labels"][label]["groups"]
            for group, figure in figures.items():
                others = [other for other in sizes if other != group]
                mean = sum(sizes[other] * accuracy[other] for other in others) / sum(sizes[other] for other in others)
                assert figure["accuracy_spd"]["value"] == pytest.approx(accuracy[group] - mean, abs=1e-12)
            if attribute == "sex":
                female_less_male = figures["F"]["accuracy"]["value"] - figures["M"]["accuracy"]["value"]
                assert figures["F"]["accuracy_spd"]["value"] == pytest.approx(female_less_male)
                parity = found["sex"]["labels"][label]["gaps"]["demographic_parity_difference"]["value"]
                assert abs(parity - abs(female_less_male)) > 1e-3  # two figures, two names


def test_intervals_are_those_of_a_slow_bootstrap_over_patients() -> None:
    data = cohort(3, patients=40)
    found = filled(data, ["sex"], samples=120, seed=5).aggregate(CUTS)["attributes"]["sex"]
    women = np.array([sex == "F" for sex in data.columns["sex"]])
    owners = [patient_code(patient) for patient in data.patients]

    def of(label: int, kind: str) -> Any:
        def figure(scores: Any, truth: Any) -> float:
            called = scores >= CUTS[NAMES[label]]
            if kind == "auroc":
                return auroc(scores, truth)
            return float(called[truth == 0].mean()) if kind == "fpr" else float(called[truth != 2].mean())

        def gap(scores: Any, truth: Any, female: Any) -> float:
            values = [figure(scores[rows, label], truth[rows, label]) for rows in (female == 1, female == 0)]
            return max(values) - min(values)

        return gap

    for column, label in enumerate(NAMES):
        for kind, gap in {
            "auroc": "auroc_gap",
            "fpr": "fpr_gap",
            "selection_rate": "demographic_parity_difference",
        }.items():
            slow = patient_bootstrap(
                of(column, kind), [data.scores, data.labels, women.astype(int)], owners, samples=120, seed=5
            )
            entry = found["labels"][label]["gaps"][gap]
            assert entry == pytest.approx({"value": slow.value, "low": slow.low, "high": slow.high}, abs=1e-9)
            assert entry["low"] < entry["high"]

    def worst(scores: Any, truth: Any, female: Any) -> float:
        means = [
            np.mean([auroc(scores[rows, k], truth[rows, k]) for k in range(3)]) for rows in (female == 1, female == 0)
        ]
        return float(min(means))

    slow = patient_bootstrap(worst, [data.scores, data.labels, women.astype(int)], owners, samples=120, seed=5)
    entry = found["mean"]["worst"]["auroc"]
    assert entry["group"] == "F"
    assert entry["estimate"] == pytest.approx({"value": slow.value, "low": slow.low, "high": slow.high}, abs=1e-9)


def test_the_whole_is_the_classification_report() -> None:
    data = cohort()
    whole = ClassificationReport(NAMES, samples=20)
    whole(torch.tensor(data.scores), torch.tensor(data.labels), data.patients)
    expected = whole.aggregate(CUTS)
    report = filled(data, samples=20)
    found = report.aggregate(CUTS)
    assert {key: found[key] for key in expected} == expected
    assert report.best_thresholds() == whole.best_thresholds()
    json.dumps(found, allow_nan=False)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 40))
def test_neither_order_nor_batches_matter(seed: int, batch: int) -> None:
    data = cohort(1, patients=30)
    order = np.random.default_rng(seed).permutation(len(data.patients))
    first = filled(data, ["sex", "view"], samples=15).aggregate(CUTS)
    assert filled(data.rows(order), ["sex", "view"], batch=batch, samples=15).aggregate(CUTS) == first


def test_equal_subgroups_have_no_gap() -> None:
    """Every patient twice, once in each group."""
    data = cohort(uncertain=False)
    count = len(data.patients)
    twice = data.rows(np.tile(np.arange(count), 2))
    twice.columns["sex"] = ["F"] * count + ["M"] * count
    found = filled(twice, ["sex"]).aggregate(CUTS)["attributes"]["sex"]
    gaps = [entry["value"] for label in found["labels"].values() for entry in label["gaps"].values()]
    assert gaps == pytest.approx([0] * len(gaps), abs=1e-12)
    assert {f["accuracy_spd"]["value"] for label in found["labels"].values() for f in label["groups"].values()} == {0}


def test_small_subgroups_are_left_out_and_named() -> None:
    data = cohort()
    for row in range(6):
        data.columns["sex"][row] = "X"
    entry = filled(data, ["sex", "view"], min_patients=4).aggregate(CUTS)["attributes"]
    assert entry["sex"]["excluded"] == {"X": {"images": 6, "patients": 3}}
    assert set(entry["sex"]["labels"]["Edema"]["groups"]) == {"F", "M"}
    assert entry["view"]["unknown"] == data.columns["view"].count("")
    kept = np.array([sex != "X" for sex in data.columns["sex"]])
    alone = filled(data.rows(kept), ["sex"]).aggregate(CUTS)["attributes"]["sex"]
    assert entry["sex"]["labels"] == alone["labels"]
    with pytest.raises(ValueError, match=r"no subgroup of 'sex' has min_patients=90 patients; there are F \(\d+\), M"):
        filled(data, ["sex"], min_patients=90).aggregate()
    data.columns["view"] = [None] * len(data.patients)
    with pytest.raises(ValueError, match="no subgroup of 'view' has min_patients=1 patients; there are none"):
        filled(data, ["view"]).aggregate()


def test_one_group_alone_has_no_gap_and_a_label_without_positives_no_auroc() -> None:
    data = cohort()
    data.labels[:, 2] = 0
    data.columns["sex"] = ["F"] * len(data.patients)
    found = filled(data, ["sex"], samples=10).aggregate({**CUTS, "Mass": None})
    sex = found["attributes"]["sex"]
    assert sex["labels"]["Edema"]["gaps"]["auroc_gap"] == {"value": None, "low": None, "high": None}
    assert sex["labels"]["Nodule"]["worst"]["auroc"] is None
    assert sex["labels"]["Mass"]["threshold"] is sex["labels"]["Mass"]["groups"]["F"]["tpr"]["value"] is None
    assert sex["labels"]["Edema"]["groups"]["F"]["accuracy_spd"]["value"] is None
    assert sex["mean"]["labels"] == ["Edema", "Mass"]
    assert sex["mean"]["gaps"]["tpr_gap"]["value"] is None
    assert "- Nodule: no subgroup has a defined AUROC" in fairness_table(found)


def test_means_compare_groups_over_the_same_labels() -> None:
    """A label that one group lacks positives of must not lift or lower the mean of the others."""
    data = cohort(uncertain=False)
    women = np.array([sex == "F" for sex in data.columns["sex"]])
    data.labels[women, 0] = 0
    mean = filled(data, ["sex"]).aggregate()["attributes"]["sex"]["mean"]
    assert mean["labels"] == ["Mass", "Nodule"]
    for group, rows in {"F": women, "M": ~women}.items():
        expected = np.mean([auroc(data.scores[rows, k], data.labels[rows, k]) for k in (1, 2)])
        assert mean["auroc"][group]["value"] == pytest.approx(expected)


def test_a_group_without_any_auroc_leaves_the_mean_to_the_others() -> None:
    data = cohort(uncertain=False)
    women = np.array([sex == "F" for sex in data.columns["sex"]])
    data.labels[women] = 0
    mean = filled(data, ["sex"]).aggregate()["attributes"]["sex"]["mean"]
    assert mean["labels"] == NAMES
    expected = np.mean([auroc(data.scores[~women, k], data.labels[~women, k]) for k in range(3)])
    assert mean["auroc"] == {"M": {"value": pytest.approx(expected), "low": None, "high": None}}


def test_classes_are_judged_one_against_the_rest() -> None:
    data = cohort(uncertain=False)
    probabilities = data.scores / data.scores.sum(axis=1, keepdims=True)
    classes = np.arange(len(data.patients)) % 3
    report = FairnessReport(NAMES, ["sex"], task="multiclass", samples=0)
    report(torch.tensor(probabilities), torch.tensor(classes), data.patients, data.columns)
    women = np.array([sex == "F" for sex in data.columns["sex"]])
    found = report.aggregate()["attributes"]["sex"]["labels"]["Mass"]["groups"]["F"]["auroc"]["value"]
    assert found == pytest.approx(auroc(probabilities[women, 1], (classes[women] == 1).astype(float)))


def test_no_name_of_a_patient_is_kept() -> None:
    report = filled(cohort())
    assert "patient 1" not in repr(report.__dict__) + repr(report.aggregate()) + fairness_table(report.aggregate())


def test_columns_may_be_tensors_and_bins_ones_own() -> None:
    data = cohort()
    data.columns["age"] = torch.tensor(data.columns["age"])  # type: ignore[assignment]
    report = FairnessReport(NAMES, ["age", "site"], samples=0, bins={"age": [18, 65, 120]}, min_patients=1)
    columns: dict[str, Any] = {**data.columns, "site": np.arange(200) % 2}
    report(torch.tensor(data.scores), torch.tensor(data.labels), data.patients, columns)
    found = report.aggregate()["attributes"]
    assert set(found["age"]["labels"]["Edema"]["groups"]) == {"[18,65)", "[65,120)"}
    assert found["age"]["unknown"] == int((torch.as_tensor(data.columns["age"]) < 18).sum())
    assert set(found["site"]["labels"]["Edema"]["groups"]) == {"0", "1"}
    assert [bin_name(age, AGE_EDGES) for age in (0, 29.9, 30, 79.9, 80, -1, math.nan)] == [
        *("[0,30)", "[0,30)", "[30,60)", "[70,80)", "[80,100)"),
        *(None, None),
    ]


def test_the_table_shows_every_group_and_gap() -> None:
    data = cohort()
    data.columns["sex"][0] = data.columns["sex"][1] = "X|Y"
    report = filled(data, ["sex", ["sex", "view"]], samples=20, min_patients=1)
    found = report.aggregate(CUTS)
    text = fairness_table(json.loads(json.dumps(found)))
    gap = found["attributes"]["sex"]["labels"]["Edema"]["gaps"]["demographic_parity_difference"]
    assert f"{gap['value']:.3f} ({gap['low']:.3f} to {gap['high']:.3f})" in text
    assert "## By sex & view" in text
    assert r"| Edema | X\|Y |" in text
    rows = [line.replace(r"\|", "") for line in text.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {13}
    plain = fairness_table(filled(data, ["sex", "view"], min_patients=3).aggregate())
    assert {row.replace(r"\|", "").count("|") for row in plain.splitlines() if row.startswith("|")} == {8}
    assert "- left out as too small: X|Y (1 patients)" in plain
    assert "- left out as unknown: " in plain
    assert "resamples" not in plain


def test_errors_say_what_was_expected() -> None:
    data = cohort()
    batch = torch.tensor(data.scores), torch.tensor(data.labels), data.patients
    with pytest.raises(ValueError, match="there is no column 'race'; there are age, comorbidity, sex, view"):
        filled(data, ["sex", "race"])
    with pytest.raises(ValueError, match="there is no column 'sex'; there are comorbidity"):
        FairnessReport(NAMES, ["sex"])(*batch)
    for wrong in ("sex", [], ["sex", "sex"]):
        with pytest.raises(ValueError, match="attributes must be a list of different columns"):
            FairnessReport(NAMES, wrong)
    with pytest.raises(ValueError, match=r"an intersection needs two or more different columns; got \['sex'\]"):
        FairnessReport(NAMES, [["sex"]])
    with pytest.raises(ValueError, match=r"bins\['age'\] must be two or more rising edges; got \[30, 30\]"):
        FairnessReport(NAMES, ["age"], bins={"age": [30, 30]})
    with pytest.raises(ValueError, match="min_patients must be at least 1; got 0"):
        FairnessReport(NAMES, ["sex"], min_patients=0)
    with pytest.raises(ValueError, match=r"columns\['sex'\] must hold a value for each of 200 images"):
        FairnessReport(NAMES, ["sex"])(*batch, {"sex": ["F"]})
    with pytest.raises(ValueError, match="a column with bins must hold numbers; got a text"):
        FairnessReport(NAMES, ["age"])(*batch, {"age": ["old"] * 200})
    with pytest.raises(ValueError, match="FairnessReport has seen no image on any rank"):
        FairnessReport(NAMES, ["sex"]).aggregate()
    with pytest.raises(ValueError, match="thresholds must have an entry for each label; missing: Mass, Nodule"):
        filled(data, ["sex"]).aggregate({"Edema": 0.5})


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value

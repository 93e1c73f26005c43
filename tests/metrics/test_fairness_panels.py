"""Pearson's r against SciPy's, and the panels on reports."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_deepfixcx.metrics import FairnessReport
from monai_deepfixcx.metrics.fairness import auroc_against_count, drop_against_count, gap_against_epsilon, pearson
from tests.metrics.cohort import NAMES, cohort

stats = pytest.importorskip("scipy.stats")
NUMBERS = st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=4, max_size=12)


@settings(max_examples=60, deadline=None)
@given(NUMBERS)
def test_pearson_is_scipys(points: list[tuple[float, float]]) -> None:
    x, y = np.array(points).T.round(2)
    found = pearson(x, y)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert math.isnan(found.r)
        return
    expected = stats.pearsonr(x, y)
    assert found.r == pytest.approx(expected.statistic, abs=1e-9)
    if abs(found.r) < 0.999:
        interval = expected.confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-6)


def report(seed: int, spoil: float = 0.0) -> dict[str, Any]:
    data = cohort(seed)
    generator = np.random.default_rng(9)
    scores = np.clip(data.scores + spoil * generator.normal(size=data.scores.shape), 0, 1)
    metric = FairnessReport(NAMES, ["sex"], samples=0)
    metric(torch.tensor(scores), torch.tensor(data.labels), data.patients, data.columns)
    return json.loads(json.dumps(metric.aggregate()))


def test_panels_read_reports() -> None:
    before, after = report(0), report(0, spoil=0.5)
    labels = before["labels"]
    counts = [labels[name]["positives"] for name in NAMES]
    values = [labels[name]["auroc"]["value"] for name in NAMES]
    assert auroc_against_count(before).points == dict(zip(NAMES, zip(counts, values, strict=True), strict=True))
    assert auroc_against_count(before).r == pytest.approx(np.corrcoef(counts, values)[0, 1])
    drops = [value - after["labels"][name]["auroc"]["value"] for name, value in zip(NAMES, values, strict=True)]
    assert drop_against_count(before, after).r == pytest.approx(np.corrcoef(counts, drops)[0, 1])
    reports = {1.0: report(0, 0.8), 2.0: report(0, 0.4), 4.0: report(0, 0.2), 8.0: before}
    gaps = [found["attributes"]["sex"]["mean"]["gaps"]["auroc_gap"]["value"] for found in reports.values()]
    panel = gap_against_epsilon(reports, "sex")
    assert panel.r == pytest.approx(np.corrcoef(list(reports), gaps)[0, 1])
    assert list(panel.points) == ["1", "2", "4", "8"]
    assert panel.low < panel.r < panel.high


def test_what_is_undefined_is_left_out_or_nan() -> None:
    found = pearson([1, 2, math.nan, 3], [1, 3, 5, math.nan], ["a", "b", "c", "d"])
    assert found.points == {"a": (1.0, 1.0), "b": (2.0, 3.0)}
    assert found.r == pytest.approx(1)
    assert math.isnan(found.low)
    assert found.as_dict()["low"] is None
    assert math.isnan(pearson([], []).r)
    assert math.isnan(pearson([1.0], [2.0]).r)
    assert math.isnan(pearson([1.0, 1.0], [2.0, 3.0]).r)


def test_errors_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="x, y and names must be of one length; got 1, 2 and 1"):
        pearson([1], [2, 3])
    found = report(0)
    other = {"labels": {"Edema": found["labels"]["Edema"]}}
    with pytest.raises(ValueError, match="before and after must report on the same labels"):
        drop_against_count(found, other)
    with pytest.raises(ValueError, match="attribute must be one of sex; got 'race'"):
        gap_against_epsilon({1.0: found}, "race")
    with pytest.raises(ValueError, match=r"gap must be one of auroc_gap, ece_gap; got 'tpr_gap'"):
        gap_against_epsilon({1.0: found}, "sex", "tpr_gap")
    with pytest.raises(ValueError, match="got an infinite epsilon"):
        gap_against_epsilon({math.inf: found}, "sex")

"""The bootstrap: fast equals slow, patients stay whole, and the interval covers what it says."""

import json
import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from monai_deepfixcx.metrics import bootstrap, functional

METRICS = [functional.auroc, functional.average_precision, functional.expected_calibration_error]


def images(
    seed: int, patients: int, visits: int = 1, within: float = 0.0, effect: float = 1.0
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Scores in (0, 1), labels, patients; `within` is the correlation of the noise of one patient's images."""
    generator = np.random.default_rng(seed)
    owners = np.repeat(np.arange(patients), visits)
    labels = (generator.random(patients) < 0.4)[owners].astype(float)
    shared, own = generator.normal(size=patients)[owners], generator.normal(size=patients * visits)
    noise = math.sqrt(within) * shared + math.sqrt(1 - within) * own
    return 1 / (1 + np.exp(-(effect * labels + noise))), labels, owners


@pytest.mark.parametrize("metric", METRICS)
def test_all_resamples_at_once_equal_one_by_one(metric: Any) -> None:
    scores, labels, patients = images(0, 25, visits=2)
    scores, labels[::7] = np.round(scores, 1), 2  # ties, uncertain labels

    def slow(*columns: Any) -> float:
        return float(metric(*columns))

    assert slow is not metric
    fast = functional.patient_bootstrap(metric, [scores, labels], patients, samples=80, seed=3)
    loop = functional.patient_bootstrap(slow, [scores, labels], patients, samples=80, seed=3)
    assert (fast.value, fast.low, fast.high) == pytest.approx((loop.value, loop.low, loop.high), abs=1e-12)
    assert fast.low < fast.high


def test_a_resample_holds_whole_patients() -> None:
    patients = np.array([0, 1, 1, 2, 2, 2, 3])
    seen: list[NDArray[Any]] = []

    def record(weights: NDArray[Any]) -> NDArray[Any]:
        seen.append(weights)
        return np.asarray(weights.sum(axis=1))

    bootstrap.resample_patients([record], patients, 200, seed=0)
    weights = np.concatenate(seen)
    for patient in range(4):
        own = weights[:, patients == patient]
        assert (own == own[:, :1]).all()
    first = weights[:, [0, 1, 3, 6]]
    assert (first.sum(axis=1) == 4).all()
    assert first.mean() == pytest.approx(1)
    assert first.var() == pytest.approx(0.75, abs=0.1)  # binomial(4, 1/4)


def test_draws_do_not_depend_on_how_many_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, labels, patients = images(1, 31, visits=2)
    whole = functional.patient_bootstrap(functional.auroc, [scores, labels], patients, samples=101)
    monkeypatch.setattr(bootstrap, "_CHUNK", 200)
    assert functional.patient_bootstrap(functional.auroc, [scores, labels], patients, samples=101) == whole
    other = functional.patient_bootstrap(functional.auroc, [scores, labels], patients, samples=101, seed=1)
    assert other.value == whole.value
    assert other.low == pytest.approx(whole.low, abs=0.1)
    assert other != whole


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(METRICS))
def test_the_order_of_images_does_not_count_and_the_interval_holds_the_value(seed: int, metric: Any) -> None:
    scores, labels, patients = images(seed, 12, visits=2)
    names = np.array([f"patient {number}" for number in patients])
    order = np.random.default_rng(seed).permutation(len(names))
    estimate = functional.patient_bootstrap(metric, [scores, labels], names, samples=50)
    moved = functional.patient_bootstrap(metric, [scores[order], labels[order]], names[order], samples=50)
    assert (moved.value, moved.low, moved.high) == pytest.approx(
        (estimate.value, estimate.low, estimate.high), abs=1e-12, nan_ok=True
    )
    if not math.isnan(estimate.value):
        assert estimate.low <= estimate.value <= estimate.high


def test_the_interval_is_widened_to_hold_a_value_outside_the_percentiles() -> None:
    # Calibrated to the last digit: no resample is, so that all lie above the value.
    labels = np.arange(40) % 2
    estimate = functional.patient_bootstrap(
        functional.expected_calibration_error, [np.full(40, 0.5), labels], range(40)
    )
    assert estimate.low == estimate.value == 0
    assert bootstrap.percentile_estimate(9.0, np.array([1.0, 2.0, np.nan])).high == 9
    assert bootstrap.percentile_estimate(1.5, np.array([1.0, 2.0, np.nan]), confidence=0.5).low == 1.25


def test_copies_of_a_patients_image_change_nothing_but_fool_a_bootstrap_over_images() -> None:
    scores, labels, patients = images(4, 60)
    once = functional.patient_bootstrap(functional.auroc, [scores, labels], patients)
    copied = [np.repeat(column, 9) for column in (scores, labels, patients)]
    by_patient = functional.patient_bootstrap(functional.auroc, copied[:2], copied[2])
    by_image = functional.patient_bootstrap(functional.auroc, copied[:2], range(60 * 9))
    assert (by_patient.value, by_patient.low, by_patient.high) == pytest.approx((once.value, once.low, once.high))
    assert by_image.value == pytest.approx(once.value)
    assert by_image.high - by_image.low < 0.5 * (once.high - once.low)


def test_correlated_images_widen_the_interval() -> None:
    scores, labels, patients = images(5, 80, visits=5, within=0.9)
    by_patient = functional.patient_bootstrap(functional.auroc, [scores, labels], patients)
    by_image = functional.patient_bootstrap(functional.auroc, [scores, labels], range(len(labels)))
    assert by_patient.high - by_patient.low > 1.5 * (by_image.high - by_image.low)


def test_coverage_of_the_interval() -> None:
    # Noise of variance 1 in both classes and a difference of 1: AUROC = Phi(1 / sqrt(2)).
    truth = 0.5 * (1 + math.erf(0.5))
    by_patient = by_image = 0
    for seed in range(150):
        scores, labels, patients = images(seed, 70, visits=3, within=0.8)
        for grouped in (True, False):
            owners = patients if grouped else range(len(labels))
            estimate = functional.patient_bootstrap(functional.auroc, [scores, labels], owners, samples=200)
            covered = estimate.low <= truth <= estimate.high
            by_patient, by_image = by_patient + (covered and grouped), by_image + (covered and not grouped)
    # 150 binomial draws at .95 have a standard deviation of .018.
    assert by_patient / 150 > 0.9
    assert by_image / 150 < 0.85


def test_any_statistic_of_any_number_of_arrays() -> None:
    values = np.arange(10.0)
    estimate = functional.patient_bootstrap(lambda x: float(x.mean()), [values], range(10), samples=500)
    assert estimate.value == 4.5
    spread = values.std() / math.sqrt(10)
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * spread, rel=0.15)
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), 12)
    arrays = [probabilities, np.arange(12) % 3]
    assert functional.patient_bootstrap(functional.macro_auroc, arrays, range(12), samples=20).low < 1
    assert functional.patient_bootstrap(functional.expected_calibration_error, arrays, range(12), samples=20).high > 0


def test_undefined_values_and_no_samples_leave_no_interval() -> None:
    nothing = functional.patient_bootstrap(functional.auroc, [[0.1, 0.9], [1, 1]], ["a", "b"], samples=20)
    assert all(math.isnan(number) for number in (nothing.value, nothing.low, nothing.high))
    assert json.dumps(nothing.as_dict(), allow_nan=False) == json.dumps(
        {"value": None, "low": None, "high": None, "baseline": None}
    )
    none = functional.patient_bootstrap(functional.auroc, [[0.1, 0.9], [0, 1]], ["a", "b"], samples=0)
    assert none.value == 1
    assert math.isnan(none.low)
    # Half of the resamples of two patients lack a class: they are left out.
    some = functional.patient_bootstrap(functional.auroc, [[0.1, 0.9], [0, 1]], ["a", "b"], samples=50)
    assert (some.low, some.high) == (1, 1)


def test_a_thousand_resamples_take_a_moment() -> None:
    generator = np.random.default_rng(0)
    start = time.process_time()
    for _ in range(3):
        scores, labels = generator.random(2000), generator.integers(0, 2, 2000)
        functional.patient_bootstrap(functional.auroc, [scores, labels], generator.integers(0, 500, 2000))
    assert time.process_time() - start < 8


def test_errors_say_what_was_expected() -> None:
    arrays: list[Any] = [[0.1, 0.9], [0, 1]]
    with pytest.raises(ValueError, match=r"samples must be at least 0.*got -1"):
        functional.patient_bootstrap(functional.auroc, arrays, "ab", samples=-1)
    with pytest.raises(ValueError, match=r"confidence must lie between 0 and 1, for example 0\.95; got 95"):
        functional.patient_bootstrap(functional.auroc, arrays, "ab", confidence=95)
    with pytest.raises(ValueError, match=r"arrays must be one or more, of equal length; got lengths \[1, 2\]"):
        functional.patient_bootstrap(functional.auroc, [[0.1, 0.9], [0]], "ab")
    with pytest.raises(ValueError, match=r"arrays must be one or more, of equal length; got lengths \[\]"):
        functional.patient_bootstrap(functional.auroc, [], "ab")
    with pytest.raises(ValueError, match="patients must hold one name per image, at least one; got 3 for 2 images"):
        functional.patient_bootstrap(functional.auroc, arrays, "abc")
    with pytest.raises(ValueError, match="patients must hold one name per image, at least one; got 0 for 0 images"):
        functional.patient_bootstrap(functional.auroc, [[], []], "")


def test_any_statistic_of_two_columns_is_taken() -> None:
    values, others = [0.3, 0.7, 0.2, 0.9], [0.1, 0.5, 0.4, 0.6]
    estimate = functional.patient_bootstrap(lambda a, b: float((a - b).mean()), [values, others], "aabb", samples=20)
    assert estimate.value == pytest.approx(0.125)

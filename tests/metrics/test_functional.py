"""The metrics against scikit-learn, against hand calculations, and under what must not change them."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.data import MetaTensor
from numpy.typing import NDArray

from monai_deepfixcx.metrics import functional

sklearn_metrics = pytest.importorskip("sklearn.metrics")


@st.composite
def cases(draw: st.DrawFn, labels: tuple[float, ...] = (0.0, 1.0, 2.0)) -> tuple[NDArray[Any], NDArray[Any]]:
    """Few distinct scores, so that most draws have ties, and both classes in the first two places."""
    count = draw(st.integers(2, 25))
    scores = draw(arrays(float, count, elements=st.sampled_from([-1.5, 0.0, 0.25, 0.5, 3.0])))
    truth = draw(arrays(float, count, elements=st.sampled_from(labels)))
    truth[:2] = 0, 1
    return scores, truth


@settings(max_examples=60, deadline=None)
@given(cases())
def test_auroc_and_average_precision_are_scikit_learns(case: tuple[NDArray[Any], NDArray[Any]]) -> None:
    scores, labels = case
    certain = labels != 2
    expected = (
        sklearn_metrics.roc_auc_score(labels[certain], scores[certain]),
        sklearn_metrics.average_precision_score(labels[certain], scores[certain]),
    )
    found = functional.auroc(scores, labels), functional.average_precision(scores, labels)
    assert found == pytest.approx(expected, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(cases())
def test_auroc_is_the_share_of_pairs_in_the_right_order(case: tuple[NDArray[Any], NDArray[Any]]) -> None:
    scores, labels = case
    pairs = [(p > n) + (p == n) / 2 for p in scores[labels == 1] for n in scores[labels == 0]]
    assert functional.auroc(scores, labels) == pytest.approx(np.mean(pairs), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(cases())
def test_only_the_order_of_scores_counts(case: tuple[NDArray[Any], NDArray[Any]]) -> None:
    scores, labels = case
    for metric in (functional.auroc, functional.average_precision):
        assert metric(np.exp(3 * scores) - 7, labels) == metric(scores, labels)
    assert functional.auroc(-scores, labels) == pytest.approx(1 - functional.auroc(scores, labels))
    order = np.random.default_rng(0).permutation(len(scores))
    assert functional.auroc(scores[order], labels[order]) == functional.auroc(scores, labels)


@settings(max_examples=40, deadline=None)
@given(cases())
def test_youden_is_the_best_point_of_scikit_learns_curve(case: tuple[NDArray[Any], NDArray[Any]]) -> None:
    scores, labels = case
    certain = labels != 2
    false, true, cuts = sklearn_metrics.roc_curve(labels[certain], scores[certain], drop_intermediate=False)
    threshold = functional.youden_threshold(scores, labels)
    assert threshold in scores[certain]
    sensitivity, specificity = functional.sensitivity_specificity(scores, labels, threshold)
    assert sensitivity + specificity - 1 == pytest.approx((true - false).max(), abs=1e-12)
    best = cuts[1:][np.isclose(true - false, (true - false).max())[1:]]
    assert threshold == best.max()


@settings(max_examples=30, deadline=None)
@given(cases(), st.sampled_from([-1.5, 0.1, 0.5, 4.0]))
def test_sensitivity_and_specificity_are_recalls(case: tuple[NDArray[Any], NDArray[Any]], cut: float) -> None:
    scores, labels = case
    certain = labels != 2
    calls = scores[certain] >= cut
    expected = [sklearn_metrics.recall_score(labels[certain], calls, pos_label=c, zero_division=0) for c in (1, 0)]
    assert functional.sensitivity_specificity(scores, labels, cut) == pytest.approx(expected)


def test_calibration_error_by_hand() -> None:
    # Bins (0, .2], (.2, .4], ...: .2 is in the first; 0 too.
    probabilities = [0.0, 0.2, 0.25, 0.9, 0.95, 0.5]
    labels = [0, 1, 0, 1, 1, 2]
    gaps = [abs(0.2 - 1) / 2 * 2, abs(0.25 - 0), abs(0.925 - 1) * 2]
    assert functional.expected_calibration_error(probabilities, labels, bins=5) == pytest.approx(sum(gaps) / 5)
    assert functional.expected_calibration_error(probabilities, labels, bins=1) == pytest.approx(abs(2.3 - 3) / 5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 20))
def test_calibration_error_bin_by_bin(seed: int, bins: int) -> None:
    generator = np.random.default_rng(seed)
    probabilities, labels = generator.random(50), generator.integers(0, 2, 50)
    expected = 0.0
    for low, high in zip(np.linspace(0, 1, bins + 1)[:-1], np.linspace(0, 1, bins + 1)[1:], strict=True):
        inside = (probabilities > low) & (probabilities <= high)
        if inside.any():
            expected += inside.mean() * abs(probabilities[inside].mean() - labels[inside].mean())
    assert functional.expected_calibration_error(probabilities, labels, bins) == pytest.approx(expected)


def test_calibration_error_of_classes_judges_the_likeliest() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.4, 0.3, 0.3]])
    expected = functional.expected_calibration_error([0.7, 0.8, 0.4], [1, 0, 1])
    assert functional.expected_calibration_error(probabilities, [0, 2, 0]) == pytest.approx(expected)


def test_classes_against_scikit_learn() -> None:
    generator = np.random.default_rng(2)
    scores = generator.dirichlet(np.ones(4), 60)
    classes = generator.integers(0, 4, 60)
    assert functional.macro_auroc(scores, classes) == pytest.approx(
        sklearn_metrics.roc_auc_score(classes, scores, multi_class="ovr", average="macro")
    )
    called = scores.argmax(axis=1)
    assert functional.accuracy(scores, classes) == pytest.approx(sklearn_metrics.accuracy_score(classes, called))
    some = classes != 3
    for kept in (some, slice(None)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            expected = sklearn_metrics.balanced_accuracy_score(classes[kept], called[kept])
        assert functional.balanced_accuracy(scores[kept], classes[kept]) == pytest.approx(expected)


def test_macro_auroc_leaves_undefined_labels_out() -> None:
    scores = np.random.default_rng(0).random((6, 3))
    labels = np.array([[0, 0, 2], [1, 0, 2], [0, 0, 0], [1, 0, 1], [2, 0, 1], [0, 0, 0]])
    defined = [functional.auroc(scores[:, k], labels[:, k]) for k in (0, 2)]
    assert functional.macro_auroc(scores, labels) == pytest.approx(np.mean(defined))
    assert math.isnan(functional.macro_auroc(scores, np.zeros((6, 3))))


@pytest.mark.parametrize("labels", [[], [0, 0], [1, 1], [2, 2], [1, 2]])
def test_a_missing_class_gives_nan(labels: list[int]) -> None:
    scores = np.linspace(0, 1, len(labels))
    for metric in (functional.auroc, functional.average_precision, functional.youden_threshold):
        assert math.isnan(metric(scores, labels))
    if 1 not in labels:
        assert math.isnan(functional.sensitivity_specificity(scores, labels, 0.5)[0])
    if 0 not in labels:
        assert math.isnan(functional.sensitivity_specificity(scores, labels, 0.5)[1])
    if set(labels) <= {2}:
        assert math.isnan(functional.expected_calibration_error(scores, labels))


def test_no_images_and_no_threshold_are_nan() -> None:
    nothing = np.zeros((0, 2))
    assert math.isnan(functional.accuracy(nothing, []))
    assert math.isnan(functional.balanced_accuracy(nothing, []))
    assert functional.sensitivity_specificity([0.2, 0.7], [0, 1], math.nan) == pytest.approx(
        (math.nan, math.nan), nan_ok=True
    )


def test_tensors_of_any_kind_and_infinite_scores() -> None:
    scores, labels = [2.0, -math.inf, 0.5, math.inf], [1, 0, 0, 1]
    for kind in (torch.float32, torch.bfloat16, torch.float64):
        assert functional.auroc(torch.tensor(scores, dtype=kind), torch.tensor(labels)) == 1.0
    graph = torch.tensor(scores, requires_grad=True)
    assert functional.auroc(MetaTensor(graph), torch.tensor(labels, dtype=torch.bool)) == 1.0
    assert functional.auroc([0.1, math.nan, 0.9], [0, 2, 1]) == 1.0


def test_errors_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match=r"scores and labels must both be \[N\]; got \[2\] and \[3\]"):
        functional.auroc([0.1, 0.2], [0, 1, 1])
    with pytest.raises(ValueError, match=r"labels must be 0, 1, or 2 for an uncertain finding.*got -1"):
        functional.auroc([0.1, 0.2], [0, -1])
    with pytest.raises(ValueError, match="scores must be numbers; 1 of 2 are nan"):
        functional.average_precision([0.1, math.nan], [0, 1])
    with pytest.raises(ValueError, match=r"probabilities must lie between 0 and 1; got 1\.5"):
        functional.expected_calibration_error([0.1, 1.5], [0, 1])
    with pytest.raises(ValueError, match="bins must be at least 1; got 0"):
        functional.expected_calibration_error([0.1, 0.5], [0, 1], bins=0)
    with pytest.raises(ValueError, match=r"scores must be \[N, L\] and classes \[N\]; got \[2, 2\] and \[3\]"):
        functional.accuracy([[0.1, 0.9], [0.2, 0.8]], [0, 1, 1])
    with pytest.raises(ValueError, match="classes must be indices from 0 to 1; got 2"):
        functional.balanced_accuracy([[0.1, 0.9], [0.2, 0.8]], [0, 2])
    with pytest.raises(ValueError, match=r"scores must be \[N, L\], labels .*; got \[2\] and \[2\]"):
        functional.macro_auroc([0.1, 0.9], [0, 1])

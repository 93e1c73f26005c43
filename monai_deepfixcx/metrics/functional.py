"""How good predictions are: stateless, NumPy arrays or tensors in, floats out.

Labels are 0, 1, or 2 for an uncertain finding, which is left out. A result that the labels leave undefined (a class is
missing) is nan, never an error: one rare label must not cost a report.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_deepfixcx.metrics import weighted
from monai_deepfixcx.metrics.bootstrap import (
    Estimate,
    check_bootstrap,
    number_patients,
    percentile_estimate,
    resample_patients,
)
from monai_deepfixcx.metrics.inputs import (
    Values,
    as_array,
    check_classes,
    check_labels,
    check_probabilities,
    check_scores,
    one_hot,
    shape_of,
    top_label,
)
from monai_deepfixcx.metrics.weighted import IGNORED, Floats, Ranking

__all__ = [
    "Estimate",
    "accuracy",
    "auroc",
    "average_precision",
    "balanced_accuracy",
    "expected_calibration_error",
    "macro_auroc",
    "patient_bootstrap",
    "sensitivity_specificity",
    "youden_threshold",
]


def auroc(scores: Values, labels: Values) -> float:
    """Area under the receiver operating characteristic: P(a positive scores higher than a negative), ties half.

    Args:
        scores: ``[N]``, any real numbers, higher meaning positive.
        labels: ``[N]`` of 0, 1, or 2 (uncertain: left out).

    Returns:
        0 to 1; .5 without skill; nan if a class is missing.

    Raises:
        ValueError: shapes that differ, another label value, or a score that is nan.

    Source: Hanley & McNeil, Radiology 143 (1982), the Wilcoxon statistic.

    >>> auroc([0.9, 0.4, 0.4, 0.1], [1, 1, 0, 0])
    0.875
    """
    return _one(*_pair(scores, labels), lambda s, y, w: Ranking.of(s, y).auroc(w))


def average_precision(scores: Values, labels: Values) -> float:
    """Area under the precision-recall curve as a step function, equal scores taken in one step.

    Args:
        scores: ``[N]``, any real numbers, higher meaning positive.
        labels: ``[N]`` of 0, 1, or 2 (uncertain: left out).

    Returns:
        0 to 1; the prevalence without skill; nan if a class is missing.

    Raises:
        ValueError: shapes that differ, another label value, or a score that is nan.

    Source: AP of Boyd et al., ECML 2013: the sum over thresholds of (R_n - R_(n-1)) P_n.

    >>> round(average_precision([0.9, 0.4, 0.4, 0.1], [1, 1, 0, 0]), 4)
    0.8333
    """
    return _one(*_pair(scores, labels), lambda s, y, w: Ranking.of(s, y).average_precision(w))


def expected_calibration_error(probabilities: Values, labels: Values, bins: int = 15) -> float:
    """Mean gap between what was promised and what came true, over bins of equal width.

    Args:
        probabilities: ``[N]`` of a finding, or ``[N, L]`` of classes, of which the likeliest is judged.
        labels: ``[N]`` of 0, 1, or 2 (uncertain: left out); for ``[N, L]``, class indices.
        bins: closed at the right, the first at both ends.

    Returns:
        0 (calibrated) to 1; nan without a certain image. On few images even calibrated predictions score above 0.

    Raises:
        ValueError: shapes that differ, another label value, a probability outside [0, 1], or no bin.

    Source: Naeini et al., AAAI 2015; for classes, Guo et al., ICML 2017, equation 3.

    >>> round(expected_calibration_error([0.9, 0.9, 0.1, 0.1], [1, 1, 0, 0]), 4)
    0.1
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1; got {bins}.")
    table = as_array(probabilities)
    if table.ndim == 2:
        classes = check_classes(table, labels)
        confidences, outcomes = top_label(table, classes)
    else:
        confidences, outcomes = _pair(table, labels)
    check_probabilities(confidences[outcomes != IGNORED])
    return _one(confidences, outcomes, lambda p, y, w: weighted.calibration_error(p, y, bins, w))


def youden_threshold(scores: Values, labels: Values) -> float:
    """The threshold with the greatest sensitivity + specificity - 1: one of the scores, the highest such.

    Choose it on validation data, and use it unchanged on the test data.

    Args:
        scores: ``[N]``, any real numbers; at or above the threshold means positive.
        labels: ``[N]`` of 0, 1, or 2 (uncertain: left out).

    Returns:
        A score; nan if a class is missing.

    Raises:
        ValueError: shapes that differ, another label value, or a score that is nan.

    Source: Youden, Cancer 3 (1950).

    >>> youden_threshold([0.9, 0.6, 0.4, 0.1], [1, 1, 0, 0])
    0.6
    """
    return Ranking.of(*_pair(scores, labels)).youden()


def sensitivity_specificity(scores: Values, labels: Values, threshold: float) -> tuple[float, float]:
    """Share of the positives at or above the threshold, and share of the negatives below it.

    Args:
        scores: ``[N]``, any real numbers.
        labels: ``[N]`` of 0, 1, or 2 (uncertain: left out).
        threshold: a score at or above it means positive.

    Returns:
        Sensitivity and specificity, 0 to 1; each nan if its class is missing, both nan if the threshold is.

    Raises:
        ValueError: shapes that differ, another label value, or a score that is nan.

    >>> sensitivity_specificity([0.9, 0.6, 0.4, 0.1], [1, 0, 1, 0], threshold=0.6)
    (0.5, 0.5)
    """
    values, truth = _pair(scores, labels)
    if np.isnan(threshold):
        return float("nan"), float("nan")
    called = values >= threshold
    return (
        _one(values, truth, lambda _, y, w: weighted.share(called, y == 1, w)),
        _one(values, truth, lambda _, y, w: weighted.share(~called, y == 0, w)),
    )


def macro_auroc(scores: Values, labels: Values) -> float:
    """Mean AUROC over labels, or over classes against the rest; labels whose AUROC is undefined are left out.

    Args:
        scores: ``[N, L]``.
        labels: ``[N, L]`` of 0, 1, or 2 (uncertain: left out); or ``[N]`` class indices.

    Returns:
        0 to 1; nan if no label has both classes.

    Raises:
        ValueError: shapes that differ, another label value, or a score that is nan.

    Source: Fawcett, Pattern Recognition Letters 27 (2006), section 9; here without weights.

    >>> macro_auroc([[0.8, 0.1], [0.6, 0.9], [0.3, 0.2]], [[1, 2], [1, 1], [0, 0]])
    1.0
    >>> macro_auroc([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7]], [0, 0, 1])
    1.0
    """
    table, truth = as_array(scores), as_array(labels)
    if table.ndim == 2 and truth.ndim == 1:
        truth = one_hot(check_classes(table, truth), table.shape[1])
    if table.ndim != 2 or table.shape != truth.shape:
        raise ValueError(
            f"scores must be [N, L], labels [N, L] or class indices [N]; got {shape_of(table)} and {shape_of(truth)}."
        )
    return mean_defined([auroc(column, known) for column, known in zip(table.T, truth.T, strict=True)])


def accuracy(scores: Values, classes: Values) -> float:
    """Share of the images whose highest score is their class.

    Args:
        scores: ``[N, L]``.
        classes: ``[N]`` class indices.

    Returns:
        0 to 1; the share of the largest class without skill; nan without an image.

    Raises:
        ValueError: shapes that do not fit, a class index out of range, or a score that is nan.

    >>> accuracy([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7]], [0, 1, 1]) == 2 / 3
    True
    """
    table = as_array(scores)
    truth = check_classes(table, classes)
    hits = table.argmax(axis=1) == truth
    return float(weighted.share(hits, np.ones(len(hits), bool), _ones(hits))[0])


def balanced_accuracy(scores: Values, classes: Values) -> float:
    """Mean over the classes that occur of the share that is recognised.

    Args:
        scores: ``[N, L]``.
        classes: ``[N]`` class indices.

    Returns:
        0 to 1; 1 / L without skill; nan without an image.

    Raises:
        ValueError: shapes that do not fit, a class index out of range, or a score that is nan.

    Source: Brodersen et al., ICPR 2010.

    >>> balanced_accuracy([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7]], [0, 1, 1])
    0.75
    """
    table = as_array(scores)
    truth = check_classes(table, classes)
    if not len(truth):
        return float("nan")
    return float(weighted.balanced_accuracy(table.argmax(axis=1), truth, _ones(truth))[0])


def patient_bootstrap(
    statistic: Callable[..., float],
    arrays: Sequence[Values],
    patients: Iterable[Hashable],
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """A statistic with the percentile interval of resamples of whole patients.

    Each resample draws as many patients as there are, with replacement, and takes all images of each. Resamples in
    which the statistic is nan are left out. The interval is widened, where needed, to hold the value: resampling raises
    some statistics, the calibration error among them. The order of the images does not matter. `auroc`,
    `average_precision` and `expected_calibration_error` (of one finding) are computed for all resamples at once, any
    other statistic one by one.

    Args:
        statistic: takes the arrays, gives a number.
        arrays: each ``[N, ...]``, an image per row.
        patients: N names or numbers: whose each image is.
        samples: number of resamples; 0 gives no interval.
        confidence: coverage aimed at, between 0 and 1.
        seed: of the draws.

    Returns:
        The estimate, without a baseline.

    Raises:
        ValueError: no array, lengths that differ, no image, or a number out of range.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), sections 8.3 (resample the independent units)
    and 13.3 (percentile interval).

    >>> scores, labels = [0.9, 0.8, 0.3, 0.2, 0.7, 0.1], [1, 1, 0, 0, 0, 1]
    >>> estimate = patient_bootstrap(auroc, [scores, labels], ["a", "a", "b", "b", "c", "d"], samples=200)
    >>> estimate.low <= estimate.value == auroc(scores, labels) <= estimate.high
    True
    """
    check_bootstrap(samples, confidence)
    columns = [as_array(array) for array in arrays]
    lengths = {len(column) for column in columns}
    if len(lengths) != 1:
        raise ValueError(f"arrays must be one or more, of equal length; got lengths {sorted(lengths)}.")
    owners = number_patients(patients, lengths.pop())
    value = float(statistic(*columns))
    vectorised = _vectorised(statistic, columns) or _looped(statistic, columns)
    return percentile_estimate(value, resample_patients([vectorised], owners, samples, seed)[0], confidence)


def _vectorised(statistic: Callable[..., float], columns: list[NDArray[Any]]) -> Callable[[Floats], Floats] | None:
    if statistic not in (auroc, average_precision, expected_calibration_error) or columns[0].ndim != 1:
        return None
    scores, labels = _pair(*columns)
    if statistic is auroc:
        return Ranking.of(scores, labels).auroc
    if statistic is average_precision:
        return Ranking.of(scores, labels).average_precision
    return lambda weights: weighted.calibration_error(scores, labels, 15, weights)


def _looped(statistic: Callable[..., float], columns: list[NDArray[Any]]) -> Callable[[Floats], Floats]:
    def resampled(times: Floats) -> float:
        rows = np.repeat(np.arange(len(times)), times.astype(np.int64))
        return float(statistic(*(column[rows] for column in columns)))

    return lambda weights: np.array([resampled(times) for times in weights])


def mean_defined(values: Sequence[float]) -> float:
    """Mean of the values that are not nan; nan if there is none."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


def _pair(scores: Values, labels: Values) -> tuple[Floats, Floats]:
    values, truth = as_array(scores), as_array(labels)
    if values.ndim != 1 or values.shape != truth.shape:
        raise ValueError(f"scores and labels must both be [N]; got {shape_of(values)} and {shape_of(truth)}.")
    truth = check_labels(truth)
    check_scores(values[truth != IGNORED])
    return values.astype(np.float64), truth


def _one(scores: Floats, labels: Floats, metric: Callable[[Floats, Floats, Floats], Floats]) -> float:
    return float(metric(scores, labels, _ones(scores))[0])


def _ones(images: NDArray[Any]) -> Floats:
    return np.ones((1, len(images)))

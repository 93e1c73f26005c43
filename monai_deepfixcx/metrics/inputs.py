"""What the metrics accept: arrays and tensors, labels, classes, probabilities; and what they say of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_deepfixcx.metrics.weighted import IGNORED, Floats, Ints

Values = NDArray[Any] | torch.Tensor | Sequence[Any]


def as_array(values: Values) -> NDArray[Any]:
    """A NumPy array, float64 if the values are not whole; a MetaTensor leaves its metadata behind."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().as_subclass(torch.Tensor)
        values = (values.double() if values.is_floating_point() else values).numpy()
    array = np.asarray(values)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def check_labels(labels: NDArray[Any]) -> Floats:
    """Labels of 0, 1 and 2 as floats.

    Raises:
        ValueError: any other value.
    """
    truth = labels.astype(np.float64)
    wrong = truth[~np.isin(truth, (0.0, 1.0, IGNORED))]
    if wrong.size:
        raise ValueError(f"labels must be 0, 1, or 2 for an uncertain finding, which is left out; got {wrong[0]:g}.")
    return truth


def check_classes(scores: NDArray[Any], classes: Values) -> Ints:
    """Class indices ``[N]`` that fit scores ``[N, L]``.

    Raises:
        ValueError: shapes that do not fit, an index out of range, or a score that is nan.
    """
    truth = as_array(classes)
    if scores.ndim != 2 or truth.shape != scores.shape[:1]:
        raise ValueError(f"scores must be [N, L] and classes [N]; got {shape_of(scores)} and {shape_of(truth)}.")
    wrong = truth[~np.isin(truth, np.arange(scores.shape[1]))]
    if wrong.size:
        raise ValueError(f"classes must be indices from 0 to {scores.shape[1] - 1}; got {wrong[0]:g}.")
    check_scores(scores)
    return truth.astype(np.int64)


def check_probabilities(probabilities: NDArray[Any]) -> None:
    """Check that values are probabilities.

    Raises:
        ValueError: one is outside [0, 1], or nan.
    """
    wrong = probabilities[~((probabilities >= 0) & (probabilities <= 1))]
    if wrong.size:
        raise ValueError(
            f"probabilities must lie between 0 and 1; got {wrong.flat[0]:g}. Apply a sigmoid or softmax to logits."
        )


def top_label(probabilities: NDArray[Any], classes: Ints) -> tuple[Floats, Floats]:
    """The likeliest class's probability ``[N]``, and whether (1, 0) it is the right one ``[N]``."""
    hits = probabilities.argmax(axis=1) == classes
    return probabilities.max(axis=1).astype(float), hits.astype(float)


def one_hot(classes: Ints, count: int) -> Floats:
    """Labels ``[N, count]``, each class against the rest."""
    return (classes[:, None] == np.arange(count)).astype(float)


def check_scores(scores: NDArray[Any]) -> None:
    """Check that scores can be ranked; infinite ones can.

    Raises:
        ValueError: one is nan.
    """
    if scores.size and np.isnan(scores).any():
        raise ValueError(
            f"scores must be numbers; {int(np.isnan(scores).sum())} of {scores.size} are nan. Did training diverge?"
        )


def shape_of(array: NDArray[Any]) -> str:
    """The shape as an error prints it."""
    return str(list(array.shape))

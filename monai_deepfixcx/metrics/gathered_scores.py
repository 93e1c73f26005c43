"""What the cumulative metrics share: scores and labels of every rank, also of a rank that saw no image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from monai.metrics import CumulativeIterationMetric
from monai.utils import evenly_divisible_all_gather
from torch import Tensor

from monai_deepfixcx.metrics.inputs import as_array, check_classes, check_labels, check_scores, one_hot, shape_of
from monai_deepfixcx.metrics.weighted import IGNORED, Floats

Task = Literal["multilabel", "multiclass"]


class GatheredScores(CumulativeIterationMetric):
    """Collects scores ``[B, L]`` and labels, on the CPU and without metadata.

    MONAI's `Cumulative` does not gather on a rank whose buffers are empty, so that all others wait for it for ever.
    Here every rank gathers, each time: call `get_buffer`, `aggregate` and `len` on all ranks or on none.

    Args:
        task: "multilabel", labels ``[B, L]`` of 0, 1, or 2 (uncertain); or "multiclass", labels ``[B]`` or ``[B, 1]``
            of class indices, or one-hot ``[B, L]``. Kept as ``[B, L]`` of 0, 1 and 2 either way.

    Raises:
        ValueError: another task.
    """

    dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.float64)

    def __init__(self, task: Task = "multilabel") -> None:
        super().__init__()
        if task not in ("multilabel", "multiclass"):
            raise ValueError(f'task must be "multilabel" or "multiclass"; got {task!r}.')
        self.task = task

    def _compute_list(self, y_pred: Any, y: Any = None, **kwargs: Any) -> Any:
        return self._compute_tensor(_stack(y_pred), None if y is None else _stack(y), **kwargs)

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Any:
        if y is None:
            raise ValueError("y must be a tensor or a list of labels; got none.")
        scores = as_array(y_pred)
        scores = scores[:, None] if scores.ndim == 1 else scores
        labels = self._labels(scores, as_array(y))
        check_scores(scores[labels != IGNORED])
        return [torch.from_numpy(scores.astype(np.float64)), torch.from_numpy(labels)]

    def _labels(self, scores: Floats, labels: Floats) -> Floats:
        if self.task == "multiclass" and scores.ndim == 2 and labels.shape != scores.shape:
            return one_hot(check_classes(scores, labels[:, 0] if labels.shape[1:] == (1,) else labels), scores.shape[1])
        labels = labels[:, None] if labels.ndim == 1 else labels
        if scores.ndim != 2 or labels.shape != scores.shape:
            raise ValueError(
                f"predictions and labels must both be [B, L], or labels class indices [B] with task='multiclass'; got "
                f"{shape_of(scores)} and {shape_of(labels)} with task={self.task!r}."
            )
        labels = check_labels(labels)
        if self.task == "multiclass" and not (np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()):
            raise ValueError("one-hot labels must hold a single 1 per image; got another row.")
        return labels

    def _sync(self) -> None:
        local = [torch.stack(rows) for rows in self._buffers] if self._buffers else []
        widths = torch.tensor([[rows.shape[1] for rows in local] or [0] * len(self.dtypes)])
        widest = evenly_divisible_all_gather(widths, concat=True).max(dim=0).values.tolist()
        if not widest[0]:
            self._synced_tensors = None
            return
        local = local or [torch.zeros(0, width, dtype=dtype) for width, dtype in zip(widest, self.dtypes, strict=True)]
        self._synced_tensors = [evenly_divisible_all_gather(rows, concat=True) for rows in local]

    def reset(self) -> None:
        """Forget what was collected."""
        super().reset()  # type: ignore[no-untyped-call]

    def gathered(self) -> list[Tensor]:
        """Scores ``[N, L]``, labels ``[N, L]`` and what a metric adds, of all ranks.

        Raises:
            ValueError: no rank has an image.
        """
        buffers: list[Tensor] | None = self.get_buffer()  # type: ignore[no-untyped-call]
        if buffers is None:
            raise ValueError(f"{type(self).__name__} has seen no image on any rank: call it on predictions first.")
        return buffers

    def aggregate(self, *args: Any, **kwargs: Any) -> Any:
        """Left to the metrics."""
        raise NotImplementedError(f"{type(self).__name__} must implement aggregate.")


def _stack(items: Sequence[Any]) -> Tensor:
    """Batch-first tensor of a decollated list, whose scalars are plain numbers."""
    return torch.from_numpy(np.stack([as_array(item) for item in items]))

"""The key metric of training on labels some of which are uncertain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monai.handlers import IgniteMetricHandler

from monai_deepfixcx.metrics.gathered_scores import Task
from monai_deepfixcx.metrics.masked_auroc import MaskedAUROCMetric


class MaskedAUROC(IgniteMetricHandler):
    """Mean AUROC over labels, uncertain ones (2) left out; a single 2 makes MONAI's ROCAUC nan.

    Scores may be logits. A label without both classes is left out of the mean; without any that has both, the value is
    nan, which no checkpoint can be chosen by.

    Args:
        output_transform: gives ``(predictions, labels)`` of `engine.state.output`, such as
            ``monai.handlers.from_engine(["pred", "label"])``.
        task: "multilabel", or "multiclass" with class indices.

    Raises:
        ValueError: another task; while it runs, shapes that do not fit or a prediction that is nan.

    Source: Hanley & McNeil, Radiology 143 (1982).

    >>> import torch
    >>> from ignite.engine import Engine
    >>> engine = Engine(lambda _, batch: batch)
    >>> MaskedAUROC().attach(engine, "val_auroc")
    >>> batch = torch.tensor([[2.5], [0.4], [-1.0]]), torch.tensor([[1.0], [2.0], [0.0]])
    >>> engine.run([batch]).metrics["val_auroc"]
    1.0
    """

    def __init__(self, output_transform: Callable[[Any], Any] = lambda x: x, task: Task = "multilabel") -> None:
        super().__init__(metric_fn=MaskedAUROCMetric(task), output_transform=output_transform, save_details=False)

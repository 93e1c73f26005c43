"""Mean AUROC that leaves uncertain labels out, collected over an epoch."""

from __future__ import annotations

from typing import Any

from monai_deepfixcx.metrics.functional import macro_auroc
from monai_deepfixcx.metrics.gathered_scores import GatheredScores


class MaskedAUROCMetric(GatheredScores):
    """Mean AUROC over labels, or over classes against the rest, of all images of all ranks.

    Scores may be logits: only their order counts. Labels of 2 (uncertain), which make MONAI's ROCAUCMetric nan, are
    left out, as are labels that lack a class.

    Args:
        task: "multilabel" with labels ``[B, L]``, or "multiclass" with class indices ``[B]`` or ``[B, 1]``, or one-hot.

    Raises:
        ValueError: another task; on a call, shapes that do not fit or a score that is nan.

    Source: Hanley & McNeil, Radiology 143 (1982).

    >>> import torch
    >>> metric = MaskedAUROCMetric()
    >>> _ = metric(torch.tensor([[0.8], [0.6], [0.3]]), torch.tensor([[1.0], [2.0], [0.0]]))
    >>> metric.aggregate()
    1.0
    """

    def aggregate(self, *args: Any, **kwargs: Any) -> float:
        """Mean AUROC, 0 to 1; nan if no label has both classes.

        Raises:
            ValueError: no rank has an image.
        """
        return macro_auroc(*self.gathered())

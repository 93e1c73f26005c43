"""The loss of the multi-label networks: uncertain labels teach nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

Reduction = Literal["mean", "sample_mean", "none"]


class MaskedBCEWithLogitsLoss(nn.Module):
    """Binary cross-entropy of logits over the labels that are certain.

    A batch in which every label is ignored costs 0, with a gradient of 0, so that the step can be taken as usual. No
    branch depends on the data: the loss runs under `torch.func.vmap` and `torch.compile`.

    Args:
        ignore_value: the label value to leave out.
        pos_weight: weight of the positives, one number or one per label ``[L]``.
        reduction: "mean" over the certain labels of the batch; "sample_mean" over all B times L places, the ignored
            ones counting 0, in which no sample's share depends on the other samples' labels: use it under
            differential privacy; "none" for ``[B, L]``, 0 where ignored.

    Raises:
        ValueError: an unknown reduction, or a weight that is not positive.

    Source: the zeros-and-twos labels of METHODS.md, HeartSpot heads (Johnson et al., arXiv:2210.02241).

    >>> loss = MaskedBCEWithLogitsLoss()
    >>> round(loss(torch.zeros(2, 2), torch.tensor([[1.0, 2.0], [2.0, 0.0]])).item(), 4)
    0.6931
    >>> loss(torch.zeros(1, 2), torch.full((1, 2), 2.0)).item()
    0.0
    """

    pos_weight: Tensor | None

    def __init__(
        self,
        ignore_value: float = 2.0,
        pos_weight: float | Sequence[float] | Tensor | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if reduction not in get_args(Reduction):
            raise ValueError(f"reduction must be one of {', '.join(get_args(Reduction))}; got {reduction!r}.")
        weight = None if pos_weight is None else torch.as_tensor(pos_weight, dtype=torch.float32)
        if weight is not None and not bool((weight > 0).all()):
            raise ValueError(f"pos_weight must be positive; got {weight.tolist()}.")
        self.ignore_value, self.reduction = ignore_value, reduction
        self.register_buffer("pos_weight", weight, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of logits ``[B, L]`` for labels ``[B, L]``.

        Raises:
            ValueError: shapes that differ.
        """
        if logits.shape != labels.shape:
            raise ValueError(f"logits and labels must both be [B, L]; got {[*logits.shape]} and {[*labels.shape]}.")
        certain = labels != self.ignore_value
        # Masked before the loss as well as after it: 0 times an infinite gradient would be nan.
        kept = torch.where(certain, logits, 0)
        truth = torch.where(certain, labels, 0).to(logits.dtype)
        # MONAI's trainers move the network, not the loss, to the device.
        weight = None if self.pos_weight is None else self.pos_weight.to(logits)
        losses = binary_cross_entropy_with_logits(kept, truth, pos_weight=weight, reduction="none") * certain
        if self.reduction == "none":
            return losses
        if self.reduction == "sample_mean":
            return losses.sum() / max(losses.numel(), 1)
        return losses.sum() / certain.sum().clamp(min=1)

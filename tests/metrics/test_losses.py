"""The masked loss: PyTorch's on the certain labels, silent on the others."""

import math
from typing import Literal

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from monai_deepfixcx.metrics import MaskedBCEWithLogitsLoss


@pytest.mark.parametrize("pos_weight", [None, 3.0, [0.5, 2.0, 1.0]])
def test_it_is_pytorchs_loss_over_the_certain_labels(pos_weight: float | list[float] | None) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 3, generator=generator, requires_grad=True)
    labels = torch.randint(0, 3, (5, 3), generator=generator)
    weight = None if pos_weight is None else torch.as_tensor(pos_weight).expand(5, 3)
    kept = labels != 2
    expected = binary_cross_entropy_with_logits(
        logits[kept], labels[kept].float(), pos_weight=None if weight is None else weight[kept]
    )
    found = MaskedBCEWithLogitsLoss(pos_weight=pos_weight)(logits, labels)
    assert torch.allclose(found, expected)
    (gradient,) = torch.autograd.grad(found, logits, retain_graph=True)
    assert (gradient[~kept] == 0).all()
    assert torch.allclose(gradient, torch.autograd.grad(expected, logits)[0])


@pytest.mark.parametrize("reduction", ["mean", "sample_mean", "none"])
def test_nothing_certain_costs_nothing(reduction: Literal["mean", "sample_mean", "none"]) -> None:
    logits = torch.tensor([[math.inf, math.nan, 3.0]], requires_grad=True)
    loss = MaskedBCEWithLogitsLoss(reduction=reduction)(logits, torch.full((1, 3), 2.0))
    assert loss.sum() == 0
    loss.sum().backward()
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_an_empty_batch_costs_nothing() -> None:
    logits = torch.zeros(0, 3, requires_grad=True)
    for reduction in ("mean", "sample_mean"):
        loss = MaskedBCEWithLogitsLoss(reduction=reduction)(logits, torch.zeros(0, 3))
        assert loss == 0
        loss.backward()


def test_reductions_and_another_ignored_value() -> None:
    logits, labels = torch.randn(4, 2), torch.tensor([[1.0, -1.0], [0.0, 1.0], [-1.0, -1.0], [0.0, 0.0]])
    places = MaskedBCEWithLogitsLoss(ignore_value=-1, reduction="none")(logits, labels)
    assert (places == 0).sum() == 3
    assert torch.allclose(MaskedBCEWithLogitsLoss(ignore_value=-1)(logits, labels), places.sum() / 5)
    mean = MaskedBCEWithLogitsLoss(ignore_value=-1, reduction="sample_mean")(logits, labels)
    assert torch.allclose(mean, places.mean())


def test_per_sample_gradients_add_up() -> None:
    logits, labels = torch.randn(6, 2), torch.tensor([[1.0, 2.0], [2.0, 2.0], [0.0, 1.0]] * 2)
    loss = MaskedBCEWithLogitsLoss(reduction="sample_mean", pos_weight=2.0)
    singly = torch.func.vmap(torch.func.grad(lambda x, y: loss(x[None], y[None])))(logits, labels)
    together = torch.func.grad(lambda x: loss(x, labels))(logits)
    assert torch.allclose(singly / 6, together)
    assert singly.isfinite().all()


def test_its_weight_moves_with_it_and_stays_out_of_checkpoints() -> None:
    loss = MaskedBCEWithLogitsLoss(pos_weight=[1.0, 2.0]).double()
    assert loss.pos_weight is not None
    assert loss.pos_weight.dtype == torch.float64
    assert loss(torch.zeros(1, 2).double(), torch.ones(1, 2)).dtype == torch.float64
    assert not loss.state_dict()


def test_errors_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="reduction must be one of mean, sample_mean, none; got 'total'"):
        MaskedBCEWithLogitsLoss(reduction="total")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"pos_weight must be positive; got \[1.0, 0.0\]"):
        MaskedBCEWithLogitsLoss(pos_weight=[1, 0])
    with pytest.raises(ValueError, match=r"logits and labels must both be \[B, L\]; got \[2, 1\] and \[2\]"):
        MaskedBCEWithLogitsLoss()(torch.zeros(2, 1), torch.zeros(2))

"""A small siamese network that brings codes of one patient together."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Self

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional

from monai_deepfixcx.attacks.reidentification.features import Whitening
from monai_deepfixcx.metrics.bootstrap import number_patients
from monai_deepfixcx.metrics.linkage.metric import cosine_similarity

_SHRINKAGES = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
_FOLDS, _LEAST_PAIRED = 5, 4
_BATCH_PATIENTS, _TEMPERATURE, _RATE, _DECAY, _DROPOUT = 32, 0.1, 1e-3, 1e-2, 0.2


class Siamese:
    """Both images of a pair go through one network; their cosine says how likely they are of one patient.

    The network is a linear map of whitened principal components plus a hidden layer. The linear map starts as the one
    that whitens the variation *within* patients, so that what changes from visit to visit counts little; the hidden
    layer starts at nothing. Both are then trained by the supervised contrastive loss. How many components there are,
    and how much the within-patient covariance is shrunk, is chosen by the AUC on patients held out, each fifth in turn;
    for how many epochs the training goes on (0 is possible), by that on the first fifth. With these choices the network
    is trained anew on all.

    Args:
        components, width, epochs, patience: see `LearnedLinkage`.

    Raises:
        ValueError: a number below 1.

    Sources: Hatch et al., Interspeech 2006 (within-class covariance); Khosla et al., NeurIPS 2020 (loss).

    >>> generator = torch.Generator().manual_seed(0)
    >>> patients = torch.arange(8).repeat_interleave(3)
    >>> codes = torch.randn(8, 5, generator=generator)[patients] + 0.1 * torch.randn(24, 5, generator=generator)
    >>> Siamese(components=4, width=8).fit(codes, patients)(codes).shape
    torch.Size([24, 4])
    """

    def __init__(self, components: int = 128, width: int = 256, epochs: int = 100, patience: int = 20) -> None:
        for name, value in {"width": width, "epochs": epochs, "patience": patience}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}.")
        self.whitening = Whitening(components)
        self.width, self.epochs, self.patience = width, epochs, patience

    def fit(self, features: Tensor, patients: Tensor, seed: int = 0, title: str | None = None) -> Self:
        """Train on features ``[N, K]`` of patients ``[N]``, 0 to P - 1. Returns itself.

        Args:
            features: of the auxiliary patients.
            patients: whose each row is; four or more must have two rows.
            seed: of the held-out patients, the initial weights and the order of training.
            title: of a progress bar; None shows none.

        Raises:
            ValueError: too few patients with two rows.
        """
        generator = torch.Generator().manual_seed(seed)
        rotation = Whitening(4 * self.whitening.components, share=1).fit(features)
        rotated = rotation(features) * rotation.spread  # in few coordinates, each fold of which is cheap to whiten
        folds = [_Fold(rotated, patients, held, self.whitening.components) for held in _folds(patients, generator)]
        inputs = self.whitening.fit(features)(features).float()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.size, self.shrinkage = max(
                product(_sizes(inputs.shape[1]), _SHRINKAGES),
                key=lambda choice: sum(fold.auc(*choice) for fold in folds),
            )
            self.best_epochs = self._choose_epochs(folds[0], generator, title)
            inputs = inputs[:, : self.size]
            torch.manual_seed(seed)
            self.network = _Embedding(_start(inputs, patients, self.shrinkage), self.width).to(inputs.device)
            for _ in self._train(inputs, patients, self.best_epochs, generator):
                pass
        self.network.eval()
        return self

    @torch.no_grad()
    def __call__(self, features: Tensor) -> Tensor:
        """Embeddings ``[N, k]`` of features ``[N, K]``."""
        return torch.as_tensor(self.network(self.whitening(features)[:, : self.size].float()))

    def _choose_epochs(self, fold: _Fold, generator: torch.Generator, title: str | None) -> int:
        known, held = fold.parts(self.size)
        self.network = _Embedding(_start(*known, self.shrinkage), self.width).to(known[0].device)
        best, best_epoch = self._held_auc(*held), 0
        epochs = self._train(*known, self.epochs, generator)
        for epoch in track(epochs, title or "", total=self.epochs, disable=title is None):
            score = self._held_auc(*held)
            if score > best:
                best, best_epoch = score, epoch
            if epoch - best_epoch >= self.patience:
                break
        return best_epoch

    def _train(self, inputs: Tensor, patients: Tensor, epochs: int, generator: torch.Generator) -> Iterator[int]:
        """Train the network in place; yields 1, 2, ... after each epoch."""
        optimizer = torch.optim.AdamW(self.network.parameters(), _RATE, weight_decay=_DECAY)
        for epoch in range(1, epochs + 1):
            self.network.train()
            order = torch.randperm(int(patients.max()) + 1, generator=generator)
            # Batches of about one size: a last one of a single patient would have nothing to contrast.
            for batch in order.tensor_split(-(-len(order) // _BATCH_PATIENTS)):
                rows = torch.isin(patients, batch.to(patients.device))
                loss = contrastive_loss(self.network(inputs[rows]), patients[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            yield epoch

    @torch.no_grad()
    def _held_auc(self, inputs: Tensor, patients: Tensor) -> float:
        self.network.eval()
        return _auc(self.network(inputs), patients)


class _Fold:
    """Patients to learn from and patients held out, who had no part in the whitening either."""

    def __init__(self, features: Tensor, patients: Tensor, held: Tensor, components: int) -> None:
        self.inputs = Whitening(components).fit(features[~held])(features).float()
        self.patients, self.held = patients, held

    def parts(self, size: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Inputs of `size` components and patients: of those to learn from, and of those held out."""
        known, held = ((self.inputs[rows, :size], self.patients[rows]) for rows in (~self.held, self.held))
        return known, held

    def auc(self, size: int, shrinkage: float) -> float:
        """Of the linear start, on the patients held out."""
        known, (inputs, patients) = self.parts(size)
        return _auc(_start(*known, shrinkage)(inputs), patients)


class _Embedding(nn.Module):
    """A linear map plus a hidden layer that starts at nothing."""

    def __init__(self, start: nn.Linear, width: int) -> None:
        super().__init__()
        self.linear = copy.deepcopy(start)
        size = start.in_features
        self.hidden = nn.Sequential(nn.Linear(size, width), nn.CELU(), nn.Dropout(_DROPOUT), nn.Linear(width, size))
        for parameter in self.hidden[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.linear(inputs) + self.hidden(inputs)


def contrastive_loss(embedded: Tensor, patients: Tensor) -> Tensor:
    """Supervised contrastive loss of embeddings ``[N, E]`` of patients ``[N]``; 0 if nobody has two.

    Source: Khosla et al., NeurIPS 2020, equation 2.

    >>> round(contrastive_loss(torch.eye(2)[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 1])).item(), 4)
    0.0001
    """
    normal = functional.normalize(embedded, dim=1)
    itself = torch.eye(len(normal), dtype=torch.bool, device=normal.device)
    chances = (normal @ normal.T / _TEMPERATURE).masked_fill(itself, -torch.inf).log_softmax(dim=1)
    same = (patients[:, None] == patients) & ~itself
    paired = same.any(dim=1)
    sums = chances.masked_fill(~same, 0).sum(dim=1)[paired] / same.sum(dim=1)[paired]
    return -sums.sum() / paired.sum().clamp_min(1)


def others_mean(values: Tensor, patients: Tensor) -> tuple[Tensor, Tensor]:
    """The mean ``[N, E]`` over the patient's *other* rows, and whether there is any ``[N]``.

    >>> others_mean(torch.tensor([[1.0], [2.0], [6.0], [9.0]]), torch.tensor([0, 0, 0, 1]))[0].flatten().tolist()
    [4.0, 3.5, 1.5, 0.0]
    """
    same = (patients[:, None] == patients).to(values)
    same.fill_diagonal_(0)
    number = same.sum(dim=1)
    return same @ values / number.clamp_min(1)[:, None], number > 0


def check_pairs(patients: Sequence[str]) -> None:
    """Check that a likeness can be learnt.

    Raises:
        ValueError: fewer than four patients with two images.
    """
    paired = int((np.unique(np.array(patients), return_counts=True)[1] > 1).sum())
    if paired < _LEAST_PAIRED:
        raise ValueError(
            f"auxiliary must hold at least {_LEAST_PAIRED} patients with two images or more, to learn from "
            f"same-patient pairs; got {paired}. Add visits, or use FeatureLinkage, which needs no pair."
        )


def patient_numbers(patients: Sequence[str]) -> Tensor:
    """Numbers 0 to P - 1 ``[N]`` in place of names."""
    return torch.from_numpy(number_patients(patients, len(patients)))


def _sizes(components: int) -> list[int]:
    """The numbers of leading components to choose from."""
    return [components, *(size for size in (64, 32, 16) if size < components)]


def _folds(patients: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Rows ``[N]`` of the patients to hold out, fold by fold; a patient with one row is never held out."""
    names, number = patients.unique(return_counts=True)
    check_pairs([str(name) for name in patients.tolist()])
    paired = names[number > 1].cpu()
    order = paired[torch.randperm(len(paired), generator=generator)]
    folds = order.tensor_split(min(_FOLDS, len(order) // 2))
    return [torch.isin(patients, fold.to(patients.device)) for fold in folds]


def _start(inputs: Tensor, patients: Tensor, shrinkage: float) -> nn.Linear:
    """The linear map after which the shrunk covariance within patients is the identity."""
    values = inputs.double()
    names, owner, number = patients.unique(return_inverse=True, return_counts=True)
    sums = values.new_zeros(len(names), values.shape[1]).index_add_(0, owner, values)
    within = values - (sums / number[:, None])[owner]
    covariance = within.T @ within / max(1, len(values) - len(names))
    identity = torch.eye(len(covariance), dtype=values.dtype, device=values.device)
    level = covariance.diagonal().mean().clamp_min(1e-6)
    shrunk = (1 - shrinkage) * covariance + shrinkage * level * identity
    factor = torch.linalg.solve_triangular(torch.linalg.cholesky(shrunk), identity, upper=False)
    linear = nn.Linear(len(factor), len(factor), bias=False)
    linear.weight.data = factor.float()
    return linear


@torch.no_grad()
def _auc(embedded: Tensor, patients: Tensor) -> float:
    """P(a same-patient pair is more alike than a different-patient pair), ties half."""
    similarities = cosine_similarity(embedded, embedded)
    alike = patients[:, None] == patients
    others = similarities[~alike].sort().values
    same = similarities[alike & ~torch.eye(len(alike), dtype=torch.bool, device=alike.device)]
    below, upto = (torch.searchsorted(others, same, right=right) for right in (False, True))
    return float((below + upto).double().mean()) / (2 * len(others))

"""How well findings can still be recognised: a quick head on codes, on the same split as the attacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from monai_deepfixcx.codecs import Codec
from monai_deepfixcx.metrics import Estimate, auroc, macro_auroc, patient_bootstrap

# Of the mean squared norm of a standardised code, so that one list serves codes of all lengths.
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_FOLDS = 3
_BATCH = 256


def measure_utility(
    codec: Codec,
    auxiliary: Mapping[str, Any],
    victims: Mapping[str, Any],
    labels: Sequence[str],
    seed: int = 0,
    samples: int = 1000,
) -> dict[str, Estimate]:
    """AUROC of a logistic head that learns from auxiliary patients' codes, on the victims' codes.

    Codes are standardised; the l2 penalty is chosen by a cross-validation by patient among the auxiliary patients. The
    head is the same for every codec, so that what differs is what the codes hold, not how hard somebody tried.

    Args:
        codec: whose codes.
        auxiliary: ``images`` [N, C, *S], ``patients`` (N names) and ``labels`` [N, L] of 0, 1, or 2 (left out).
        victims: the same of other patients.
        labels: L names.
        seed: of the folds and the resamples.
        samples: resamples of the victim patients for the intervals; 0 gives none.

    Returns:
        An estimate for every label, and their mean under "mean"; nan where a class is missing.

    >>> from monai_deepfixcx.codecs import IdentityCodec
    >>> images, bright = torch.rand(40, 1, 4, 4), (torch.arange(40) % 2)[:, None].float()
    >>> part = {"images": images + bright[..., None, None], "patients": list(range(40)), "labels": bright}
    >>> measure_utility(IdentityCodec(), part, part, ["bright"], samples=0)["bright"].value
    1.0
    """
    codec = codec.to(auxiliary["images"].device).eval()
    learnt, tested = _Head(_codes(codec, auxiliary["images"])), _codes(codec, victims["images"])
    truth, known = torch.as_tensor(victims["labels"]), torch.as_tensor(auxiliary["labels"])
    owners = _numbers(auxiliary["patients"])
    scores = torch.stack([learnt.scores(tested, column, owners, seed) for column in known.T], dim=1)
    patients = [str(name) for name in victims["patients"]]
    found = {
        name: patient_bootstrap(auroc, [column, answer], patients, samples, seed=seed)
        for name, column, answer in zip(labels, scores.T, truth.T, strict=True)
    }
    found["mean"] = patient_bootstrap(macro_auroc, [scores, truth], patients, samples, seed=seed)
    return {name: Estimate(value.value, value.low, value.high, 0.5) for name, value in found.items()}


class _Head:
    """Logistic regression with an l2 penalty, solved in the span of the codes ``[N, D]`` it learns from.

    There it has at most N weights, however long a code is, and the same minimum.
    """

    def __init__(self, codes: Tensor) -> None:
        self._mean, self._std = codes.mean(0), codes.std(0, correction=0)
        # A spread that is mere rounding would be blown up into a feature.
        self._std[self._std <= 1e-6 * self._mean.abs()] = torch.inf
        left, singular, self._basis = torch.linalg.svd(self._standardised(codes), full_matrices=False)
        self._coordinates = left * singular

    def _standardised(self, codes: Tensor) -> Tensor:
        return torch.nan_to_num((codes - self._mean) / self._std) / codes.shape[1] ** 0.5

    def scores(self, codes: Tensor, labels: Tensor, owners: NDArray[np.int64], seed: int) -> Tensor:
        """Scores ``[M]`` of other codes for one label; all zero where the label has one class only."""
        rows = (labels < 2).nonzero()[:, 0]
        if len(labels[rows].unique()) < 2:
            return torch.zeros(len(codes), dtype=torch.float64)
        penalty = self._best_penalty(rows, labels.double(), owners, seed)
        weights, bias = _fit(self._coordinates[rows], labels[rows].double(), penalty)
        return self._standardised(codes) @ (self._basis.T @ weights) + bias

    def _best_penalty(self, rows: Tensor, labels: Tensor, owners: NDArray[np.int64], seed: int) -> float:
        held = torch.zeros((len(PENALTIES), len(rows)), dtype=torch.float64)
        for train, test in _folds(owners[rows.numpy()], seed):
            if len(labels[rows[train]].unique()) < 2:
                continue
            for scores, penalty in zip(held, PENALTIES, strict=True):
                weights, bias = _fit(self._coordinates[rows[train]], labels[rows[train]], penalty)
                scores[test] = self._coordinates[rows[test]] @ weights + bias
        return max(zip(PENALTIES, held, strict=True), key=lambda pair: auroc(pair[1], labels[rows]))[0]


def _fit(coordinates: Tensor, labels: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Weights and bias at the minimum of the penalised cross-entropy."""
    weights = torch.zeros(coordinates.shape[1], dtype=torch.float64, requires_grad=True)
    bias = labels.mean().logit().requires_grad_()
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=100, tolerance_grad=1e-4, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = coordinates @ weights + bias
        value = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
        value = value + penalty / 2 * weights.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weights.detach(), bias.detach()


def _folds(owners: NDArray[np.int64], seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows to train on and rows held out; no patient is in both."""
    fold = np.random.default_rng(seed).permutation(owners.max() + 1) % _FOLDS
    for number in range(_FOLDS):
        held_out = torch.from_numpy(fold[owners] == number)
        yield (~held_out).nonzero()[:, 0], held_out.nonzero()[:, 0]


def _numbers(patients: Any) -> NDArray[np.int64]:
    return np.unique(np.array([str(name) for name in patients]), return_inverse=True)[1].astype(np.int64)


@torch.no_grad()
def _codes(codec: Codec, images: Tensor) -> Tensor:
    """Codes ``[N, C * D]``, float64."""
    return torch.cat([codec.encode(batch) for batch in images.split(_BATCH)]).flatten(1).double()

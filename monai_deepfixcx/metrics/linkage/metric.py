"""Linkage by codes or features, collected over an epoch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from monai_deepfixcx.metrics.bootstrap import Estimate, check_bootstrap
from monai_deepfixcx.metrics.classification_report import patient_code
from monai_deepfixcx.metrics.gathered_scores import GatheredScores
from monai_deepfixcx.metrics.linkage.functional import linkage_metrics


class LinkageMetric(GatheredScores):
    """How well the likeness of codes, or of a network's features, tells whose image it is; of all images of all ranks.

    Patients' names are hashed as they come in and reach no result.

    Args:
        similarity: "euclidean" (negative distances) or "cosine".
        samples: resamples of patients for the intervals; 0 gives none.
        seed: of the resamples.

    Raises:
        ValueError: another similarity, or a negative number of samples.

    >>> metric = LinkageMetric(samples=0)
    >>> _ = metric(torch.tensor([[0.0, 1.0], [0.1, 1.0], [3.0, 0.0]]), patients=["a", "a", "b"])
    >>> metric.aggregate()["auc"].value
    1.0
    """

    dtypes = (torch.float32, torch.int64)

    def __init__(
        self, similarity: Literal["euclidean", "cosine"] = "euclidean", samples: int = 1000, seed: int = 0
    ) -> None:
        super().__init__()
        if similarity not in ("euclidean", "cosine"):
            raise ValueError(f'similarity must be "euclidean" or "cosine"; got {similarity!r}.')
        check_bootstrap(samples)
        self.similarity, self.samples, self.seed = similarity, samples, seed

    def __call__(self, features: Any, patients: Iterable[Any] | Tensor) -> Any:  # type: ignore[override]
        """Add a batch.

        Args:
            features: ``[B, ...]``, codes or any features, or a list of B.
            patients: whose each image is: B names or whole numbers.

        Raises:
            TypeError: a patient that is neither a name nor a whole number.
            ValueError: not one patient per image.
        """
        return super().__call__(features, patients=patients)

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, patients: Any = (), **kwargs: Any) -> Any:
        codes = [patient_code(patient) for patient in patients]
        if len(codes) != len(y_pred):
            raise ValueError(f"patients must hold one name per image, {len(y_pred)} in this batch; got {len(codes)}.")
        features = y_pred.detach().cpu().as_subclass(Tensor).flatten(1).float()
        return [features, torch.tensor(codes, dtype=torch.int64).reshape(-1, 1)]

    def aggregate(self, *args: Any, **kwargs: Any) -> dict[str, Estimate]:
        """See `linkage_metrics`.

        Raises:
            ValueError: no rank has an image, no two images of one patient, or one patient only.
        """
        features, codes = self.gathered()
        similar = cosine_similarity if self.similarity == "cosine" else euclidean_similarity
        return linkage_metrics(similar(features, features), codes[:, 0].tolist(), samples=self.samples, seed=self.seed)


def euclidean_similarity(one: Tensor, other: Tensor) -> Tensor:
    """Negative Euclidean distances ``[N, M]`` of ``[N, K]`` and ``[M, K]``, float64; see `_without_noise`."""
    one, other = one.double(), other.double()
    centre = other.mean(dim=0)
    largest = max(float(values.norm(dim=1).max()) for values in (one, other))
    return -_without_noise(torch.cdist(one - centre, other - centre), 1e-7 * largest)


def cosine_similarity(one: Tensor, other: Tensor) -> Tensor:
    """Cosines ``[N, M]`` of ``[N, K]`` and ``[M, K]``, float64; 0 for zeros; see `_without_noise`."""
    normal = torch.nn.functional.normalize
    return _without_noise(normal(one.double(), dim=1) @ normal(other.double(), dim=1).T, 1e-6)


def _without_noise(values: Tensor, unit: float) -> Tensor:
    """Values rounded to whole units, a little more than the error of computing them.

    Equal codes must tie. Rounding errors would order them by their place in the list instead, where neighbours are
    often of one patient: an attack on nothing would find them.
    """
    return (values / unit).round() * unit if unit else values

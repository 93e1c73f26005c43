"""The reconstruction metrics over an epoch, of all ranks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from monai_deepfixcx.metrics.bootstrap import Estimate, check_bootstrap
from monai_deepfixcx.metrics.classification_report import patient_code
from monai_deepfixcx.metrics.gathered_scores import GatheredScores
from monai_deepfixcx.metrics.reconstruction.scores import Distance, image_scores, reconstruction_estimates


class ReconstructionMetric(GatheredScores):
    """Collects how similar reconstructions are to their images, beside the best guess without the code.

    Only numbers are kept, no image, and of a patient only a hash of the name.

    Args:
        guess: the best guess without the code, ``[C, *S]``: the mean of other patients' images.
        perceptual: as for `image_scores`.
        samples: bootstrap resamples of patients; 0 for no intervals.
        seed: of the resamples.

    Raises:
        ValueError: a negative number of samples; on a call, shapes that differ or images smaller than SSIM's window.

    >>> metric = ReconstructionMetric(guess=torch.full((1, 16, 16), 0.5), samples=0)
    >>> images = torch.rand(4, 1, 16, 16)
    >>> _ = metric(images, images, patients=["a", "a", "b", "b"])
    >>> metric.aggregate()["explained_variance"].value
    1.0
    """

    dtypes = (torch.float64, torch.float64, torch.int64)

    def __init__(self, guess: Tensor, perceptual: Distance | None = None, samples: int = 1000, seed: int = 0) -> None:
        super().__init__()
        check_bootstrap(samples)
        self.guess, self.perceptual, self.samples, self.seed = guess, perceptual, samples, seed
        self.names = ["mse", "psnr", "ssim", "ms_ssim"] + ["perceptual"] * (perceptual is not None)

    def _compute_list(self, y_pred: Any, y: Any = None, **kwargs: Any) -> Any:
        return self._compute_tensor(torch.stack(list(y_pred)), None if y is None else torch.stack(list(y)), **kwargs)

    def _compute_tensor(
        self, y_pred: Tensor, y: Tensor | None = None, patients: Iterable[Any] | None = None, **kwargs: Any
    ) -> Any:
        if y is None or patients is None:
            raise ValueError("y must be the images and patients whose each is; got none.")
        codes = [patient_code(patient) for patient in patients]
        if len(codes) != len(y_pred):
            raise ValueError(f"patients must hold one name per image, {len(y_pred)} in this batch; got {len(codes)}.")
        guess = self.guess.to(y).expand_as(y)
        ours, guessed = (self._columns(image_scores(output, y, self.perceptual)) for output in (y_pred, guess))
        return [ours, guessed, torch.tensor(codes, dtype=torch.int64).reshape(-1, 1)]

    def _columns(self, scores: dict[str, Tensor]) -> Tensor:
        return torch.stack([scores[name] for name in self.names], dim=1)

    def aggregate(self, *args: Any, **kwargs: Any) -> dict[str, Estimate]:
        """What `reconstruction_estimates` gives, over the images of all ranks.

        Raises:
            ValueError: no rank has an image.
        """
        *tables, codes = self.gathered()
        ours, guessed = ({name: table[:, k] for k, name in enumerate(self.names)} for table in tables)
        return reconstruction_estimates(ours, guessed, codes[:, 0].tolist(), self.samples, self.seed)

"""Learned attacks: a network corrects the best simple estimate, trained on auxiliary patients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_deepfixcx.attacks.base import Auxiliary, Victims
from monai_deepfixcx.attacks.reconstruction.base import ReconstructionAttack
from monai_deepfixcx.attacks.reconstruction.correction import Correction, data_key, train_correction
from monai_deepfixcx.attacks.reconstruction.direct import MeanFill, kept_pixels, why_no_pixels, why_undecodable
from monai_deepfixcx.attacks.reconstruction.linear import AffinePart, RidgeRegression, best_ridge
from monai_deepfixcx.attacks.reconstruction.patients import fold_patients, split_patients
from monai_deepfixcx.codecs import Codec, HeartSpotCodec
from monai_deepfixcx.metrics.reconstruction.scores import Distance

_FOLDS = 4


class LearnedInversion(ReconstructionAttack):
    """A U-Net that sees the decoded image and the `LinearMMSE` estimate, and corrects the better of the two.

    Trained on auxiliary patients; a fifth of them are held out, to choose the start and to stop early. The estimates it
    is trained on are those of a regression that has not seen their patients, as they will be for victims. The untrained
    network is the start itself, so that training can only help on the held-out patients.

    Args:
        steps: of Adam, at most.
        batch_size: images a step.
        channels: of the U-Net's stages.
        learning_rate: of Adam.
        patience: checks (every 50 steps) without a better result on the held-out patients before training stops.
        checkpoint_dir: folder for the training state, one file per codec and data, written every 50 steps; a
            training that finds its file goes on from it. None keeps nothing.
        perceptual: as for `ReconstructionAttack`.

    Raises:
        ValueError: a number below 1.

    >>> from monai_deepfixcx.attacks import run_attack
    >>> from monai_deepfixcx.codecs import IdentityCodec
    >>> films = torch.rand(8, 1, 16, 16)
    >>> people = {"images": films[:4], "patients": ["a", "a", "b", "b"]}
    >>> victims = {"images": films[4:], "patients": ["c", "c", "d", "d"]}
    >>> result = run_attack(LearnedInversion(steps=1), IdentityCodec(), people, victims, samples=0)
    >>> round(result.metrics["explained_variance"].value, 3)
    1.0
    """

    name: str = "LearnedInversion"

    def __init__(
        self,
        steps: int = 600,
        batch_size: int = 8,
        channels: Sequence[int] = (16, 32, 64),
        learning_rate: float = 2e-3,
        patience: int = 4,
        checkpoint_dir: str | Path | None = None,
        perceptual: Distance | None = None,
    ) -> None:
        super().__init__(perceptual)
        if min(steps, batch_size, patience) < 1:
            raise ValueError(
                f"steps, batch_size and patience must be at least 1; got {steps}, {batch_size} and {patience}."
            )
        self.steps, self.batch_size, self.channels = steps, batch_size, tuple(channels)
        self.learning_rate, self.patience = learning_rate, patience
        self.checkpoint_dir = None if checkpoint_dir is None else Path(checkpoint_dir)

    def fit(self, auxiliary: Auxiliary) -> Self:
        """Regress, choose the start, train the network."""
        self._codec, self._shape = auxiliary.codec, auxiliary.spatial_shape
        self._prepare(auxiliary)
        self._part = AffinePart(auxiliary.codec, auxiliary.images, auxiliary.codes)
        images, codes = auxiliary.images, auxiliary.codes
        learn, judge = split_patients(auxiliary.patients, 0.2, auxiliary.seed)
        linear, self._regress = self._cross_fitted(auxiliary, learn, judge)
        estimates = [linear, *self._estimates(codes)]
        errors = [float(F.mse_loss(estimate[judge], images[judge])) for estimate in estimates]
        self._start = errors.index(min(errors))
        starts, views = estimates[self._start], self._views(estimates)
        self._network = Correction(images.ndim - 2, views.shape[1], images.shape[1], self.channels).to(images.device)
        self.held_out_error = train_correction(
            self._network,
            (starts[learn], views[learn], images[learn]),
            (starts[judge], views[judge], images[judge]),
            self.steps,
            self.batch_size,
            self.learning_rate,
            self.patience,
            auxiliary.seed,
            self._checkpoint(auxiliary),
            auxiliary.progress,
        )
        return self

    def run(self, victims: Victims) -> Tensor:
        """Estimate and correct."""
        codes = victims.codes
        estimates = [self._linear(codes, self._regress), *self._estimates(codes)]
        return self._network.correct(estimates[self._start], self._views(estimates))

    def _prepare(self, auxiliary: Auxiliary) -> None:
        """Note what `_estimates` needs."""
        self._decodes = why_undecodable(auxiliary.codec) is None

    def _estimates(self, codes: Tensor) -> list[Tensor]:
        """First estimates of the images, besides the linear one."""
        return [self._codec.decode(codes, self._shape).clamp(0, 1)] if self._decodes else []

    def _views(self, estimates: Sequence[Tensor]) -> Tensor:
        """What the network sees, ``[N, K, *S]``."""
        return torch.cat(list(estimates), dim=1)

    def _linear(self, codes: Tensor, regress: RidgeRegression) -> Tensor:
        known = self._part.inverse(codes)
        return (known + regress(codes.flatten(1)).reshape(known.shape)).clamp(0, 1)

    def _cross_fitted(self, auxiliary: Auxiliary, learn: Tensor, judge: Tensor) -> tuple[Tensor, RidgeRegression]:
        """Linear estimates of all images by regressions without their patients, and the regression on everybody."""
        codes, patients = auxiliary.codes, auxiliary.patients
        inputs, left = codes.flatten(1), (auxiliary.images - self._part.inverse(codes)).flatten(1)
        ridge = best_ridge(inputs[learn], left[learn], inputs[judge], left[judge])
        linear = torch.empty_like(auxiliary.images)
        for others, held_out in fold_patients(patients, _FOLDS, auxiliary.seed):
            linear[held_out] = self._linear(codes[held_out], RidgeRegression(inputs[others], left[others], ridge))
        return linear, RidgeRegression(inputs, left, ridge)

    def _checkpoint(self, auxiliary: Auxiliary) -> Path | None:
        if self.checkpoint_dir is None:
            return None
        settings = f"{self.name} {self.channels} {self.batch_size} {self.learning_rate} {auxiliary.seed}"
        key = data_key(settings, auxiliary.codec.fingerprint(), " ".join(auxiliary.patients), auxiliary.codes)
        return self.checkpoint_dir / f"{self.name}-{key}.pt"


class InPainting(LearnedInversion):
    """HeartSpot: a U-Net that sees the kept pixels, their mask and the `LinearMMSE` estimate, and draws the gaps.

    Pixels that the code holds exactly (no median, no quadtree) are put back.

    >>> from monai_deepfixcx.attacks import run_attack
    >>> from monai_deepfixcx.codecs import HeartSpotCodec
    >>> films = torch.rand(8, 1, 16, 16)
    >>> people = {"images": films[:4], "patients": ["a", "a", "b", "b"]}
    >>> victims = {"images": films[4:], "patients": ["c", "c", "d", "d"]}
    >>> result = run_attack(InPainting(steps=1), HeartSpotCodec("", (16, 16)), people, victims, samples=0)
    >>> round(result.metrics["explained_variance"].value, 3)
    1.0
    """

    name: str = "InPainting"
    spatial_dims: ClassVar[tuple[int, ...]] = (2,)

    def why_unsuited(self, codec: Codec) -> str | None:
        """Only pixels can be put back."""
        return why_no_pixels(codec)

    def run(self, victims: Victims) -> Tensor:
        """Draw the gaps."""
        drawn = super().run(victims)
        return torch.where(self._mask, self._fill.run(victims), drawn) if self._exact else drawn

    def _prepare(self, auxiliary: Auxiliary) -> None:
        codec = auxiliary.codec
        self._mask, self._fill = kept_pixels(auxiliary), MeanFill().fit(auxiliary)
        self._exact = isinstance(codec, HeartSpotCodec) and not codec.priors & {"median", "quadtree"}

    def _estimates(self, codes: Tensor) -> list[Tensor]:
        return [self._fill.run(Victims(codes))]

    def _views(self, estimates: Sequence[Tensor]) -> Tensor:
        mask = self._mask.to(estimates[0]).expand_as(estimates[0])
        return torch.cat([*estimates, mask], dim=1)

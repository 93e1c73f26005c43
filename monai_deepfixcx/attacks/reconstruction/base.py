"""What the reconstruction attacks share: images out, measured against the best guess without the code."""

from __future__ import annotations

from torch import Tensor

from monai_deepfixcx.attacks.base import Attack, Auxiliary, ThreatModel, Truth
from monai_deepfixcx.metrics import Estimate
from monai_deepfixcx.metrics.reconstruction import (
    best_constant_guess,
    image_scores,
    ms_ssim_scales,
    mse,
    of_another_patient,
    reconstruction_estimates,
    rero,
    ssim,
)
from monai_deepfixcx.metrics.reconstruction.scores import Distance

RERO_RADIUS = 0.05  # of "rero": root mean squared error, in grey values of [0, 1]
RERO_CURVE = (0.02, 0.1)  # more points of the success curve, as "rero@0.02"


class ReconstructionAttack(Attack):
    """An attack that gives back images ``[N, C, *S]`` in [0, 1].

    Its metrics, each with an interval over victim patients and, as baseline, the score of the mean auxiliary image:
    ``explained_variance`` (1 - MSE/MSE_mean), ``normalised_ssim``, ``mse``, ``psnr``, ``ssim``, ``ms_ssim``; with a
    `perceptual` distance also ``perceptual``; with the attack's result on undefended images also ``advantage``.
    ``rero`` is the share of patients of whom an image is reconstructed within a root mean squared error of 0.05
    (``rero@0.02``, ``rero@0.1``: within those), its baseline that of the best constant guess, its interval
    Clopper-Pearson's. ``ssim_shuffled`` and ``explained_variance_shuffled`` are controls: each reconstruction against
    an image of another patient.

    Args:
        perceptual: gives distances ``[N]`` of two batches of images, such as `PerceptualDistance`.
    """

    threat: ThreatModel = ThreatModel("reconstruct")
    perceptual: Distance | None = None

    def __init__(self, perceptual: Distance | None = None) -> None:
        self.perceptual = perceptual

    def check(self, auxiliary: Auxiliary, truth: Truth) -> None:
        """Refuse images that SSIM cannot judge.

        Raises:
            ValueError: images smaller than SSIM's window, or outside [0, 1].
        """
        super().check(auxiliary, truth)
        ms_ssim_scales(auxiliary.spatial_shape)
        for part, images in (("auxiliary", auxiliary.images), ("victims", truth.images)):
            if float(images.min()) < 0 or float(images.max()) > 1:
                raise ValueError(f"{part} images must be in [0, 1], the range the metrics are defined on. Scale them.")

    def measure(self, output: Tensor, auxiliary: Auxiliary, truth: Truth) -> dict[str, Estimate]:
        """The metrics named above."""
        guess = auxiliary.images.mean(0).expand_as(truth.images)
        ours, guessed = (image_scores(shown, truth.images, self.perceptual) for shown in (output, guess))
        undefended = None if truth.undefended is None else mse(truth.undefended, truth.images)
        found = reconstruction_estimates(ours, guessed, truth.patients, truth.samples, truth.seed, undefended)
        for radius in (RERO_RADIUS, *RERO_CURVE):
            constant = best_constant_guess(auxiliary.images, auxiliary.patients, radius).expand_as(truth.images)
            errors, chance = ours["mse"].sqrt(), mse(constant, truth.images).sqrt()
            name = "rero" if radius == RERO_RADIUS else f"rero@{radius:g}"
            found[name] = rero(errors, chance, truth.patients, radius)
        others = truth.images[of_another_patient(truth.patients, truth.seed).to(truth.images.device)]
        control, chance_scores = ({"mse": mse(a, others), "ssim": ssim(a, others)} for a in (output, guess))
        shuffled = reconstruction_estimates(control, chance_scores, truth.patients, truth.samples, truth.seed)
        return found | {f"{name}_shuffled": shuffled[name] for name in ("explained_variance", "ssim")}

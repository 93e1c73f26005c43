"""How much of an image came back: similarity per image, against the best guess without the code, with intervals."""

from monai_deepfixcx.metrics.reconstruction.cumulative import ReconstructionMetric
from monai_deepfixcx.metrics.reconstruction.perceptual import PerceptualDistance, train_feature_network
from monai_deepfixcx.metrics.reconstruction.robustness import best_constant_guess, clopper_pearson, rero
from monai_deepfixcx.metrics.reconstruction.scores import (
    explained_variance,
    image_scores,
    normalised_ssim,
    of_another_patient,
    reconstruction_estimates,
)
from monai_deepfixcx.metrics.reconstruction.similarity import ms_ssim, ms_ssim_scales, mse, psnr, ssim

__all__ = [
    "PerceptualDistance",
    "ReconstructionMetric",
    "best_constant_guess",
    "clopper_pearson",
    "explained_variance",
    "image_scores",
    "ms_ssim",
    "ms_ssim_scales",
    "mse",
    "normalised_ssim",
    "of_another_patient",
    "psnr",
    "reconstruction_estimates",
    "rero",
    "ssim",
    "train_feature_network",
]

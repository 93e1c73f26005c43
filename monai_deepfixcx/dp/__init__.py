"""Differentially private training and release, by Opacus and the analytic Gaussian mechanism."""

from monai_deepfixcx.dp.accounting import Spent, Steps, epsilon_of, noise_multiplier_for
from monai_deepfixcx.dp.budget import PrivacyBudget
from monai_deepfixcx.dp.clipping import sample_losses
from monai_deepfixcx.dp.compatible import DPCompatible, make_dp_compatible
from monai_deepfixcx.dp.evaluator import DPEvaluator
from monai_deepfixcx.dp.ledger import ReleaseLedger
from monai_deepfixcx.dp.mechanism import gaussian_delta, gaussian_epsilon, noise_scale
from monai_deepfixcx.dp.release import DPRelease, DPReleaseD, DPReleased, DPReleaseDict, check_release_dataset
from monai_deepfixcx.dp.sensitivity import image_sensitivity, pixel_sensitivity, slopes_of
from monai_deepfixcx.dp.trainer import DPTrainer

__all__ = [
    "DPCompatible",
    "DPEvaluator",
    "DPRelease",
    "DPReleaseD",
    "DPReleaseDict",
    "DPReleased",
    "DPTrainer",
    "PrivacyBudget",
    "ReleaseLedger",
    "Spent",
    "Steps",
    "check_release_dataset",
    "epsilon_of",
    "gaussian_delta",
    "gaussian_epsilon",
    "image_sensitivity",
    "make_dp_compatible",
    "noise_multiplier_for",
    "noise_scale",
    "pixel_sensitivity",
    "sample_losses",
    "slopes_of",
]

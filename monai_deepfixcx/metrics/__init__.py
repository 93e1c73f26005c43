"""How good predictions are: the maths (`functional`), MONAI metrics that collect over an epoch, and a masked loss."""

from monai_deepfixcx.metrics.classification_report import ClassificationReport
from monai_deepfixcx.metrics.fairness import FairnessReport, fairness_table
from monai_deepfixcx.metrics.functional import (
    Estimate,
    accuracy,
    auroc,
    average_precision,
    balanced_accuracy,
    expected_calibration_error,
    macro_auroc,
    patient_bootstrap,
    sensitivity_specificity,
    youden_threshold,
)
from monai_deepfixcx.metrics.linkage import LinkageMetric, linkage_metrics
from monai_deepfixcx.metrics.losses import MaskedBCEWithLogitsLoss
from monai_deepfixcx.metrics.masked_auroc import MaskedAUROCMetric
from monai_deepfixcx.metrics.reconstruction import (
    PerceptualDistance,
    ReconstructionMetric,
    clopper_pearson,
    explained_variance,
    ms_ssim,
    mse,
    normalised_ssim,
    psnr,
    rero,
    ssim,
    train_feature_network,
)
from monai_deepfixcx.metrics.report_table import report_table

__all__ = [
    "ClassificationReport",
    "Estimate",
    "FairnessReport",
    "LinkageMetric",
    "MaskedAUROCMetric",
    "MaskedBCEWithLogitsLoss",
    "PerceptualDistance",
    "ReconstructionMetric",
    "accuracy",
    "auroc",
    "average_precision",
    "balanced_accuracy",
    "clopper_pearson",
    "expected_calibration_error",
    "explained_variance",
    "fairness_table",
    "linkage_metrics",
    "macro_auroc",
    "ms_ssim",
    "mse",
    "normalised_ssim",
    "patient_bootstrap",
    "psnr",
    "report_table",
    "rero",
    "sensitivity_specificity",
    "ssim",
    "train_feature_network",
    "youden_threshold",
]

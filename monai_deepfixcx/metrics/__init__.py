"""How good predictions are: the maths (`functional`), MONAI metrics that collect over an epoch, and a masked loss."""

from monai_deepfixcx.metrics.classification_report import ClassificationReport
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
from monai_deepfixcx.metrics.losses import MaskedBCEWithLogitsLoss
from monai_deepfixcx.metrics.masked_auroc import MaskedAUROCMetric
from monai_deepfixcx.metrics.report_table import report_table

__all__ = [
    "ClassificationReport",
    "Estimate",
    "MaskedAUROCMetric",
    "MaskedBCEWithLogitsLoss",
    "accuracy",
    "auroc",
    "average_precision",
    "balanced_accuracy",
    "expected_calibration_error",
    "macro_auroc",
    "patient_bootstrap",
    "report_table",
    "sensitivity_specificity",
    "youden_threshold",
]

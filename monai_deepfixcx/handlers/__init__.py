"""Handlers that attach to MONAI's engines."""

from monai_deepfixcx.handlers.classification_report_handler import ClassificationReportHandler, read_thresholds
from monai_deepfixcx.handlers.masked_auroc import MaskedAUROC

__all__ = ["ClassificationReportHandler", "MaskedAUROC", "read_thresholds"]

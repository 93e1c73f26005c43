"""Handlers that attach to MONAI's engines."""

from monai_deepfixcx.handlers.attribution_handler import PrivatizedAttributionHandler
from monai_deepfixcx.handlers.classification_report_handler import ClassificationReportHandler, read_thresholds
from monai_deepfixcx.handlers.fairness_handler import FairnessHandler
from monai_deepfixcx.handlers.masked_auroc import MaskedAUROC
from monai_deepfixcx.handlers.privacy_budget import PrivacyBudgetHandler
from monai_deepfixcx.handlers.reconstruction_attack_handler import ReconstructionAttackHandler
from monai_deepfixcx.handlers.reidentification_handler import ReidentificationHandler

__all__ = [
    "ClassificationReportHandler",
    "FairnessHandler",
    "MaskedAUROC",
    "PrivacyBudgetHandler",
    "PrivatizedAttributionHandler",
    "ReconstructionAttackHandler",
    "ReidentificationHandler",
    "read_thresholds",
]

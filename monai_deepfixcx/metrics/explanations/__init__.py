"""How good explanations are, and what they leak: stateless functions, and MONAI metrics that collect over an epoch."""

from monai_deepfixcx.metrics.explanations.cumulative import (
    AgreementMetric,
    AttributionLeakMetric,
    ExplanationMetric,
    FaithfulnessMetric,
    LocalizationMetric,
)
from monai_deepfixcx.metrics.explanations.faithfulness import (
    completeness_gap,
    deletion_auc,
    deletion_curve,
    faithfulness,
    infidelity,
    insertion_auc,
    max_sensitivity,
)
from monai_deepfixcx.metrics.explanations.maps import (
    agreement,
    attribution_leak,
    baseline_maps,
    localization,
    mass_inside,
    pointing_game,
    spearman,
    structural_similarity,
    top_k_overlap,
)
from monai_deepfixcx.metrics.explanations.randomization import RandomizedLayer, cascading_randomization

__all__ = [
    "AgreementMetric",
    "AttributionLeakMetric",
    "ExplanationMetric",
    "FaithfulnessMetric",
    "LocalizationMetric",
    "RandomizedLayer",
    "agreement",
    "attribution_leak",
    "baseline_maps",
    "cascading_randomization",
    "completeness_gap",
    "deletion_auc",
    "deletion_curve",
    "faithfulness",
    "infidelity",
    "insertion_auc",
    "localization",
    "mass_inside",
    "max_sensitivity",
    "pointing_game",
    "spearman",
    "structural_similarity",
    "top_k_overlap",
]

"""How a classifier fares in subgroups of patients: figures per subgroup, gaps between them, and what gaps go with."""

from monai_deepfixcx.metrics.fairness.groups import AGE_EDGES, Attribute, bin_name
from monai_deepfixcx.metrics.fairness.panels import (
    Correlation,
    auroc_against_count,
    drop_against_count,
    gap_against_epsilon,
    pearson,
)
from monai_deepfixcx.metrics.fairness.report import FairnessReport
from monai_deepfixcx.metrics.fairness.table import fairness_table

__all__ = [
    "AGE_EDGES",
    "Attribute",
    "Correlation",
    "FairnessReport",
    "auroc_against_count",
    "bin_name",
    "drop_against_count",
    "fairness_table",
    "gap_against_epsilon",
    "pearson",
]

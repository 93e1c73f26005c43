"""How well an attacker tells whose image it is."""

from monai_deepfixcx.metrics.linkage.functional import (
    identity_advantage,
    linkage_metrics,
    retrieval,
    shuffled_identity,
    verification,
)
from monai_deepfixcx.metrics.linkage.metric import LinkageMetric

__all__ = [
    "LinkageMetric",
    "identity_advantage",
    "linkage_metrics",
    "retrieval",
    "shuffled_identity",
    "verification",
]

"""What an attacker gets back from codes: reconstruction, re-identification and membership inference."""

from monai_deepfixcx.attacks.base import Attack, AttackResult, Auxiliary, ThreatModel, Truth, Victims, run_attack
from monai_deepfixcx.attacks.membership import RMIA
from monai_deepfixcx.attacks.reconstruction import (
    DecoderAttack,
    InPainting,
    LearnedInversion,
    LinearInverse,
    LinearMMSE,
    LowPassThumbnail,
    MAPInversion,
    MeanFill,
    MeanImage,
    NearestNeighbor,
)
from monai_deepfixcx.attacks.reidentification import EuclideanLinkage, FeatureLinkage, LearnedLinkage
from monai_deepfixcx.attacks.suite import ATTACKS, SuiteResult, make_attack, run_suite

__all__ = [
    "ATTACKS",
    "RMIA",
    "Attack",
    "AttackResult",
    "Auxiliary",
    "DecoderAttack",
    "EuclideanLinkage",
    "FeatureLinkage",
    "InPainting",
    "LearnedInversion",
    "LearnedLinkage",
    "LinearInverse",
    "LinearMMSE",
    "LowPassThumbnail",
    "MAPInversion",
    "MeanFill",
    "MeanImage",
    "NearestNeighbor",
    "SuiteResult",
    "ThreatModel",
    "Truth",
    "Victims",
    "make_attack",
    "run_attack",
    "run_suite",
]

"""Attacks that draw the victims' images from their codes, by strength: looking up, decoding, inverting, learning."""

from monai_deepfixcx.attacks.reconstruction.base import RERO_CURVE, RERO_RADIUS, ReconstructionAttack
from monai_deepfixcx.attacks.reconstruction.direct import (
    DecoderAttack,
    LowPassThumbnail,
    MeanFill,
    MeanImage,
    NearestNeighbor,
)
from monai_deepfixcx.attacks.reconstruction.learned import InPainting, LearnedInversion
from monai_deepfixcx.attacks.reconstruction.linear import LinearInverse, LinearMMSE
from monai_deepfixcx.attacks.reconstruction.map_inversion import MAPInversion

__all__ = [
    "RERO_CURVE",
    "RERO_RADIUS",
    "DecoderAttack",
    "InPainting",
    "LearnedInversion",
    "LinearInverse",
    "LinearMMSE",
    "LowPassThumbnail",
    "MAPInversion",
    "MeanFill",
    "MeanImage",
    "NearestNeighbor",
    "ReconstructionAttack",
]

"""The codecs as MONAI transforms. What leaves them holds no metadata but the affine."""

from monai_deepfixcx.transforms.deepfixcx import DeepFixCX, DeepFixCXD, DeepFixCXd, DeepFixCXDict
from monai_deepfixcx.transforms.heartspot import HeartSpot, HeartSpotD, HeartSpotd, HeartSpotDict
from monai_deepfixcx.transforms.metadata import (
    StripMetadata,
    StripMetadataD,
    StripMetadatad,
    StripMetadataDict,
    rebuild,
    strip,
)
from monai_deepfixcx.transforms.reconstruct import Reconstruct, ReconstructD, Reconstructd, ReconstructDict

__all__ = [
    "DeepFixCX",
    "DeepFixCXD",
    "DeepFixCXDict",
    "DeepFixCXd",
    "HeartSpot",
    "HeartSpotD",
    "HeartSpotDict",
    "HeartSpotd",
    "Reconstruct",
    "ReconstructD",
    "ReconstructDict",
    "Reconstructd",
    "StripMetadata",
    "StripMetadataD",
    "StripMetadataDict",
    "StripMetadatad",
    "rebuild",
    "strip",
]

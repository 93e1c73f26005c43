"""Explanations made from codes alone, and drawn on privatized images."""

from monai_deepfixcx.attribution.attribute import PrivatizedAttribution, attribute
from monai_deepfixcx.attribution.baselines import BASELINES
from monai_deepfixcx.attribution.describe import describe_codec
from monai_deepfixcx.attribution.draw_codec import draw_codec
from monai_deepfixcx.attribution.image_methods import IMAGE_METHODS, attribute_image
from monai_deepfixcx.attribution.layout import (
    decoded_offset,
    feature_groups,
    from_grid,
    patch_edges,
    patch_pixels,
    subband_grid,
    to_grid,
)
from monai_deepfixcx.attribution.methods import METHODS

__all__ = [
    "BASELINES",
    "IMAGE_METHODS",
    "METHODS",
    "PrivatizedAttribution",
    "attribute",
    "attribute_image",
    "decoded_offset",
    "describe_codec",
    "draw_codec",
    "feature_groups",
    "from_grid",
    "patch_edges",
    "patch_pixels",
    "subband_grid",
    "to_grid",
]

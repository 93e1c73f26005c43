"""Image files to pixels in one polarity and on one scale; without MONAI, and cheap to import."""

from monai_deepfixcx.data.reading.image_files import (
    SMALL,
    Radiograph,
    read_contents,
    read_image,
    read_series,
    recognize,
)
from monai_deepfixcx.data.reading.stored_image import Color, Scale, UnreadableImage

__all__ = [
    "SMALL",
    "Color",
    "Radiograph",
    "Scale",
    "UnreadableImage",
    "read_contents",
    "read_image",
    "read_series",
    "recognize",
]

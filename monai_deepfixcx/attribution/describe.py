"""What a codec keeps of an image, in sentences with numbers: the explanation that comes before any prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence

from monai_deepfixcx.attribution.layout import patch_pixels
from monai_deepfixcx.codecs import Codec, DeepFixCXCodec, HeartSpotCodec

_POOLED = {
    "l1": "the sum of its absolute values, without sign",
    "sum": "its sum",
    "max": "its greatest value",
    "min": "its least value",
    "median": "its median",
    "l2": "the sum of its squares, without sign",
    "sum_pos": "the sum of its positive values",
    "sum_neg": "the sum of its negative values",
}
_LINES = {
    "hline": "horizontal lines",
    "rline": "{count} random lines",
    "rhline": "horizontal lines and {count} random lines",
}


def describe_codec(codec: Codec, spatial_shape: Sequence[int], in_channels: int = 1) -> list[str]:
    """Say in plain sentences what a codec keeps of every image, whatever the image shows.

    It says what is kept, not what an attacker can make of it: for that, see the attacks and the privacy card.

    Args:
        codec: to describe.
        spatial_shape: of the images, in pixels.
        in_channels: C of the images.

    Returns:
        Sentences, the sizes first.

    Raises:
        ValueError: the codec cannot encode images of this shape.

    >>> for sentence in describe_codec(DeepFixCXCodec(levels=4, patch_size=5), (320, 320)):
    ...     print(sentence)
    A code holds 6,400 numbers for the 102,400 of a 320 x 320 image: 6.25%, 16 times fewer.
    Where: 5 x 5 patches of 64 x 64 pixels. No position inside a patch is recorded.
    What: 256 subbands (4 halvings, wavelet db1), 16 steps of frequency along each axis.
    A step is 1/32 cycles a pixel wide: the lowest holds mostly waves longer than 32 pixels, the highest of 2 to 2.13.
    Of each patch of each subband is kept: the sum of its absolute values, without sign.
    Brightness is kept as a thumbnail of 5 x 5 mean grey values.
    """
    kept = codec.code_length(spatial_shape) * in_channels * int(getattr(codec, "channel_multiplier", 1))
    sentences = [_sizes(kept, spatial_shape, in_channels)]
    if isinstance(codec, DeepFixCXCodec):
        return sentences + _of_deepfixcx(codec, spatial_shape)
    if isinstance(codec, HeartSpotCodec):
        return sentences + _of_heartspot(codec)
    known = {"identity": "Every pixel is kept: the image is not privatized.", "constant": "Nothing of it is kept."}
    return sentences + [known[codec.name]] * (codec.name in known)


def by(sizes: Sequence[int]) -> str:
    """Sizes as they are read: 320 x 320."""
    return " x ".join(map(str, sizes))


def _sizes(kept: int, spatial_shape: Sequence[int], in_channels: int) -> str:
    whole = math.prod(spatial_shape) * in_channels
    factor = max(kept, whole) / min(kept, whole)
    compared = f"{factor:.3g} times {'fewer' if kept < whole else 'more'}" if factor > 1.005 else "as many"
    channels = f" of {in_channels} channels" if in_channels > 1 else ""
    return (
        f"A code holds {kept:,} number{'s' if kept > 1 else ''} for the {whole:,} of a {by(spatial_shape)} image"
        f"{channels}: {100 * kept / whole:.3g}%, {compared}."
    )


def _of_deepfixcx(codec: DeepFixCXCodec, spatial_shape: Sequence[int]) -> list[str]:
    levels = codec.levels_for(spatial_shape)
    bands, patches, pixels = 2**levels, by(codec.patch_size), by(patch_pixels(codec, spatial_shape))
    halvings = f"{levels} halving{'s' if levels > 1 else ''}"
    sentences = [
        f"Where: {patches} patches of {pixels} pixels. No position inside a patch is recorded.",
        f"What: {bands**codec.spatial_dims:,} subbands ({halvings}, wavelet {codec.wavelet}), {bands} steps of "
        "frequency along each axis.",
        f"A step is 1/{2 * bands} cycles a pixel wide: the lowest holds mostly waves longer than {2 * bands} pixels, "
        f"the highest of 2 to {2 * bands / (bands - 1):.3g}.",
        f"Of each patch of each subband is kept: {'; '.join(_POOLED[feature] for feature in codec.features)}.",
    ]
    if codec.channel_multiplier > 1:
        sentences.append(f"The channels are first mixed into {codec.channel_multiplier} times as many.")
    elif codec.zero_mean:
        sentences.append("The image's mean is taken off first.")
    elif codec.wavelet in ("db1", "haar") and {"l1", "sum"} & set(codec.features) and codec.adaptive == "none":
        # An exact statement: for pixels of one sign the lowest Haar subband, pooled, is a box average.
        sentences.append(f"Brightness is kept as a thumbnail of {patches} mean grey values.")
    if codec.adaptive != "none":
        sentences.append("The filters are learned, and need no longer be those of the wavelet.")
    return sentences


def _of_heartspot(codec: HeartSpotCodec) -> list[str]:
    mask = codec.mask.cpu()
    sentences = []
    if "quadtree" in codec.priors:
        sentences.append("First every block of the image's quadtree is replaced by its mean.")
    if "median" in codec.priors:
        sentences.append(f"First the image is reduced to {by(mask.shape)}, each pixel the median of 12 x 12 around it.")
    lines = next((_LINES[name].format(count=codec.line_count) for name in _LINES if name in codec.priors), None)
    region = "the region given" if codec.region is not None else "the heart region"
    if lines is None:
        place = f"inside {region}" if "heart" in codec.priors else "anywhere: every pixel"
    else:
        place = f"on {lines}" + (f", inside {region}" if "heart" in codec.priors else "")
    rows, columns = (mask.any(axis).nonzero().flatten() for axis in (1, 0))
    kept = int(mask.sum())
    sentences.append(f"Kept are the pixels {place}.")
    sentences.append(
        f"They are {kept:,} of {mask.numel():,} ({100 * kept / mask.numel():.3g}%), in rows {int(rows[0])} to "
        f"{int(rows[-1])} and columns {int(columns[0])} to {int(columns[-1])}."
    )
    if codec.aggregate == "sum":
        sentences.append(f"Of these only sums are kept: {mask.shape[1]} of columns and {mask.shape[0]} of rows.")
    else:
        sentences.append("Each kept pixel keeps its place and its value.")
    return sentences

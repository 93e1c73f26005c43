"""Which codec, which images: the options of the commands that encode."""

from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from monai_deepfixcx.codecs import Codec


class Method(StrEnum):
    """The two codecs."""

    deepfixcx = "deepfixcx"
    heartspot = "heartspot"


class Aggregate(StrEnum):
    """What HeartSpot keeps of its pixels."""

    pixels = "pixels"
    sum = "sum"


class ColorChoice(StrEnum):
    """What becomes of colour images."""

    grey = "grey"
    keep = "keep"


class ScaleChoice(StrEnum):
    """How pixel values come to [0, 1]."""

    auto = "auto"
    range = "range"
    minmax = "minmax"
    window = "window"


# The options of the commands that encode, in the boxes that --help shows them in.
_codec_option = partial(typer.Option, rich_help_panel="Codec")
_image_option = partial(typer.Option, rich_help_panel="Images")
engine_option = partial(typer.Option, rich_help_panel="Where to encode")
MethodOption = Annotated[Method, _codec_option(help="deepfixcx: patches of wavelet subbands; heartspot: some pixels.")]
LevelsOption = Annotated[str, _codec_option(help='DeepFixCX: J, how often each axis is halved; a number or "max".')]
PatchOption = Annotated[str, _codec_option(help="DeepFixCX: P, patches along each axis; one number, or as 3,5.")]
WaveletOption = Annotated[str, _codec_option(help="DeepFixCX: any discrete PyWavelets wavelet.")]
FeaturesOption = Annotated[
    str, _codec_option(help="DeepFixCX: l1, sum, max, min, median, l2, sum_pos, sum_neg; several with commas.")
]
ZeroMeanOption = Annotated[bool, _codec_option("--zero-mean", help="DeepFixCX: subtract each image's mean first.")]
DimsOption = Annotated[int, _codec_option(min=2, max=3, help="DeepFixCX: 2 for images, 3 for volumes.")]
PriorOption = Annotated[
    str, _codec_option(help="HeartSpot: hline, rline, rhline, heart, median, quadtree; several with '+'.")
]
SeedOption = Annotated[int, _codec_option(help="HeartSpot: of the random lines; 1 is the published one.")]
AggregateOption = Annotated[Aggregate, _codec_option(help="HeartSpot: pixels, or row and column sums only.")]
SizeOption = Annotated[
    int | None,
    _image_option(min=1, help="Scale 2-D images to this many pixels a side and crop the centre. HeartSpot: 320."),
]
ColorOption = Annotated[ColorChoice, _image_option(help="Make colour images grey, or keep three channels.")]
ScaleOption = Annotated[
    ScaleChoice,
    _image_option(help="How values come to [0, 1]: stored range, image minimum to maximum, DICOM window."),
]


def build_codec(arguments: dict[str, Any]) -> "tuple[Codec, int | None]":
    """The codec and image size that the options ask for."""
    from monai_deepfixcx.codecs import DeepFixCXCodec, HeartSpotCodec

    size = arguments["size"]
    try:
        if arguments["method"] is Method.heartspot:
            size = size or 320
            codec: Codec = HeartSpotCodec(
                arguments["prior"], (size, size), arguments["seed"], aggregate=arguments["aggregate"].value
            )
            return codec, size
        if size is not None and arguments["spatial_dims"] == 3:
            raise ValueError("--size is for 2-D images: volumes keep theirs.")
        levels = arguments["levels"]
        patches = [int(number) for number in arguments["patch_size"].split(",")]
        codec = DeepFixCXCodec(
            levels="max" if levels == "max" else int(levels),
            patch_size=patches[0] if len(patches) == 1 else patches,
            wavelet=arguments["wavelet"],
            features=arguments["features"].split(","),
            zero_mean=arguments["zero_mean"],
            spatial_dims=arguments["spatial_dims"],
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return codec, size

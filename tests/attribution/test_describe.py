"""The sentences and the figure of what a codec keeps."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import _pylab_helpers
from matplotlib.image import imread

from monai_deepfixcx.attribution import describe_codec, draw_codec
from monai_deepfixcx.codecs import Codec, ConstantCodec, DeepFixCXCodec, HeartSpotCodec, IdentityCodec

CODECS: dict[str, tuple[Codec, tuple[int, ...]]] = {
    "deepfixcx": (DeepFixCXCodec(4, 5), (320, 320)),
    "uneven": (DeepFixCXCodec(2, (3, 4), "coif1", ["l1", "max"]), (33, 70)),
    "zero_mean": (DeepFixCXCodec("max", 3, zero_mean=True, adaptive="filters_1d"), (40, 40)),
    "mixed": (DeepFixCXCodec(1, 2, in_channels=3, channel_multiplier=2), (16, 16)),
    "volume": (DeepFixCXCodec(1, 2, spatial_dims=3), (8, 9, 10)),
    "heartspot": (HeartSpotCodec(), (320, 320)),
    "heart": (HeartSpotCodec("heart", (32, 30)), (32, 30)),
    "sum": (HeartSpotCodec("quadtree+median+hline", (64, 60), aggregate="sum"), (64, 60)),
    "everything": (HeartSpotCodec("", (16, 12)), (16, 12)),
    "region": (HeartSpotCodec("rline+heart", (32, 32), region=np.eye(32, dtype=bool)), (32, 32)),
    "identity": (IdentityCodec(3), (4, 5, 6)),
    "constant": (ConstantCodec(), (8, 8)),
}
each_codec = pytest.mark.parametrize("name", CODECS)


@each_codec
def test_the_numbers_are_those_of_real_codes(name: str) -> None:
    codec, shape = CODECS[name]
    channels = getattr(codec, "in_channels", None) or 1
    code = codec.encode(torch.rand(1, channels, *shape))
    first = describe_codec(codec, shape, channels)[0]
    kept, whole = (int(number.replace(",", "")) for number in re.findall(r"[\d,]+(?= number| of a )", first))
    assert kept == code.numel()
    assert whole == channels * np.prod(shape)
    share = float(re.findall(r"([\d.e+]+)%", first)[0])
    assert share == pytest.approx(100 * kept / whole, rel=0.01)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("uneven", "Where: 3 x 4 patches of 12 x 20 pixels."),
        ("uneven", "without sign; its greatest value."),
        ("zero_mean", "The image's mean is taken off first."),
        ("zero_mean", "The filters are learned"),
        ("mixed", "The channels are first mixed into 2 times as many."),
        ("mixed", "image of 3 channels"),
        ("volume", "What: 8 subbands (1 halving, wavelet db1), 2 steps of frequency along each axis."),
        ("heartspot", "Kept are the pixels on horizontal lines and 200 random lines, inside the heart region."),
        ("heart", "Kept are the pixels inside the heart region."),
        ("sum", "First every block of the image's quadtree is replaced by its mean."),
        ("sum", "First the image is reduced to 32 x 30"),
        ("sum", "Of these only sums are kept: 30 of columns and 32 of rows."),
        ("everything", "They are 192 of 192 (100%), in rows 0 to 15 and columns 0 to 11."),
        ("region", "Kept are the pixels on 200 random lines, inside the region given."),
        ("identity", "Every pixel is kept: the image is not privatized."),
        ("constant", "Nothing of it is kept."),
    ],
)
def test_sentences(name: str, expected: str) -> None:
    assert expected in " ".join(describe_codec(*CODECS[name], in_channels=3 if name == "mixed" else 1))


def test_the_thumbnail_is_said_only_where_it_is_one() -> None:
    """For non-negative pixels the lowest Haar subband is a box average: the sentence claims no more, and no less."""
    image = torch.rand(1, 1, 320, 320)
    code = CODECS["deepfixcx"][0].encode(image)
    thumbnail = torch.nn.functional.avg_pool2d(image, 64).flatten()
    torch.testing.assert_close(code[0, 0, :25] / code[0, 0, 0], thumbnail / thumbnail[0], rtol=1e-4, atol=1e-4)
    said = {name: "thumbnail" in " ".join(describe_codec(*CODECS[name])) for name in CODECS}
    assert [name for name, thumbnails in said.items() if thumbnails] == ["deepfixcx", "volume"]


@each_codec
def test_nothing_is_promised(name: str) -> None:
    assert not re.search(r"prevent|anonym|safe|protect|cannot", " ".join(describe_codec(*CODECS[name])))


def test_shapes_that_the_codec_cannot_encode() -> None:
    for function in (describe_codec, draw_codec):
        with pytest.raises(ValueError, match="patch_size must be at most the subbands' size"):
            function(DeepFixCXCodec(4, 5), (16, 16))


@each_codec
def test_the_figure_says_it_all_and_leaves_no_global_state(name: str) -> None:
    codec, shape = CODECS[name]
    figure = draw_codec(codec, shape)
    assert not _pylab_helpers.Gcf.get_all_fig_managers()
    assert figure.get_suptitle().endswith(f"keeps of a {' x '.join(map(str, shape))} image")
    assert figure.get_supxlabel() == "\n".join(describe_codec(codec, shape))
    for ax in figure.axes:
        assert ax.get_title()
        assert ax.get_xlabel().endswith(("pixels", "cycles per pixel"))
    figure.draw_without_rendering()
    width = figure.bbox.width
    for text in figure.findobj(lambda artist: hasattr(artist, "get_text")):
        box: Any = text.get_window_extent()
        assert 0 <= box.x0 <= box.x1 <= width, text


def test_the_heartspot_figure_shows_its_mask() -> None:
    """The share of blue in the picture is the share of pixels kept."""
    codec = HeartSpotCodec("heart", (320, 320))
    drawn = draw_codec(codec, (320, 320)).axes[0].images[0].get_array()
    assert drawn is not None
    assert np.array_equal(np.asarray(drawn), codec.mask.numpy())


def test_the_patch_grid_is_where_the_encoder_cuts() -> None:
    figure = draw_codec(DeepFixCXCodec(4, 5), (320, 320))
    lines = [segment[0][1] for segment in figure.axes[0].collections[0].get_segments()]  # type: ignore[attr-defined]
    assert lines == [64, 128, 192, 256]
    with io.BytesIO() as file:
        figure.savefig(file)
        file.seek(0)
        picture = imread(file)
    assert picture.shape[1] > picture.shape[0]

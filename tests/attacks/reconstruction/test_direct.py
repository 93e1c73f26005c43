"""Looking up, decoding, enlarging and filling, against what each should draw."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from monai_deepfixcx.attacks import (
    Auxiliary,
    DecoderAttack,
    LowPassThumbnail,
    MeanFill,
    NearestNeighbor,
    Victims,
)
from monai_deepfixcx.codecs import Codec, DeepFixCXCodec, HeartSpotCodec, IdentityCodec
from tests.attacks.reconstruction.cohort import SIDE, attacked, films


def known(codec: Codec, images: Tensor) -> Auxiliary:
    names = tuple(str(k // 2) for k in range(len(images)))
    return Auxiliary(codec, images, names, codec.encode(images))


def test_the_thumbnail_is_the_box_average_for_db1() -> None:
    """METHODS: the lowest db1 band pooled by l1 is a P x P box-averaged thumbnail."""
    images = films()[:6]
    codec = DeepFixCXCodec(levels=2, patch_size=4)
    attack = LowPassThumbnail().fit(known(codec, images))
    thumbnail = F.avg_pool2d(images, SIDE // 4)
    expected = F.interpolate(thumbnail, size=(SIDE, SIDE), mode="bilinear")
    torch.testing.assert_close(attack.run(Victims(codec.encode(images))), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("features", [["l1"], ["sum"], ["max", "sum_pos"]])
@pytest.mark.parametrize(("wavelet", "patch"), [("db1", 4), ("db1", 5), ("coif1", 3)])
def test_an_even_image_comes_back_even(features: list[str], wavelet: str, patch: int) -> None:
    """Whatever the padding of the grid, the border of the wavelet and the feature."""
    codec = DeepFixCXCodec(levels=2, patch_size=patch, wavelet=wavelet, features=features)  # type: ignore[arg-type]
    attack = LowPassThumbnail().fit(known(codec, films()[:4]))
    grey = torch.full((1, 1, SIDE, SIDE), 0.4)
    torch.testing.assert_close(attack.run(Victims(codec.encode(grey))), grey, atol=1e-5, rtol=0)


def test_the_thumbnail_lies_where_the_image_is() -> None:
    """A bright spot stays in its place, also where the patch grid is padded on both sides."""
    codec = DeepFixCXCodec(levels=1, patch_size=6)
    attack = LowPassThumbnail().fit(known(codec, films()[:4]))
    for row, column in ((4, 4), (4, 27), (16, 10), (27, 27)):
        image = torch.zeros(1, 1, SIDE, SIDE)
        image[..., row - 2 : row + 3, column - 2 : column + 3] = 1
        drawn = attack.run(Victims(codec.encode(image)))[0, 0]
        centre = [float((drawn.sum(1 - axis) * torch.arange(SIDE)).sum() / drawn.sum()) for axis in (0, 1)]
        assert centre == pytest.approx([row, column], abs=2)


def test_the_decoder_is_clipped() -> None:
    codec = DeepFixCXCodec(levels=2, patch_size=4)
    images = torch.rand(6, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    decoded = codec(images)
    assert decoded.max() > 1
    drawn = DecoderAttack().fit(known(codec, images)).run(Victims(codec.encode(images)))
    assert torch.equal(drawn, decoded.clamp(0, 1))


def test_the_nearest_neighbour_of_a_known_image_is_itself() -> None:
    images = films()[:10]
    attack = NearestNeighbor().fit(known(IdentityCodec(), images))
    near = (images[3:5] + 0.001).flatten(2)
    torch.testing.assert_close(attack.run(Victims(near)), images[3:5])


@pytest.mark.parametrize("prior", ["rhline+heart", "median+hline"])
def test_mean_fill_keeps_what_the_code_holds_and_means_the_rest(prior: str) -> None:
    codec = HeartSpotCodec(prior, (SIDE, SIDE))
    images = films()[:10]
    drawn = MeanFill().fit(known(codec, images)).run(Victims(codec.encode(images)))
    mask = codec.mask
    if "median" in prior:
        mask = mask.repeat_interleave(2, 0).repeat_interleave(2, 1)
    torch.testing.assert_close(drawn[:, :, ~mask], images.mean(0)[:, ~mask].expand(10, -1, -1))
    torch.testing.assert_close(drawn[:, :, mask], codec(images)[:, :, mask].clamp(0, 1))


def test_mean_fill_beats_the_decoder() -> None:
    codec = HeartSpotCodec("hline", (SIDE, SIDE))
    filled, decoded = (
        attacked(attack, codec, samples=0).metrics["mse"].value for attack in (MeanFill(), DecoderAttack())
    )
    assert filled < decoded

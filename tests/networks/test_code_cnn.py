"""The CNN on codes: how a code is laid out, and how far it is enlarged."""

import itertools

import pytest
import torch

from monai_deepfixcx.codecs import DeepFixCXCodec
from monai_deepfixcx.networks import CodeCNN


def test_the_layout_follows_the_codes_index() -> None:
    codec = DeepFixCXCodec(1, (2, 3), features=["l1", "max"])
    head = CodeCNN(codec, (16, 16), in_channels=2)
    codes = torch.arange(2 * 2 * 48.0).reshape(2, 2, 48)
    image = head.image(codes)
    assert image.shape == (2, 2 * 4 * 2, 2, 3)
    for c, d, i, j, f in itertools.product(range(2), range(4), range(2), range(3), range(2)):
        assert image[1, (c * 4 + d) * 2 + f, i, j] == codes[1, c, ((d * 2 + i) * 3 + j) * 2 + f]


@pytest.mark.parametrize(
    ("patch_size", "enlarged"), [(1, (64, 64)), (5, (80, 80)), (19, (76, 76)), ((3, 9), (96, 288)), (70, (70, 70))]
)
def test_patches_are_doubled_to_at_least_64(patch_size: int | tuple[int, int], enlarged: tuple[int, int]) -> None:
    codec = DeepFixCXCodec(1, patch_size)
    head = CodeCNN(codec, (160, 160), out_channels=2).eval()
    codes = codec.encode(torch.rand(1, 1, 160, 160))
    image = head.enlarge(head.image(codes))
    assert image.shape[2:] == enlarged
    # The number of values stays, but for rounding up to whole channels.
    assert image.numel() >= codes.numel()
    assert head(codes).shape == (1, 2)


def test_3d_codes() -> None:
    codec = DeepFixCXCodec(1, 2, spatial_dims=3)
    head = CodeCNN(codec, (8, 8, 8), in_channels=2, out_channels=3, min_size=16).eval()
    assert head(codec.encode(torch.rand(2, 2, 8, 8, 8))).shape == (2, 3)


def test_a_channel_multiplier_is_counted() -> None:
    codec = DeepFixCXCodec(1, 4, in_channels=3, channel_multiplier=2)
    head = CodeCNN(codec.config(), (32, 32), in_channels=3).eval()
    assert head(codec.encode(torch.rand(2, 3, 32, 32))).shape == (2, 1)


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match=r"codec must be a DeepFixCX codec, .* got 'heartspot'"):
        CodeCNN({"codec": "heartspot"}, (320, 320))
    with pytest.raises(ValueError, match="patch_size must be at most the subbands' size"):
        CodeCNN(DeepFixCXCodec(4, 5), (32, 32))
    with pytest.raises(ValueError, match=r"codes must have shape \[B, 1, 100\]; got \[1, 1, 99\]"):
        CodeCNN(DeepFixCXCodec(1, 5), (32, 32))(torch.rand(1, 1, 99))

"""No pair of neighbours has codes further apart than the sensitivity says, and some come close to it."""

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from monai_deepfixcx.codecs import Codec, ConstantCodec, DeepFixCXCodec, HeartSpotCodec, IdentityCodec
from monai_deepfixcx.codecs.wavelet_packet import subband_shape
from monai_deepfixcx.dp import image_sensitivity, pixel_sensitivity, slopes_of

CODECS: dict[str, tuple[Codec, tuple[int, ...], int]] = {
    "db1": (DeepFixCXCodec(2, 4), (32, 32), 1),
    "db1-odd": (DeepFixCXCodec(2, 3), (29, 38), 1),
    "db1-sum": (DeepFixCXCodec(2, 3, features=["sum"]), (24, 24), 1),
    "db1-all": (DeepFixCXCodec(1, 3, features=["l1", "sum", "max", "min", "median"]), (24, 24), 1),
    "coif1": (DeepFixCXCodec(2, 3, "coif1"), (30, 26), 1),
    "db3-zero-mean": (DeepFixCXCodec(1, 2, "db3", zero_mean=True), (20, 20), 1),
    "bior2.2": (DeepFixCXCodec(2, 2, "bior2.2"), (24, 24), 1),
    "rbio3.1": (DeepFixCXCodec(2, 2, "rbio3.1"), (24, 24), 1),
    "volume": (DeepFixCXCodec(1, 2, spatial_dims=3), (8, 8, 8), 1),
    "channels": (DeepFixCXCodec(1, 4, in_channels=2, channel_multiplier=2), (16, 16), 2),
    "heartspot": (HeartSpotCodec("rhline+heart", (40, 40)), (40, 40), 1),
    "heartspot-sum": (HeartSpotCodec("heart", (40, 40), aggregate="sum"), (40, 40), 1),
    "identity": (IdentityCodec(), (8, 8), 1),
}


def distance(codec: Codec, one: Tensor, other: Tensor) -> float:
    return float((codec.encode(one[None]) - codec.encode(other[None])).detach().double().norm())


def random_mask(shape: tuple[int, ...], pixels: int, generator: torch.Generator, where: str) -> Tensor:
    """Which pixels differ: anywhere, in one block, on a regular grid, or along the border."""
    count = math.prod(shape)
    index = torch.arange(count).reshape(shape)
    if where == "block":
        side = math.ceil(pixels ** (1 / len(shape)))
        start = [int(torch.randint(max(n - side, 0) + 1, (), generator=generator)) for n in shape]
        for axis, first in enumerate(start):
            index = index.narrow(axis, first, min(side, shape[axis]))
    elif where == "grid":
        for axis in range(len(shape)):
            index = index.index_select(axis, torch.arange(0, shape[axis], 4))
    elif where == "border":
        index = index[:2]
    chosen = index.flatten()[torch.randperm(index.numel(), generator=generator)[:pixels]]
    mask = torch.zeros(count)
    mask[chosen] = 1
    return mask.reshape(shape)


def farthest(codec: Codec, shape: tuple[int, ...], channels: int, pixels: int, tries: int = 6) -> float:
    """The largest distance found by random search, and by gradient ascent from there."""
    generator = torch.Generator().manual_seed(pixels)
    worst = 0.0
    for number in range(tries):
        where = ("anywhere", "block", "grid", "border")[number % 4]
        mask = random_mask(shape, pixels, generator, where)
        base = torch.rand(channels, *shape, generator=generator, dtype=torch.float64)
        if number % 2:
            base = base.round() * (number % 3 > 0)  # black, or black and white
        change = torch.where(base > 0.5, -1.0, 1.0).double() if number % 3 else (1 - 2 * base).sign()
        for _ in range(8):
            other = (base + change * mask).clamp(0, 1)
            worst = max(worst, distance(codec, base, other))
            moving = change.clone().requires_grad_()
            apart = codec.encode((base + moving * mask)[None]) - codec.encode(base[None])
            (slope,) = torch.autograd.grad(apart.square().sum(), moving)
            # The farthest corner in the direction of the gradient: every changed pixel goes to 0 or 1 ...
            target = (slope > 0).double()
            change = target - base
            # ... and so does its twin in the other image.
            base = torch.where(mask > 0, 1 - target, base)
            change = target - base
    return worst


@pytest.mark.parametrize("pixels", [1, 4, 16, 100])
@pytest.mark.parametrize("name", CODECS)
def test_no_neighbours_are_farther_apart_than_the_bound(name: str, pixels: int) -> None:
    codec, shape, channels = CODECS[name]
    if pixels > math.prod(shape):
        return
    bound = pixel_sensitivity(codec, shape, pixels, in_channels=channels)
    found = farthest(codec, shape, channels, pixels)
    assert found <= bound
    assert found > 0.1 * bound, "a bound this far from anything that occurs would be useless"


@pytest.mark.parametrize(("pixels", "bound"), [(1, 1), (4, 4), (16, 16), (64, 32), (256, 64)])
def test_the_bound_of_db1_is_reached(pixels: int, bound: float) -> None:
    # 4 x 4 coefficients a patch and subband; each white pixel in a block of its own until all 16 blocks of the patch
    # have one, and then each block fills up: k sqrt(m), and m below k^2.
    codec = DeepFixCXCodec(levels=2, patch_size=2)
    black = torch.zeros(1, 32, 32, dtype=torch.float64)
    white = black.clone()
    blocks = white[0, :16, :16].unflatten(0, (4, 4)).unflatten(2, (4, 4)).transpose(1, 2)  # [4, 4, 4, 4], a view
    flat = [divmod(number, 16) for number in range(pixels)]
    for inside, block in flat:
        blocks[block // 4, block % 4, inside // 4, inside % 4] = 1
    assert pixel_sensitivity(codec, (32, 32), pixels) == pytest.approx(bound, rel=1e-4)
    found = distance(codec, black, white)
    assert found <= bound + 1e-9
    if pixels <= 16 or pixels == 256:
        assert found == pytest.approx(bound if pixels <= 16 else 64, rel=1e-9)


@pytest.mark.parametrize("name", ["db1", "db1-odd", "coif1", "bior2.2", "rbio3.1", "volume"])
def test_the_operator_norm_is_that_of_the_whole_transform(name: str) -> None:
    codec, shape, _ = CODECS[name]
    assert isinstance(codec, DeepFixCXCodec)
    images = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, 1, *shape)
    matrix = codec.analysis(images, codec.levels_for(shape)).flatten(1).T
    maps = subband_shape(shape, codec.levels_for(shape))
    patch = math.prod(math.ceil(n / p) for n, p in zip(maps, codec.patch_size, strict=True))
    norm = float(torch.linalg.matrix_norm(matrix, 2))
    assert slopes_of(codec, shape).any_change == pytest.approx(norm * math.sqrt(patch), rel=1e-9)
    orthogonal = not name.startswith(("bior", "rbio"))
    assert (norm <= 1 + 1e-9) == orthogonal, "zero padding only takes away"


@pytest.mark.parametrize("name", ["db1", "bior2.2", "heartspot"])
def test_clipped_codes_of_two_images_stay_within_the_ball(name: str) -> None:
    codec, shape, channels = CODECS[name]
    generator = torch.Generator().manual_seed(0)
    clip, worst = 0.5, 0.0
    for _ in range(100):
        images = torch.rand(2, channels, *shape, generator=generator) * (
            torch.rand(2, 1, *shape, generator=generator) > 0.9
        )
        codes = codec.encode(images).flatten(1)
        codes = codes * (clip / codes.norm(dim=1, keepdim=True)).clamp(max=1)
        worst = max(worst, float((codes[0] - codes[1]).norm()))
    assert worst <= image_sensitivity(clip, codec)
    assert worst > 0.2 * clip


def test_the_image_bound_is_reached() -> None:
    ends = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert float((ends[0] - ends[1]).norm()) == image_sensitivity(1.0)
    # Codes without a negative value can at most stand at a right angle.
    codec = DeepFixCXCodec(1, 1)
    assert image_sensitivity(1.0, codec) == pytest.approx(math.sqrt(2))
    images = torch.stack([torch.ones(1, 4, 4), (torch.arange(16).reshape(1, 4, 4) % 2 * 2.0 - 1)])
    codes = codec.encode(images).flatten(1)
    codes = codes / codes.norm(dim=1, keepdim=True)
    assert float((codes[0] - codes[1]).norm()) == pytest.approx(math.sqrt(2))
    assert image_sensitivity(1.0, DeepFixCXCodec(1, 1, features=["sum"])) == 2.0


def test_the_bound_grows_with_the_range() -> None:
    codec = DeepFixCXCodec(1, 2)
    assert pixel_sensitivity(codec, (8, 8), 3, value_range=255.0) == pytest.approx(
        255 * pixel_sensitivity(codec, (8, 8), 3)
    )


@pytest.mark.parametrize(
    ("codec", "options", "message"),
    [
        (DeepFixCXCodec(1, 2, features=["l2"]), {}, 'relation must be "image" for the features l2'),
        (DeepFixCXCodec(1, 2, features=["l1", "sum_pos"]), {}, "sum_pos and sum_neg jump"),
        (DeepFixCXCodec(1, 2, adaptive="filters_1d"), {}, "its learned filters have no fixed norm"),
        (HeartSpotCodec("median", (8, 8)), {}, "for HeartSpot with median or quadtree"),
        (HeartSpotCodec("quadtree", (8, 8)), {}, "for HeartSpot with median or quadtree"),
        (ConstantCodec(), {}, "for a codec 'constant', whose sensitivity to pixels is not known"),
        (IdentityCodec(), {"pixels": 0}, "pixels and in_channels must be at least 1; got 0 and 1"),
        (IdentityCodec(), {"value_range": 0.0}, "value_range must be above 0"),
        (DeepFixCXCodec(4, 9), {}, "patch_size"),
    ],
)
def test_codecs_without_a_bound_are_refused(codec: Codec, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        pixel_sensitivity(codec, (8, 8), **{"pixels": 1, **options})

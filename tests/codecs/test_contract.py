"""What holds for every codec."""

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from monai_deepfixcx.codecs import (
    FEATURES,
    Codec,
    ConstantCodec,
    DeepFixCXCodec,
    HeartSpotCodec,
    IdentityCodec,
    codec_from_config,
)

CODECS: dict[str, tuple[Callable[[], Codec], tuple[int, ...]]] = {
    "identity": (IdentityCodec, (12, 14)),
    "identity-3d": (lambda: IdentityCodec(3), (6, 7, 8)),
    "constant": (ConstantCodec, (12, 14)),
    "deepfixcx": (lambda: DeepFixCXCodec(2, 3), (33, 30)),
    "deepfixcx-max": (lambda: DeepFixCXCodec("max", (1, 2), zero_mean=True), (33, 30)),
    "deepfixcx-coif1": (lambda: DeepFixCXCodec(2, 3, "coif1", ["median"]), (33, 30)),
    "deepfixcx-3d": (lambda: DeepFixCXCodec(1, (2, 3, 1), spatial_dims=3), (9, 12, 10)),
    "deepfixcx-adaptive": (lambda: DeepFixCXCodec(2, 3, "db2", adaptive="filters_1d"), (33, 30)),
    "heartspot": (lambda: HeartSpotCodec("rhline+heart", (40, 36)), (40, 36)),
    "heartspot-median": (lambda: HeartSpotCodec("median+rline", (41, 36), seed=2), (41, 36)),
    "heartspot-sum": (lambda: HeartSpotCodec("hline", (40, 36), aggregate="sum"), (40, 36)),
    "heartspot-quadtree": (lambda: HeartSpotCodec("quadtree+heart", (40, 36), quadtree_threshold=9), (40, 36)),
    "heartspot-region": (
        lambda: HeartSpotCodec("heart", (40, 36), region=torch.eye(40, 36, dtype=torch.bool)),
        (40, 36),
    ),
}
each_codec = pytest.mark.parametrize(("build", "shape"), CODECS.values(), ids=CODECS.keys())
Build = Callable[[], Codec]
Shape = tuple[int, ...]


@each_codec
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 4])
def test_shapes_types_and_gradients(build: Build, shape: Shape, dtype: torch.dtype, channels: int) -> None:
    codec, images = build(), torch.rand(3, channels, *shape, dtype=dtype, requires_grad=True)
    codes = codec.encode(images)
    assert codes.shape == (3, channels, codec.code_length(shape))
    assert codes.dtype == dtype
    decoded = codec.decode(codes, shape)
    assert decoded.shape == images.shape
    assert decoded.dtype == dtype
    torch.testing.assert_close(codec(images), decoded)
    if not isinstance(codec, ConstantCodec):
        decoded.square().sum().backward()
        assert images.grad is not None
        assert bool(images.grad.isfinite().all())
        assert bool(images.grad.any())


@each_codec
def test_a_batch_is_its_images_one_by_one(build: Build, shape: Shape) -> None:
    codec, images = build(), torch.rand(4, 2, *shape)
    torch.testing.assert_close(codec.encode(images), torch.cat([codec.encode(image[None]) for image in images]))


@each_codec
def test_an_empty_batch_has_empty_codes(build: Build, shape: Shape) -> None:
    codec, images = build(), torch.zeros(0, 2, *shape)
    assert codec.encode(images).shape == (0, 2, codec.code_length(shape))
    assert codec(images).shape == images.shape


@each_codec
def test_config_fingerprint_pickle_and_copy(build: Build, shape: Shape) -> None:
    codec, images = build(), torch.rand(1, 1, *shape)
    config = json.loads(json.dumps(codec.config()))
    for twin in (codec_from_config(config), pickle.loads(pickle.dumps(codec)), copy.deepcopy(codec)):
        assert twin.fingerprint() == codec.fingerprint()
        assert torch.equal(twin.encode(images), codec.encode(images))
        assert repr(twin) == repr(codec)


@each_codec
def test_integer_images_keep_their_values(build: Build, shape: Shape) -> None:
    codec = build()
    images = torch.randint(0, 2, (1, 1, *shape), dtype=torch.uint8)
    assert torch.equal(codec.encode(images), codec.encode(images.float()))
    assert torch.equal(codec.decode(codec.encode(images), shape), codec(images.float()))


@each_codec
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
def test_images_need_not_be_divided_first(build: Build, shape: Shape, dtype: torch.dtype) -> None:
    codec = build()
    images = torch.randint(0, 256, (2, 1, *shape), generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = codec.encode(images.float() / 255)
    codes = codec.encode(images, white=255)
    assert codes.dtype == torch.float32
    torch.testing.assert_close(codes, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@each_codec
def test_wrong_shapes_are_named(build: Build, shape: Shape) -> None:
    codec = build()
    with pytest.raises(ValueError, match=rf"images must have {len(shape) + 2} axes, \[B, C, .*H, W\]; got shape \[3, "):
        codec.encode(torch.zeros(3, *shape))
    with pytest.raises(ValueError, match=r"images must be real; got torch.complex64"):
        codec.encode(torch.zeros(1, 1, *shape, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"codes must have shape \[B, C, \d+\] for .* images; got \[1, 1, 1000003\]"):
        codec.decode(torch.zeros(1, 1, 1000003), shape)


@each_codec
@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu(build: Build, shape: Shape) -> None:
    codec, images = build(), torch.rand(2, 1, *shape)
    codes = codec.encode(images)
    decoded = codec.decode(codes, shape)
    codec = codec.cuda()
    on_device = codec.encode(images.cuda())
    assert on_device.is_cuda
    torch.testing.assert_close(on_device.cpu(), codes, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(codec.decode(on_device, shape).cpu(), decoded, rtol=1e-4, atol=1e-4)


# For every parameter of the two methods, another value.
CHANGES: dict[type[Codec], dict[str, Any]] = {
    DeepFixCXCodec: {
        "levels": 3,
        "patch_size": 4,
        "wavelet": "db2",
        "features": ["max"],
        "zero_mean": True,
        "spatial_dims": 3,
        "in_channels": 1,
        "channel_multiplier": 2,
        "adaptive": "filters_2d",
        "seed": 7,
    },
    HeartSpotCodec: {
        "prior": "rline",
        "spatial_shape": [32, 48],
        "seed": 2,
        "line_count": 10,
        "zero_top_fraction": 0.5,
        "aggregate": "sum",
        "region": {"polygon": [[0, 0], [0, 1], [1, 1]]},
        "quadtree_threshold": 1.0,
        "quadtree_criterion": "std",
    },
}


@pytest.mark.parametrize("base", [DeepFixCXCodec(2, 3, in_channels=2), HeartSpotCodec("rhline+heart", (32, 32))])
def test_fingerprint_changes_with_every_parameter_and_the_version(base: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = CHANGES[type(base)]
    assert set(changes) == set(base.parameters_config())
    prints = {base.fingerprint()}
    for name, value in changes.items():
        config = {**base.config(), name: value}
        if name == "channel_multiplier":
            config["in_channels"] = 2
        if name == "spatial_dims":
            config["patch_size"] = 3
        prints.add(codec_from_config(config).fingerprint())
    monkeypatch.setattr(type(base), "version", 99)
    prints.add(base.fingerprint())
    assert len(prints) == len(changes) + 2


def test_fingerprint_is_the_same_in_every_process() -> None:
    # Were it to move, every store written so far would be refused.
    assert DeepFixCXCodec(4, 5).fingerprint() == DeepFixCXCodec(4, [5, 5], features=("l1",)).fingerprint()
    assert FEATURES == ("l1", "sum", "max", "min", "median", "l2", "sum_pos", "sum_neg")
    assert DeepFixCXCodec(4, 5).fingerprint()[:16] == "f2ae9ed79b56ee46"


def test_bad_configs_are_named() -> None:
    with pytest.raises(ValueError, match=r"codec must be one of \['constant', 'deepfixcx', .*; got 'jpeg'"):
        codec_from_config({"codec": "jpeg"})
    with pytest.raises(ValueError, match=r"codec 'deepfixcx' is at version 1, the configuration at version 2"):
        codec_from_config({**DeepFixCXCodec(1, 1).config(), "version": 2})

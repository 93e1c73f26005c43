"""The fused encoder against the torch path, which the reference and the published values hold."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from monai_deepfixcx.codecs import FEATURES, DeepFixCXCodec, kernels
from monai_deepfixcx.codecs.kernels.haar import _reach_all_patches
from tests import reference


def images_of(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.from_numpy(reference.golden_image(seed, shape))


def by_torch(codec: DeepFixCXCodec, images: Tensor) -> Tensor:
    """The codes on the path that carries gradients."""
    floating = images if images.is_floating_point() else images.float()
    return codec.encode(floating.clone().requires_grad_()).detach()


@settings(deadline=None, max_examples=80)
@given(
    levels=st.integers(1, 5),
    grid=st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)),
    features=st.sets(st.sampled_from(FEATURES), min_size=1),
    shape=st.tuples(st.integers(1, 20), st.integers(1, 70), st.integers(1, 70)),
    spatial_dims=st.sampled_from([2, 3]),
    zero_mean=st.booleans(),
    seed=st.integers(0, 999),
)
def test_equals_the_torch_path(
    levels: int,
    grid: tuple[int, ...],
    features: set[Any],
    shape: tuple[int, ...],
    spatial_dims: int,
    zero_mean: bool,
    seed: int,
) -> None:
    if spatial_dims == 3:
        levels, shape = min(levels, 3), (shape[0], *(1 + n % 24 for n in shape[1:]))
    grid, shape = grid[-spatial_dims:], shape[-spatial_dims:]
    if any(-(-n // 2**levels) < p for n, p in zip(shape, grid, strict=True)):
        levels, grid = 1, (1,) * spatial_dims
    codec = DeepFixCXCodec(levels, grid, features=sorted(features), zero_mean=zero_mean, spatial_dims=spatial_dims)
    images = images_of((2, 2, *shape), seed).double() - 0.2
    torch.testing.assert_close(codec.encode(images), by_torch(codec, images), rtol=1e-9, atol=2e-5)


@pytest.mark.parametrize("shape", [(2, 2, 60, 70), (2, 1, 9, 20, 31)])
def test_the_codec_takes_it_in_two_and_three_dimensions(shape: tuple[int, ...]) -> None:
    codec, images = DeepFixCXCodec(2, 3, spatial_dims=len(shape) - 2), images_of(shape)
    assert torch.equal(codec.encode(images), kernels.encode_haar(images, 2, codec.patch_size, codec.features))


@given(size=st.integers(1, 200), levels=st.integers(1, 4), patches=st.integers(1, 30))
def test_memory_that_is_not_written_is_zeroed_first(size: int, levels: int, patches: int) -> None:
    band = -(-size // 2**levels)
    patch = -(-band // patches)
    before = (patches * patch - band) // 2
    reached = {(before + i) // patch for i in range(band)}
    assert _reach_all_patches((size,), levels, (patches,)) is (reached == set(range(patches)))


# Rows of 128 pixels are read where they are, those of 45 are copied, as are the last of 65.
@pytest.mark.parametrize("width", [128, 45])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.float32, torch.float64])
def test_reads_every_type_of_pixel(dtype: torch.dtype, width: int) -> None:
    images = (images_of((3, 1, 65, width)) * 200).to(dtype)
    codec = DeepFixCXCodec(3, 4, features=FEATURES)
    codes = codec.encode(images)
    assert codes.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(codes, by_torch(codec, images), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("width", [128, 129])
@pytest.mark.parametrize("levels", range(1, 8))
def test_eight_bits_give_the_bits_of_floating_point(levels: int, width: int) -> None:
    """They are added in 16 bits as long as nothing overflows, whatever the pixels."""
    images = torch.from_numpy(np.random.default_rng(0).choice([0, 255], (2, 1, 250, width))).byte()
    images[0] = 255
    for features in (FEATURES, FEATURES[:1]):  # l1 alone is added up as it arises
        codec = DeepFixCXCodec(levels, 1, features=features)
        assert torch.equal(codec.encode(images), codec.encode(images.float()))


@pytest.mark.parametrize("levels", range(1, 5))
def test_eight_bits_give_the_bits_of_floating_point_in_volumes(levels: int) -> None:
    images = torch.from_numpy(np.random.default_rng(0).choice([0, 255], (2, 1, 33, 32, 29))).byte()
    images[0] = 255
    for features in (FEATURES, FEATURES[:1]):
        codec = DeepFixCXCodec(levels, 1, features=features, spatial_dims=3)
        assert torch.equal(codec.encode(images), codec.encode(images.float()))


@pytest.mark.parametrize("shape", [(7, 3, 200, 190), (7, 3, 200, 192), (3, 2, 40, 60, 57)])
def test_bits_depend_on_neither_batch_nor_threads_nor_memory_layout(shape: tuple[int, ...]) -> None:
    codec, images = DeepFixCXCodec(3, 5, features=FEATURES, spatial_dims=len(shape) - 2), images_of(shape)
    codes = codec.encode(images)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            assert torch.equal(codec.encode(images), codes)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.cat([codec.encode(image[None]) for image in images]), codes)
    assert torch.equal(codec.encode(images.transpose(0, 2).contiguous().transpose(0, 2)), codes)


def test_scaling_by_a_power_of_two_is_exact() -> None:
    images = images_of((2, 1, 64, 64))
    codec = DeepFixCXCodec(3, 3)
    assert torch.equal(codec.encode(images * 8), codec.encode(images) * 8)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_what_is_recorded_or_traced_takes_the_torch_path() -> None:
    codec, images = DeepFixCXCodec(2, 3), images_of((2, 1, 32, 32))
    assert kernels.takes(images)
    assert not kernels.takes(images.half())
    assert not kernels.takes(images[:0])
    assert codec.encode(images[:0]).shape == (0, 1, 144)
    with torch.no_grad():
        assert kernels.takes(images.clone().requires_grad_())
    assert codec.encode(images.clone().requires_grad_()).requires_grad
    per_image = torch.func.vmap(lambda image: codec.encode(image[None])[0])(images)
    torch.testing.assert_close(per_image, codec.encode(images))
    jacobian = torch.func.jacrev(lambda image: codec.encode(image).sum())(images)
    assert bool(jacobian.any())
    exported = torch.export.export(codec, (images,)).module()
    torch.testing.assert_close(exported(images), codec(images), rtol=1e-4, atol=1e-5)
    traced = torch.jit.trace(codec, images)
    torch.testing.assert_close(traced(images), codec(images), rtol=1e-4, atol=1e-5)


def test_codes_share_no_memory_with_the_images() -> None:
    images = images_of((1, 1, 8, 8))
    codes = DeepFixCXCodec(1, 4, features=["sum"]).encode(images)
    before = codes.clone()
    images.zero_()
    assert torch.equal(codes, before)
    assert np.shares_memory(images.numpy(), codes.numpy()) is False


def test_a_second_process_does_not_compile_again() -> None:
    DeepFixCXCodec(1, 1).encode(images_of((1, 1, 8, 8)))
    script = """
import torch
from monai_deepfixcx.codecs import DeepFixCXCodec
from monai_deepfixcx.codecs.kernels import haar_loops
DeepFixCXCodec(1, 1).encode(torch.rand(1, 1, 8, 8))
stats = haar_loops.encode_volumes.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["1", "0"]

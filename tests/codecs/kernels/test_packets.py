"""The fused encoder of every wavelet, in 2-D and 3-D, against the torch path."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from monai_deepfixcx.codecs import FEATURES, DeepFixCXCodec, kernels
from tests import reference
from tests.codecs.kernels.test_haar import by_torch, images_of

WAVELETS = ["db1", "db2", "coif1", "coif2", "bior1.3", "rbio3.1", "sym5", "dmey"]


@settings(deadline=None, max_examples=40)
@given(
    wavelet=st.sampled_from(WAVELETS),
    levels=st.integers(1, 4),
    grid=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
    features=st.sets(st.sampled_from(FEATURES), min_size=1),
    shape=st.tuples(st.integers(1, 20), st.integers(1, 150), st.integers(1, 150)),
    spatial_dims=st.sampled_from([2, 3]),
    seed=st.integers(0, 999),
)
def test_equals_the_torch_path(
    wavelet: str,
    levels: int,
    grid: tuple[int, ...],
    features: set[Any],
    shape: tuple[int, ...],
    spatial_dims: int,
    seed: int,
) -> None:
    if spatial_dims == 3:
        levels, shape = min(levels, 2), (shape[0], *(1 + n % 24 for n in shape[1:]))
    grid, shape = grid[-spatial_dims:], shape[-spatial_dims:]
    if any(-(-n // 2**levels) < p for n, p in zip(shape, grid, strict=True)):
        levels, grid = 1, (1,) * spatial_dims
    codec = DeepFixCXCodec(levels, grid, wavelet, features=sorted(features), spatial_dims=spatial_dims)
    images = images_of((1, 2, *shape), seed).double() - 0.2
    codes = kernels.encode_packets(images, codec.analysis.taps, levels, grid, codec.features)
    # sum_pos and sum_neg drop what lies within 1e-6 of zero: rounding decides on which side a coefficient falls.
    torch.testing.assert_close(codes, by_torch(codec, images), rtol=1e-9, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_float32_codes_are_close_to_the_reference(dtype: torch.dtype) -> None:
    images = (images_of((2, 1, 40, 51)) * 200).to(dtype)
    codec = DeepFixCXCodec(3, (4, 3), "coif2")
    expected = reference.over_channels(lambda x: reference.encode(x, 3, (4, 3), "coif2"), images.double().numpy())
    codes = codec.encode(images)
    assert codes.dtype == torch.float32
    torch.testing.assert_close(codes.double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("shape", [(7, 2, 200, 151), (3, 2, 30, 60, 57)])
def test_bits_depend_on_neither_batch_nor_threads(shape: tuple[int, ...]) -> None:
    codec = DeepFixCXCodec(2, 3, "coif1", features=FEATURES, spatial_dims=len(shape) - 2)
    images = images_of(shape)
    codes = codec.encode(images)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            assert torch.equal(codec.encode(images), codes)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.cat([codec.encode(image[None]) for image in images]), codes)


def test_the_fused_encoder_is_taken_unless_gradients_are_recorded() -> None:
    def encoders_agree(codec: DeepFixCXCodec, images: Tensor) -> bool:
        return torch.equal(
            codec.encode(images),
            kernels.encode_packets(images, codec.analysis.taps, 2, codec.patch_size, codec.features),
        )

    images = images_of((2, 1, 40, 36))
    assert encoders_agree(DeepFixCXCodec(2, 3, "coif1"), images)
    assert encoders_agree(DeepFixCXCodec(2, 3, "coif1", spatial_dims=3), images_of((2, 1, 16, 12, 20)))
    assert not encoders_agree(DeepFixCXCodec(2, 3, "coif1", adaptive="filters_2d"), images)
    assert DeepFixCXCodec(2, 3, "coif1").encode(images.clone().requires_grad_()).requires_grad

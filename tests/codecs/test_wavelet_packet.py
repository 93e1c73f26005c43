"""The packet transform against the slow reference and against what an orthogonal wavelet guarantees."""

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from monai_deepfixcx.codecs import InverseWaveletPacket, WaveletPacket
from monai_deepfixcx.codecs import wavelet_packet as module
from tests import reference

WAVELETS = pywt.wavelist(kind="discrete")
ORTHOGONAL = [name for name in WAVELETS if pywt.Wavelet(name).orthogonal]
Shape = tuple[int, ...]


def images_of(shape: Shape, seed: int = 0) -> Tensor:
    return torch.from_numpy(reference.golden_image(seed, shape)).double()


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_every_discrete_wavelet_equals_the_reference(wavelet: str) -> None:
    images = images_of((1, 2, 21, 24))
    subbands = WaveletPacket(wavelet)(images, levels=2)
    for channel in range(2):
        expected = reference.packet(images[0, channel].numpy(), wavelet, 2)
        np.testing.assert_allclose(subbands[0, channel], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("wavelet", ["db1", "db3", "coif1", "bior2.2", "rbio3.1"])
@pytest.mark.parametrize(("shape", "levels"), [((19, 32), 3), ((9, 12, 10), 2)])
def test_transform_and_inverse_equal_the_reference(wavelet: str, shape: Shape, levels: int) -> None:
    images = images_of((1, 1, *shape))
    subbands = WaveletPacket(wavelet, len(shape))(images, levels)
    expected = reference.packet(images[0, 0].numpy(), wavelet, levels)
    np.testing.assert_allclose(subbands[0, 0], expected, rtol=1e-9, atol=1e-9)
    back = InverseWaveletPacket(wavelet, len(shape))(subbands, levels)
    np.testing.assert_allclose(back[0, 0], reference.inverse_packet(expected, wavelet, levels), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("longest", [1, 20])
@pytest.mark.parametrize("shape", [(33, 70), (17, 40, 22)])
def test_long_axes_by_convolution_equal_one_matrix_product(
    longest: int, shape: Shape, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = images_of((2, 2, *shape))
    split, join = WaveletPacket("coif1", len(shape)), InverseWaveletPacket("coif1", len(shape))
    subbands = split(images, 3)
    back = join(subbands, 3)
    monkeypatch.setattr(module, "_LONGEST_PRODUCT", longest)
    torch.testing.assert_close(split(images, 3), subbands)
    torch.testing.assert_close(join(subbands, 3), back)


@settings(deadline=None, max_examples=40)
@given(
    wavelet=st.sampled_from(ORTHOGONAL),
    levels=st.integers(1, 4),
    blocks=st.lists(st.integers(1, 5), min_size=2, max_size=3),
    seed=st.integers(0, 2**16),
)
def test_orthogonal_wavelets_invert_away_from_the_border(
    wavelet: str, levels: int, blocks: list[int], seed: int
) -> None:
    length = pywt.Wavelet(wavelet).dec_len
    margin = (length // 2 - 1) * (2**levels - 1)
    shape = [2**levels * n for n in blocks]
    if len(shape) == 3 and (levels > 2 or length > 12):
        shape = shape[:2]
    if min(shape) <= 2 * margin:
        shape = [2**levels * -(-(2 * margin + 4) // 2**levels)] * 2
    if max(shape) > 400:
        return
    images = images_of((1, 1, *shape), seed)
    back = InverseWaveletPacket(wavelet, len(shape))(WaveletPacket(wavelet, len(shape))(images, levels), levels)
    inner = (slice(None), slice(None), *(slice(margin, n - margin) for n in shape))
    assert back.shape == images.shape
    # dmey's published taps are orthogonal to three digits only.
    torch.testing.assert_close(back[inner], images[inner], rtol=0, atol=2e-2 if wavelet == "dmey" else 1e-6)


@settings(deadline=None, max_examples=40)
@given(wavelet=st.sampled_from(ORTHOGONAL), levels=st.integers(1, 3), seed=st.integers(0, 999))
def test_orthogonal_wavelets_keep_the_energy_of_what_lies_away_from_the_border(
    wavelet: str, levels: int, seed: int
) -> None:
    margin = pywt.Wavelet(wavelet).dec_len * 2**levels
    size = 2**levels * -(-(2 * margin + 10) // 2**levels)
    if size > 400:
        return
    images = torch.zeros(1, 1, size, size, dtype=torch.float64)
    images[:, :, margin : margin + 10, margin : margin + 10] = images_of((1, 1, 10, 10), seed)
    subbands = WaveletPacket(wavelet)(images, levels)
    rtol = 2e-2 if wavelet == "dmey" else 1e-6
    torch.testing.assert_close(subbands.square().sum(), images.square().sum(), rtol=rtol, atol=0)


@settings(deadline=None, max_examples=30)
@given(levels=st.integers(1, 5), blocks=st.tuples(st.integers(1, 4), st.integers(1, 4)), seed=st.integers(0, 999))
def test_db1_keeps_energy_and_inverts_exactly(levels: int, blocks: tuple[int, int], seed: int) -> None:
    images = images_of((2, 1, blocks[0] * 2**levels, blocks[1] * 2**levels), seed)
    subbands = WaveletPacket("db1")(images, levels)
    torch.testing.assert_close(subbands.square().sum((1, 2, 3, 4)), images.square().sum((1, 2, 3)))
    torch.testing.assert_close(InverseWaveletPacket("db1")(subbands, levels), images)


@pytest.mark.parametrize("adaptive", ["filters_1d", "filters_2d"])
@pytest.mark.parametrize("shape", [(20, 23), (9, 12, 10)])
def test_learnable_filters_start_at_the_wavelet_and_learn(adaptive: module.Adaptive, shape: Shape) -> None:
    images = images_of((1, 2, *shape))
    fixed = WaveletPacket("db2", len(shape))(images, 2)
    split = WaveletPacket("db2", len(shape), adaptive).double()
    torch.testing.assert_close(split(images, 2), fixed, rtol=1e-5, atol=1e-5)
    split(images, 2).square().sum().backward()
    (filters,) = split.parameters()
    assert filters.shape == ((2, 4) if adaptive == "filters_1d" else (2 ** len(shape), *[4] * len(shape)))
    assert filters.grad is not None
    assert bool((filters.grad != 0).all())


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"wavelet must be a discrete PyWavelets wavelet.*'morl'"):
        WaveletPacket("morl")
    with pytest.raises(ValueError, match=r"spatial_dims must be 2 or 3; got 1"):
        WaveletPacket("db1", 1)
    with pytest.raises(ValueError, match=r'adaptive must be "none", .*; got \'yes\''):
        WaveletPacket("db1", 2, "yes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"subbands must have 16 subbands on axis 2 at levels=2; got 4"):
        InverseWaveletPacket("db1")(torch.zeros(1, 1, 4, 8, 8), levels=2)

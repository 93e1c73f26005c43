"""The similarities against scikit-image, MONAI and the definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics.regression import compute_ms_ssim
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from monai_deepfixcx.metrics.reconstruction import ms_ssim, ms_ssim_scales, mse, psnr, ssim
from monai_deepfixcx.metrics.reconstruction.similarity import ssim_and_ms_ssim

SHAPES = [(3, 1, 40, 33), (2, 3, 16, 11), (2, 1, 14, 12, 20)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def pair(shape: tuple[int, ...], seed: int = 0, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(shape, generator=generator)
    return (images + noise * torch.randn(shape, generator=generator)).clamp(0, 1), images


@every_shape
def test_mse_and_psnr_are_scikit_images(shape: tuple[int, ...]) -> None:
    output, images = pair(shape)
    for k, (a, b) in enumerate(zip(output.double().numpy(), images.double().numpy(), strict=True)):
        assert mse(output, images)[k].item() == pytest.approx(mean_squared_error(a, b))
        assert psnr(output, images)[k].item() == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1))  # type: ignore[no-untyped-call]


@every_shape
def test_ssim_is_scikit_images(shape: tuple[int, ...]) -> None:
    output, images = pair(shape)
    options: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
    for k, (a, b) in enumerate(zip(output.double().numpy(), images.double().numpy(), strict=True)):
        channels = zip(a, b, strict=True)
        expected = np.mean([structural_similarity(p, q, **options) for p, q in channels])  # type: ignore[no-untyped-call]
        assert ssim(output, images)[k].item() == pytest.approx(expected, abs=1e-5)


def test_ms_ssim_is_monais() -> None:
    output, images = pair((2, 1, 180, 176))
    torch.testing.assert_close(
        ms_ssim(output, images), compute_ms_ssim(output, images, 2)[:, 0].double(), atol=1e-5, rtol=0
    )


def test_ms_ssim_of_smaller_images_scales_the_weights_of_the_scales_that_fit() -> None:
    output, images = pair((3, 1, 64, 50))
    weights = np.array([0.0448, 0.2856, 0.3001])
    expected = compute_ms_ssim(output, images, 2, weights=list(weights / weights.sum()))[:, 0].double()
    torch.testing.assert_close(ms_ssim(output, images), expected, atol=1e-5, rtol=0)
    assert [ms_ssim_scales((side, 400)) for side in (11, 21, 22, 43, 44, 87, 88, 175, 176)] == [
        1,
        1,
        2,
        2,
        3,
        3,
        4,
        4,
        5,
    ]


def test_one_scale_is_ssim_without_negative_values() -> None:
    output, images = pair((4, 1, 16, 16))
    torch.testing.assert_close(ms_ssim(output, images), ssim(output, images).clamp(min=0))
    assert (ms_ssim(1 - images, images) == 0).all()
    assert (ssim(1 - images, images) < 0).all()


def test_both_at_once_are_each() -> None:
    output, images = pair((3, 2, 48, 50))
    fine, scales = ssim_and_ms_ssim(output, images)
    assert torch.equal(fine, ssim(output, images))
    assert torch.equal(scales, ms_ssim(output, images))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), noise=st.floats(0, 0.5), channels=st.integers(1, 2))
def test_invariants(seed: int, noise: float, channels: int) -> None:
    output, images = pair((3, channels, 13, 17), seed, noise)
    for metric in (mse, psnr, ssim, ms_ssim):
        values = metric(output, images)
        torch.testing.assert_close(values, metric(images, output), atol=1e-5, rtol=1e-5)  # symmetric
        alone = torch.cat([metric(a[None], b[None]) for a, b in zip(output, images, strict=True)])
        torch.testing.assert_close(values, alone)
        turned = metric(output.transpose(2, 3), images.transpose(2, 3))
        torch.testing.assert_close(values, turned, atol=1e-5, rtol=1e-5)
    best = [float(metric(images, images)[0]) for metric in (mse, psnr, ssim, ms_ssim)]
    assert best == pytest.approx([0, 100, 1, 1])


def test_many_images_are_scored_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    output, images = pair((9, 1, 16, 16))
    whole = ssim_and_ms_ssim(output, images)
    monkeypatch.setattr("monai_deepfixcx.metrics.reconstruction.similarity._PIXELS_AT_ONCE", 600)
    for expected, found in zip(whole, ssim_and_ms_ssim(output, images), strict=True):
        torch.testing.assert_close(found, expected)


def test_psnr_is_bounded() -> None:
    image = torch.rand(1, 1, 12, 12)
    assert psnr(image, image).item() == 100
    assert psnr(image + 1e-2, image).item() == pytest.approx(40, abs=0.01)
    assert math.isclose(psnr(image + 1, image).item(), 0, abs_tol=1e-5)


def test_errors_say_what_was_expected() -> None:
    image = torch.rand(2, 1, 16, 16)
    for metric in (mse, psnr, ssim, ms_ssim, ssim_and_ms_ssim):
        with pytest.raises(ValueError, match=r"output and images must both be \[N, C, H, W\] or \[N, C, D, H, W\]"):
            metric(image, image[:1])
        with pytest.raises(ValueError, match="with at least one image"):
            metric(image[:0], image[:0])
        with pytest.raises(ValueError, match="output and images must both be"):
            metric(image[0], image[0])
    for metric in (ssim, ms_ssim):
        with pytest.raises(ValueError, match="at least 11 pixels along every axis, SSIM's window; got 16x10"):
            metric(image[..., :10], image[..., :10])
    with pytest.raises(ValueError, match="at least 11 pixels along every axis, SSIM's window; got 10x16"):
        ms_ssim_scales((10, 16))

"""Data set statistics against NumPy's two-pass ones, and what the four normalizations do with them."""

import copy

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from torch import Tensor

from monai_deepfixcx.networks import CodeNormalization, CodeStatistics
from monai_deepfixcx.networks.normalization import Normalization


def some_codes(count: int = 37, channels: int = 2, length: int = 5, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(0.1, 3, length, dtype=torch.float64)
    return torch.randn(count, channels, length, generator=generator, dtype=torch.float64) * spread + spread.square()


@pytest.mark.parametrize("batch_size", [1, 7, 37])
def test_one_pass_equals_two_passes(batch_size: int) -> None:
    codes, statistics = some_codes(), CodeStatistics()
    for batch in codes.split(batch_size):
        statistics.update(batch)
    assert statistics.count == len(codes)
    np.testing.assert_allclose(statistics.mean.numpy(), codes.numpy().mean(0), rtol=1e-13)
    np.testing.assert_allclose(statistics.variance.numpy(), codes.numpy().var(0), rtol=1e-12)


def test_a_small_spread_beside_a_large_mean_survives() -> None:
    """Where mean(x^2) - mean(x)^2 in float64 has no correct digit left."""
    codes, statistics = some_codes(count=1000) + 1e9, CodeStatistics()
    for batch in codes.split(64):
        statistics.update(batch)
    expected = codes.numpy().var(0)
    np.testing.assert_allclose(statistics.variance.numpy(), expected, rtol=1e-5)
    naive = np.square(codes.numpy()).mean(0) - codes.numpy().mean(0) ** 2
    assert (np.abs(naive - expected) > expected).any()


def test_float32_codes_are_summed_in_float64() -> None:
    codes, statistics = some_codes(count=1000).float() + 1000, CodeStatistics()
    for batch in codes.split(10):
        statistics.update(batch)
    assert statistics.mean.dtype == statistics.variance.dtype == torch.float64
    np.testing.assert_allclose(statistics.mean.numpy(), codes.double().numpy().mean(0), rtol=1e-14)


def test_an_empty_batch_changes_nothing() -> None:
    codes, statistics = some_codes(), CodeStatistics()
    for batch in (codes[:0], codes, codes[:0]):
        statistics.update(batch)
    np.testing.assert_allclose(statistics.variance.numpy(), codes.numpy().var(0), rtol=1e-12)


def test_whiten_and_0mean_against_numpy() -> None:
    codes = some_codes()
    new = some_codes(seed=1)
    mean, std = codes.numpy().mean(0), codes.numpy().std(0)
    expected = {"whiten": (new.numpy() - mean) / std, "0mean": new.numpy() - mean}
    methods: tuple[Normalization, ...] = ("whiten", "0mean")
    for method in methods:
        normalization = CodeNormalization(2, 5, method)
        normalization.fit(codes.split(10))
        np.testing.assert_allclose(normalization(new).numpy(), expected[method], rtol=1e-10)
        assert normalization.samples == len(codes)
        float32 = normalization(new.float())
        assert float32.dtype == torch.float32
        np.testing.assert_allclose(float32.numpy(), expected[method], rtol=1e-4, atol=1e-5)


def test_whitened_training_codes_have_mean_0_and_variance_1() -> None:
    codes = some_codes()
    normalization = CodeNormalization(2, 5, "whiten")
    normalization.fit([codes])
    white = normalization(codes).numpy()
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(white.var(0), 1, rtol=1e-12)


def test_a_value_that_never_varies_is_only_centred() -> None:
    codes = some_codes()
    codes[:, 0, 1] = 1 / 3
    codes[:, 1, 2] = 0
    normalization = CodeNormalization(2, 5, "whiten")
    normalization.fit(codes.split(10))
    assert normalization.scale[0, 1] == normalization.scale[1, 2] == 1
    assert normalization(codes)[:, 0, 1].abs().max() < 1e-12
    assert normalization(codes).isfinite().all()


def test_batchnorm_pools_batch_and_channels() -> None:
    codes = some_codes()
    normalization = CodeNormalization(2, 5, "batchnorm").double()
    rows = codes.numpy().reshape(-1, 5)
    expected = (codes.numpy() - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
    np.testing.assert_allclose(normalization(codes).detach().numpy(), expected, rtol=1e-9)
    np.testing.assert_allclose(
        normalization.get_buffer("batchnorm.running_mean").numpy(), rows.mean(0) * 0.1, rtol=1e-9
    )


def test_none_leaves_codes_alone_and_needs_no_data() -> None:
    codes = some_codes()
    normalization = CodeNormalization(2, 5)
    normalization.fit([])
    assert normalization(codes) is codes
    assert not list(normalization.state_dict())


def test_statistics_travel_in_the_checkpoint() -> None:
    codes = some_codes()
    fitted, fresh = CodeNormalization(2, 5, "whiten"), CodeNormalization(2, 5, "whiten")
    unfitted = copy.deepcopy(fitted.state_dict())
    fitted.fit([codes])
    assert set(fitted.state_dict()) == {"mean", "scale", "samples"}
    fresh.load_state_dict(fitted.state_dict())
    assert torch.equal(fresh(codes), fitted(codes))
    assert torch.equal(copy.deepcopy(fresh)(codes), fitted(codes))
    fresh.load_state_dict(unfitted)
    with pytest.raises(RuntimeError, match="needs the data set's statistics"):
        fresh(codes)


def test_no_metadata_enters_the_statistics() -> None:
    codes = MetaTensor(some_codes(), meta={"filename_or_obj": "patient_7.dcm"})
    normalization = CodeNormalization(2, 5, "whiten")
    normalization.fit([codes])
    assert {type(buffer) for buffer in normalization.buffers()} == {torch.Tensor}


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match=r"normalization must be one of none, batchnorm, whiten, 0mean; got 'zca'"):
        CodeNormalization(1, 5, "zca")  # type: ignore[arg-type]
    whiten = CodeNormalization(1, 5, "whiten")
    with pytest.raises(RuntimeError, match=r"normalization='whiten' needs .* fit_normalization"):
        whiten(torch.rand(2, 1, 5))
    with pytest.raises(ValueError, match="batches must hold at least one code; got none"):
        whiten.fit([])
    with pytest.raises(ValueError, match=r"codes must have shape \[B, 1, 5\]; got \[B, 2, 5\]"):
        whiten.fit([some_codes()])
    with pytest.raises(ValueError, match=r"codes must have shape \[B, C, D\]; got \[4, 5\]"):
        whiten.fit([torch.rand(4, 5)])
    with pytest.raises(ValueError, match=r"codes must have shape \[B, 2, 5\], as before; got \[37, 1, 5\]"):
        whiten.fit([some_codes(), some_codes(channels=1)])
    with pytest.raises(ValueError, match="codes must be finite"):
        whiten.fit([torch.full((2, 1, 5), torch.nan)])

"""Attributions whose values are known: linear heads, squares, every order of four values; and completeness."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from monai_deepfixcx.attribution import PrivatizedAttribution, attribute
from monai_deepfixcx.codecs import Codec, DeepFixCXCodec, HeartSpotCodec, quantile_pool
from monai_deepfixcx.networks import CodeMLP, CodeStatistics, PrivatizedNetwork
from tests.attribution.heads import HEADS, linear

CASES: dict[str, tuple[Codec, tuple[int, ...], int]] = {
    "2d": (DeepFixCXCodec(2, (2, 3)), (16, 18), 2),
    "3d": (DeepFixCXCodec(1, 2, spatial_dims=3), (8, 7, 6), 1),
    "heartspot": (HeartSpotCodec("rhline+heart", (32, 30)), (32, 30), 1),
}
# Captum sums what leaving out costs in float32.
FLOAT32: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}
each_codec = pytest.mark.parametrize("case", CASES)


def setting(case: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A linear head, codes in float64, and the head's weights ``[L, C, D]``."""
    codec, shape, channels = CASES[case]
    codes = codec.encode(torch.rand(4, channels, *shape, generator=torch.Generator().manual_seed(1)).double())
    network = linear(codes.shape[-1], channels)
    return network, codes, network[1].weight.detach().unflatten(1, codes.shape[1:])  # type: ignore[index]


def explain(case: str, method: str, **arguments: Any) -> PrivatizedAttribution:
    network, codes, _ = setting(case)
    return attribute(network, codes, *CASES[case][:2], method, 1, **arguments)


@each_codec
@pytest.mark.parametrize("baseline", [None, "zero", "given"])
@pytest.mark.parametrize("method", ["integrated_gradients", "deeplift", "gradient_shap", "noise_tunnel"])
def test_of_a_linear_head_weight_times_difference(case: str, baseline: str | None, method: str) -> None:
    _, codes, weight = setting(case)
    given = torch.rand(codes.shape[1:], dtype=torch.float64) if baseline == "given" else baseline
    noise = {"noise": 0.0} if method == "noise_tunnel" else {}
    found = explain(case, method, baseline=given, **noise)
    torch.testing.assert_close(found.code, weight[1] * (codes - found.baseline))
    if baseline == "given":
        assert torch.equal(found.baseline, given.expand_as(codes))  # type: ignore[union-attr]


@each_codec
def test_of_a_linear_head_without_baseline(case: str) -> None:
    _, codes, weight = setting(case)
    torch.testing.assert_close(explain(case, "saliency").code, weight[[1]].abs().expand_as(codes))
    torch.testing.assert_close(explain(case, "saliency", absolute=False).code, weight[[1]].expand_as(codes))
    torch.testing.assert_close(explain(case, "smoothgrad").code, weight[[1]].expand_as(codes))
    torch.testing.assert_close(explain(case, "input_x_gradient").code, weight[1] * codes)


@each_codec
@pytest.mark.parametrize("over", ["patches", "subbands", "values"])
@pytest.mark.parametrize("method", ["feature_ablation", "shapley_sampling"])
def test_of_a_linear_head_left_out_parts_add_up(case: str, over: str, method: str) -> None:
    """A part's effect is its sum of weight x difference, whatever is left out together."""
    if case == "heartspot" and over == "subbands":
        pytest.skip("no subbands")
    _, codes, weight = setting(case)
    found = explain(case, method, over=over, **({"samples": 1} if method == "shapley_sampling" else {}))
    exact = explain(case, "integrated_gradients")
    torch.testing.assert_close(found.code.sum((1, 2)), (weight[1] * (codes - found.baseline)).sum((1, 2)), **FLOAT32)
    if over == "values":  # the channels of a value are left out together
        torch.testing.assert_close(found.code.sum(1), exact.code.sum(1), **FLOAT32)
    if over == "patches" and case != "heartspot":
        torch.testing.assert_close(found.spatial_bias, exact.spatial_bias, **FLOAT32)
    if over == "subbands":
        torch.testing.assert_close(found.subband_bias, exact.subband_bias, **FLOAT32)


def test_occlusion_by_a_slow_loop() -> None:
    codec, shape = DeepFixCXCodec(1, (3, 4)), (12, 16)
    codes = codec.encode(torch.rand(2, 1, *shape)).double()
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    found = attribute(network, codes, codec, shape, "occlusion", baseline="zero", window=2, stride=1)
    lost, windows = torch.zeros(2, 4, 3, 4).double(), torch.zeros(3, 4)
    with torch.no_grad():
        for row, column in itertools.product(range(2), range(3)):
            left = codes.reshape(2, 4, 3, 4).clone()
            left[:, :, row : row + 2, column : column + 2] = 0
            loss = network(codes) - network(left.reshape(2, 1, 48))
            lost[:, :, row : row + 2, column : column + 2] += loss.reshape(2, 1, 1, 1) / (4 * 2 * 2)
            windows[row : row + 2, column : column + 2] += 1
    torch.testing.assert_close(found.code, (lost / windows).reshape(2, 1, 48), **FLOAT32)


@each_codec
def test_occlusion_of_single_patches_is_ablation(case: str) -> None:
    if case == "heartspot":
        one, other = explain(case, "occlusion", window=1), explain(case, "feature_ablation", over="values")
    else:
        one, other = explain(case, "occlusion", window=1), explain(case, "feature_ablation", over="patches")
    torch.testing.assert_close(one.code, other.code, **FLOAT32)


class Product(nn.Module):
    """The product of a code's first two values plus its last."""

    def forward(self, codes: Tensor) -> Tensor:
        """One output for each code, without an axis of outputs."""
        return codes[:, 0, 0] * codes[:, 0, 1] + codes[:, 0, 3]


def test_shapley_values_by_every_order() -> None:
    codec, codes = DeepFixCXCodec(1, 1), torch.tensor([[[2.0, 3.0, 5.0, 7.0]], [[1.0, -1.0, 4.0, 0.5]]])
    exact = torch.zeros_like(codes)
    orders = list(itertools.permutations(range(4)))
    for order in orders:
        present = torch.zeros_like(codes)
        for value in order:
            before = Product()(present)
            present[..., value] = codes[..., value]
            exact[:, 0, value] += (Product()(present) - before) / len(orders)
    found = attribute(Product(), codes, codec, (2, 2), "shapley_sampling", baseline="zero", over="values", samples=400)
    torch.testing.assert_close(found.code, exact, atol=0.4, rtol=0)
    assert found.delta is not None
    torch.testing.assert_close(found.delta, torch.zeros(2), atol=1e-4, rtol=0)


class Squares(nn.Module):
    """Weighted sum of squares."""

    def forward(self, codes: Tensor) -> Tensor:
        """One output for each code."""
        return (codes.square() * torch.arange(codes.shape[-1])).sum((1, 2)).unsqueeze(1)


def test_integrated_gradients_of_squares() -> None:
    codec = DeepFixCXCodec(2, 3)
    codes = codec.encode(torch.rand(3, 1, 24, 24)).double()
    found = attribute(Squares(), codes, codec, (24, 24), target=0, steps=2)
    expected = torch.arange(144) * (codes.square() - found.baseline.square())
    torch.testing.assert_close(found.code, expected)


@pytest.mark.parametrize("name", ["mlp", "mlp_whitened", "mlp_batchnorm_features", "mlp_3d", "heartspot"])
@pytest.mark.parametrize(("method", "tolerance"), [("integrated_gradients", 2e-3), ("deeplift", 1e-4)])
def test_completeness_on_real_heads(name: str, method: str, tolerance: float) -> None:
    """Attributions add up to what the output gains from the baseline; CELU and SELU are within DeepLIFT's reach."""
    made = HEADS[name]()
    found = attribute(made.network, made.codes, made.codec, made.spatial_shape, method, 1)
    gain = found.output - found.baseline_output
    with torch.no_grad():
        network = made.network.eval()
        if isinstance(network, PrivatizedNetwork):
            network.inputs = "codes"
        torch.testing.assert_close(found.output, network(made.codes)[:, 1])
        torch.testing.assert_close(found.baseline_output, network(found.baseline)[:, 1])
    assert gain.abs().min() > 1e-3
    torch.testing.assert_close(found.code.sum((1, 2)), gain, rtol=tolerance, atol=tolerance)
    assert found.delta is not None
    torch.testing.assert_close(found.delta, found.code.sum((1, 2)) - gain)


def test_group_normalization_is_beyond_deeplift_and_delta_says_so() -> None:
    made = HEADS["heartspot_group_median"]()

    def largest_delta(method: str, **options: Any) -> float:
        found = attribute(
            made.network,
            made.codes,
            made.codec,
            made.spatial_shape,
            method,
            1,
            baseline=made.codes.mean(0),
            **options,
        )
        assert found.delta is not None
        return found.delta.abs().max().item()

    assert largest_delta("deeplift") > 0.1
    assert largest_delta("integrated_gradients", steps=32) > largest_delta("integrated_gradients", steps=512)
    assert largest_delta("integrated_gradients", steps=512) < 0.02


@pytest.mark.parametrize("case", ["2d", "3d"])
def test_the_image_is_the_codecs_own_decoding(case: str) -> None:
    codec, shape, _ = CASES[case]
    found = explain(case, "integrated_gradients")
    assert found.image is not None
    assert torch.equal(found.image, codec.decode(found.code, shape))


@pytest.mark.parametrize("prior", ["rhline+heart", "median+rhline+heart"])
def test_heartspot_scatters_and_pools(prior: str) -> None:
    shape = (65, 60)
    codec = HeartSpotCodec(prior, shape)
    codes = codec.encode(torch.rand(2, 1, *shape)).double()
    found = attribute(linear(codes.shape[-1]), codes, codec, shape, "integrated_gradients", 0)
    assert found.scattered is not None
    assert found.image is not None
    expected = torch.zeros(2, 1, *codec.mask.shape).double()
    expected[:, :, codec.mask] = found.code
    assert torch.equal(found.scattered, expected)
    torch.testing.assert_close(codec.decode(found.code, shape), _nearest(expected, shape))
    padded = np.pad(_nearest(expected, shape).numpy(), ((0, 0), (0, 0), (11, 12), (11, 12)), mode="reflect")
    for row, column in [(0, 0), (30, 30), (64, 59), (40, 17)]:
        window = padded[:, :, row : row + 24, column : column + 24].reshape(2, -1)
        np.testing.assert_allclose(found.image[:, 0, row, column], np.quantile(window, 0.9, axis=1), atol=1e-12)


def _nearest(images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Every pixel of the last row or column again where halving dropped one."""
    factor = 1 if images.shape[2] == shape[0] else 2
    rows, columns = (
        (torch.arange(n) // factor).clamp(max=size - 1) for n, size in zip(shape, images.shape[2:], strict=True)
    )
    return images[:, :, rows][:, :, :, columns]


def test_sums_are_spread_over_their_pixels() -> None:
    codec = HeartSpotCodec("hline", (32, 30), aggregate="sum")
    codes = codec.encode(torch.rand(2, 1, 32, 30)).double()
    found = attribute(linear(62), codes, codec, (32, 30), "integrated_gradients", 0)
    assert found.scattered is not None
    assert found.image is not None
    rows = codec.mask.any(1)
    for index in range(2):
        columns_share, rows_share = found.code[index, 0, :30], found.code[index, 0, 30:]
        for row, column in itertools.product(range(32), range(30)):
            expected = columns_share[column] / rows.sum() + rows_share[row] / 30 if rows[row] else 0.0
            assert found.scattered[index, 0, row, column].item() == pytest.approx(float(expected))
    torch.testing.assert_close(found.image, quantile_pool(found.scattered, 24, 1, 0.9, "same"))


def test_baselines() -> None:
    codec, shape = DeepFixCXCodec(2, 3, features=["l1", "max"]), (32, 32)
    codes = codec.encode(torch.rand(3, 2, *shape))
    network = CodeMLP(288, 2, normalization="0mean")
    network.fit_normalization([codes + 1])

    def baseline(name: Any) -> PrivatizedAttribution:
        return attribute(network, codes, codec, shape, "deeplift", baseline=name)

    lowest = baseline("lowest_subband")
    assert torch.equal(lowest.baseline[..., :18], codes[..., :18])
    assert not lowest.baseline[..., 18:].any()
    assert torch.equal(baseline(None).baseline, lowest.baseline)
    assert not baseline("zero").baseline.any()
    statistics = CodeStatistics()
    statistics.update(codes + 1)
    torch.testing.assert_close(baseline("mean").baseline, statistics.mean.float().expand_as(codes))
    one_each = torch.rand(codes.shape)
    assert torch.equal(baseline(one_each).baseline, one_each)
    names = [baseline(name).baseline_name for name in (None, "zero", "mean", one_each)]
    assert names == ["lowest_subband", "zero", "mean", "given"]


def test_parts_of_an_attribution() -> None:
    found = explain("2d", "integrated_gradients")
    for index in (slice(1, 3), [1, 2], torch.tensor([False, True, True, False])):
        part = found[index]
        assert len(part) == 2
        assert torch.equal(part.code, found.code[1:3])
        assert part.delta is not None
        assert found.delta is not None
        assert torch.equal(part.delta, found.delta[1:3])
        assert part.image is not None
        assert found.image is not None
        torch.testing.assert_close(part.image, found.image[1:3])
    with pytest.raises(TypeError, match="indexed by a slice or a list"):
        found[1]  # type: ignore[index]

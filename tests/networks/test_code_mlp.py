"""The MLP on codes, against NumPy, and the distributions that it starts from."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_deepfixcx.networks import CodeMLP, FeatureWeights
from monai_deepfixcx.networks.code_mlp import WeightVariant


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("plain", np.log([1, 2, 5])),
        ("softmax", np.array([1, 2, 5]) / 8),
        ("log_softmax", np.log(np.array([1, 2, 5]) / 8)),
    ],
)
def test_the_three_weight_variants(variant: WeightVariant, expected: np.ndarray) -> None:
    weights = FeatureWeights(3, variant).double()
    weights.load_state_dict({"weight": torch.log(torch.tensor([1.0, 2, 5], dtype=torch.float64))})
    np.testing.assert_allclose(weights.factors().detach().numpy(), expected, rtol=1e-12)
    codes = torch.rand(4, 2, 3, dtype=torch.float64)
    np.testing.assert_allclose(weights(codes).detach().numpy(), codes.numpy() * expected, rtol=1e-12)


@pytest.mark.parametrize("variant", ["plain", "softmax", "log_softmax"])
def test_the_penalty_is_the_mean_absolute_weight(variant: WeightVariant) -> None:
    head = CodeMLP(4, feature_weights=variant)
    head.feature_weights.load_state_dict({"weight": torch.tensor([1.0, -2.0, 0.0, 5.0])})
    assert head.weight_penalty().item() == 2
    head.weight_penalty().backward()
    assert torch.equal(head.feature_weights.weight.grad, torch.tensor([0.25, -0.25, 0.0, 0.25]))  # type: ignore[arg-type]


def test_weights_start_uniform() -> None:
    torch.manual_seed(0)
    weight = FeatureWeights(20_000).weight.detach().sort().values
    assert weight[0] >= 0
    assert weight[-1] < 1
    # Kolmogorov-Smirnov distance to U(0, 1); 1.63 / sqrt(n) is its 1 % point.
    assert (weight - torch.linspace(0, 1, 20_000)).abs().max() < 1.63 / math.sqrt(20_000)


def test_layers_start_kaiming_normal() -> None:
    torch.manual_seed(0)
    head = CodeMLP(code_length=500, in_channels=2, out_channels=800, width=900, depth=2)
    linears = [layer for layer in head.layers if isinstance(layer, torch.nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in linears] == [(900, 1000), (900, 900), (800, 900)]
    for layer in linears:
        assert abs(layer.weight.mean()) < 3e-3 / math.sqrt(layer.in_features)
        assert layer.weight.std().item() == pytest.approx(1 / math.sqrt(layer.in_features), rel=0.01)
        assert layer.bias.std().item() == pytest.approx(math.sqrt(2 / layer.out_features) / 10, rel=0.1)
        # Normal: fourth moment 3 sigma^4 (a uniform's is 1.8).
        assert (layer.weight.pow(4).mean() / layer.weight.var() ** 2).item() == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_logits_against_numpy(depth: int) -> None:
    head = CodeMLP(6, 2, 3, width=7, depth=depth, feature_weights="softmax", normalization="whiten").double()
    codes = torch.rand(9, 2, 6, dtype=torch.float64)
    head.fit_normalization(codes.split(4))
    weight = np.exp(head.feature_weights.weight.detach().numpy())
    x = (codes.numpy() - codes.numpy().mean(0)) / codes.numpy().std(0) * (weight / weight.sum())
    x = x.reshape(9, 12)
    linears = [layer for layer in head.layers if isinstance(layer, torch.nn.Linear)]
    assert len(linears) == depth + 1
    for layer in linears:
        x = x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        if layer is not linears[-1]:
            x = np.where(x > 0, x, np.expm1(x))
    np.testing.assert_allclose(head(codes).detach().numpy(), x, rtol=1e-10)


def test_a_checkpoint_on_disk_brings_the_statistics(tmp_path: Path) -> None:
    codes = torch.rand(9, 3, 6)
    trained = CodeMLP(6, 3, normalization="whiten", width=5)
    trained.fit_normalization([codes])
    torch.save(trained.state_dict(), tmp_path / "head.pt")
    loaded = CodeMLP(6, 3, normalization="whiten", width=5)
    loaded.load_state_dict(torch.load(tmp_path / "head.pt", weights_only=True))
    assert torch.equal(loaded(codes), trained(codes))


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match=r"feature_weights must be one of plain, softmax, log_softmax; got 'l1'"):
        CodeMLP(6, feature_weights="l1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="normalization must be one of"):
        CodeMLP(6, normalization="l1")  # type: ignore[arg-type]
    for name, value in (("code_length", 0), ("in_channels", 0), ("out_channels", 0), ("width", 0), ("depth", -1)):
        with pytest.raises(ValueError, match=f"{name} must be at least .; got {value}"):
            CodeMLP(**{"code_length": 6, name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"codes must have shape \[B, 2, 6\]; got \[4, 1, 6\]. Encode the images"):
        CodeMLP(6, in_channels=2)(torch.rand(4, 1, 6))
    with pytest.raises(ValueError, match=r"codes must have shape \[B, 2, 6\]; got \[4, 6\]"):
        CodeMLP(6, in_channels=2)(torch.rand(4, 6))

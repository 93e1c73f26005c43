"""HeartSpot's MLP, layer by layer, and its twin, which mixes no two samples."""

import pytest
import torch
from torch import nn

from monai_deepfixcx.networks import HeartSpotMLP


def test_the_published_layers() -> None:
    layers = list(HeartSpotMLP(code_length=40).layers)
    assert [type(layer) for layer in layers] == [
        nn.Linear,
        nn.BatchNorm1d,
        nn.SELU,
        nn.Linear,
        nn.BatchNorm1d,
        nn.SELU,
        nn.Linear,
    ]
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linears] == [(40, 3200), (3200, 300), (300, 1)]


def test_widths_replace_the_published_ones() -> None:
    linears = [layer for layer in HeartSpotMLP(40, widths=(16, 8, 4)).layers if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linears] == [(40, 16), (16, 8), (8, 4), (4, 1)]


def test_the_twin_differs_in_its_norms_only() -> None:
    twin = HeartSpotMLP(code_length=40, norm="group")
    norms = [layer for layer in twin.modules() if isinstance(layer, nn.GroupNorm)]
    assert [(norm.num_groups, norm.num_channels) for norm in norms] == [(32, 3200), (30, 300)]
    assert not [layer for layer in twin.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    published = dict(HeartSpotMLP(code_length=40).named_parameters())
    assert {name: p.shape for name, p in twin.named_parameters()} == {name: p.shape for name, p in published.items()}


def test_only_the_twin_sees_samples_one_by_one() -> None:
    codes = torch.rand(5, 3, 20, dtype=torch.float64)
    twin = HeartSpotMLP(20, in_channels=3, out_channels=2, norm="group").double().train()
    alone = torch.cat([twin(code.unsqueeze(0)) for code in codes])
    torch.testing.assert_close(twin(codes), alone)
    published = HeartSpotMLP(20, in_channels=3, out_channels=2).double().train()
    assert not torch.allclose(published(codes)[:2], published(codes[:2]))


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match='norm must be "batch" or "group"; got \'layer\''):
        HeartSpotMLP(20, norm="layer")  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match="code_length, in_channels and out_channels must be at least 1; got 20, 0 and 1"
    ):
        HeartSpotMLP(20, in_channels=0)
    with pytest.raises(ValueError, match=r"widths must name at least one hidden layer.*got \[16, 0\]"):
        HeartSpotMLP(20, widths=(16, 0))
    with pytest.raises(ValueError, match=r"widths must name at least one hidden layer.*got \[\]"):
        HeartSpotMLP(20, widths=())
    with pytest.raises(ValueError, match=r"codes must have shape \[B, 1, 20\]; got \[5, 3, 20\]"):
        HeartSpotMLP(20)(torch.rand(5, 3, 20))


def test_a_narrow_twin_still_sees_its_input() -> None:
    """With one channel a group, the normalization would give zeros whatever comes in."""
    network = HeartSpotMLP(20, widths=(16, 8), norm="group").eval()
    codes = torch.rand(2, 1, 20)
    assert not torch.allclose(network(codes)[0], network(codes)[1])

"""Per-sample gradients, as differentially private training takes them, equal those of a loop over single samples."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from monai_deepfixcx.networks import (
    CodeMLP,
    HeartSpotMLP,
    PrivatizedNetwork,
    ResNet9,
    VolumetricResNet18,
    privatized_heartspot_mlp,
    privatized_mlp,
)
from monai_deepfixcx.networks.code_mlp import WeightVariant

DEEPFIXCX = {"codec": "deepfixcx", "levels": 2, "patch_size": 3}


def whitening_mlp(variant: WeightVariant) -> nn.Module:
    network = CodeMLP(20, 2, 2, width=10, depth=2, feature_weights=variant, normalization="whiten")
    network.fit_normalization([torch.rand(8, 2, 20)])
    return network


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp-plain": (lambda: whitening_mlp("plain"), (2, 20)),
    "mlp-softmax": (lambda: whitening_mlp("softmax"), (2, 20)),
    "mlp-log_softmax": (lambda: whitening_mlp("log_softmax"), (2, 20)),
    "heartspot-twin": (lambda: HeartSpotMLP(20, 1, 2, norm="group"), (1, 20)),
    "resnet9": (lambda: ResNet9(1, 2, width=32), (1, 48, 40)),
    "resnet18-3d": (lambda: VolumetricResNet18(1, 2, width=32), (1, 24, 32, 24)),
    "deepfixcx+mlp": (lambda: privatized_mlp(DEEPFIXCX, (32, 32), 1, 2, width=10), (1, 32, 32)),
    "heartspot+twin": (
        lambda: privatized_heartspot_mlp(
            {"codec": "heartspot", "spatial_shape": [40, 40]}, (40, 40), 1, 2, norm="group"
        ),
        (1, 40, 40),
    ),
    "deepfixcx+resnet9": (
        lambda: PrivatizedNetwork(DEEPFIXCX, ResNet9(1, 2, width=32), (32, 32), feed="image"),
        (1, 32, 32),
    ),
}
each_network = pytest.mark.parametrize(("build", "shape"), NETWORKS.values(), ids=NETWORKS.keys())


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")


def a_batch(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    return build().double().train(), torch.rand(3, *shape, dtype=torch.float64), torch.rand(3, 2).round().double()


def looped(network: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    rows = []
    for sample, label in zip(x.split(1), y.split(1), strict=True):
        rows.append(torch.autograd.grad(loss_of(network(sample), label), list(network.parameters())))
    return {
        name: torch.stack(gradients)
        for (name, _), gradients in zip(network.named_parameters(), zip(*rows, strict=True), strict=True)
    }


def assert_same(gradients: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    torch.testing.assert_close(gradients, expected, rtol=1e-8, atol=1e-10)
    assert all(value.abs().amax() > 0 for value in expected.values())


@each_network
def test_torch_func(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    network, x, y = a_batch(build, shape)

    def one_loss(parameters: dict[str, Tensor], sample: Tensor, label: Tensor) -> Any:
        return loss_of(functional_call(network, parameters, (sample.unsqueeze(0),)), label.unsqueeze(0))

    parameters = {name: p.detach() for name, p in network.named_parameters()}
    assert_same(vmap(grad(one_loss), in_dims=(None, 0, 0))(parameters, x, y), looped(network, x, y))


@each_network
def test_opacus(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    opacus = pytest.importorskip("opacus", reason="opacus comes with the extra 'dp'")
    validators = pytest.importorskip("opacus.validators", reason="opacus comes with the extra 'dp'")
    network, x, y = a_batch(build, shape)
    assert validators.ModuleValidator.validate(network, strict=False) == []
    expected = looped(network, x, y)
    wrapped = opacus.GradSampleModule(network, loss_reduction="sum")
    loss_of(wrapped(x), y).backward()
    assert_same({name: vars(p)["grad_sample"] for name, p in network.named_parameters()}, expected)

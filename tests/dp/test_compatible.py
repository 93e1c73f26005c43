"""Networks become trainable under differential privacy: the clipped sum of every mode is that of a loop."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from monai.networks.blocks.squeeze_and_excitation import SEResNetBottleneck
from monai.networks.nets import DenseNet, DenseNet121, EfficientNetBN, ResNet, SEResNet50, resnet18
from torch import Tensor, nn

from monai_deepfixcx.dp import make_dp_compatible
from monai_deepfixcx.dp.clipping import ClippedGradients, GradSampleMode
from monai_deepfixcx.dp.compatible import pick_grad_sample_mode
from monai_deepfixcx.dp.sampling import Chunk
from monai_deepfixcx.networks import (
    CodeCNN,
    CodeMLP,
    HeartSpotMLP,
    PrivatizedNetwork,
    ResNet9,
    VolumetricResNet18,
    privatized_cnn,
    privatized_mlp,
)

pytest.importorskip("opacus", reason="opacus comes with the extra 'dp'")
Case = tuple[Callable[[], nn.Module], tuple[int, ...]]
CODEC = {"codec": "deepfixcx", "levels": 2, "patch_size": 3}
LEARNED = {**CODEC, "adaptive": "filters_1d"}


def narrow_resnet(spatial_dims: int) -> nn.Module:
    return ResNet("basic", [1, 1, 1, 1], [8, 8, 16, 16], spatial_dims, 1, conv1_t_size=3, num_classes=2)


def small_densenet() -> nn.Module:
    return DenseNet(2, 1, 2, init_features=16, growth_rate=8, block_config=(2, 2))


SMALL: dict[str, Case] = {
    "resnet": (lambda: narrow_resnet(2), (1, 16, 16)),
    "resnet-3d": (lambda: narrow_resnet(3), (1, 8, 8, 8)),
    "resnet-norm-group": (
        lambda: ResNet(
            "bottleneck", [1, 1, 1, 1], [8, 8, 8, 8], 2, 1, num_classes=2, norm=("group", {"num_groups": 4})
        ),
        (1, 16, 16),
    ),
    "densenet": (small_densenet, (1, 32, 32)),
    "squeeze-excite": (
        lambda: nn.Sequential(SEResNetBottleneck(2, 16, 4, 1, 4), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(16, 2)),
        (16, 4, 4),
    ),
    "mlp": (lambda: CodeMLP(20, 2, 2, width=10), (2, 20)),
    "mlp-batchnorm": (lambda: CodeMLP(20, 2, 2, width=10, normalization="batchnorm"), (2, 20)),
    "heartspot": (lambda: HeartSpotMLP(20, 1, 2, widths=(96, 40)), (1, 20)),
    "heartspot-group": (lambda: HeartSpotMLP(20, 1, 2, "group", widths=(96, 40)), (1, 20)),
    "resnet9": (lambda: ResNet9(1, 2, width=8), (1, 32, 32)),
    "volumetric": (lambda: VolumetricResNet18(1, 2, width=8), (1, 32, 32, 32)),
    "deepfixcx+mlp": (lambda: privatized_mlp(CODEC, (32, 32), 1, 2, width=10), (1, 32, 32)),
    "deepfixcx+resnet9": (
        lambda: PrivatizedNetwork(CODEC, ResNet9(1, 2, width=8), (32, 32), feed="image", min_size=32),
        (1, 32, 32),
    ),
    "learned+resnet9": (
        lambda: PrivatizedNetwork(LEARNED, ResNet9(1, 2, width=8), (32, 32), feed="image", min_size=32),
        (1, 32, 32),
    ),
    "reflecting": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect"),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 2),
        ),
        (1, 8, 8),
    ),
}
FULL: dict[str, Case] = {
    "DenseNet121": (lambda: DenseNet121(2, 1, 2), (1, 32, 32)),
    "ResNet18": (lambda: resnet18(spatial_dims=2, n_input_channels=1, num_classes=2), (1, 32, 32)),
    "ResNet18-3D": (
        lambda: resnet18(spatial_dims=3, n_input_channels=1, num_classes=2, conv1_t_stride=2),
        (1, 16, 16, 16),
    ),
    "EfficientNet-b0": (
        lambda: EfficientNetBN("efficientnet-b0", pretrained=False, in_channels=1, num_classes=2),
        (1, 32, 32),
    ),
    "SEResNet50": (lambda: SEResNet50(spatial_dims=2, in_channels=1, num_classes=2), (1, 32, 32)),
    "CodeCNN": (lambda: CodeCNN(CODEC, (32, 32), 1, 2), (1, 144)),
    "learned+ResNet18": (lambda: privatized_cnn(LEARNED, (32, 32), 1, 2, "resnet18"), (1, 32, 32)),
}
BEYOND_HOOKS = {"learned+resnet9", "reflecting", "learned+ResNet18"}


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, labels)


def without_chance(network: nn.Module) -> nn.Module:
    """In float64, and with neither dropout nor drop-connect, so that a second pass sees what the first saw."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "drop_connect_rate"):
            module.drop_connect_rate = 0.0  # type: ignore[assignment]
    return network.double().train()


def looped(network: nn.Module, x: Tensor, y: Tensor) -> list[list[Tensor]]:
    parameters = list(network.parameters())
    return [
        list(torch.autograd.grad(loss(network(sample), label), parameters))
        for sample, label in zip(x.split(1), y.split(1), strict=True)
    ]


def check_step(build: Callable[[], nn.Module], shape: tuple[int, ...], mode: GradSampleMode | None = None) -> None:
    """One step of SGD with next to no noise moves the weights by the mean of the clipped gradients of a loop."""
    torch.manual_seed(0)
    compatible = make_dp_compatible(build())
    network = without_chance(compatible.network)
    x, y = torch.rand(3, *shape, dtype=torch.float64), torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]).double()
    gradients = looped(network, x, y)
    norms = [torch.cat([g.flatten() for g in of_sample]).norm() for of_sample in gradients]
    bound = float(sorted(norms)[1])  # so that one sample is clipped and one is not
    factors = [min(1.0, bound / (float(norm) + 1e-6)) for norm in norms]
    expected = [sum(f * g for f, g in zip(factors, column, strict=True)) / 3 for column in zip(*gradients, strict=True)]

    before = [parameter.detach().clone() for parameter in network.parameters()]
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    step = ClippedGradients(
        network, optimizer, loss, mode or compatible.grad_sample_mode, 1e-13, bound, 3, True, torch.Generator()
    )
    value = step.step([Chunk((x, y), torch.arange(3), torch.ones(3, dtype=torch.long), False)], lambda data: data)
    moved = [old - new.detach() for old, new in zip(before, network.parameters(), strict=True)]
    torch.testing.assert_close(moved, expected, rtol=1e-5, atol=1e-9)
    assert all(change.abs().amax() > 0 for change in moved)
    assert value > 0


@pytest.mark.parametrize("name", SMALL)
def test_a_step_is_that_of_a_loop_over_single_samples(name: str) -> None:
    check_step(*SMALL[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_a_step_of_a_full_network_is_that_of_a_loop(name: str) -> None:
    check_step(*FULL[name])


@pytest.mark.parametrize("mode", ["ghost", "hooks", "functorch"])
@pytest.mark.parametrize("name", ["resnet", "mlp", "heartspot", "deepfixcx+mlp"])
def test_all_modes_give_the_same_step(name: str, mode: GradSampleMode) -> None:
    check_step(*SMALL[name], mode)


def test_the_rules_of_opacus_would_be_wrong_where_functorch_is_picked() -> None:
    with pytest.raises(AssertionError):
        check_step(*SMALL["reflecting"], "hooks")
    with pytest.raises(AttributeError):
        check_step(*SMALL["learned+resnet9"], "hooks")


@pytest.mark.parametrize("name", SMALL)
def test_the_mode_suits_the_network_and_the_unit(name: str) -> None:
    network = SMALL[name][0]()
    linear = name.startswith(("mlp", "heartspot", "deepfixcx+mlp"))
    expected = "functorch" if name in BEYOND_HOOKS else "ghost" if linear else "hooks"
    assert make_dp_compatible(network).grad_sample_mode == expected
    assert pick_grad_sample_mode(network, "patient") == ("functorch" if name in BEYOND_HOOKS else "hooks")


def test_weights_are_kept_under_their_names_and_the_given_network_is_left_alone() -> None:
    network = narrow_resnet(2)
    for value in network.parameters():
        nn.init.uniform_(value)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    compatible = make_dp_compatible(network)
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    kept = compatible.network.state_dict()
    assert set(before) - set(kept) == {name for name in before if "running" in name or "num_batches" in name}
    torch.testing.assert_close(kept, {name: before[name] for name in kept}, rtol=0, atol=0)
    assert [type(module) for module in compatible.network.modules()].count(nn.GroupNorm) == 12
    assert any("became group normalizations" in change for change in compatible.changes)


def test_a_network_that_needs_nothing_is_told_to_be_fine() -> None:
    network = CodeMLP(20)
    compatible = make_dp_compatible(network)
    assert compatible.changes == ()
    assert isinstance(compatible.network, CodeMLP)


def test_nothing_is_left_to_change_the_second_time() -> None:
    mended = make_dp_compatible(narrow_resnet(2)).network
    again = make_dp_compatible(mended)
    assert again.changes == ()
    x = torch.rand(4, 1, 16, 16)
    torch.testing.assert_close(again.network(x), mended(x))


def test_a_group_has_more_than_one_channel() -> None:
    # One value alone in its group would be normalized to 0, whatever it is.
    network: Any = make_dp_compatible(nn.Sequential(nn.Linear(4, 20), nn.BatchNorm1d(20))).network
    assert network[1].num_groups == 10
    assert network(torch.rand(1, 4)).abs().amax() > 0


class Aliased(nn.Module):
    """A block in which a tensor that changes in place has a second name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv(x)
        second = first
        second *= 2
        first.add_(1)
        second = F.relu(second, inplace=True)
        return first - second


def test_names_of_one_tensor_stay_names_of_one_tensor() -> None:
    block = Aliased()
    x = torch.randn(2, 1, 8, 8)
    compatible = make_dp_compatible(nn.Sequential(block, nn.Flatten(), nn.Linear(64, 2)))
    mended: Any = compatible.network
    assert compatible.changes == ("1 blocks add without changing a tensor in place, first: 0.",)
    torch.testing.assert_close(mended[0](x), block(x))
    check_step(lambda: nn.Sequential(Aliased(), nn.Conv2d(1, 1, 3), nn.Flatten(), nn.Linear(36, 2)), (1, 8, 8))


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x += 1
        return x


def test_a_block_that_cannot_be_traced_is_named() -> None:
    with pytest.raises(ValueError, match=r"network: 1 \(Branching\) changes a tensor in place.*Write x = x \+ y"):
        make_dp_compatible(nn.Sequential(nn.Linear(2, 2), Branching()))


def test_the_network_itself_may_be_what_changes() -> None:
    compatible = make_dp_compatible(nn.BatchNorm2d(4, eps=0.5))
    assert isinstance(compatible.network, nn.GroupNorm)
    assert compatible.network.eps == 0.5
    assert "first: the network itself" in compatible.changes[0]


@pytest.mark.parametrize("affine", [True, False])
def test_instance_normalization_loses_its_running_statistics_only(affine: bool) -> None:
    network: Any = nn.Sequential(nn.InstanceNorm2d(3, affine=affine, track_running_stats=True))
    holder: Any = make_dp_compatible(network).network
    mended = holder[0]
    assert isinstance(mended, nn.InstanceNorm2d)
    assert not mended.track_running_stats
    assert (mended.weight is not None) == affine

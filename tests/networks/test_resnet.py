"""The residual networks, against MONAI's with its batch normalization replaced."""

import pytest
import torch
from monai.networks.blocks.activation import Mish
from monai.networks.nets.resnet import ResNet, ResNetBlock
from torch import nn

from monai_deepfixcx.networks import PerSampleResNet, ResNet9, VolumetricResNet18


def monai_twin(spatial_dims: int, blocks: list[int], act: str, width: int) -> ResNet:
    """MONAI's ResNet, every BatchNorm replaced by GroupNorm(32), every activation by `act`."""
    planes = [width * 2**stage for stage in range(len(blocks))]
    network = ResNet(
        "basic", blocks, planes, spatial_dims, 2, conv1_t_stride=2, num_classes=3, act=act, bias_downsample=False
    )
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(module, name, nn.GroupNorm(32, child.num_features))
            elif isinstance(child, nn.ReLU):
                setattr(module, name, nn.Mish() if act == "mish" else nn.ReLU())
    return network


@pytest.mark.parametrize(
    ("ours", "twin", "shape"),
    [
        (lambda: ResNet9(2, 3, width=32), lambda: monai_twin(2, [1, 1, 1, 1], "mish", 32), (3, 2, 64, 48)),
        (
            lambda: VolumetricResNet18(2, 3, width=32),
            lambda: monai_twin(3, [2, 2, 2, 2], "relu", 32),
            (2, 2, 32, 40, 32),
        ),
    ],
    ids=["ResNet9", "VolumetricResNet18"],
)
def test_it_is_monais_resnet_with_group_normalization(ours, twin, shape) -> None:  # type: ignore[no-untyped-def]
    network, reference = ours().double(), twin().double()
    assert [p.shape for p in network.parameters()] == [p.shape for p in reference.parameters()]
    with torch.no_grad():
        for a, b in zip(network.parameters(), reference.parameters(), strict=True):
            b.copy_(a.normal_(std=0.1))
        images = torch.rand(shape, dtype=torch.float64)
        torch.testing.assert_close(network(images), reference(images), rtol=1e-12, atol=1e-12)


def test_resnet9_as_published() -> None:
    network = ResNet9(in_channels=3, out_channels=8)
    assert network(torch.rand(1, 3, 64, 64)).shape == (1, 8)
    norms = [module for module in network.modules() if isinstance(module, nn.GroupNorm)]
    assert {norm.num_groups for norm in norms} == {32}
    blocks = [block for block in network.blocks if isinstance(block, ResNetBlock)]
    assert [block.conv1.weight.shape[0] for block in blocks] == [64, 128, 256, 512]
    assert {type(block.act) for block in blocks} == {Mish}


@pytest.mark.parametrize("network", [ResNet9(1, 1, width=32), VolumetricResNet18(1, 1, width=32)])
def test_no_batchnorm_and_nothing_in_place(network: nn.Module) -> None:
    assert not [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert not [m for m in network.modules() if getattr(m, "inplace", False)]


def test_convolutions_start_kaiming_normal() -> None:
    torch.manual_seed(0)
    for module in ResNet9(1, 1).modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match="spatial_dims must be 2 or 3; got 1"):
        PerSampleResNet(1, 1, 1, [1])
    for blocks in ([], [1, 0]):
        with pytest.raises(ValueError, match="blocks must name at least one block for each stage"):
            PerSampleResNet(2, 1, 1, blocks)
    with pytest.raises(ValueError, match=r"images must have shape \[B, 3, H, W\]; got \[1, 1, 64, 64\]"):
        ResNet9(3, 1, width=32)(torch.rand(1, 1, 64, 64))
    with pytest.raises(ValueError, match=r"images must have shape \[B, 1, D, H, W\]; got \[1, 1, 64, 64\]"):
        VolumetricResNet18(1, 1, width=32)(torch.rand(1, 1, 64, 64))

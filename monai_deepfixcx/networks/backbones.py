"""MONAI's classification networks, untrained, with one signature."""

from monai.networks.nets.densenet import DenseNet121
from monai.networks.nets.efficientnet import EfficientNetBN
from monai.networks.nets.resnet import ResNet, ResNetBlock


def densenet_121(spatial_dims: int, in_channels: int, out_channels: int) -> DenseNet121:
    """MONAI's DenseNet121.

    >>> import torch
    >>> densenet_121(2, in_channels=1, out_channels=3).eval()(torch.rand(1, 1, 64, 64)).shape
    torch.Size([1, 3])
    """
    return DenseNet121(spatial_dims, in_channels, out_channels)


def resnet_18(spatial_dims: int, in_channels: int, out_channels: int) -> ResNet:
    """MONAI's ResNet18, its first convolution with the usual stride of 2 (MONAI's own default is 1).

    >>> import torch
    >>> resnet_18(2, in_channels=1, out_channels=3).eval()(torch.rand(1, 1, 64, 64)).shape
    torch.Size([1, 3])
    """
    return ResNet(
        ResNetBlock,
        layers=[2, 2, 2, 2],
        block_inplanes=[64, 128, 256, 512],
        spatial_dims=spatial_dims,
        n_input_channels=in_channels,
        conv1_t_stride=2,
        num_classes=out_channels,
        bias_downsample=False,
    )


def efficientnet_b0(spatial_dims: int, in_channels: int, out_channels: int) -> EfficientNetBN:
    """MONAI's EfficientNet-b0, with the plain swish, which can be exported.

    >>> import torch
    >>> efficientnet_b0(2, in_channels=1, out_channels=3).eval()(torch.rand(1, 1, 64, 64)).shape
    torch.Size([1, 3])
    """
    network = EfficientNetBN(
        "efficientnet-b0",
        pretrained=False,
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        num_classes=out_channels,
    )
    network.set_swish(memory_efficient=False)
    return network

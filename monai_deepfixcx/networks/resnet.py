"""Residual networks fit for per-sample gradients: group normalization, nothing in place.

Source: Tayebi Arasteh et al., Private, fair and accurate, arXiv:2302.01622.
"""

from collections.abc import Sequence
from itertools import pairwise

from monai.networks.layers.factories import Conv, Pool
from monai.networks.layers.utils import get_act_layer, get_norm_layer
from monai.networks.nets.resnet import ResNetBlock
from torch import Tensor, nn


def group_count(channels: int, least: int = 1) -> int:
    """The largest number of groups, up to 32, that divides `channels` into groups of at least `least`.

    Of a vector, a channel alone in its group would be normalized to 0: there, `least` must be 2.

    >>> group_count(64), group_count(300), group_count(32), group_count(32, least=2)
    (32, 30, 32, 16)
    """
    most = max(1, min(32, channels // least))
    return next(groups for groups in range(most, 0, -1) if channels % groups == 0)


class _OutOfPlaceBlock(ResNetBlock):
    """MONAI's basic block without its ``+=``, which per-sample gradients cannot follow."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        return self.act(out + (x if self.downsample is None else self.downsample(x)))


class PerSampleResNet(nn.Module):
    """A residual network of basic blocks that mixes no two samples and changes no tensor in place.

    A 7-wide convolution of stride 2 and a max-pool, then stages of basic blocks, each stage but the first halving the
    image and doubling the channels, then global averaging and a linear layer. Weights are initialised as in MONAI's
    ResNet.

    Args:
        spatial_dims: 2 or 3.
        in_channels: C of the images.
        out_channels: number of logits.
        blocks: basic blocks in each stage.
        act: activation, by its MONAI name.
        width: channels of the first stage.

    Raises:
        ValueError: an argument out of range.

    >>> import torch
    >>> PerSampleResNet(2, in_channels=1, out_channels=3, blocks=[1, 1], width=32)(torch.rand(4, 1, 32, 32)).shape
    torch.Size([4, 3])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        blocks: Sequence[int],
        act: str = "relu",
        width: int = 64,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3; got {spatial_dims!r}.")
        if not blocks or min(blocks) < 1:
            raise ValueError(f"blocks must name at least one block for each stage; got {list(blocks)!r}.")
        self.spatial_dims, self.in_channels = spatial_dims, in_channels
        conv = Conv[Conv.CONV, spatial_dims]
        self.stem = nn.Sequential(
            conv(in_channels, width, kernel_size=7, stride=2, padding=3, bias=False),
            _group_norm(width, spatial_dims),
            get_act_layer(act),
            Pool[Pool.MAX, spatial_dims](kernel_size=3, stride=2, padding=1),
        )
        widths = [width * 2**stage for stage, count in enumerate(blocks) for _ in range(count)]
        self.blocks = nn.Sequential(
            *(_block(before, after, spatial_dims, act) for before, after in pairwise([width, *widths]))
        )
        self.pool = Pool[Pool.ADAPTIVEAVG, spatial_dims](1)
        self.classifier = nn.Linear(widths[-1], out_channels)
        for module in self.modules():
            if isinstance(module, conv):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B, out_channels]`` of images ``[B, C, *S]``.

        Raises:
            ValueError: images of another number of axes or channels.
        """
        if images.ndim != self.spatial_dims + 2 or images.shape[1] != self.in_channels:
            raise ValueError(
                f"images must have shape [B, {self.in_channels}, {', '.join('DHW'[-self.spatial_dims :])}]; got "
                f"{list(images.shape)}. Add the missing axis, or build the network for these images."
            )
        return self.classifier(self.pool(self.blocks(self.stem(images))).flatten(1))


def _group_norm(channels: int, spatial_dims: int) -> nn.Module:
    return get_norm_layer(("group", {"num_groups": group_count(channels)}), spatial_dims, channels)


def _block(before: int, after: int, spatial_dims: int, act: str) -> ResNetBlock:
    """A basic block; where it doubles the channels it halves the image."""
    shrink = None
    if before != after:
        shrink = nn.Sequential(
            Conv[Conv.CONV, spatial_dims](before, after, kernel_size=1, stride=2, bias=False),
            _group_norm(after, spatial_dims),
        )
    norm = ("group", {"num_groups": group_count(after)})
    stride = 1 if shrink is None else 2
    return _OutOfPlaceBlock(before, after, spatial_dims, stride, shrink, act=act, norm=norm)


class ResNet9(PerSampleResNet):
    """The paper's network for radiographs: basic blocks [1, 1, 1, 1], GroupNorm(32), Mish, in 2-D.

    Args:
        in_channels: C of the images; 3 in the paper, at 512 pixels.
        out_channels: number of logits.
        width: channels of the first stage, a multiple of 32 for 32 groups.

    >>> import torch
    >>> ResNet9(in_channels=3, out_channels=8)(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 8])
    """

    def __init__(self, in_channels: int, out_channels: int, width: int = 64) -> None:
        super().__init__(2, in_channels, out_channels, blocks=(1, 1, 1, 1), act="mish", width=width)


class VolumetricResNet18(PerSampleResNet):
    """The paper's network for CT volumes: ResNet18 in 3-D, with GroupNorm(32) and ReLU.

    Args:
        in_channels: C of the volumes.
        out_channels: number of logits.
        width: channels of the first stage, a multiple of 32 for 32 groups.

    >>> import torch
    >>> VolumetricResNet18(in_channels=1, out_channels=1, width=32)(torch.rand(2, 1, 32, 32, 32)).shape
    torch.Size([2, 1])
    """

    def __init__(self, in_channels: int, out_channels: int, width: int = 64) -> None:
        super().__init__(3, in_channels, out_channels, blocks=(2, 2, 2, 2), act="relu", width=width)

"""The project's heads, small, each with codes and the codec that made them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from monai_deepfixcx.codecs import Codec, ConstantCodec, DeepFixCXCodec, HeartSpotCodec, IdentityCodec
from monai_deepfixcx.networks import (
    CodeCNN,
    CodeMLP,
    HeartSpotMLP,
    PrivatizedNetwork,
    ResNet9,
    privatized_heartspot_mlp,
    privatized_mlp,
)

OUTPUTS = 3


@dataclass(frozen=True)
class Head:
    network: nn.Module
    codes: Tensor
    codec: Codec
    spatial_shape: tuple[int, ...]


def _made(codec: Codec, shape: tuple[int, ...], build: Callable[[int], nn.Module], channels: int = 1) -> Head:
    torch.manual_seed(0)
    codes = codec.encode(torch.rand(3, channels, *shape))
    network = build(codes.shape[-1])
    if isinstance(network, CodeMLP):
        network.fit_normalization([codes + torch.rand(codes.shape)])
    return Head(network, codes, codec, shape)


HEADS: dict[str, Callable[[], Head]] = {
    "mlp": lambda: _made(
        DeepFixCXCodec(2, 3), (32, 30), lambda length: CodeMLP(length, 2, OUTPUTS, width=20, depth=2), channels=2
    ),
    "mlp_whitened": lambda: _made(
        DeepFixCXCodec(2, 3),
        (32, 32),
        lambda length: CodeMLP(length, 1, OUTPUTS, 20, feature_weights="softmax", normalization="whiten"),
    ),
    "mlp_batchnorm_features": lambda: _made(
        DeepFixCXCodec(2, (2, 3), features=["l1", "max"], wavelet="coif1"),
        (32, 33),
        lambda length: CodeMLP(length, 1, OUTPUTS, 20, feature_weights="log_softmax", normalization="batchnorm"),
    ),
    "mlp_3d": lambda: _made(
        DeepFixCXCodec(1, (2, 3, 2), spatial_dims=3),
        (8, 9, 7),
        lambda length: privatized_mlp(
            DeepFixCXCodec(1, (2, 3, 2), spatial_dims=3), (8, 9, 7), out_channels=OUTPUTS, width=20
        ),
    ),
    "heartspot": lambda: _made(
        HeartSpotCodec("rhline+heart", (48, 40)),
        (48, 40),
        lambda length: HeartSpotMLP(length, out_channels=OUTPUTS, widths=(20, 10)),
    ),
    "heartspot_group_median": lambda: _made(
        HeartSpotCodec("median+rhline+heart", (49, 40)),
        (49, 40),
        lambda length: privatized_heartspot_mlp(
            HeartSpotCodec("median+rhline+heart", (49, 40)),
            (49, 40),
            out_channels=OUTPUTS,
            norm="group",
            widths=(48, 40),
        ),
    ),
    "heartspot_sum": lambda: _made(
        HeartSpotCodec("rhline+heart", (48, 40), aggregate="sum"),
        (48, 40),
        lambda length: CodeMLP(length, out_channels=OUTPUTS, width=20),
    ),
    "identity": lambda: _made(IdentityCodec(), (16, 12), lambda length: CodeMLP(length, 1, OUTPUTS, width=20)),
    "constant": lambda: _made(ConstantCodec(), (16, 12), lambda length: CodeMLP(length, 1, OUTPUTS, width=20)),
    "code_cnn": lambda: _made(
        DeepFixCXCodec(1, 2),
        (16, 16),
        lambda length: CodeCNN(DeepFixCXCodec(1, 2), (16, 16), out_channels=OUTPUTS, min_size=16),
    ),
    "image_cnn": lambda: _made(
        DeepFixCXCodec(1, 2),
        (32, 32),
        lambda length: PrivatizedNetwork(
            DeepFixCXCodec(1, 2), ResNet9(1, OUTPUTS, width=32), (32, 32), feed="image", min_size=32
        ),
    ),
}


def linear(length: int, channels: int = 1, outputs: int = OUTPUTS, seed: int = 0) -> nn.Module:
    """A linear head in float64."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(length * channels, outputs)).double()

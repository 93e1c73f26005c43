"""A codec and a head or a MONAI network behind it, from arguments that fit a bundle's configuration.

In each, `codec` is a codec or its configuration, `spatial_shape` and `in_channels` are the images', and `inputs` and
`feed` are those of `PrivatizedNetwork`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from torch import nn

from monai_deepfixcx.codecs import Codec
from monai_deepfixcx.networks.backbones import densenet_121, efficientnet_b0, resnet_18
from monai_deepfixcx.networks.code_cnn import CodeCNN
from monai_deepfixcx.networks.code_mlp import CodeMLP
from monai_deepfixcx.networks.heartspot_mlp import HeartSpotMLP
from monai_deepfixcx.networks.privatized_network import Feed, Inputs, PrivatizedNetwork, as_codec, code_channels

CodecLike = Codec | Mapping[str, Any]
Backbone = Literal["densenet121", "resnet18", "efficientnet_b0"]
_BACKBONES: dict[Backbone, Callable[[int, int, int], nn.Module]] = {
    "densenet121": densenet_121,
    "resnet18": resnet_18,
    "efficientnet_b0": efficientnet_b0,
}


def privatized_mlp(
    codec: CodecLike,
    spatial_shape: Sequence[int],
    in_channels: int = 1,
    out_channels: int = 1,
    inputs: Inputs = "images",
    **head: Any,
) -> PrivatizedNetwork:
    """A codec and the DeepFixCX `CodeMLP`, to which `head` (width, depth, feature_weights, normalization) goes.

    >>> import torch
    >>> network = privatized_mlp({"codec": "deepfixcx", "levels": 2, "patch_size": 5}, (64, 64), depth=2)
    >>> network(torch.rand(4, 1, 64, 64)).shape
    torch.Size([4, 1])
    """
    codec = as_codec(codec)
    length, channels = codec.code_length(spatial_shape), code_channels(codec, in_channels)
    return PrivatizedNetwork(codec, CodeMLP(length, channels, out_channels, **head), spatial_shape, inputs=inputs)


def privatized_heartspot_mlp(
    codec: CodecLike,
    spatial_shape: Sequence[int],
    in_channels: int = 1,
    out_channels: int = 1,
    inputs: Inputs = "images",
    norm: Literal["batch", "group"] = "batch",
    widths: Sequence[int] = (3200, 300),
) -> PrivatizedNetwork:
    """A codec and the `HeartSpotMLP`, which documents `norm` and `widths`.

    >>> import torch
    >>> codec = {"codec": "heartspot", "prior": "rhline+heart", "spatial_shape": [64, 64]}
    >>> privatized_heartspot_mlp(codec, (64, 64), norm="group")(torch.rand(4, 1, 64, 64)).shape
    torch.Size([4, 1])
    """
    codec = as_codec(codec)
    length, channels = codec.code_length(spatial_shape), code_channels(codec, in_channels)
    head = HeartSpotMLP(length, channels, out_channels, norm, widths)
    return PrivatizedNetwork(codec, head, spatial_shape, inputs=inputs)


def privatized_code_cnn(
    codec: CodecLike,
    spatial_shape: Sequence[int],
    in_channels: int = 1,
    out_channels: int = 1,
    inputs: Inputs = "images",
) -> PrivatizedNetwork:
    """A DeepFixCX codec and the `CodeCNN`.

    >>> import torch
    >>> network = privatized_code_cnn({"codec": "deepfixcx", "levels": 2, "patch_size": 5}, (64, 64))
    >>> network.eval()(torch.rand(2, 1, 64, 64)).shape
    torch.Size([2, 1])
    """
    codec = as_codec(codec)
    head = CodeCNN(codec, spatial_shape, in_channels, out_channels)
    return PrivatizedNetwork(codec, head, spatial_shape, inputs=inputs)


def privatized_cnn(
    codec: CodecLike,
    spatial_shape: Sequence[int],
    in_channels: int = 1,
    out_channels: int = 1,
    backbone: Backbone = "densenet121",
    feed: Feed = "small_image",
    inputs: Inputs = "images",
) -> PrivatizedNetwork:
    """A codec and a MONAI network, untrained, on the privatized image, enlarged to at least 64 pixels a side.

    Args:
        codec: a codec or its configuration.
        spatial_shape: of the images.
        in_channels: C of the images.
        out_channels: number of logits.
        backbone: "densenet121", "resnet18" or "efficientnet_b0". For another network use `PrivatizedNetwork`.
        feed: "image" or "small_image".
        inputs: "images" or "codes".

    Raises:
        ValueError: an unknown backbone, or `feed` "code".

    >>> import torch
    >>> network = privatized_cnn({"codec": "deepfixcx", "levels": 2, "patch_size": 5}, (64, 64), backbone="resnet18")
    >>> network.eval()(torch.rand(1, 1, 64, 64)).shape
    torch.Size([1, 1])
    """
    if backbone not in _BACKBONES:
        raise ValueError(
            f"backbone must be one of {', '.join(_BACKBONES)}; got {backbone!r}. "
            "Put a codec before any other network with PrivatizedNetwork."
        )
    if feed == "code":
        raise ValueError('feed must be "image" or "small_image"; got "code". For codes use privatized_code_cnn.')
    codec = as_codec(codec)
    network = _BACKBONES[backbone](codec.spatial_dims, code_channels(codec, in_channels), out_channels)
    return PrivatizedNetwork(codec, network, spatial_shape, feed, inputs)

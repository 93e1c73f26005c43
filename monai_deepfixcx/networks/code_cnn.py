"""DeepFixCX's CNN on codes ("V2"): a code, laid out as an image of P x P patches, for a residual network.

Source: Gaudio et al., WIREs DMKD 2023, doi:10.1002/widm.1495.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from monai.networks.blocks.convolutions import Convolution
from torch import Tensor, nn

from monai_deepfixcx.codecs import Codec, DeepFixCXCodec
from monai_deepfixcx.networks.backbones import resnet_18
from monai_deepfixcx.networks.code_mlp import check_codes
from monai_deepfixcx.networks.privatized_network import as_codec, code_channels


class CodeCNN(nn.Module):
    """Lay a code out as a ``[4^J C F, P, P]`` image, enlarge it to at least 64 x 64, and classify it by ResNet18.

    Each transposed convolution (with SELU) doubles the image's sides and has so many fewer channels that the number of
    values stays. The published one adds two rows and columns a layer instead (30 layers from 5 x 5), which
    leaves most of the picture, outside its centre, without any of the code.

    Args:
        codec: the DeepFixCX codec that makes the codes, or its configuration; only its layout is used.
        spatial_shape: of the images that were encoded.
        in_channels: C of the images that were encoded.
        out_channels: number of logits.
        min_size: the least side that ResNet18 is given.

    Raises:
        ValueError: a codec without patches, or one that cannot encode images of this shape.

    >>> import torch
    >>> head = CodeCNN({"codec": "deepfixcx", "levels": 2, "patch_size": 5}, spatial_shape=(64, 64))
    >>> head.image(torch.rand(4, 1, 400)).shape
    torch.Size([4, 16, 5, 5])
    >>> head(torch.rand(4, 1, 400)).shape
    torch.Size([4, 1])
    """

    def __init__(
        self,
        codec: Codec | Mapping[str, Any],
        spatial_shape: Sequence[int],
        in_channels: int = 1,
        out_channels: int = 1,
        min_size: int = 64,
    ) -> None:
        super().__init__()
        codec = as_codec(codec)
        if not isinstance(codec, DeepFixCXCodec):
            raise ValueError(
                f"codec must be a DeepFixCX codec, whose codes form a grid of patches; got {codec.name!r}. "
                "Use an MLP, or feed the decoded image to a CNN."
            )
        self.code_length = codec.code_length(spatial_shape)
        self.in_channels = code_channels(codec, in_channels)
        self.patch_size, self.features = codec.patch_size, len(codec.features)
        channels, size = self.in_channels * self.code_length // math.prod(self.patch_size), min(self.patch_size)
        enlarge: list[nn.Module] = []
        while size < min_size:
            fewer = math.ceil(channels / 2**codec.spatial_dims)
            enlarge.append(
                Convolution(codec.spatial_dims, channels, fewer, strides=2, act="selu", norm=None, is_transposed=True)
            )
            channels, size = fewer, size * 2
        self.enlarge = nn.Sequential(*enlarge)
        self.network = resnet_18(codec.spatial_dims, channels, out_channels)

    def image(self, codes: Tensor) -> Tensor:
        """Lay codes ``[B, C, D]`` out as images ``[B, C 4^J F, *P]``."""
        maps = codes.unflatten(2, (-1, *self.patch_size, self.features))
        return maps.movedim(-1, 3).flatten(1, 3)

    def forward(self, codes: Tensor) -> Tensor:
        """Logits ``[B, out_channels]`` of codes ``[B, C, D]``.

        Raises:
            ValueError: codes of another shape.
        """
        check_codes(codes, self.in_channels, self.code_length)
        return self.network(self.enlarge(self.image(codes)))

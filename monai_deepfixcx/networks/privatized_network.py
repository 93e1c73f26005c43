"""A network that sees images only through a codec."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from monai.data.meta_tensor import MetaTensor
from torch import Tensor, nn

from monai_deepfixcx.codecs import Codec, codec_from_config
from monai_deepfixcx.networks.code_mlp import CodeMLP

Feed = Literal["code", "image", "small_image"]
Inputs = Literal["images", "codes"]
_INTERPOLATION = {2: "bilinear", 3: "trilinear"}


def as_codec(codec: Codec | Mapping[str, Any]) -> Codec:
    """The codec itself, or the one that a configuration describes."""
    return codec if isinstance(codec, Codec) else codec_from_config(codec)


def code_channels(codec: Codec, in_channels: int) -> int:
    """Channels of the codes, and of the decoded images, of images with `in_channels` channels."""
    return in_channels * int(getattr(codec, "channel_multiplier", 1))


class PrivatizedNetwork(nn.Module):
    """A codec, and a network that sees what the codec left of an image.

    Train it on images, or with ``inputs="codes"`` on codes from a store; the weights are the same, so that one trained
    on codes can be exported to take images: by `torch.export`, or traced to TorchScript (MONAI's ``ckpt_export``
    with ``--use_trace True``); scripting cannot read a codec. No metadata of a MetaTensor passes through.

    Args:
        codec: a codec, or its configuration.
        network: takes codes ``[B, C, D]``, or images with `feed` "image" or "small_image".
        spatial_shape: of the images.
        feed: what the network is given: the code, the privatized image at full size, or the small one (side 2^J P).
        inputs: what `forward` is given. May be changed later: ``network.inputs = "codes"``.
        min_size: an image below this on any axis is enlarged to it (bilinearly) before the network sees it.

    Raises:
        ValueError: an argument out of range, or a codec that cannot encode images of this shape.

    >>> from monai_deepfixcx.networks import CodeMLP
    >>> codec = {"codec": "deepfixcx", "levels": 2, "patch_size": 5}
    >>> network = PrivatizedNetwork(codec, CodeMLP(code_length=400, out_channels=3), spatial_shape=(64, 64))
    >>> network(torch.rand(8, 1, 64, 64)).shape
    torch.Size([8, 3])
    """

    def __init__(
        self,
        codec: Codec | Mapping[str, Any],
        network: nn.Module,
        spatial_shape: Sequence[int],
        feed: Feed = "code",
        inputs: Inputs = "images",
        min_size: int = 64,
    ) -> None:
        super().__init__()
        for argument, value, known in (("feed", feed, get_args(Feed)), ("inputs", inputs, get_args(Inputs))):
            if value not in known:
                raise ValueError(f"{argument} must be one of {', '.join(known)}; got {value!r}.")
        self.codec, self.network = as_codec(codec), network
        self.spatial_shape = tuple(int(n) for n in spatial_shape)
        if len(self.spatial_shape) != self.codec.spatial_dims:
            raise ValueError(
                f"spatial_shape must have {self.codec.spatial_dims} values for this codec; got {self.spatial_shape}."
            )
        self.codec.code_length(self.spatial_shape)
        self.feed, self.inputs, self.min_size = feed, inputs, min_size

    def encode(self, images: Tensor) -> Tensor:
        """Codes ``[B, C, D]`` of images ``[B, C, *S]``, without metadata.

        Raises:
            ValueError: images of another spatial shape than the network was built for.
        """
        images = _plain(images)
        if tuple(images.shape[2:]) != self.spatial_shape:
            raise ValueError(
                f"images must have shape [B, C, {', '.join(map(str, self.spatial_shape))}]; got {list(images.shape)}. "
                'Resize them, or set inputs = "codes" if they are codes already.'
            )
        return self.codec.encode(images)

    def fit_normalization(self, batches: Iterable[Tensor]) -> None:
        """Compute the data set statistics that a `CodeMLP` with "whiten" or "0mean" needs, in one pass.

        Args:
            batches: of the training data, images or codes as `inputs` says: ``(b["image"] for b in loader)``.

        Raises:
            TypeError: the network is not a `CodeMLP`.
            ValueError: no data, or data of another shape.
        """
        if not isinstance(self.network, CodeMLP):
            raise TypeError(f"network must be a CodeMLP to have its normalization fitted; got {type(self.network)}.")
        device = next(self.network.parameters()).device
        with torch.no_grad():
            self.network.fit_normalization(self._codes(batch.to(device)) for batch in batches)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits ``[B, out]`` of images ``[B, C, *S]``, or of codes ``[B, C, D]`` with ``inputs="codes"``.

        Raises:
            ValueError: inputs of another shape.
        """
        codes = self._codes(inputs)
        if self.feed == "code":
            return self.network(codes)
        images = self.codec.decode(codes, self.spatial_shape, restore_size=self.feed == "image")
        return self.network(self._enlarged(images))

    def _codes(self, inputs: Tensor) -> Tensor:
        return self.encode(inputs) if self.inputs == "images" else _plain(inputs)

    def _enlarged(self, images: Tensor) -> Tensor:
        size = [max(int(n), self.min_size) for n in images.shape[2:]]
        if size == list(images.shape[2:]):
            return images
        return F.interpolate(images, size, mode=_INTERPOLATION[self.codec.spatial_dims], align_corners=False)

    def extra_repr(self) -> str:
        """What goes in, and what the network is given."""
        return f"spatial_shape={self.spatial_shape}, inputs={self.inputs!r}, feed={self.feed!r}"


def _plain(inputs: Tensor) -> Tensor:
    # A MetaTensor would carry its file name through the whole network, into the logits.
    return inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs

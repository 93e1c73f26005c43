"""The networks whose training is timed and weighed, each with one training step from images in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.nets.densenet import DenseNet121
from torch import Tensor, nn

from monai_deepfixcx.networks import PrivatizedNetwork, privatized_heartspot_mlp, privatized_mlp

# A chunk's intermediate results stay in the processor's caches, and their memory is used again by the next chunk. What
# is encoded does not depend on it.
ENCODED_AT_ONCE = 16


def _deepfixcx_mlp(side: int) -> nn.Module:
    codec = {"codec": "deepfixcx", "levels": 5, "patch_size": 5 if side >= 160 else 1}
    return privatized_mlp(codec, (side, side), inputs="codes", width=300, depth=1)


def _heartspot_mlp(side: int) -> nn.Module:
    codec = {"codec": "heartspot", "prior": "rhline+heart", "spatial_shape": [side, side]}
    return privatized_heartspot_mlp(codec, (side, side), inputs="codes")


def _densenet(side: int) -> nn.Module:
    return DenseNet121(spatial_dims=2, in_channels=1, out_channels=1)


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "DeepFixCX + MLP": _deepfixcx_mlp,
    "HeartSpot + MLP": _heartspot_mlp,
    "DenseNet121": _densenet,
    "DenseNet121, channels last": _densenet,
}
DENSENETS = ("DenseNet121", "DenseNet121, channels last")
PRIVATIZED = ("DeepFixCX + MLP", "HeartSpot + MLP")


class Training:
    """A network, an optimizer, and a training step. Everything that happens between images and new weights is in it.

    Adam is the same for all (fused: one pass over the weights). Codecs have nothing to learn, so images are encoded
    without recording gradients, `ENCODED_AT_ONCE` at a time; forward, backward and the optimizer see the whole batch.

    Args:
        name: one of `NETWORKS`.
        side: of the square images, in pixels.
    """

    def __init__(self, name: str, side: int) -> None:
        torch.manual_seed(0)
        self.network = NETWORKS[name](side)
        self.memory_format = torch.channels_last if "channels last" in name else torch.contiguous_format
        self.network.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3, fused=True)
        self._inputs, self._labels = torch.empty(0), torch.empty(0)
        self._loss = torch.empty(0)

    def step(self, images: Tensor, labels: Tensor) -> None:
        """One training step on images ``[B, 1, H, W]`` with labels ``[B, 1]``."""
        for phase in self.phases(images, labels).values():
            phase()

    def phases(self, images: Tensor, labels: Tensor) -> dict[str, Callable[[], Any]]:
        """The parts of a step, to be called in this order."""

        def encode() -> None:
            self._inputs = self._encode(images)

        def forward() -> None:
            self.optimizer.zero_grad()
            self._loss = F.binary_cross_entropy_with_logits(self.network(self._inputs), labels)

        def backward() -> None:
            self._loss.backward()

        return {"encode": encode, "forward": forward, "backward": backward, "optimizer": self.optimizer.step}

    @torch.no_grad()
    def _encode(self, images: Tensor) -> Tensor:
        if not isinstance(self.network, PrivatizedNetwork):
            return images.to(memory_format=self.memory_format)
        length = self.network.codec.code_length(images.shape[2:])
        codes = images.new_empty((*images.shape[:2], length))
        for rows, chunk in zip(codes.split(ENCODED_AT_ONCE), images.split(ENCODED_AT_ONCE), strict=True):
            rows.copy_(self.network.encode(chunk))
        return codes


def random_batch(size: int, side: int) -> tuple[Tensor, Tensor]:
    """Images ``[B, 1, side, side]`` and labels ``[B, 1]``; what is in them does not change how long a step takes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((size, 1, side, side), generator=generator)
    return images, (torch.rand((size, 1), generator=generator) > 0.5).float()

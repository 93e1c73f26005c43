"""A network that corrects a first estimate of an image: a MONAI U-Net, stopped early on held-out auxiliary patients."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.nets.unet import UNet
from rich.progress import track
from torch import Tensor, nn

_CHECK_EVERY = 50  # steps
_BATCH = 64
_EXACT = 1e-8  # a mean squared error that leaves nothing to correct


class Correction(nn.Module):
    """A start image plus what a U-Net adds to it; before training, nothing.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the views the network sees.
        out_channels: of the images.
        channels: of the U-Net's stages; each but the first halves the axes.
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, channels: Sequence[int]) -> None:
        super().__init__()
        self._multiple = 2 ** (len(channels) - 1)
        self.unet = UNet(
            spatial_dims,
            in_channels,
            channels[0],
            channels,
            strides=[2] * (len(channels) - 1),
            num_res_units=1,
            norm=("GROUP", {"num_groups": 4}),
        )
        self.last = (nn.Conv2d if spatial_dims == 2 else nn.Conv3d)(channels[0], out_channels, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, starts: Tensor, views: Tensor) -> Tensor:
        """Correct starts ``[B, C, *S]`` that the views ``[B, K, *S]``, in [0, 1], show more of."""
        size = views.shape[2:]
        pads = [side for n in reversed(size) for side in (0, -n % self._multiple)]
        added = self.last(self.unet(F.pad(views - 0.5, pads, mode="replicate")))
        for axis, n in enumerate(size, start=2):
            added = added.narrow(axis, 0, n)
        return starts + added

    @torch.no_grad()
    def correct(self, starts: Tensor, views: Tensor) -> Tensor:
        """The same a few at a time, clipped to [0, 1], without gradients."""
        pairs = zip(starts.split(_BATCH), views.split(_BATCH), strict=True)
        return torch.cat([self(start, view).clamp(0, 1) for start, view in pairs])


def train_correction(
    network: Correction,
    learn: tuple[Tensor, Tensor, Tensor],
    judge: tuple[Tensor, Tensor, Tensor],
    steps: int,
    batch_size: int,
    learning_rate: float,
    patience: int,
    seed: int,
    checkpoint: Path | None = None,
    progress: bool = False,
) -> float:
    """Train to the least squared error on held-out patients, and leave the network as it was at its best.

    Args:
        network: to train.
        learn: starts ``[N, C, *S]``, views ``[N, K, *S]`` and images ``[N, C, *S]``.
        judge: the same of held-out patients, every 50 steps; the untrained network takes part.
        steps: of Adam, at most.
        batch_size: images a step.
        learning_rate: it falls to 0 along half a cosine.
        patience: checks without a better result before it stops.
        seed: of the batches.
        checkpoint: file to write at every check, and to go on from if it is there.
        progress: show a progress bar.

    Returns:
        The mean squared error on the held-out patients.
    """
    starts, views, images = learn
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    best: dict[str, Any] = {"error": _error(network, *judge), "network": _copy(network), "waited": 0}
    first = 0
    if checkpoint is not None and checkpoint.is_file():
        saved = torch.load(checkpoint, map_location=starts.device, weights_only=True)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        generator.set_state(saved["generator"].cpu())
        best, first = saved["best"], saved["step"]
    for step in track(range(first, steps), "training the inversion network", disable=not progress):
        if best["waited"] >= patience or best["error"] < _EXACT:
            break
        rows = torch.randint(len(images), (batch_size,), generator=generator).to(images.device)
        loss = F.mse_loss(network(starts[rows], views[rows]), images[rows])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % _CHECK_EVERY == 0 or step + 1 == steps:
            error = _error(network, *judge)
            better = error < best["error"]
            best = {"error": error, "network": _copy(network), "waited": 0} if better else best
            best["waited"] += not better
            if checkpoint is not None:
                state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
                _save({**state, "generator": generator.get_state(), "best": best}, checkpoint)
    network.load_state_dict(best["network"])
    return float(best["error"])


def data_key(*parts: Tensor | str) -> str:
    """A hash of what a training was given: 16 hexadecimal digits that tell one checkpoint from another."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _error(network: Correction, starts: Tensor, views: Tensor, images: Tensor) -> float:
    return float(F.mse_loss(network.correct(starts, views), images))


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _save(state: dict[str, Any], path: Path) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    torch.save(state, partial)
    os.replace(partial, path)  # noqa: PTH105

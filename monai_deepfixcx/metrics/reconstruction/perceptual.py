"""A learned perceptual distance, from a network trained here on auxiliary images or supplied; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor, nn

_BATCH = 64


class PerceptualDistance(nn.Module):
    """Distance of two images in the features of a frozen network.

    At every place of every feature map the features are scaled to length 1; their squared differences are averaged over
    places and layers. Distances of different networks cannot be compared.

    Args:
        network: gives feature maps ``[N, K, ...]``, one tensor or a list of them; `train_feature_network` makes one.
            It is put in evaluation mode and frozen.
        layers: names of submodules (``network.named_modules()``) whose outputs are the features instead.

    Raises:
        ValueError: a name that is no submodule.

    Source: after Zhang et al., CVPR 2018, equation 1, with weights of 1.

    >>> distance = PerceptualDistance(nn.Conv2d(1, 4, 3))
    >>> images = torch.rand(2, 1, 16, 16)
    >>> distance(images, images)
    tensor([0., 0.], dtype=torch.float64)
    """

    def __init__(self, network: nn.Module, layers: Sequence[str] = ()) -> None:
        super().__init__()
        known = dict(network.named_modules())
        missing = [name for name in layers if name not in known]
        if missing:
            raise ValueError(f"layers must be names of the network's submodules; it has no {', '.join(missing)}.")
        self.network = network.eval().requires_grad_(False)
        self.layers = tuple(layers)

    def train(self, mode: bool = True) -> PerceptualDistance:
        """Stay in evaluation mode: the network is frozen."""
        return super().train(False)

    def forward(self, output: Tensor, images: Tensor) -> Tensor:
        """Distances ``[N]`` of images ``[N, C, *S]`` and ``[N, C, *S]``, 0 (equal) to 4."""
        device = next(self.network.parameters(), images).device
        pairs = zip(output.split(_BATCH), images.split(_BATCH), strict=True)
        with torch.no_grad():
            return torch.cat([self._distance(a.to(device), b.to(device)) for a, b in pairs])

    def _distance(self, first: Tensor, second: Tensor) -> Tensor:
        pairs = zip(self._features(first), self._features(second), strict=True)
        apart = [(F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).flatten(1) for a, b in pairs]
        return torch.stack([values.double().mean(1) for values in apart]).mean(0)

    def _features(self, images: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        hooks = [
            self.network.get_submodule(name).register_forward_hook(lambda _, __, output: found.append(output))
            for name in self.layers
        ]
        try:
            output = self.network(images)
        finally:
            for hook in hooks:
                hook.remove()
        if self.layers:
            return found
        return [output] if isinstance(output, Tensor) else list(output)


class _Encoder(nn.Module):
    """Strided convolutions; gives the feature maps of every stage."""

    def __init__(self, spatial_dims: int, in_channels: int, channels: Sequence[int]) -> None:
        super().__init__()
        conv = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        sizes = [in_channels, *channels]
        self.stages = nn.ModuleList(
            nn.Sequential(conv(a, b, 3, stride=2, padding=1), nn.GroupNorm(1, b), nn.ELU()) for a, b in pairwise(sizes)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps, finest first."""
        found = []
        for stage in self.stages:
            images = stage(images)
            found.append(images)
        return found


class _Denoiser(nn.Module):
    """The encoder with a decoder to train it by."""

    def __init__(self, spatial_dims: int, in_channels: int, channels: Sequence[int]) -> None:
        super().__init__()
        conv = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        self.encoder = _Encoder(spatial_dims, in_channels, channels)
        sizes = [in_channels, *channels][::-1]
        self.steps = nn.ModuleList(conv(a, b, 3, padding=1) for a, b in pairwise(sizes))

    def forward(self, images: Tensor) -> Tensor:
        """The images without the noise."""
        features = self.encoder(images)
        sizes = [images.shape[2:], *(maps.shape[2:] for maps in features[:-1])][::-1]
        x = features[-1]
        for step, size in zip(self.steps, sizes, strict=True):
            x = step(F.interpolate(F.elu(x), size=size))
        return x


def train_feature_network(
    images: Tensor,
    steps: int = 300,
    batch_size: int = 16,
    channels: Sequence[int] = (16, 32, 64),
    noise: float = 0.1,
    seed: int = 0,
    progress: bool = False,
) -> nn.Module:
    """Train a small network for `PerceptualDistance`: the encoder of a denoising autoencoder.

    It needs no labels and no download, and learns what images of this kind are made of. Train it on auxiliary images.

    Args:
        images: ``[N, C, *S]`` in [0, 1], in two or three dimensions.
        steps: of Adam.
        batch_size: images a step.
        channels: of the stages, each of which halves the axes.
        noise: standard deviation of the Gaussian noise to remove, in grey values.
        seed: of weights, batches and noise.
        progress: show a progress bar.

    Returns:
        A frozen network that gives a list of feature maps, on the images' device.

    Raises:
        ValueError: no images, or of another number of axes.

    Source: Vincent et al., ICML 2008.

    >>> network = train_feature_network(torch.rand(8, 1, 16, 16), steps=2)
    >>> [tuple(maps.shape) for maps in network(torch.rand(1, 1, 16, 16))]
    [(1, 16, 8, 8), (1, 32, 4, 4), (1, 64, 2, 2)]
    """
    if images.ndim not in (4, 5) or not len(images):
        raise ValueError(f"images must be [N, C, *S], at least one; got {list(images.shape)}.")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        denoiser = _Denoiser(images.ndim - 2, images.shape[1], channels).to(images.device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=3e-3)
    for _ in track(range(steps), "training the feature network", disable=not progress):
        batch = images[torch.randint(len(images), (batch_size,), generator=generator)]
        spoilt = batch + noise * torch.randn(batch.shape, generator=generator).to(batch)
        loss = F.mse_loss(denoiser(spoilt), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return denoiser.encoder.eval().requires_grad_(False)

"""Inversion by optimisation, through the codec's gradient."""

from __future__ import annotations

from typing import Literal, Self, get_args

import torch
from rich.progress import track
from torch import Tensor

from monai_deepfixcx.attacks.base import Auxiliary, Victims
from monai_deepfixcx.attacks.reconstruction.base import ReconstructionAttack
from monai_deepfixcx.attacks.reconstruction.linear import LinearMMSE
from monai_deepfixcx.codecs import WaveletPacket
from monai_deepfixcx.metrics.reconstruction.scores import Distance

Prior = Literal["tv", "wavelet"]
_BATCH = 64
_WAVELET_LEVELS = 2


class MAPInversion(ReconstructionAttack):
    """The image in [0, 1] that best explains the code and differs least from the `LinearMMSE` estimate x_0.

    Minimises ||codec(x) - y||^2 / v + weight * prior(x - x_0), v the auxiliary codes' variance (summed over entries),
    by projected Adam through the codec's gradient. This uses what no linear attack can: the sign-less subbands. It
    starts from x_0, then from the mean image, then from x_0 with noise, and keeps each image's best.

    Args:
        prior: "tv", the mean total variation; or "wavelet", the mean absolute detail coefficient of db1 packets.
        weight: of the prior.
        steps: of Adam from each start.
        restarts: starts, at least 1.
        learning_rate: in grey values.
        perceptual: as for `ReconstructionAttack`.

    Raises:
        ValueError: an unknown prior or a number out of range.

    >>> from monai_deepfixcx.attacks import run_attack
    >>> from monai_deepfixcx.codecs import IdentityCodec
    >>> films = torch.rand(8, 1, 16, 16)
    >>> people = {"images": films[:4], "patients": ["a", "a", "b", "b"]}
    >>> victims = {"images": films[4:], "patients": ["c", "c", "d", "d"]}
    >>> result = run_attack(MAPInversion(steps=2), IdentityCodec(), people, victims, samples=0)
    >>> round(result.metrics["explained_variance"].value, 3)
    1.0
    """

    name: str = "MAPInversion"

    def __init__(
        self,
        prior: Prior = "tv",
        weight: float = 1.0,
        steps: int = 60,
        restarts: int = 2,
        learning_rate: float = 0.01,
        perceptual: Distance | None = None,
    ) -> None:
        super().__init__(perceptual)
        if prior not in get_args(Prior):
            raise ValueError(f'prior must be "tv" or "wavelet"; got {prior!r}.')
        if weight < 0 or min(steps, restarts) < 1:
            raise ValueError(
                "weight must be at least 0, steps and restarts at least 1; got "
                f"weight={weight}, steps={steps}, restarts={restarts}."
            )
        self.prior, self.weight, self.steps, self.restarts = prior, weight, steps, restarts
        self.learning_rate = learning_rate

    def fit(self, auxiliary: Auxiliary) -> Self:
        """Fit the linear estimate that the search starts from."""
        self._codec, self._seed, self._progress = auxiliary.codec, auxiliary.seed, auxiliary.progress
        self._linear = LinearMMSE().fit(auxiliary)
        self._mean = auxiliary.images.mean(0, keepdim=True)
        self._variance = auxiliary.codes.var(0, correction=0).sum().clamp(min=1e-12)
        self._penalty = total_variation if self.prior == "tv" else wavelet_detail
        return self

    def run(self, victims: Victims) -> Tensor:
        """Search, a batch of victims at a time."""
        linear = self._linear.run(victims)
        generator = torch.Generator().manual_seed(self._seed)
        batches = list(zip(linear.split(_BATCH), victims.codes.split(_BATCH), strict=True))
        return torch.cat(
            [self._best(x, y, generator) for x, y in track(batches, "inverting the codes", disable=not self._progress)]
        )

    def _best(self, linear: Tensor, codes: Tensor, generator: torch.Generator) -> Tensor:
        best, lowest = linear, torch.full((len(linear),), torch.inf, device=linear.device)
        for number in range(self.restarts):
            found, cost = self._search(self._start(number, linear, generator), linear, codes)
            better = cost < lowest
            best = torch.where(better.reshape(-1, *[1] * (best.ndim - 1)), found, best)
            lowest = torch.where(better, cost, lowest)
        return best

    def _start(self, number: int, linear: Tensor, generator: torch.Generator) -> Tensor:
        if number == 0:
            return linear
        if number == 1:
            return self._mean.expand_as(linear)
        return (linear + 0.05 * torch.randn(linear.shape, generator=generator).to(linear)).clamp(0, 1)

    def _search(self, start: Tensor, linear: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        x = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([x], lr=self.learning_rate)
        for _ in range(self.steps):
            optimizer.zero_grad()
            self._cost(x, linear, codes).sum().backward()
            optimizer.step()
            with torch.no_grad():
                x.clamp_(0, 1)
        with torch.no_grad():
            return x.detach(), self._cost(x, linear, codes)

    def _cost(self, x: Tensor, linear: Tensor, codes: Tensor) -> Tensor:
        misfit = (self._codec.encode(x) - codes).square().sum((1, 2)) / self._variance
        return misfit + self.weight * self._penalty(x - linear)


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, summed over the axes, smooth at 0: ``[N, C, *S]`` to ``[N]``."""
    steps = [images.diff(dim=axis) for axis in range(2, images.ndim)]
    return torch.stack([(step.square() + 1e-6).sqrt().flatten(1).mean(1) for step in steps]).sum(0)


def wavelet_detail(images: Tensor) -> Tensor:
    """Mean absolute detail coefficient of two levels of db1 packets: ``[N, C, *S]`` to ``[N]``."""
    packets = WaveletPacket("db1", images.ndim - 2)(images, _WAVELET_LEVELS)
    return packets[:, :, 1:].abs().flatten(1).mean(1)

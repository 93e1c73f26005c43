"""Linkage by features: whitened principal components of what is seen, or of what a frozen network makes of it."""

from __future__ import annotations

import copy
from typing import Literal, Self

import torch
from torch import Tensor, nn

from monai_deepfixcx.attacks.base import Attack, Auxiliary
from monai_deepfixcx.attacks.reidentification.linkage import Against, LinkageAttack
from monai_deepfixcx.metrics.linkage.metric import cosine_similarity

_BATCH, _COLUMNS = 64, 2**12
_NOISE = 1e-6  # share of the features' size below which a spread is rounding


class Whitening:
    """Principal components of features, each scaled to a variance of 1 where it was fitted.

    Args:
        components: the most to keep.
        share: the most to keep per image it is fitted to: the last components are noise.

    Attributes:
        spread: standard deviation ``[k]`` of each component before it is scaled.

    >>> features = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    >>> Whitening(3).fit(features)(features).var(dim=0, correction=0).round(decimals=3)
    tensor([1., 1., 1.], dtype=torch.float64)
    """

    def __init__(self, components: int, share: float = 0.5) -> None:
        if components < 1:
            raise ValueError(f"components must be at least 1; got {components}.")
        self.components, self.share = components, share

    def fit(self, features: Tensor) -> Self:
        """Fit to features ``[N, K]``. Returns itself."""
        self.mean = features.double().mean(dim=0)
        centred = features - self.mean
        # The smaller of the two matrices that share their eigenvalues.
        tall = len(centred) > centred.shape[1]
        product = centred.T @ centred if tall else sum(part @ part.T for part in centred.split(_COLUMNS, dim=1))
        values, vectors = torch.linalg.eigh(torch.as_tensor(product) / len(centred))
        kept = min(self.components, max(1, int(self.share * len(centred))), len(values))
        spread, vectors = values.flip(0)[:kept].clamp_min(0).sqrt(), vectors.flip(1)[:, :kept]
        axes = vectors if tall else centred.T @ vectors / (len(centred) ** 0.5 * spread.clamp_min(1e-300))
        size = features.double().square().mean().sqrt() * features.shape[1] ** 0.5
        self.spread = spread
        self.axes = torch.where(spread > _NOISE * size, axes / spread.clamp_min(1e-300), torch.zeros_like(axes))
        return self

    def __call__(self, features: Tensor) -> Tensor:
        """The components ``[N, k]`` of features ``[N, K]``, float64; 0 where all that was fitted were alike."""
        return (features - self.mean) @ self.axes


class FeatureLinkage(LinkageAttack):
    """Cosine of whitened principal components, learnt from the auxiliary patients without their names.

    Code to raw, the attacker encodes the undefended images with the codec, which is public, and links codes: the
    outcome is that of code to code.

    Args:
        against: see `LinkageAttack`.
        network: makes features of images ``[N, C, *S]``, or of codes ``[N, C, D]``; used as it is, in evaluation mode.
            Codes are decoded for it if it takes images. None: the codes, or the reconstructions, are the features.
        inputs: what the network takes.
        components: principal components kept of the features.
        reconstruction: see `LinkageAttack`.

    Raises:
        ValueError: unknown inputs, no component, or inputs="codes" after reconstruction.

    Source: whitening as in Jegou & Chum, ECCV 2012.
    """

    name: str = "FeatureLinkage"

    def __init__(
        self,
        against: Against = "code",
        network: nn.Module | None = None,
        inputs: Literal["images", "codes"] = "images",
        components: int = 64,
        reconstruction: Attack | None = None,
    ) -> None:
        super().__init__(against, reconstruction)
        if inputs not in ("images", "codes"):
            raise ValueError(f'inputs must be "images" or "codes"; got {inputs!r}.')
        if inputs == "codes" and against == "reconstruction":
            raise ValueError('inputs must be "images" for against="reconstruction"; got "codes".')
        self.network = None if network is None else copy.deepcopy(network).eval().requires_grad_(False)
        self.inputs = inputs
        self.whitening = Whitening(components)
        if network is not None:
            self.name += f" by {type(network).__name__}"

    def _learn(self, auxiliary: Auxiliary) -> None:
        self.whitening.fit(self._features(self._seen(auxiliary.codes)))

    def _compare(self, seen: Tensor, raw: Tensor | None) -> Tensor:
        one = self.whitening(self._features(seen))
        other = one if raw is None else self.whitening(self._features(self._codec.encode(raw)))
        return cosine_similarity(one, other)

    @torch.no_grad()
    def _features(self, seen: Tensor) -> Tensor:
        if self.network is None:
            return seen.flatten(1)
        if self.inputs == "images" and self.reconstruction is None:
            seen = self._codec.decode(seen, self._shape)
        network = self.network.to(seen.device)
        return torch.cat([network(batch).flatten(1) for batch in seen.split(_BATCH)])

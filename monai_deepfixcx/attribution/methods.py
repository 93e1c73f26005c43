"""The attribution methods, by name. Captum does the work; here its pieces are set for codes.

Sources: integrated gradients: Sundararajan et al., arXiv:1703.01365. DeepLIFT: Shrikumar et al., arXiv:1704.02685.
Saliency: Simonyan et al., arXiv:1312.6034. SmoothGrad: Smilkov et al., arXiv:1706.03825. Gradient SHAP: Lundberg and
Lee, arXiv:1705.07874. Occlusion: Zeiler and Fergus, arXiv:1311.2901. Shapley sampling: Castro et al. 2009.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from captum.attr import (
    DeepLift,
    FeatureAblation,
    GradientShap,
    InputXGradient,
    IntegratedGradients,
    NoiseTunnel,
    Occlusion,
    Saliency,
    ShapleyValueSampling,
)
from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR, nonlinear
from monai.networks.blocks.activation import MemoryEfficientSwish, Mish, Swish
from torch import Tensor, nn

from monai_deepfixcx.attribution.layout import Over, feature_groups, from_grid, to_grid
from monai_deepfixcx.codecs import Codec

# Element-wise activations of our networks and MONAI's to which DeepLIFT's rescale rule applies as well. Captum would
# take their plain gradient without a word, and the attributions would no longer add up.
_RESCALED = (nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.PReLU, Mish, Swish, MemoryEfficientSwish)


@dataclass(frozen=True)
class Explained:
    """What a method explains: codes and baselines ``[B, C, D]`` for an output `target` (``[B]``) of a network."""

    network: nn.Module
    codes: Tensor
    baselines: Tensor
    target: Tensor | None
    codec: Codec
    spatial_shape: tuple[int, ...]
    batch_size: int
    progress: bool


def integrated_gradients(of: Explained, steps: int = 32) -> Tensor:
    """Gradients along the straight way from the baseline, times the way; `steps` of them (Gauss-Legendre)."""
    return IntegratedGradients(of.network).attribute(
        of.codes, of.baselines, of.target, n_steps=steps, internal_batch_size=of.batch_size
    )


def deeplift(of: Explained) -> Tensor:
    """Contributions of differences from the baseline, by the rescale rule; the paper's choice."""
    for kind in _RESCALED:
        SUPPORTED_NON_LINEAR.setdefault(kind, nonlinear)
    _refuse_shared_activations(of.network, of.codes[:1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Setting forward, backward hooks")  # it removes them again
        return DeepLift(of.network).attribute(of.codes, of.baselines, of.target)


def saliency(of: Explained, absolute: bool = True) -> Tensor:
    """The gradient, without its sign if `absolute`."""
    return Saliency(of.network).attribute(of.codes, of.target, abs=absolute)


def input_x_gradient(of: Explained) -> Tensor:
    """The gradient times the code."""
    return InputXGradient(of.network).attribute(of.codes, of.target)


def noise_tunnel(
    of: Explained,
    around: Literal["saliency", "input_x_gradient", "integrated_gradients"] = "integrated_gradients",
    kind: Literal["smoothgrad", "smoothgrad_sq", "vargrad"] = "smoothgrad",
    samples: int = 16,
    noise: float = 0.1,
    steps: int = 32,
) -> Tensor:
    """Another method's mean (mean square, variance) over `samples` noisy copies of a code.

    The noise is Gaussian, its standard deviation `noise` times the mean distance of the code's values from the
    baseline's. `steps` are those of integrated gradients.
    """
    spread = noise * (of.codes - of.baselines).abs().mean().item()
    together = min(samples, of.batch_size)
    shared: dict[str, Any] = {
        "nt_type": kind,
        "nt_samples": samples,
        "nt_samples_batch_size": together,
        "stdevs": spread,
        "target": of.target,
    }
    if around == "saliency":
        return NoiseTunnel(Saliency(of.network)).attribute(of.codes, abs=False, **shared)
    if around == "input_x_gradient":
        return NoiseTunnel(InputXGradient(of.network)).attribute(of.codes, **shared)
    if around != "integrated_gradients":
        raise ValueError(f"around must be saliency, input_x_gradient or integrated_gradients; got {around!r}.")
    return NoiseTunnel(IntegratedGradients(of.network)).attribute(
        of.codes, baselines=of.baselines, n_steps=steps, internal_batch_size=of.batch_size, **shared
    )


def smoothgrad(of: Explained, samples: int = 16, noise: float = 0.1) -> Tensor:
    """The mean gradient, with its sign, over noisy copies of a code; see `noise_tunnel`."""
    return noise_tunnel(of, around="saliency", samples=samples, noise=noise)


def gradient_shap(of: Explained, samples: int = 16, noise: float = 0.0) -> Tensor:
    """The mean gradient at random points of the way from the baseline, times the way; noise as in `noise_tunnel`."""
    spread = noise * (of.codes - of.baselines).abs().mean().item()
    return GradientShap(of.network).attribute(
        of.codes, of.baselines, n_samples=samples, stdevs=spread, target=of.target
    )


def occlusion(of: Explained, window: int | None = None, stride: int | None = None) -> Tensor:
    """What the output loses when a window slides over the patches (pixels), leaving all subbands of them out.

    `window` is its side in patches, a tenth of the longer side and at least 2 by default; `stride` half of it. What
    is left out becomes the baseline; its loss is shared equally by the window's values, and where windows overlap
    their shares are averaged.
    """
    grid = to_grid(of.codes, of.codec, of.spatial_shape)
    _, channels, bands, *places, features = grid.shape
    side = max(2, math.ceil(max(places) / 10)) if window is None else window
    step = max(1, side // 2) if stride is None else stride
    if side < 1 or not 1 <= step <= side:
        raise ValueError(f"window must be at least 1 and stride from 1 to window; got {window!r} and {stride!r}.")
    sides = [min(side, n) for n in places]
    lost = Occlusion(lambda changed: of.network(from_grid(changed, of.codec))).attribute(
        grid,
        sliding_window_shapes=(channels, bands, *sides, features),
        strides=(channels, bands, *(min(step, n) for n in sides), features),
        baselines=to_grid(of.baselines, of.codec, of.spatial_shape),
        target=of.target,
        perturbations_per_eval=max(1, of.batch_size // len(grid)),
        show_progress=of.progress,
    )
    return from_grid(lost, of.codec) / (channels * bands * math.prod(sides) * features)


def feature_ablation(of: Explained, over: Over = "patches") -> Tensor:
    """What the output loses when a group of values, see `feature_groups`, becomes the baseline, shared equally."""
    groups, sizes = _groups(of, over)
    lost = FeatureAblation(of.network).attribute(
        of.codes,
        of.baselines,
        of.target,
        feature_mask=groups,
        perturbations_per_eval=max(1, of.batch_size // len(of.codes)),
        show_progress=of.progress,
    )
    return lost / sizes


def shapley_sampling(of: Explained, over: Over = "patches", samples: int = 10) -> Tensor:
    """The mean gain when groups of values join the baseline in random order, shared equally within a group.

    `samples` random orders are drawn, each with as many evaluations as there are groups.
    """
    groups, sizes = _groups(of, over)
    gained = ShapleyValueSampling(of.network).attribute(
        of.codes,
        of.baselines,
        of.target,
        feature_mask=groups,
        n_samples=samples,
        perturbations_per_eval=max(1, of.batch_size // len(of.codes)),
        show_progress=of.progress,
    )
    return gained / sizes


@dataclass(frozen=True)
class Method:
    """A method and what the caller must know of it.

    Args:
        explain: gives attributions ``[B, C, D]``; its keyword arguments are the method's options.
        gradient: it needs a differentiable network.
        complete: its attributions add up to the output's difference from the baseline's, if only in the limit.
        random: it draws noise, for one code at a time.
        shows_progress: Captum draws its progress.
        rows: the option that says how many copies of each code go through the network at once, if any.
    """

    explain: Callable[..., Tensor]
    gradient: bool = True
    complete: bool = False
    random: bool = False
    shows_progress: bool = False
    rows: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options and their defaults."""
        parameters = list(inspect.signature(self.explain).parameters.values())[1:]
        return {parameter.name: parameter.default for parameter in parameters}

    def codes_at_once(self, batch_size: int, options: Mapping[str, Any]) -> int:
        """How many codes to explain together so that about `batch_size` rows go through the network."""
        if self.random:
            return 1
        rows = 1 if self.rows is None else (self.options | dict(options))[self.rows]
        return max(1, batch_size // rows)


METHODS: dict[str, Method] = {
    "integrated_gradients": Method(integrated_gradients, complete=True, rows="steps"),
    "deeplift": Method(deeplift, complete=True),
    "saliency": Method(saliency),
    "input_x_gradient": Method(input_x_gradient),
    "smoothgrad": Method(smoothgrad, random=True),
    "noise_tunnel": Method(noise_tunnel, random=True),
    "gradient_shap": Method(gradient_shap, complete=True, random=True),
    "occlusion": Method(occlusion, gradient=False, shows_progress=True),
    "feature_ablation": Method(feature_ablation, gradient=False, shows_progress=True),
    "shapley_sampling": Method(shapley_sampling, gradient=False, complete=True, shows_progress=True),
}


def _groups(of: Explained, over: Over) -> tuple[Tensor, Tensor]:
    """The group of each value ``[1, 1, D]``, and how many values of all channels that group has."""
    groups = feature_groups(of.codec, of.spatial_shape, over).to(of.codes.device)
    sizes = groups.bincount()[groups] * of.codes.shape[1]
    return groups.expand(1, *of.codes.shape[1:]).contiguous(), sizes


def _refuse_shared_activations(network: nn.Module, codes: Tensor) -> None:
    """DeepLIFT keeps each activation's input on the module: a second call would overwrite the first."""
    calls: dict[str, int] = {}
    handles = []
    for name, module in network.named_modules():
        if type(module) in SUPPORTED_NON_LINEAR:

            def count(*_: Any, name: str = name) -> None:
                calls[name] = calls.get(name, 0) + 1

            handles.append(module.register_forward_hook(count))
    try:
        with torch.no_grad():
            network(codes)
    finally:
        for handle in handles:
            handle.remove()
    shared = sorted(name for name, number in calls.items() if number > 1)
    if shared:
        raise ValueError(
            f'method="deeplift" needs a network that calls every activation once; {shared[0]!r} is called '
            f"{calls[shared[0]]} times. Use integrated_gradients, or give every place an activation of its own."
        )


def check_options(method: str, options: Mapping[str, Any]) -> None:
    """Refuse options that a method does not have.

    Raises:
        ValueError: an unknown option, or a count below 1.
    """
    known = METHODS[method].options
    if unknown := set(options) - set(known):
        raise ValueError(
            f"method={method!r} has no option {sorted(unknown)[0]!r}; it has {', '.join(known) or 'none'}."
        )
    for name in {"steps", "samples"} & set(options):
        if not isinstance(options[name], int) or options[name] < 1:
            raise ValueError(f"{name} must be an integer of at least 1; got {options[name]!r}.")

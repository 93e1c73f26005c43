"""Does an explanation depend on what the network has learned?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from monai_deepfixcx.metrics.explanations.maps import scale_to_unit, spearman, structural_similarity


@dataclass(frozen=True)
class RandomizedLayer:
    """One step of `cascading_randomization`.

    Attributes:
        layer: the name of the layer that was randomized in this step, with all above it.
        spearman: ``[B]``, rank correlation of the attributions with those of the trained network; near 0 is good.
        ssim: ``[B]``, structural similarity of the two maps, each scaled to [0, 1].
    """

    layer: str
    spearman: Tensor
    ssim: Tensor


def cascading_randomization(
    network: nn.Module,
    explain: Callable[[nn.Module], tuple[Tensor, Tensor]],
    layers: Sequence[str] | None = None,
    seed: int = 0,
) -> list[RandomizedLayer]:
    """Compare explanations of the trained network with those after randomizing its layers, one more each time.

    An explanation that stays the same does not show what was learned. The network itself is left as it is: copies are
    randomized. A layer's parameters are replaced by normal numbers of the same mean and standard deviation.

    Args:
        network: trained, in evaluation mode.
        explain: gives a network's attributions of some codes, ``[B, ...]``, and their maps ``[B, C, *S]``. The
            attributions are ranked, not the maps: where a codec keeps no pixel a map is 0 whatever the network.
        layers: names of modules that hold parameters themselves, from the output down; default: all, in the reverse
            order of registration, which is that of a sequential network.
        seed: of the parameters.

    Returns:
        A step for each layer.

    Raises:
        ValueError: a layer that the network does not have, or that holds no parameter.

    Source: Adebayo et al., NeurIPS 2018, section 4.1.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(144, 8), nn.CELU(), nn.Linear(8, 1)).eval()
    >>> weights = lambda network: network[1].weight.sum(0).view(1, 1, 12, 12)
    >>> steps = cascading_randomization(network, lambda network: (weights(network), weights(network)))
    >>> [(step.layer, round(step.spearman.item(), 1)) for step in steps][0]
    ('3', 1.0)
    """
    own = {name: module for name, module in network.named_modules() if list(module.parameters(recurse=False))}
    chosen = list(reversed(own)) if layers is None else list(layers)
    if unknown := [name for name in chosen if name not in own]:
        raise ValueError(f"layers must be modules with parameters, any of {', '.join(own)}; got {', '.join(unknown)}.")
    trained, maps = explain(network)
    reference = scale_to_unit(maps)
    generator = torch.Generator().manual_seed(seed)
    randomized, steps = copy.deepcopy(network), []
    for name in chosen:
        _randomize(randomized.get_submodule(name), generator)
        found, drawn = explain(randomized)
        ssim = structural_similarity(scale_to_unit(drawn), reference)
        steps.append(RandomizedLayer(name, spearman(found, trained), ssim))
    return steps


def _randomize(module: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in module.parameters(recurse=False):
            deviation = parameter.std() if parameter.numel() > 1 else parameter.abs().mean()
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            parameter.copy_(parameter.mean() + deviation * noise)

"""The code that an attribution compares with: what "nothing to see" looks like.

Source: Gaudio et al., WIREs DMKD 2023, doi:10.1002/widm.1495, section on privatized attribution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from monai_deepfixcx.codecs import Codec, DeepFixCXCodec
from monai_deepfixcx.networks import CodeNormalization


def lowest_subband(codes: Tensor, codec: Codec, spatial_shape: Sequence[int], network: nn.Module) -> Tensor:
    """The code with every subband but the lowest zeroed (the paper's): brightness stays, edges go."""
    if not isinstance(codec, DeepFixCXCodec):
        raise ValueError(f'baseline="lowest_subband" needs a DeepFixCX code; got one of {codec.name}. Use "zero".')
    values = codes.shape[-1] // 2 ** (codec.spatial_dims * codec.levels_for(spatial_shape))
    return torch.cat([codes[..., :values], torch.zeros_like(codes[..., values:])], dim=-1)


def zero(codes: Tensor, codec: Codec, spatial_shape: Sequence[int], network: nn.Module) -> Tensor:
    """A code of zeros."""
    return torch.zeros_like(codes)


def mean(codes: Tensor, codec: Codec, spatial_shape: Sequence[int], network: nn.Module) -> Tensor:
    """The training data's mean code, which a head with normalization "whiten" or "0mean" has stored."""
    for module in network.modules():
        if isinstance(module, CodeNormalization) and module.needs_statistics and bool(module.samples > 0):
            return module.mean.to(codes).expand_as(codes)
    raise ValueError(
        'baseline="mean" needs a network that stores the data set\'s mean, a CodeMLP with normalization "whiten" or '
        '"0mean", fitted. For any other give the mean itself [C, D], from monai_deepfixcx.networks.CodeStatistics.'
    )


BASELINES: dict[str, Callable[[Tensor, Codec, Sequence[int], nn.Module], Tensor]] = {
    "lowest_subband": lowest_subband,
    "zero": zero,
    "mean": mean,
}


def baseline_codes(
    baseline: str | Tensor | None, codes: Tensor, codec: Codec, spatial_shape: Sequence[int], network: nn.Module
) -> tuple[str, Tensor]:
    """The baseline's name and its codes ``[B, C, D]``.

    Args:
        baseline: a name of `BASELINES`, a code ``[C, D]`` or one for each ``[B, C, D]`` ("given"), or `None`:
            "lowest_subband" for DeepFixCX, otherwise "zero".
        codes: ``[B, C, D]``.
        codec: that made the codes.
        spatial_shape: of the encoded images.
        network: that the codes are for; it may hold the data set's mean.

    Raises:
        ValueError: an unknown name, one that does not suit the codec, or a tensor of another shape or not finite.

    >>> codes = torch.rand(4, 1, 144)
    >>> name, baseline = baseline_codes(None, codes, DeepFixCXCodec(levels=2, patch_size=3), (32, 32), nn.Identity())
    >>> name, bool((baseline[..., :9] == codes[..., :9]).all()), baseline[..., 9:].any().item()
    ('lowest_subband', True, False)
    """
    if isinstance(baseline, Tensor):
        given = baseline.detach().as_subclass(Tensor).to(codes)
        if given.shape not in (codes.shape, codes.shape[1:], (1, *codes.shape[1:])):
            raise ValueError(
                f"baseline must be a code {list(codes.shape[1:])}, or one for each of the codes {list(codes.shape)}; "
                f"got {list(given.shape)}."
            )
        if not given.isfinite().all():
            raise ValueError("baseline must be finite; got NaN or infinity.")
        return "given", given.expand_as(codes)
    name = baseline or ("lowest_subband" if isinstance(codec, DeepFixCXCodec) else "zero")
    if name not in BASELINES:
        raise ValueError(f"baseline must be one of {', '.join(BASELINES)}, or a code [C, D]; got {baseline!r}.")
    return name, BASELINES[name](codes, codec, spatial_shape, network)

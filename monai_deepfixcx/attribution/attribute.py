"""Privatized attribution: explain a network on the code, and draw it as the codec draws its privatized images.

Sources: Gaudio et al., WIREs DMKD 2023, doi:10.1002/widm.1495, section on privatized attribution; Johnson et al., IEEE
BHI 2022, arXiv:2210.02241, section on attribution.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from monai.utils.module import optional_import
from torch import Tensor, nn

from monai_deepfixcx.attribution.baselines import baseline_codes
from monai_deepfixcx.attribution.inputs import (
    Target,
    check_codes,
    check_finite,
    check_network_codec,
    explaining,
    output_of,
)
from monai_deepfixcx.attribution.layout import has_grid, to_grid
from monai_deepfixcx.attribution.methods import METHODS, Explained, check_options
from monai_deepfixcx.codecs import Codec, DeepFixCXCodec, HeartSpotCodec, quantile_pool

# The published HeartSpot pool, which makes scattered pixels readable.
POOL_KERNEL, POOL_QUANTILE = 24, 0.90


@dataclass(frozen=True, eq=False)
class PrivatizedAttribution:
    """How much each value of some codes contributed to a network's output, and views of it.

    The views are made when first asked for, from the attribution and the codec alone: the originals are not needed, and
    none is kept. All are plain tensors without metadata.

    Attributes:
        code: attributions ``[B, C, D]``.
        method: a name of `METHODS`.
        target: the explained output of each code, int64 ``[B]``.
        baseline: the codes compared with, ``[B, C, D]``.
        baseline_name: "lowest_subband", "zero", "mean" or "given".
        output: the network's explained output for the codes, ``[B]``.
        baseline_output: the same for the baselines, ``[B]``.
        delta: sum of the attributions less (output - baseline_output), ``[B]``, for methods that promise it to be 0;
            otherwise `None`. DeepLIFT keeps the promise where every nonlinearity is an element-wise activation module
            (not a group normalization, an overlapping max-pool or an activation by function), Shapley sampling always,
            the others with enough steps or samples.
        codec: that made the codes.
        spatial_shape: of the encoded images.
    """

    code: Tensor
    method: str
    target: Tensor
    baseline: Tensor
    baseline_name: str
    output: Tensor
    baseline_output: Tensor
    delta: Tensor | None
    codec: Codec
    spatial_shape: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.code)

    def __getitem__(self, index: slice | Sequence[int] | Tensor) -> PrivatizedAttribution:
        """The attributions of some of the codes: a slice, indices, or a boolean mask."""
        if isinstance(index, int):
            raise TypeError("an attribution is indexed by a slice or a list, as in attribution[2:3]; got an int.")
        parts = {
            name: getattr(self, name)[index] for name in ("code", "target", "baseline", "output", "baseline_output")
        }
        return replace(self, **parts, delta=None if self.delta is None else self.delta[index])

    @cached_property
    def image(self) -> Tensor | None:
        """The attribution drawn like a privatized image, ``[B, C, *S]``; in units of the output a pixel.

        Decoded by the codec's own decoder, so it lies on the privatized image pixel by pixel (see `decoded_offset`
        for the original), and is linear in the attribution. For HeartSpot: `scattered` at full size, then the published
        24 x 24 pool of quantile .90, which is not linear, and 0 wherever less than a tenth of a window is kept and
        positive. `None` where the codec cannot decode: a DeepFixCX code of several pooled features.
        """
        if self.scattered is not None:
            pixels = _enlarged(self.scattered, self.spatial_shape)
            return quantile_pool(pixels, POOL_KERNEL, stride=1, quantile=POOL_QUANTILE, padding="same")
        if isinstance(self.codec, DeepFixCXCodec) and len(self.codec.features) > 1:
            return None
        with torch.no_grad():
            return self._codec.decode(self.code, self.spatial_shape)

    @cached_property
    def scattered(self) -> Tensor | None:
        """HeartSpot's attribution in the places of its kept pixels, ``[B, C, H', W']`` (half as large with median).

        Linear in the attribution, with the same sum: with aggregate "sum" a column's or row's share is spread evenly
        over its kept pixels (and dropped where it has none). `None` for other codecs.
        """
        return _scattered(self.code, self._codec) if isinstance(self._codec, HeartSpotCodec) else None

    @cached_property
    def spatial_bias(self) -> Tensor | None:
        """Where: the attribution's sum over channels, subbands and features, ``[B, *P]``, one value a patch.

        One value a pixel of the codec's grid for codecs that keep pixels; `None` where a value has no place.
        """
        if self.scattered is not None:
            return self.scattered.sum(1)
        return self._grid.sum((1, 2, -1)) if has_grid(self.codec) else None

    @cached_property
    def subband_bias(self) -> Tensor | None:
        """At which scale and direction: the sum over channels, patches and features, ``[B, 4^J]`` (8^J in 3-D).

        `None` but for DeepFixCX. `subband_grid` lays it out by frequency.
        """
        if not isinstance(self.codec, DeepFixCXCodec):
            return None
        return self._grid.sum((1, *range(3, self._grid.ndim)))

    @property
    def _grid(self) -> Tensor:
        return to_grid(self.code, self.codec, self.spatial_shape)

    @cached_property
    def _codec(self) -> Codec:
        """The codec where the attribution is."""
        return copy.deepcopy(self.codec).to(self.code.device)


def attribute(
    network: nn.Module,
    codes: Tensor,
    codec: Codec,
    spatial_shape: Sequence[int],
    method: str = "integrated_gradients",
    target: Target = None,
    *,
    baseline: str | Tensor | None = None,
    batch_size: int = 256,
    progress: bool = False,
    fingerprint: str | None = None,
    seed: int = 0,
    **options: Any,
) -> PrivatizedAttribution:
    """Explain a network's output by the code alone, to be drawn on the privatized image.

    Args:
        network: takes codes ``[B, C, D]`` and gives ``[B]`` or ``[B, L]``; a `PrivatizedNetwork` is given codes,
            whatever its `inputs` say. It runs in evaluation mode, and is left as it was: modes, gradients and hooks.
        codes: ``[B, C, D]``, on any device; moved to the network's device and kind of float.
        codec: that made the codes.
        spatial_shape: of the encoded images, in pixels.
        method: a name of `METHODS`, each documented in `monai_deepfixcx.attribution.methods`.
        target: the output to explain, an index from 0 to L - 1; or one for each code; `None` if there is only one. Of a
            network with several labels each call explains one label.
        baseline: "lowest_subband" (DeepFixCX's default), "zero" (the others'), "mean" of the training data as the
            network has stored it, a code ``[C, D]``, or one for each ``[B, C, D]``. Saliency, input x gradient and
            SmoothGrad do not use it.
        batch_size: rows that go through the network at once. The default is the fastest for an MLP on 2 CPU cores;
            lower it for networks on large images.
        progress: draw a progress bar (to stderr).
        fingerprint: of the codec that made the codes, as a `CodeStore` has it, to be compared with the codec's.
        seed: of the methods that draw noise or orders. Every code starts from the same seed: a batch gives what its
            codes give one by one, on one kind of device. The caller's random state is left alone.
        **options: of the method, as its function in `monai_deepfixcx.attribution.methods` names them.

    Returns:
        Attributions on the codes' device.

    Raises:
        ValueError: an unknown method, option or baseline; codes of another codec or not finite; a target out of range;
            a gradient-based method for a network without gradients; attributions that are not finite.

    >>> from monai_deepfixcx.networks import CodeMLP
    >>> codec = DeepFixCXCodec(levels=2, patch_size=3)
    >>> codes = codec.encode(torch.rand(4, 1, 48, 48))
    >>> found = attribute(CodeMLP(144, out_channels=5), codes, codec, (48, 48), "integrated_gradients", target=2)
    >>> found.image.shape, found.spatial_bias.shape, found.subband_bias.shape
    (torch.Size([4, 1, 48, 48]), torch.Size([4, 3, 3]), torch.Size([4, 16]))
    >>> bool(found.delta.abs().max() < 1e-3)
    True
    """
    shape = tuple(int(n) for n in spatial_shape)
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}.")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size!r}.")
    check_options(method, options)
    check_codes(codes, codec, shape, fingerprint)
    check_network_codec(network, codec)
    with explaining(network):
        inputs = _like_network(codes, network)
        name, baselines = baseline_codes(baseline, inputs, codec, shape, network)
        targets = output_of(network, inputs, target, method)
        size = METHODS[method].codes_at_once(batch_size, options)
        parts = []
        for start in _bar(range(0, len(inputs), size), progress and not METHODS[method].shows_progress, method):
            part = slice(start, start + size)
            of = Explained(
                network,
                inputs[part].requires_grad_(),
                baselines[part],
                None if targets is None else targets[part],
                codec,
                shape,
                batch_size,
                progress,
            )
            with _seeded(seed, inputs.device):
                # Captum leaves parts out in float32 whatever the codes are.
                parts.append(METHODS[method].explain(of, **options).detach().to(inputs.dtype))
        code = torch.cat(parts)
        check_finite(code, method)
        output, baseline_output = (_outputs(network, values, targets, batch_size) for values in (inputs, baselines))
    delta = code.sum((1, 2)) - (output - baseline_output) if METHODS[method].complete else None
    if targets is None:
        targets = torch.zeros(len(codes), dtype=torch.int64)
    back = {
        "code": code,
        "target": targets,
        "baseline": baselines,
        "output": output,
        "baseline_output": baseline_output,
    }
    return PrivatizedAttribution(
        method=method,
        baseline_name=name,
        delta=None if delta is None else delta.to(codes.device),
        codec=codec,
        spatial_shape=shape,
        **{key: value.detach().to(codes.device) for key, value in back.items()},
    )


def _like_network(codes: Tensor, network: nn.Module) -> Tensor:
    """A plain copy of the codes where, and in the kind of float that, the network computes."""
    plain = codes.detach().as_subclass(Tensor)
    like = next((p for p in network.parameters() if p.is_floating_point()), None)
    if like is not None:
        return plain.to(like, copy=True)
    return plain.clone() if plain.is_floating_point() else plain.float()


def _outputs(network: nn.Module, codes: Tensor, targets: Tensor | None, batch_size: int) -> Tensor:
    """The explained outputs ``[B]``."""
    with torch.no_grad():
        outputs = torch.cat([network(part) for part in codes.split(batch_size)])
    return outputs if targets is None else outputs.gather(1, targets.unsqueeze(1)).squeeze(1)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Captum draws from the global generators of torch and NumPy: seed them, and give them back as they were."""
    numpy_state = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002


def _bar(starts: range, shown: bool, method: str) -> Any:
    """The starts, behind a progress bar if it is to be shown."""
    if not shown:
        return starts
    tqdm, _ = optional_import("tqdm", name="tqdm")  # Captum brings it, and draws its own bars by it
    return tqdm(starts, desc=method)


def _scattered(code: Tensor, codec: HeartSpotCodec) -> Tensor:
    """Attributions ``[B, C, D]`` in the places of the kept pixels ``[B, C, H', W']``, their sum unchanged."""
    if codec.aggregate == "pixels":
        return codec.scatter(code)
    columns, rows = code.split([codec.mask.shape[1], codec.mask.shape[0]], dim=2)
    column_share = (columns / codec.mask.sum(0).clamp(min=1)).unsqueeze(2)
    row_share = (rows / codec.mask.sum(1).clamp(min=1)).unsqueeze(3)
    return (column_share + row_share) * codec.mask


def _enlarged(images: Tensor, spatial_shape: Sequence[int]) -> Tensor:
    """Nearest pixels, as the codec enlarges an image that its median has halved."""
    for axis, size in enumerate(spatial_shape, start=2):
        if images.shape[axis] != size:
            nearest = torch.arange(size, device=images.device) // 2
            images = images.index_select(axis, nearest.clamp(max=images.shape[axis] - 1))
    return images

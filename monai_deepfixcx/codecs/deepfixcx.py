"""DeepFixCX: wavelet packets, pooled over a grid of patches.

Source: Gaudio et al., WIREs DMKD 2023, doi:10.1002/widm.1495.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pywt
import torch
import torch.nn.functional as F
from torch import Tensor

from monai_deepfixcx.codecs import kernels
from monai_deepfixcx.codecs.base import Codec, per_axis
from monai_deepfixcx.codecs.wavelet_packet import (
    Adaptive,
    InverseWaveletPacket,
    WaveletPacket,
    discrete_wavelet,
    subband_shape,
)

Feature = Literal["l1", "sum", "max", "min", "median", "l2", "sum_pos", "sum_neg"]

# What each pooled feature computes over the last axis; the order is the code's, whatever order is asked for.
_POOL: dict[Feature, Callable[[Tensor], Tensor]] = {
    "l1": lambda patch: patch.abs().sum(-1),
    "sum": lambda patch: patch.sum(-1),
    "max": lambda patch: patch.amax(-1),
    "min": lambda patch: patch.amin(-1),
    "median": lambda patch: patch.median(-1).values,
    "l2": lambda patch: patch.square().sum(-1),
    "sum_pos": lambda patch: (patch * (patch > 1e-6)).sum(-1),
    "sum_neg": lambda patch: (patch * (patch < -1e-6)).sum(-1),
}
FEATURES: tuple[Feature, ...] = tuple(_POOL)


class DeepFixCXCodec(Codec):
    """Compress an image to a few numbers per patch and wavelet packet subband.

    The image loses position below the P x P patch grid, and (with "l1") the sign of every edge. Larger `levels`
    keep more edge scales and directions, larger `patch_size` more position.

    Args:
        levels: J >= 1, how often each axis is halved; there are 4^J subbands (8^J in 3-D). "max" takes the most that
            PyWavelets' `dwt_max_level` and the patch grid allow, image by image.
        patch_size: P, patches along each axis, or one number per axis. (The published name: a grid, not a size in
            pixels.)
        wavelet: any discrete PyWavelets wavelet; the papers use db1, coif1 and coif2.
        features: what is pooled from each patch, any of `FEATURES`; the code holds them in that order.
        zero_mean: subtract each channel's spatial mean before the transform.
        spatial_dims: 2 or 3.
        in_channels: fix the number of channels C; needed with a `channel_multiplier`.
        channel_multiplier: m > 1 first mixes the C channels into m C by a fixed random 1x1 convolution and CELU; the
            code and the decoded image then have m C channels.
        adaptive: learn the analysis and synthesis filters; see `WaveletPacket`.
        seed: of the random channel mix.

    Raises:
        ValueError: an argument out of range.

    >>> codec = DeepFixCXCodec(levels=4, patch_size=5)
    >>> images = torch.rand(8, 1, 320, 320)
    >>> codes = codec.encode(images)
    >>> codes.shape
    torch.Size([8, 1, 6400])
    >>> codec.decode(codes, (320, 320)).shape
    torch.Size([8, 1, 320, 320])
    >>> codec.decode(codes, (320, 320), restore_size=False).shape
    torch.Size([8, 1, 80, 80])
    """

    name = "deepfixcx"
    version = 1
    channel_mix: Tensor

    def __init__(
        self,
        levels: int | Literal["max"],
        patch_size: int | Sequence[int],
        wavelet: str = "db1",
        features: Sequence[Feature] = ("l1",),
        zero_mean: bool = False,
        spatial_dims: int = 2,
        in_channels: int | None = None,
        channel_multiplier: int = 1,
        adaptive: Adaptive = "none",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if levels != "max" and (not isinstance(levels, int) or levels < 1):
            raise ValueError(f'levels must be an integer of at least 1, or "max"; got {levels!r}.')
        if isinstance(features, str) or not features or set(features) - set(FEATURES):
            raise ValueError(f"features must be a non-empty list from {', '.join(FEATURES)}; got {features!r}.")
        if channel_multiplier < 1 or (channel_multiplier > 1 and in_channels is None):
            raise ValueError(
                "channel_multiplier must be at least 1, and above 1 needs in_channels (the images' channels); "
                f"got channel_multiplier={channel_multiplier}, in_channels={in_channels}."
            )
        self.analysis = WaveletPacket(wavelet, spatial_dims, adaptive)
        self.synthesis = InverseWaveletPacket(wavelet, spatial_dims, adaptive)
        self.levels, self.wavelet = levels, wavelet
        self.patch_size = per_axis(patch_size, spatial_dims, "patch_size")
        self.features = tuple(feature for feature in FEATURES if feature in features)
        self.zero_mean, self.spatial_dims, self.adaptive = zero_mean, spatial_dims, adaptive
        self.in_channels, self.channel_multiplier, self.seed = in_channels, channel_multiplier, seed
        if channel_multiplier > 1 and in_channels is not None:
            # Kaiming-normal with gain 1: std 1/sqrt(fan_in). NumPy's RandomState is frozen, torch's stream is not.
            mix = np.random.RandomState(seed).standard_normal((in_channels * channel_multiplier, in_channels))
            self.register_buffer("channel_mix", torch.from_numpy(mix / math.sqrt(in_channels)), persistent=False)

    def parameters_config(self) -> dict[str, Any]:
        """The constructor's arguments, features in the code's order."""
        return {
            "levels": self.levels,
            "patch_size": list(self.patch_size),
            "wavelet": self.wavelet,
            "features": list(self.features),
            "zero_mean": self.zero_mean,
            "spatial_dims": self.spatial_dims,
            "in_channels": self.in_channels,
            "channel_multiplier": self.channel_multiplier,
            "adaptive": self.adaptive,
            "seed": self.seed,
        }

    def levels_for(self, spatial_shape: Sequence[int]) -> int:
        """J for images of this shape: `levels`, or what "max" comes to.

        Raises:
            ValueError: the subbands would be smaller than the patch grid.

        >>> DeepFixCXCodec("max", patch_size=5).levels_for((320, 320))
        6
        """
        return _levels_for(self.levels, self.wavelet, self.patch_size, tuple(map(int, spatial_shape)))

    def code_length(self, spatial_shape: Sequence[int]) -> int:
        """D = 4^J P_h P_w F (8^J P_d P_h P_w F in 3-D), whatever the image size.

        Raises:
            ValueError: the subbands would be smaller than the patch grid.

        >>> DeepFixCXCodec(levels=4, patch_size=5, features=["l1", "max"]).code_length((320, 320))
        12800
        """
        subbands = 2 ** (self.spatial_dims * self.levels_for(spatial_shape))
        return subbands * math.prod(self.patch_size) * len(self.features)

    def _encode_fused(self, images: Tensor, white: float) -> Tensor | None:
        ready = self.in_channels is None and not self.zero_mean
        return self._pool_fused(images, white) if ready else None

    def _pool_fused(self, images: Tensor, white: float = 1) -> Tensor | None:
        if self.adaptive != "none":
            return None
        haar = self.wavelet in ("db1", "haar")
        on_gpu = haar and self.spatial_dims == 2 and kernels.gpu_takes(images, self.features)
        if not on_gpu and not kernels.takes(images):
            return None
        if white != 1 and (on_gpu or not haar):
            return None
        levels = _levels_for(self.levels, self.wavelet, self.patch_size, images.shape[2:])
        if on_gpu:
            return kernels.encode_haar_gpu(images, levels, self.patch_size, self.features)
        if haar:
            return kernels.encode_haar(images, levels, self.patch_size, self.features, white)
        return kernels.encode_packets(images, self.analysis.taps, levels, self.patch_size, self.features)

    def _encode(self, images: Tensor) -> Tensor:
        if self.in_channels is not None and images.shape[1] != self.in_channels:
            raise ValueError(f"images must have in_channels={self.in_channels} channels; got {images.shape[1]}.")
        if self.channel_multiplier > 1:
            images = F.celu(torch.einsum("oc,bc...->bo...", self.channel_mix.to(images), images))
        if self.zero_mean:
            images = images - images.mean(dim=tuple(range(2, images.ndim)), keepdim=True)
        codes = self._pool_fused(images)
        if codes is not None:
            return codes
        subbands = self.analysis(images, self.levels_for(images.shape[2:]))
        patches = _cut_patches(subbands, self.patch_size)
        return torch.stack([_POOL[feature](patches) for feature in self.features], dim=-1).flatten(2)

    def _decode(self, codes: Tensor, spatial_shape: tuple[int, ...], restore_size: bool) -> Tensor:
        if len(self.features) > 1:
            raise ValueError(
                f"decode needs a code of one pooled feature; this codec has {len(self.features)} "
                f"({', '.join(self.features)}). Encode with one, as in features=['l1']."
            )
        levels = self.levels_for(spatial_shape)
        subbands = codes.unflatten(2, (-1, *self.patch_size))
        repeats = [math.ceil(n / 2**levels / p) for n, p in zip(spatial_shape, self.patch_size, strict=True)]
        subbands = subbands / math.prod(repeats)
        if not restore_size:
            return self.synthesis(subbands, levels)
        return self.synthesis.from_patches(subbands, levels, repeats, spatial_shape)


@lru_cache(maxsize=256)
def _levels_for(
    asked: int | Literal["max"], wavelet: str, grid: tuple[int, ...], spatial_shape: tuple[int, ...]
) -> int:
    def fits(levels: int) -> bool:
        return all(n >= p for n, p in zip(subband_shape(spatial_shape, levels), grid, strict=True))

    if asked != "max":
        levels = asked
    else:
        longest = pywt.dwt_max_level(min(spatial_shape), discrete_wavelet(wavelet).dec_len)
        levels = next((j for j in range(longest, 1, -1) if fits(j)), 1)
    if not fits(levels):
        size, bands = ("x".join(map(str, s)) for s in (spatial_shape, subband_shape(spatial_shape, levels)))
        raise ValueError(
            f"patch_size must be at most the subbands' size, {bands} for a {size} image at levels={levels}; "
            f"got {'x'.join(map(str, grid))}. Lower patch_size or levels."
        )
    return levels


def _cut_patches(subbands: Tensor, grid: Sequence[int]) -> Tensor:
    """Cut maps ``[B, C, K, *S]``, zero-padded to a multiple of the grid, into patches ``[B, C, K, *grid, pixels]``."""
    spatial_dims = len(grid)
    total = [-n % p for n, p in zip(subbands.shape[3:], grid, strict=True)]
    if any(total):
        subbands = F.pad(subbands, [side for pad in reversed(total) for side in (pad // 2, pad - pad // 2)])
    for axis, p in reversed(list(enumerate(grid, start=3))):
        subbands = subbands.unflatten(axis, (p, -1))
    inside = [3 + 2 * axis + 1 for axis in range(spatial_dims)]
    return subbands.movedim(inside, list(range(-spatial_dims, 0))).flatten(-spatial_dims)

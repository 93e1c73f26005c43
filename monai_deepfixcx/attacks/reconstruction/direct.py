"""Attacks that need no training: look up, decode, enlarge, fill."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_deepfixcx.attacks.base import Auxiliary, ThreatModel, Victims
from monai_deepfixcx.attacks.reconstruction.base import ReconstructionAttack
from monai_deepfixcx.codecs import Codec, DeepFixCXCodec, HeartSpotCodec
from monai_deepfixcx.codecs.wavelet_packet import subband_shape

_SUMS = ("l1", "sum", "sum_pos")  # features that, in the lowest subband of non-negative images, add up pixels


class MeanImage(ReconstructionAttack):
    """The best guess without the code: the mean auxiliary image. Every other attack is measured against it.

    >>> from monai_deepfixcx.attacks import run_attack
    >>> from monai_deepfixcx.codecs import IdentityCodec
    >>> films = torch.rand(8, 1, 16, 16)
    >>> people = {"images": films[:4], "patients": ["a", "a", "b", "b"]}
    >>> victims = {"images": films[4:], "patients": ["c", "c", "d", "d"]}
    >>> result = run_attack(MeanImage(), IdentityCodec(), people, victims, samples=0)
    >>> round(result.metrics["explained_variance"].value, 3)
    0.0
    """

    name: str = "MeanImage"
    threat = ThreatModel("reconstruct", holds=("images of auxiliary patients",))

    def fit(self, auxiliary: Auxiliary) -> Self:
        """Take the mean."""
        self._mean = auxiliary.images.mean(0)
        return self

    def run(self, victims: Victims) -> Tensor:
        """The mean, for each victim."""
        return self._mean.expand(len(victims.codes), *self._mean.shape).clone()


class NearestNeighbor(ReconstructionAttack):
    """The auxiliary image whose code is nearest (Euclidean); of equally near ones, the mean.

    >>> from monai_deepfixcx.attacks import run_attack
    >>> from monai_deepfixcx.codecs import ConstantCodec
    >>> films = torch.rand(8, 1, 16, 16)
    >>> people = {"images": films[:4], "patients": ["a", "a", "b", "b"]}
    >>> victims = {"images": films[4:], "patients": ["c", "c", "d", "d"]}
    >>> result = run_attack(NearestNeighbor(), ConstantCodec(), people, victims, samples=0)
    >>> torch.allclose(result.output, films[:4].mean(0))
    True
    """

    name: str = "NearestNeighbor"

    def fit(self, auxiliary: Auxiliary) -> Self:
        """Remember the auxiliary codes and images."""
        self._images, self._codes = auxiliary.images, auxiliary.codes.flatten(1)
        return self

    def run(self, victims: Victims) -> Tensor:
        """Look the nearest up."""
        apart = torch.cdist(victims.codes.flatten(1), self._codes)
        nearest = (apart <= apart.amin(1, keepdim=True) * (1 + 1e-6)).to(self._images)
        found = nearest @ self._images.flatten(1) / nearest.sum(1, keepdim=True)
        return found.reshape(-1, *self._images.shape[1:])


class DecoderAttack(ReconstructionAttack):
    """The papers' decoder, clipped to [0, 1]. Of a code that never changes, the mean auxiliary image.

    It understates an attacker: the sign-less subbands that it draws do harm.

    >>> from monai_deepfixcx.attacks import run_attack
    >>> from monai_deepfixcx.codecs import IdentityCodec
    >>> films = torch.rand(8, 1, 16, 16)
    >>> people = {"images": films[:4], "patients": ["a", "a", "b", "b"]}
    >>> victims = {"images": films[4:], "patients": ["c", "c", "d", "d"]}
    >>> result = run_attack(DecoderAttack(), IdentityCodec(), people, victims, samples=0)
    >>> round(result.metrics["explained_variance"].value, 3)
    1.0
    """

    name: str = "DecoderAttack"

    def why_unsuited(self, codec: Codec) -> str | None:
        """Decoding needs one pooled feature and the images' own channels."""
        return why_undecodable(codec)

    def fit(self, auxiliary: Auxiliary) -> Self:
        """Note the codec, and whether its codes say anything at all."""
        self._codec, self._shape = auxiliary.codec, auxiliary.spatial_shape
        says_nothing = bool((auxiliary.codes == auxiliary.codes[:1]).all())
        self._mean = auxiliary.images.mean(0) if says_nothing else None
        return self

    def run(self, victims: Victims) -> Tensor:
        """Decode and clip."""
        if self._mean is not None:
            return self._mean.expand(len(victims.codes), *self._mean.shape).clone()
        return self._codec.decode(victims.codes, self._shape).clamp(0, 1)


class LowPassThumbnail(ReconstructionAttack):
    """The lowest subband only, as a thumbnail of P x P pixels, enlarged (bi- or trilinear).

    For non-negative images the lowest subband pooled by l1 is the sum of each patch's pixels (exactly so for db1), and
    divided by the sum of an all-white image it is their mean. The detail subbands, whose signs are lost, are dropped.
    METHODS reports the same with the papers' decoder and its nearest-neighbour enlargement.

    >>> from monai_deepfixcx.attacks import run_attack
    >>> from monai_deepfixcx.codecs import DeepFixCXCodec
    >>> films = torch.rand(8, 1, 16, 16)
    >>> people = {"images": films[:4], "patients": ["a", "a", "b", "b"]}
    >>> victims = {"images": films[4:], "patients": ["c", "c", "d", "d"]}
    >>> result = run_attack(LowPassThumbnail(), DeepFixCXCodec(levels=1, patch_size=8), people, victims, samples=0)
    >>> result.output.shape
    torch.Size([4, 1, 16, 16])
    """

    name: str = "LowPassThumbnail"
    threat = ThreatModel("reconstruct", holds=("codes of the victims",))

    def why_unsuited(self, codec: Codec) -> str | None:
        """Only sums over the patches of an unmixed image will do."""
        fits = (
            isinstance(codec, DeepFixCXCodec)
            and not codec.zero_mean
            and codec.channel_multiplier == 1
            and any(feature in _SUMS for feature in codec.features)
        )
        return None if fits else "needs DeepFixCX with feature l1, sum or sum_pos, without zero_mean or mixed channels"

    def fit(self, auxiliary: Auxiliary) -> Self:
        """Encode an all-white image, which holds every patch's gain, padding included."""
        self._codec, self._shape = _as_deepfixcx(auxiliary.codec), auxiliary.spatial_shape
        with torch.no_grad():
            white = self._codec.encode(torch.ones_like(auxiliary.images[:1]))
        self._white = self._lowest(white)
        return self

    def run(self, victims: Victims) -> Tensor:
        """Draw the thumbnail and enlarge it to the images' grid."""
        thumbnail = self._lowest(victims.codes) / self._white
        levels, grid = self._codec.levels_for(self._shape), self._codec.patch_size
        pads = [-n % p for n, p in zip(subband_shape(self._shape, levels), grid, strict=True)]
        padded = [(n + pad) * 2**levels for n, pad in zip(subband_shape(self._shape, levels), pads, strict=True)]
        images = F.interpolate(thumbnail, size=padded, mode="bilinear" if len(grid) == 2 else "trilinear")
        for axis, (pad, size) in enumerate(zip(pads, self._shape, strict=True), start=2):
            images = images.narrow(axis, pad // 2 * 2**levels, size)
        return images.clamp(0, 1)

    def _lowest(self, codes: Tensor) -> Tensor:
        """The lowest subband's sums, ``[N, C, *P]``."""
        feature = next(k for k, name in enumerate(self._codec.features) if name in _SUMS)
        return codes.unflatten(2, (-1, *self._codec.patch_size, len(self._codec.features)))[:, :, 0, ..., feature]


class MeanFill(ReconstructionAttack):
    """HeartSpot's kept pixels in their places, the mean auxiliary image everywhere else.

    >>> from monai_deepfixcx.attacks import run_attack
    >>> from monai_deepfixcx.codecs import HeartSpotCodec
    >>> films = torch.rand(8, 1, 16, 16)
    >>> people = {"images": films[:4], "patients": ["a", "a", "b", "b"]}
    >>> victims = {"images": films[4:], "patients": ["c", "c", "d", "d"]}
    >>> result = run_attack(MeanFill(), HeartSpotCodec("", (16, 16)), people, victims, samples=0)
    >>> round(result.metrics["explained_variance"].value, 3)
    1.0
    """

    name: str = "MeanFill"
    spatial_dims: ClassVar[tuple[int, ...]] = (2,)

    def why_unsuited(self, codec: Codec) -> str | None:
        """Only pixels can be put back."""
        return why_no_pixels(codec)

    def fit(self, auxiliary: Auxiliary) -> Self:
        """Take the mean, and note the mask."""
        self._codec, self._shape = auxiliary.codec, auxiliary.spatial_shape
        self._mean, self._mask = auxiliary.images.mean(0), kept_pixels(auxiliary)
        return self

    def run(self, victims: Victims) -> Tensor:
        """Fill the gaps."""
        kept = self._codec.decode(victims.codes, self._shape)
        return torch.where(self._mask, kept, self._mean).clamp(0, 1)


def kept_pixels(auxiliary: Auxiliary) -> Tensor:
    """Where HeartSpot's kept pixels come to lie: bool ``[1, C, H, W]``."""
    return auxiliary.codec.decode(torch.ones_like(auxiliary.codes[:1]), auxiliary.spatial_shape) > 0


def why_undecodable(codec: Codec) -> str | None:
    """Why a codec's decoder does not give images of the encoded kind, or None if it does."""
    if isinstance(codec, DeepFixCXCodec) and (len(codec.features) > 1 or codec.channel_multiplier > 1):
        return "needs a code of one pooled feature and unmixed channels, which the decoder asks for"
    return None


def why_no_pixels(codec: Codec) -> str | None:
    """Why a codec's code does not hold pixels at known places, or None if it does."""
    if isinstance(codec, HeartSpotCodec) and codec.aggregate == "pixels":
        return None
    return 'needs the pixels that HeartSpot keeps (aggregate="pixels")'


def _as_deepfixcx(codec: Codec) -> DeepFixCXCodec:
    if not isinstance(codec, DeepFixCXCodec):
        raise TypeError(f"codec must be a DeepFixCXCodec; got {type(codec).__name__}.")
    return codec

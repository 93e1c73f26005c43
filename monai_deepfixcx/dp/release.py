"""Codes that may be given away: clipped, with calibrated Gaussian noise.

Source: the analytic Gaussian mechanism, Balle & Wang 2018 (arXiv:1805.06530).
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch
from monai.config import KeysCollection
from monai.data import PersistentDataset
from monai.transforms import Compose, MapTransform, Randomizable, Transform
from torch import Tensor

from monai_deepfixcx.codecs import Codec, codec_from_config
from monai_deepfixcx.dp.ledger import ReleaseLedger
from monai_deepfixcx.dp.mechanism import noise_scale
from monai_deepfixcx.dp.randomness import secret_generator, seed_of_step
from monai_deepfixcx.dp.sensitivity import Relation, image_sensitivity, pixel_sensitivity
from monai_deepfixcx.transforms.metadata import Image, StrippingMapTransform, strip


class DPRelease(Randomizable, Transform):
    """Clip a code ``[C, D]`` to an l2 ball and add Gaussian noise, so that its release is (epsilon, delta)-private.

    Every call draws fresh noise and is a release of its own: release once, store what comes out, and use that as often
    as you like. MONAI's caching datasets never cache what a random transform gives; they keep what goes in, so that
    `check_release_dataset` refuses those on disk. Not invertible: nothing that undoes it exists.

    With relation "image", epsilon bounds what the release tells apart between any two images. For codes of thousands of
    values the noise then leaves almost nothing at epsilon 8; see `signal_to_noise`. "m_pixels" bounds only what it
    tells about any `pixels` pixels, such as a marker or a nodule.

    Args:
        epsilon: of each release.
        delta: of each release.
        clip_norm: C, the l2 norm to which a code (all channels together) is clipped.
        relation: "image" or "m_pixels".
        codec: that made the codes, or its configuration; "m_pixels" needs it.
        spatial_shape: of the images; "m_pixels" needs it.
        pixels: m.
        value_range: by how much a pixel value may differ, such as 1 for images in [0, 1].
        in_channels: C of the images.
        ledger: keeps account of all releases of each patient and refuses those past the budget.
        seed: makes the noise repeatable, for experiments only: whoever knows it can take it off. None draws from the
            operating system at every call, in every worker, whatever MONAI's seeds are.

    Attributes:
        sensitivity: the largest l2 distance between the clipped codes of neighbours.
        noise: standard deviation of what is added to each value.

    Raises:
        ValueError: an argument out of range, or a codec without a known sensitivity.

    >>> release = DPRelease(epsilon=8, delta=1e-5, clip_norm=2.0)
    >>> release.sensitivity, round(release.noise, 3)
    (4.0, 2.401)
    >>> release(torch.ones(1, 100)).shape
    torch.Size([1, 100])
    """

    def __init__(
        self,
        epsilon: float,
        delta: float,
        clip_norm: float,
        relation: Relation = "image",
        codec: Codec | Mapping[str, Any] | None = None,
        spatial_shape: Sequence[int] | None = None,
        pixels: int | None = None,
        value_range: float = 1.0,
        in_channels: int = 1,
        ledger: ReleaseLedger | None = None,
        seed: int | None = None,
    ) -> None:
        if not clip_norm > 0:
            raise ValueError(f"clip_norm must be above 0; got {clip_norm!r}.")
        if relation not in get_args(Relation):
            raise ValueError(f"relation must be one of {', '.join(get_args(Relation))}; got {relation!r}.")
        codec = codec_from_config(codec) if isinstance(codec, Mapping) else codec
        self.clip_norm = float(clip_norm)
        self.sensitivity = image_sensitivity(self.clip_norm, codec)
        self.relation = str(relation)
        if relation == "m_pixels":
            if codec is None or spatial_shape is None or pixels is None:
                raise ValueError(
                    'relation="m_pixels" needs codec, spatial_shape and pixels: how far codes lie apart depends on all '
                    "three."
                )
            bound = pixel_sensitivity(codec, spatial_shape, pixels, value_range, in_channels)
            self.sensitivity = min(self.sensitivity, bound)
            self.relation = f"{pixels} pixels by {value_range:g}"
        self.epsilon, self.delta = epsilon, delta
        self.noise = noise_scale(epsilon, delta, self.sensitivity)
        self.ledger, self.seed = ledger, seed
        self._calls = 0

    def signal_to_noise(self, code_length: int) -> float:
        """The largest norm a code can have by the norm its noise has: below 1, noise is most of what is released.

        Args:
            code_length: values of a code, C times D.

        >>> round(DPRelease(epsilon=8, delta=1e-5, clip_norm=2.0).signal_to_noise(6400), 3)
        0.01
        """
        return self.clip_norm / (self.noise * code_length**0.5)

    def __call__(self, code: Image, patient: object = None) -> Tensor:
        """Release one code.

        Args:
            code: ``[C, D]``, numpy, Tensor or MetaTensor.
            patient: whose it is; needed with a ledger.

        Returns:
            A plain tensor ``[C, D]``.

        Raises:
            TypeError: not a numeric array or tensor.
            ValueError: values that are not finite, no patient for the ledger, or a patient whose budget is spent.
        """
        values = strip(code)
        values = values if values.is_floating_point() else values.float()
        if not bool(values.isfinite().all()):
            raise ValueError("code must be finite; got NaN or infinity, which no noise can hide.")
        if self.ledger is not None:
            if patient is None:
                raise ValueError("patient must be given, so that the ledger can account for the release.")
            self.ledger.enter(patient, self.sensitivity / self.noise, self.relation)
        norm = values.double().norm()
        clipped = values.double() * (self.clip_norm / norm.clamp(min=self.clip_norm))
        noise = torch.randn(values.shape, generator=self._generator(values), dtype=torch.float64)
        return (clipped + self.noise * noise.to(values.device)).to(values.dtype)

    def _generator(self, values: Tensor) -> torch.Generator:
        """New for every call: one that a copy of the transform, or a forked worker, shares would repeat its noise."""
        if self.seed is None:
            return secret_generator()
        self._calls += 1
        content = int.from_bytes(hashlib.sha256(values.cpu().numpy().tobytes()).digest()[:16], "big")
        return torch.Generator().manual_seed(seed_of_step(content ^ self.seed, self._calls))


class DPReleased(Randomizable, MapTransform):
    """`DPRelease` for the codes of a dictionary; each key is a release.

    Args:
        keys: of the codes.
        epsilon: as in `DPRelease`, and so are all the following.
        delta: of each release.
        clip_norm: to clip to.
        relation: "image" or "m_pixels".
        codec: that made the codes.
        spatial_shape: of the images.
        pixels: m.
        value_range: by how much a pixel value may differ.
        in_channels: C of the images.
        ledger: of the releases.
        seed: for experiments only.
        patient_key: where an item names its patient, for the ledger.
        allow_missing_keys: pass over codes that are not there.

    Raises:
        ValueError: an argument out of range.

    >>> released = DPReleased("code", epsilon=8, delta=1e-5, clip_norm=2.0)({"code": torch.ones(1, 100), "label": 1})
    >>> released["code"].shape, released["label"]
    (torch.Size([1, 100]), 1)
    """

    def __init__(
        self,
        keys: KeysCollection,
        epsilon: float,
        delta: float,
        clip_norm: float,
        relation: Relation = "image",
        codec: Codec | Mapping[str, Any] | None = None,
        spatial_shape: Sequence[int] | None = None,
        pixels: int | None = None,
        value_range: float = 1.0,
        in_channels: int = 1,
        ledger: ReleaseLedger | None = None,
        seed: int | None = None,
        patient_key: str = "patient",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.release = DPRelease(
            epsilon, delta, clip_norm, relation, codec, spatial_shape, pixels, value_range, in_channels, ledger, seed
        )
        self.patient_key = patient_key

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """Release the codes of one item; `data` itself is left alone.

        Raises:
            KeyError: a code is missing and `allow_missing_keys` is off.
            TypeError: a code is not a numeric array or tensor; the text names its key.
            ValueError: what `DPRelease` refuses; the text names the key.
        """
        patient = data.get(self.patient_key)
        return StrippingMapTransform(self.keys, lambda code: self.release(code, patient), self.allow_missing_keys)(data)


def check_release_dataset(dataset: Any) -> None:
    """Refuse a dataset that writes to disk what goes into a release, the code without noise.

    Args:
        dataset: with the release among its transforms, or one that wraps such a dataset.

    Raises:
        ValueError: a persistent cache before a release.

    >>> from monai.data import Dataset
    >>> check_release_dataset(Dataset([], DPReleased("code", epsilon=8, delta=1e-5, clip_norm=1.0)))
    """
    while dataset is not None:
        transform = getattr(dataset, "transform", None)
        steps = transform.flatten().transforms if isinstance(transform, Compose) else (transform,)
        if isinstance(dataset, PersistentDataset) and any(isinstance(t, DPRelease | DPReleased) for t in steps):
            raise ValueError(
                f"dataset: {type(dataset).__name__} writes to disk what goes into the release, codes without noise. "
                "Release first, in a run of its own, and cache what comes out; or use CacheDataset, in memory."
            )
        dataset = getattr(dataset, "dataset", None)


DPReleaseD = DPReleaseDict = DPReleased

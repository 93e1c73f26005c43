"""What every attack is: fitted to auxiliary patients, run on victims' codes, measured against what it never saw."""

from __future__ import annotations

import abc
import time
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from monai_deepfixcx.codecs import Codec
from monai_deepfixcx.metrics import Estimate
from monai_deepfixcx.metrics.bootstrap import check_bootstrap

_BATCH = 256  # images encoded at once

Goal = Literal["reconstruct", "link", "infer membership"]


@dataclass(frozen=True)
class ThreatModel:
    """What an attack is after, and what it is assumed to have.

    Attributes:
        goal: what the attacker wants.
        holds: what the attacker holds besides the codec and its parameters, which are always known.
        raw_images: the attacker also holds undefended images of the victims, taken at another time.
    """

    goal: Goal
    holds: tuple[str, ...] = ("codes of the victims", "images of auxiliary patients")
    raw_images: bool = False

    def sentence(self) -> str:
        """The threat model in words.

        >>> ThreatModel("link").sentence()
        'Knows the codec and its parameters; holds codes of the victims and images of auxiliary patients; aims to link.'
        """
        return f"Knows the codec and its parameters; holds {' and '.join(self.holds)}; aims to {self.goal}."


@dataclass(frozen=True)
class Auxiliary:
    """What the attacker learns from: other patients' images, and the codec to encode them with.

    Attributes:
        codec: the codec the victims' codes were made with.
        images: ``[N, C, *S]``, usually in [0, 1].
        patients: N names: whose each image is.
        codes: ``[N, C, D]``, the images' codes.
        labels: ``[N, ...]`` or None; only membership inference asks for them.
        seed: of everything the attack draws. `run_attack` also seeds torch's global generator with it, and restores it.
        progress: show a progress bar in slow attacks.
    """

    codec: Codec
    images: Tensor
    patients: tuple[str, ...]
    codes: Tensor
    labels: Tensor | None = None
    seed: int = 0
    progress: bool = False

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """The spatial shape S of every image, also of the victims'."""
        return tuple(self.images.shape[2:])


@dataclass(frozen=True)
class Victims:
    """All an attack sees of the victims.

    Attributes:
        codes: ``[N, C, D]``.
        raw: ``[N, C, *S]``, their undefended images, only for an attack whose threat model has `raw_images`. Row i
            is the image that code i was made of: comparing row i with code i is no attack, and is never scored.
        labels: ``[N, ...]`` or None; only membership inference asks for them.
    """

    codes: Tensor
    raw: Tensor | None = None
    labels: Tensor | None = None


@dataclass(frozen=True)
class Truth:
    """What the attack never sees and its output is measured against.

    Attributes:
        images: ``[N, C, *S]``, the victims' images.
        patients: N names: whose each image is.
        members: ``[N]`` bool, whether a membership target was trained on the image; None elsewhere.
        undefended: the same attack's output on the undefended images (IdentityCodec), or None.
        samples: resamples of patients for the intervals; 0 gives none.
        seed: of the resamples.
    """

    images: Tensor
    patients: tuple[str, ...]
    members: Tensor | None = None
    undefended: Tensor | None = None
    samples: int = 1000
    seed: int = 0


class Attack(abc.ABC):
    """An attacker. A subclass names itself, states its `threat`, and writes `fit`, `run` and `measure`.

    Attributes:
        name: short, unique, as reports show it.
        threat: what it is assumed to know and hold.
        spatial_dims: the numbers of spatial axes it works on.
    """

    name: str
    threat: ThreatModel
    spatial_dims: ClassVar[tuple[int, ...]] = (2, 3)

    @abc.abstractmethod
    def fit(self, auxiliary: Auxiliary) -> Self:
        """Learn from the auxiliary patients. Returns the attack itself."""

    @abc.abstractmethod
    def run(self, victims: Victims) -> Tensor:
        """Attack. Reconstruction gives images ``[N, C, *S]``, linkage similarities ``[N, N]``, membership ``[N]``."""

    @abc.abstractmethod
    def measure(self, output: Tensor, auxiliary: Auxiliary, truth: Truth) -> dict[str, Estimate]:
        """How far the attack came: a name to an estimate, with the best guess without the code as its baseline."""

    def why_unsuited(self, codec: Codec) -> str | None:
        """Why the attack cannot be run on a codec's codes, or None if it can."""
        return None

    def suits(self, codec: Codec) -> bool:
        """Whether the attack can be run on a codec's codes."""
        return self.why_unsuited(codec) is None

    def check(self, auxiliary: Auxiliary, truth: Truth) -> None:
        """Refuse data on which the attack could not be measured.

        Raises:
            ValueError: naming what is missing.
        """
        check_bootstrap(truth.samples)


@dataclass(frozen=True)
class AttackResult:
    """How far an attack came, and all that is needed to run it again.

    Attributes:
        attack: the attack's name.
        threat: its threat model.
        metrics: a name to its estimate.
        codec: the codec's configuration.
        fingerprint: the codec's fingerprint.
        seed: the seed.
        seconds: the attack took, fitting and running.
        auxiliary_images, auxiliary_patients, victim_images, victim_patients: how many there were.
        output: what the attack gave, in memory only: it may show a victim.
    """

    attack: str
    threat: ThreatModel
    metrics: dict[str, Estimate]
    codec: dict[str, Any]
    fingerprint: str
    seed: int
    seconds: float
    auxiliary_images: int
    auxiliary_patients: int
    victim_images: int
    victim_patients: int
    output: Tensor = field(repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Everything but `output`, as JSON values."""
        return {
            "attack": self.attack,
            "threat_model": self.threat.sentence(),
            "metrics": {name: estimate.as_dict() for name, estimate in self.metrics.items()},
            "codec": self.codec,
            "fingerprint": self.fingerprint,
            "seed": self.seed,
            "seconds": self.seconds,
            "auxiliary": {"images": self.auxiliary_images, "patients": self.auxiliary_patients},
            "victims": {"images": self.victim_images, "patients": self.victim_patients},
        }


def run_attack(
    attack: Attack,
    codec: Codec,
    auxiliary: Mapping[str, Any],
    victims: Mapping[str, Any],
    seed: int = 0,
    *,
    undefended: AttackResult | None = None,
    samples: int = 1000,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> AttackResult:
    """Fit an attack to auxiliary patients, run it on victims' codes, and measure how far it came.

    Args:
        attack: the attacker. It is fitted anew.
        codec: what the victims' images are encoded with; the attacker knows it.
        auxiliary: ``images`` [N, C, *S] and ``patients`` (N names); ``labels`` [N, ...] for membership inference.
        victims: the same of other patients; ``members`` [N] bool for membership inference. ``codes`` [N, C, D], if
            given, are attacked in place of the images' own codes; their ``fingerprint`` is then checked if given.
        seed: of everything drawn.
        undefended: the same attack's result on the same patients with IdentityCodec: adds the advantage.
        samples: resamples of the victim patients for the intervals; 0 gives none.
        device: where to run; the images' own device if None.
        progress: show a progress bar in slow attacks.

    Returns:
        The metrics, each with its interval and the best guess without the code as baseline.

    Raises:
        ValueError: an attack that does not suit the codec, fewer than two patients, a patient in both parts, shapes
            that differ or that the attack does not know, codes of another codec, or data on which the attack could not
            be measured.

    >>> import torch
    >>> from monai_deepfixcx.attacks import MeanImage, run_attack
    >>> from monai_deepfixcx.codecs import ConstantCodec
    >>> people = {"images": torch.rand(4, 1, 16, 16), "patients": ["a", "a", "b", "b"]}
    >>> victims = {"images": torch.rand(4, 1, 16, 16), "patients": ["c", "c", "d", "d"]}
    >>> result = run_attack(MeanImage(), ConstantCodec(), people, victims, samples=0)
    >>> result.metrics["explained_variance"].value
    0.0
    """
    unsuited = attack.why_unsuited(codec)
    if unsuited:
        raise ValueError(f"{attack.name} does not suit this {codec.name} codec: it {unsuited}.")
    known = _population("auxiliary", auxiliary, device)
    attacked = _population("victims", victims, device)
    _check_parts(attack, known, attacked)
    codec = codec.to(known["images"].device).eval()
    start = time.perf_counter()
    with torch.random.fork_rng(), torch.enable_grad():  # some attacks descend a gradient
        torch.manual_seed(seed)
        learnt = Auxiliary(
            codec, known["images"], known["patients"], _encode(codec, known["images"]), known["labels"], seed, progress
        )
        truth = Truth(
            attacked["images"],
            attacked["patients"],
            attacked["members"],
            None if undefended is None else undefended.output.to(attacked["images"].device),
            samples,
            seed,
        )
        codes = _given_codes(codec, victims, attacked["images"], learnt.codes.shape[1:])
        seen = Victims(codes, attacked["images"] if attack.threat.raw_images else None, attacked["labels"])
        attack.check(learnt, truth)
        output = attack.fit(learnt).run(seen).detach()
        seconds = time.perf_counter() - start
        metrics = attack.measure(output, learnt, truth)
    return AttackResult(
        attack.name,
        attack.threat,
        metrics,
        codec.config(),
        codec.fingerprint(),
        seed,
        seconds,
        len(known["patients"]),
        len(set(known["patients"])),
        len(attacked["patients"]),
        len(set(attacked["patients"])),
        output,
    )


def without_output(result: AttackResult) -> AttackResult:
    """The result without what the attack gave, which may show a victim."""
    return replace(result, output=torch.empty(0))


def _population(part: str, given: Mapping[str, Any], device: torch.device | str | None) -> dict[str, Any]:
    missing = [key for key in ("images", "patients") if given.get(key) is None]
    if missing:
        raise ValueError(f"{part} must hold images [N, C, *S] and patients (N names); {' and '.join(missing)} missing.")
    images = _plain(given["images"], device)
    images = images if images.is_floating_point() else images.float()
    patients = _names(given["patients"])
    if images.ndim < 4 or len(images) != len(patients):
        raise ValueError(
            f"{part} must hold images [N, C, *S] and one patient per image; got images {list(images.shape)} and "
            f"{len(patients)} patients."
        )
    if not bool(torch.isfinite(images).all()):
        raise ValueError(f"{part} images must be finite; got nan or inf. Leave the damaged images out.")
    if len(set(patients)) < 2:
        raise ValueError(f"{part} must hold at least two patients; got {len(set(patients))}.")
    extra = {key: None if given.get(key) is None else _plain(given[key], device) for key in ("labels", "members")}
    for key, values in extra.items():
        if values is not None and len(values) != len(images):
            raise ValueError(f"{part} must hold one of {key} per image; got {len(values)} for {len(images)} images.")
    return {"images": images, "patients": patients, **extra}


def _check_parts(attack: Attack, auxiliary: Mapping[str, Any], victims: Mapping[str, Any]) -> None:
    both = set(auxiliary["patients"]) & set(victims["patients"])
    if both:
        raise ValueError(
            f"auxiliary and victims must be different patients; {len(both)} in both. Split by patient, not by image."
        )
    shapes = [tuple(part["images"].shape[1:]) for part in (auxiliary, victims)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"auxiliary and victim images must have one shape [C, *S]; got {shapes[0]} and {shapes[1]}.")
    if len(shapes[0]) - 1 not in attack.spatial_dims:
        raise ValueError(
            f"{attack.name} works on images of {' or '.join(map(str, attack.spatial_dims))} spatial axes; got "
            f"{len(shapes[0]) - 1}."
        )


def _given_codes(codec: Codec, victims: Mapping[str, Any], images: Tensor, shape: torch.Size) -> Tensor:
    if victims.get("codes") is None:
        return _encode(codec, images)
    fingerprint = victims.get("fingerprint")
    if fingerprint is not None and fingerprint != codec.fingerprint():
        raise ValueError(
            f"victims' codes were made by codec {fingerprint[:8]}; the attack was given codec "
            f"{codec.fingerprint()[:8]}. Attack them with the codec that made them."
        )
    codes = _plain(victims["codes"], images.device)
    expected = (len(images), *shape)
    if tuple(codes.shape) != expected:
        raise ValueError(
            f"victims' codes must be {list(expected)} for this codec and these images; got {list(codes.shape)}. "
            "Were they made by another codec?"
        )
    return codes


@torch.no_grad()
def _encode(codec: Codec, images: Tensor) -> Tensor:
    return torch.cat([codec.encode(batch) for batch in images.split(_BATCH)])


def _plain(values: Any, device: torch.device | str | None) -> Tensor:
    """A tensor without metadata."""
    return torch.as_tensor(values).detach().as_subclass(Tensor).to(device)


def _names(patients: Iterable[Hashable]) -> tuple[str, ...]:
    return tuple(str(name) for name in (patients.tolist() if hasattr(patients, "tolist") else patients))

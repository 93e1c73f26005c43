"""What all linkage attacks share: what is compared with what, and how the outcome is measured."""

from __future__ import annotations

import abc
from typing import Literal, Self, get_args

from torch import Tensor

from monai_deepfixcx.attacks.base import Attack, Auxiliary, ThreatModel, Truth, Victims
from monai_deepfixcx.metrics import Estimate
from monai_deepfixcx.metrics.linkage.functional import check_same_patient_pair, linkage_metrics

Against = Literal["code", "raw", "reconstruction"]
_SUFFIX = {"code": "", "raw": " code to raw", "reconstruction": " after reconstruction"}


class LinkageAttack(Attack):
    """Is this the same patient? A subclass learns features in `_learn` and compares them in `_compare`.

    Args:
        against: what the attacker compares. "code": codes with codes. "raw": codes with undefended images of the same
            patients from another visit, which the attacker holds. "reconstruction": codes with codes, after a
            reconstruction attack has turned each into an image.
        reconstruction: a fresh reconstruction attack for against="reconstruction"; `LinearMMSE` if None.

    Attributes:
        name: the class's, and what it is compared with.

    Raises:
        ValueError: another `against`, or a reconstruction attack that would not be used or reconstructs nothing.
    """

    def __init__(self, against: Against = "code", reconstruction: Attack | None = None) -> None:
        if against not in get_args(Against):
            raise ValueError(f"against must be one of {', '.join(get_args(Against))}; got {against!r}.")
        if reconstruction is not None and against != "reconstruction":
            raise ValueError(f'reconstruction is used by against="reconstruction" alone; got against={against!r}.')
        if reconstruction is not None and reconstruction.threat.goal != "reconstruct":
            raise ValueError(f"reconstruction must be an attack that reconstructs; got {reconstruction.name}.")
        self.against: Against = against
        default = against == "reconstruction" and reconstruction is None
        self.reconstruction = _default_reconstruction() if default else reconstruction
        # Reports tell the variants of one class apart by it.
        self.name = type(self).name + _SUFFIX[against]
        held = ("codes of the victims", "images of auxiliary patients")
        more = ("undefended images of the victims from another visit",) if against == "raw" else ()
        self.threat = ThreatModel("link", held + more, raw_images=against == "raw")

    def fit(self, auxiliary: Auxiliary) -> Self:
        """Learn from the auxiliary patients. Returns the attack itself."""
        self._codec, self._shape = auxiliary.codec, auxiliary.spatial_shape
        if self.reconstruction is not None:
            self.reconstruction.fit(auxiliary)
        self._learn(auxiliary)
        return self

    def run(self, victims: Victims) -> Tensor:
        """Similarities ``[N, N]``: row i is code i; column j code j, or with against="raw" undefended image j.

        The diagonal compares an image with itself; it is never scored.
        """
        return self._compare(self._seen(victims.codes), victims.raw)

    def measure(self, output: Tensor, auxiliary: Auxiliary, truth: Truth) -> dict[str, Estimate]:
        """See `linkage_metrics`; ``advantage`` is there if the attack was also run on undefended images."""
        return linkage_metrics(output, truth.patients, truth.undefended, truth.samples, truth.seed)

    def check(self, auxiliary: Auxiliary, truth: Truth) -> None:
        """Refuse victims none of whom has two images.

        Raises:
            ValueError: no same-patient pair among the victims.
        """
        super().check(auxiliary, truth)
        try:
            check_same_patient_pair(truth.patients)
        except ValueError as error:
            raise ValueError(f"victims: {error}") from None

    @abc.abstractmethod
    def _learn(self, auxiliary: Auxiliary) -> None:
        """Learn what to compare; the reconstruction attack is already fitted."""

    @abc.abstractmethod
    def _compare(self, seen: Tensor, raw: Tensor | None) -> Tensor:
        """Similarities of what is seen of the victims, with each other or with raw images."""

    def _seen(self, codes: Tensor) -> Tensor:
        """What is compared: the codes ``[N, C, D]``, or the images ``[N, C, *S]`` reconstructed from them."""
        return codes if self.reconstruction is None else self.reconstruction.run(Victims(codes))


def _default_reconstruction() -> Attack:
    from monai_deepfixcx.attacks.reconstruction import LinearMMSE

    return LinearMMSE()

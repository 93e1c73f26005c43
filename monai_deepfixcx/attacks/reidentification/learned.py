"""Linkage by a learned likeness: trained on privatized pairs of auxiliary patients."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_deepfixcx.attacks.base import Attack, Auxiliary, Truth
from monai_deepfixcx.attacks.reidentification.linkage import Against, LinkageAttack
from monai_deepfixcx.attacks.reidentification.siamese import Siamese, check_pairs, others_mean, patient_numbers
from monai_deepfixcx.metrics.linkage.metric import cosine_similarity


class LearnedLinkage(LinkageAttack):
    """A siamese network tells whether two codes are of one patient, having seen codes of auxiliary patients' visits.

    It is trained on what the codec leaves, not on images: an attacker who knows the codec would do so. See `Siamese`
    for the network. Code to raw, there are two branches. The first encodes the undefended images, for the codec is
    public, and compares codes with codes. The second compares the images' own features, learnt on undefended
    auxiliary images, with what a linear map predicts of them from the code of another visit. The mean of both counts.

    Args:
        against: see `LinkageAttack`.
        components: the most principal components that the network sees.
        width: of its hidden layer.
        epochs: the most to train for.
        patience: epochs without a better AUC on held-out auxiliary patients after which training ends.
        reconstruction: see `LinkageAttack`.

    Raises:
        ValueError: a number below 1.

    Sources: Packhaeuser et al., Scientific Reports 12 (2022), a siamese network on chest radiographs; Newton, Sweeney &
    Malin, IEEE TKDE 17 (2005), who train the attacker on de-identified images ("parrot recognition").
    """

    name: str = "LearnedLinkage"

    def __init__(
        self,
        against: Against = "code",
        components: int = 128,
        width: int = 256,
        epochs: int = 100,
        patience: int = 20,
        reconstruction: Attack | None = None,
    ) -> None:
        super().__init__(against, reconstruction)
        self.codes = Siamese(components, width, epochs, patience)
        self.images = Siamese(components, width, epochs, patience)

    def check(self, auxiliary: Auxiliary, truth: Truth) -> None:
        """Refuse victims none of whom has two images, and auxiliary patients too few of whom have.

        Raises:
            ValueError: no same-patient pair among the victims, or fewer than four auxiliary patients with one.
        """
        super().check(auxiliary, truth)
        check_pairs(auxiliary.patients)

    def _learn(self, auxiliary: Auxiliary) -> None:
        seen = self._seen(auxiliary.codes).flatten(1)
        patients = patient_numbers(auxiliary.patients).to(seen.device)
        self.codes.fit(seen, patients, auxiliary.seed, self.name if auxiliary.progress else None)
        if self.against == "raw":
            raw = auxiliary.images.flatten(1)
            self.images.fit(raw, patients, auxiliary.seed, f"{self.name}, images" if auxiliary.progress else None)
            self._bridge = self._regress(self.codes.whitening(seen), self.images(raw), patients)

    def _compare(self, seen: Tensor, raw: Tensor | None) -> Tensor:
        codes = self.codes(seen.flatten(1))
        if raw is None:
            return cosine_similarity(codes, codes)
        encoded = self.codes(self._codec.encode(raw).flatten(1))
        predicted = self.codes.whitening(seen.flatten(1)) @ self._bridge
        own = self.images(raw.flatten(1))
        return (cosine_similarity(codes, encoded) + cosine_similarity(predicted, own)) / 2

    @staticmethod
    def _regress(components: Tensor, embedded: Tensor, patients: Tensor) -> Tensor:
        """The map ``[k, E]`` from a code's whitened components to what the patient's other images look like."""
        others, paired = others_mean(torch.nn.functional.normalize(embedded.double(), dim=1), patients)
        # White components: least squares are plain covariances.
        return components[paired].T @ others[paired] / paired.sum()

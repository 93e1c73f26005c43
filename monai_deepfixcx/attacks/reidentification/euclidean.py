"""Linkage by Euclidean distance: the papers' own measure of re-identification."""

from __future__ import annotations

from torch import Tensor

from monai_deepfixcx.attacks.base import Auxiliary
from monai_deepfixcx.attacks.reconstruction.direct import why_undecodable
from monai_deepfixcx.attacks.reidentification.linkage import LinkageAttack
from monai_deepfixcx.codecs import Codec
from monai_deepfixcx.metrics.linkage.metric import euclidean_similarity


class EuclideanLinkage(LinkageAttack):
    """The nearer, the likelier the same patient; nothing is learnt from the auxiliary patients.

    Code to code, its metric ``ks`` is the papers' figure. Code to raw, the codec's decoder draws the code, and the
    drawing is compared with the undefended image pixel by pixel. That understates the attacker: whoever holds the
    image and knows the codec can encode it, so that code to raw is never harder than code to code; the other attacks
    do so.

    Args:
        against: see `LinkageAttack`.
        reconstruction: see `LinkageAttack`.

    Source: Gaudio et al., WIREs DMKD 2023, doi:10.1002/widm.1495, section on re-identification.

    >>> import torch
    >>> from monai_deepfixcx.attacks import run_attack
    >>> from monai_deepfixcx.codecs import IdentityCodec
    >>> films = torch.arange(2.0).repeat_interleave(2)[:, None, None, None] + 0.1 * torch.rand(4, 1, 8, 8)
    >>> known, victims = ({"images": films, "patients": list(names)} for names in ("aabb", "ccdd"))
    >>> run_attack(EuclideanLinkage(), IdentityCodec(), known, victims, samples=0).metrics["auc"].value
    1.0
    """

    name: str = "EuclideanLinkage"

    def why_unsuited(self, codec: Codec) -> str | None:
        """Code to raw needs a decoder."""
        return why_undecodable(codec) if self.against == "raw" else super().why_unsuited(codec)

    def _learn(self, auxiliary: Auxiliary) -> None:
        pass

    def _compare(self, seen: Tensor, raw: Tensor | None) -> Tensor:
        if raw is None:
            return euclidean_similarity(seen.flatten(1), seen.flatten(1))
        return euclidean_similarity(self._codec.decode(seen, self._shape).flatten(1), raw.flatten(1))

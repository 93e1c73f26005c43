"""Re-identification at the end of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from monai_deepfixcx.attacks.base import Attack
from monai_deepfixcx.attacks.reidentification import EuclideanLinkage, FeatureLinkage, LearnedLinkage
from monai_deepfixcx.codecs import Codec
from monai_deepfixcx.handlers.attack_gathering import AttackHandler


class ReidentificationHandler(AttackHandler):
    """Asks, at the end of a MONAI evaluation, whose image each code was made of; see `AttackHandler`.

    The evaluated patients are the victims; some must have two images. Code to raw, an image is never compared with
    its own code.

    Args:
        codec: what the codes were made with.
        auxiliary: other patients' images, for the attacks to learn from; see `AttackHandler`.
        attacks: linkage attacks; None: `EuclideanLinkage`, `FeatureLinkage`, and `LearnedLinkage` with codes and with
            undefended images.
        options: further arguments of `AttackHandler`.

    Raises:
        ValueError: an attack that links nothing, or what `AttackHandler` refuses.

    >>> import torch
    >>> from ignite.engine import Engine
    >>> from monai_deepfixcx.codecs import IdentityCodec
    >>> films = torch.arange(2.0).repeat_interleave(2)[:, None, None, None] + 0.1 * torch.rand(4, 1, 8, 8)
    >>> auxiliary = {"images": films, "patients": list("aabb")}
    >>> engine = Engine(lambda _, batch: None)
    >>> attacks = [EuclideanLinkage()]
    >>> handler = ReidentificationHandler(IdentityCodec(), auxiliary, attacks, image_key="image", code_key=None)
    >>> handler.attach(engine)
    >>> engine.run([{"image": films, "patient": list("ccdd")}]).metrics["EuclideanLinkage_auc"]
    1.0
    """

    kind: ClassVar[str] = "reidentification"

    def __init__(self, codec: Codec, auxiliary: Any, attacks: Sequence[Attack] | None = None, **options: Any) -> None:
        if attacks is None:
            attacks = [EuclideanLinkage(), FeatureLinkage(), LearnedLinkage(), LearnedLinkage("raw")]
        other = [attack.name for attack in attacks if attack.threat.goal != "link"]
        if other:
            raise ValueError(f"attacks must be linkage attacks; got {', '.join(other)}.")
        super().__init__(attacks, codec, auxiliary, **options)

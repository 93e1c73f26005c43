"""Draws, at the end of an evaluation, the images back from their codes, and says how far that came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from monai_deepfixcx.attacks.base import Attack
from monai_deepfixcx.attacks.reconstruction import DecoderAttack, LinearMMSE, LowPassThumbnail, MeanFill, MeanImage
from monai_deepfixcx.codecs import Codec
from monai_deepfixcx.handlers.attack_gathering import AttackHandler


class ReconstructionAttackHandler(AttackHandler):
    """Reconstructs, at the end of a MONAI evaluation, the images that codes were made of; see `AttackHandler`.

    Args:
        codec: what the codes were made with.
        auxiliary: other patients' images, for the attacks to learn from; see `AttackHandler`.
        attacks: reconstruction attacks; default MeanImage, DecoderAttack, LowPassThumbnail, MeanFill and LinearMMSE,
            those of them that suit the codec. Add LearnedInversion and MAPInversion for the strongest, and slowest.
        options: further arguments of `AttackHandler`.

    Raises:
        ValueError: an attack that reconstructs nothing, or what `AttackHandler` refuses.

    >>> import torch
    >>> from ignite.engine import Engine
    >>> from monai_deepfixcx.codecs import DeepFixCXCodec
    >>> auxiliary = {"images": torch.rand(4, 1, 16, 16), "patients": ["a", "a", "b", "b"]}
    >>> codec, films = DeepFixCXCodec(levels=1, patch_size=4), torch.rand(4, 1, 16, 16)
    >>> batch = {"original": films, "image": codec.encode(films), "patient": ["c", "c", "d", "d"]}
    >>> engine = Engine(lambda _, batch: batch)
    >>> handler = ReconstructionAttackHandler(codec, auxiliary, [LowPassThumbnail()], samples=0)
    >>> handler.attach(engine)
    >>> engine.run([batch]).metrics["LowPassThumbnail_explained_variance_baseline"]
    0.0
    """

    kind: ClassVar[str] = "reconstruction"

    def __init__(self, codec: Codec, auxiliary: Any, attacks: Sequence[Attack] | None = None, **options: Any) -> None:
        chosen: Sequence[Attack] = (
            [MeanImage(), DecoderAttack(), LowPassThumbnail(), MeanFill(), LinearMMSE()] if attacks is None else attacks
        )
        wrong = [attack.name for attack in chosen if attack.threat.goal != "reconstruct"]
        if wrong:
            raise ValueError(f"attacks must be reconstruction attacks; {', '.join(wrong)} is not. Use its own handler.")
        super().__init__(chosen, codec, auxiliary, **options)

"""The pictures of a card: original, privatized, attacked. Never of a victim."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monai_deepfixcx.attacks import Attack, run_attack
from monai_deepfixcx.attribution import draw_codec
from monai_deepfixcx.codecs import Codec


@dataclass(frozen=True)
class Gallery:
    """Who is pictured, and whom the attacker learns from to attack their codes.

    Attributes:
        auxiliary: ``images`` [N, C, *S] and ``patients``, for the attacker.
        shown: the same, of at least two other patients: one image of each is pictured.
        whose: a sentence for the page, that says whose pictures these are.
        synthetic: nobody is shown, the images are drawn.
    """

    auxiliary: Mapping[str, Any]
    shown: Mapping[str, Any]
    whose: str
    synthetic: bool

    def refuse(self, victims: Sequence[Any]) -> None:
        """Make sure that no victim is pictured, nor learnt from to draw a picture.

        Raises:
            ValueError: a victim is in the gallery.
        """
        inside = {str(name) for part in (self.auxiliary, self.shown) for name in part["patients"]}
        found = inside & {str(name) for name in victims}
        if found:
            raise ValueError(
                f"pictures must show no victim; {len(found)} victims are among the pictured or the auxiliary patients. "
                "Picture auxiliary or phantom patients."
            )


def draw_pictures(gallery: Gallery, codec: Codec, attack: Attack, seed: int = 0) -> dict[str, list[str]]:
    """The pictured patients' privatized and attacked images.

    The attacker is fitted anew to the gallery's own auxiliary patients, so no picture comes from a victim, and none
    from a patient of whom the gallery does not say so.

    Args:
        gallery: who is pictured.
        codec: to privatize with.
        attack: a reconstruction attack.
        seed: of the attack.

    Returns:
        "privatized" and "attacked": PNGs as data URIs, one for each picture; "privatized" is empty if the codec
        cannot draw its codes.

    Raises:
        ValueError: what `run_attack` refuses.
    """
    shown = _one_each(gallery.shown)
    attacked = run_attack(attack, codec, gallery.auxiliary, shown, seed, samples=0).output
    try:
        with torch.no_grad():
            privatized = codec(shown["images"])
    except ValueError:  # several features cannot be decoded
        privatized = attacked[:0]
    return {"privatized": [png(image) for image in privatized], "attacked": [png(image) for image in attacked]}


def draw_originals(gallery: Gallery) -> list[str]:
    """The pictured patients' original images, as data URIs."""
    return [png(image) for image in _one_each(gallery.shown)["images"]]


def png(image: Tensor) -> str:
    """A PNG as data URI of an image ``[C, *S]`` in [0, 1]; of a volume, its middle slice.

    >>> png(torch.zeros(1, 4, 4))[:22]
    'data:image/png;base64,'
    """
    from PIL import Image

    if image.ndim == 4:
        image = image[..., image.shape[-1] // 2].transpose(1, 2).flip(1)  # x to the right, y upwards
    levels = (image.detach().clamp(0, 1) * 255).round().byte().cpu().numpy()
    picture = Image.fromarray(levels.transpose(1, 2, 0) if len(levels) == 3 else levels[0])
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return _uri(file)


def draw_settings(codec: Codec, image_shape: Sequence[int]) -> str:
    """What the codec keeps of any image ``[C, *S]``, drawn, as a data URI; no image goes in."""
    figure = draw_codec(codec, image_shape[1:], image_shape[0])
    figure.supxlabel("")  # the sentences stand on the page as text
    figure.set_figheight(5.0)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=90, metadata={"Software": None})
    return _uri(file)


def _uri(file: io.BytesIO) -> str:
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _one_each(part: Mapping[str, Any]) -> dict[str, Any]:
    """The first image of each patient."""
    names = [str(name) for name in part["patients"]]
    rows = sorted({names.index(name) for name in names})
    return {"images": part["images"][rows], "patients": [names[row] for row in rows]}

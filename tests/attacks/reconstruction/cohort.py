"""The same few synthetic patients for every reconstruction test: 32 pixels a side, two films each."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_deepfixcx.attacks import Attack, AttackResult, run_attack
from monai_deepfixcx.codecs import Codec
from monai_deepfixcx.data import PhantomRadiographs

SIDE = 32
AUXILIARY, VICTIMS = 40, 20


@functools.cache
def films(patients: int = AUXILIARY + VICTIMS) -> Tensor:
    phantom = PhantomRadiographs(patients, visits_per_patient=2, size=64, seed=5)
    return F.avg_pool2d(phantom.arrays()["images"], 64 // SIDE)


def people() -> tuple[dict[str, Any], dict[str, Any]]:
    """Auxiliary patients and victims."""
    images = films()
    names = [f"patient {number // 2}" for number in range(len(images))]
    cut = 2 * AUXILIARY
    return (
        {"images": images[:cut], "patients": names[:cut]},
        {"images": images[cut:], "patients": names[cut:]},
    )


def volumes(seed: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """Smooth random volumes ``[N, 1, 16, 14, 12]``, much alike within a patient."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((12, 1, 3, 3, 3), generator=generator).repeat_interleave(2, dim=0)
    fine = 0.05 * torch.rand((24, 1, 16, 14, 12), generator=generator)
    images = 0.9 * F.interpolate(coarse, size=(16, 14, 12), mode="trilinear") + fine
    names = [f"patient {number // 2}" for number in range(24)]
    return {"images": images[:16], "patients": names[:16]}, {"images": images[16:], "patients": names[16:]}


def attacked(attack: Attack, codec: Codec, seed: int = 0, samples: int = 200, **options: Any) -> AttackResult:
    auxiliary, victims = people()
    return run_attack(attack, codec, auxiliary, victims, seed, samples=samples, **options)


def variance(attack: Attack, codec: Codec) -> float:
    """Explained variance."""
    return attacked(attack, codec, samples=0).metrics["explained_variance"].value

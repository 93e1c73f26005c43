"""Synthetic abdominal CT volumes: NOT PATIENTS. For tests and demonstrations of training in three dimensions.

Ellipsoids of fixed densities with random sizes and places: a body with fat and muscle, a spine, a liver, two kidneys,
a spleen and a pancreas, and in about half of the volumes a lesion in the pancreas, a little less dense than it. Quantum
noise and blur are added. Nothing measured on them says anything about people.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

_WINDOW = (-160.0, 240.0)  # Hounsfield units shown as 0 and 1
_AIR, _FAT, _MUSCLE, _BONE = -1000.0, -100.0, 55.0, 350.0
# centre (z, y, x) and half axes as fractions of half the volume, and density; y points to the back, x to the left.
_ORGANS = {
    "liver": ((-0.15, -0.15, -0.38), (0.55, 0.42, 0.34), 110.0),
    "spleen": ((-0.25, 0.15, 0.58), (0.30, 0.25, 0.14), 115.0),
    "right kidney": ((0.20, 0.32, -0.36), (0.32, 0.16, 0.15), 160.0),
    "left kidney": ((0.15, 0.32, 0.36), (0.32, 0.16, 0.15), 160.0),
    "pancreas": ((0.0, -0.02, 0.08), (0.18, 0.15, 0.36), 95.0),
    "spine": ((0.0, 0.52, 0.0), (2.0, 0.16, 0.16), _BONE),
}
Volume = NDArray[np.float64]


class VolumeItem(TypedDict):
    """One synthetic volume."""

    image: Tensor  # [1, size, size, size] float32 in [0, 1]
    patient: str
    label: Tensor  # [1] float32: lesion
    sex: str
    age: float


class PhantomVolumes(Dataset[VolumeItem]):
    """SYNTHETIC abdominal CT volumes, one a patient, with or without a pancreatic lesion; no patient's data.

    A volume follows from (seed, patient, size, contrast) alone. Lesions are more frequent with age; women have thinner
    walls of muscle and more fat.

    Args:
        patients: number of volumes, at least 1.
        size: side of the cube in voxels, at least 16.
        seed: of everything.
        contrast: by how much a lesion is less dense than the pancreas, in Hounsfield units.
        first_patient: number of the first; two phantoms whose numbers do not overlap share no patient.

    Raises:
        ValueError: an argument out of range.

    Source: the task of Tayebi Arasteh et al., arXiv:2302.01622 (pancreatic cancer on CT), not their data.

    >>> item = PhantomVolumes(patients=2, size=16)[0]
    >>> item["image"].shape, item["patient"], item["label"].shape
    (torch.Size([1, 16, 16, 16]), 'PHANTOM-CT-000000', torch.Size([1]))
    """

    labels = ("Lesion",)

    def __init__(
        self, patients: int, size: int = 32, seed: int = 0, contrast: float = 70.0, first_patient: int = 0
    ) -> None:
        for name, value, least in (("patients", patients, 1), ("size", size, 16), ("first_patient", first_patient, 0)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}; got {value}.")
        self.patients, self.size, self.seed, self.contrast = patients, size, seed, contrast
        self.first_patient = first_patient

    def __len__(self) -> int:
        return self.patients

    def __getitem__(self, index: int) -> VolumeItem:
        if not 0 <= index < self.patients:
            raise IndexError(f"index must be from 0 to {self.patients - 1}; got {index}.")
        number = self.first_patient + index
        rng = np.random.default_rng(np.random.SeedSequence((self.seed, number)))
        woman, age = bool(rng.random() < 0.5), round(float(rng.uniform(20, 95)), 1)
        lesion = bool(rng.random() < 0.3 + 0.4 * (age - 20) / 75)
        density = self._draw(rng, woman, lesion)
        low, high = _WINDOW
        shown = np.clip((density - low) / (high - low), 0, 1).astype(np.float32)
        return {
            "image": torch.from_numpy(shown)[None],
            "patient": f"PHANTOM-CT-{number:06d}",
            "label": torch.tensor([float(lesion)]),
            "sex": "F" if woman else "M",
            "age": age,
        }

    def _draw(self, rng: np.random.Generator, woman: bool, lesion: bool) -> Volume:
        """Densities ``[size, size, size]`` in Hounsfield units."""
        axis = (np.arange(self.size) + 0.5) * 2 / self.size - 1
        grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1) - rng.normal(0, 0.03, 3)
        body = rng.uniform(0.72, 0.88) * np.array([9.0, 0.85, 1.0])
        wall = 1 - rng.uniform(0.10, 0.16) - 0.05 * woman
        density = np.where(_inside(grid, np.zeros(3), body), _FAT, _AIR)
        density = np.where(_inside(grid, np.zeros(3), body * wall), _MUSCLE, density)
        density = np.where(_inside(grid, np.zeros(3), body * (wall - 0.08)), _FAT / 2, density)
        for name, (centre, axes, value) in _ORGANS.items():
            place = np.array(centre) * body[1] + rng.normal(0, 0.02, 3)
            half = np.array(axes) * rng.uniform(0.85, 1.15, 3)
            density = np.where(_inside(grid, place, half), value + rng.normal(0, 8), density)
            if name == "pancreas" and lesion:
                spot = place + np.array([0, 0, rng.choice([-0.18, 0.12])])
                density = np.where(_inside(grid, spot, rng.uniform(0.14, 0.20, 3)), value - self.contrast, density)
        return _blurred(density) + rng.normal(0, 18, density.shape)


def volume_parts(
    patients: int = 400, size: int = 32, seed: int = 0, fractions: tuple[float, float, float] = (0.6, 0.15, 0.25)
) -> dict[str, list[VolumeItem]]:
    """Synthetic volumes in three parts, in memory, as the items of a MONAI dataset; no patient is in two.

    Args:
        patients: in all parts together.
        size: side of the cubes in voxels.
        seed: of the phantom.
        fractions: shares of training, validation and testing.

    Raises:
        ValueError: shares that do not add up to 1, or a part without a patient.

    >>> {part: len(items) for part, items in volume_parts(patients=20, size=16).items()}
    {'training': 12, 'validation': 3, 'testing': 5}
    """
    counts = [round(patients * fraction) for fraction in fractions]
    if abs(sum(fractions) - 1) > 1e-6 or sum(counts) != patients or min(counts) < 1:
        raise ValueError(
            f"fractions must add up to 1 and leave every part a patient; got {tuple(fractions)} of {patients} patients."
        )
    phantom = PhantomVolumes(patients, size, seed)
    items = [phantom[index] for index in range(patients)]
    ends = np.cumsum([0, *counts])
    return {
        part: items[start:end]
        for part, start, end in zip(("training", "validation", "testing"), ends[:-1], ends[1:], strict=True)
    }


def _inside(grid: Volume, centre: Volume, half_axes: Volume) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (((grid - centre) / half_axes) ** 2).sum(axis=-1) <= 1
    return inside


def _blurred(density: Volume) -> Volume:
    """The mean over three voxels along each axis, as a thick slice and a soft kernel would give."""
    for axis in range(3):
        padded = np.pad(density, [(1, 1) if other == axis else (0, 0) for other in range(3)], mode="edge")
        parts = [np.take(padded, range(start, start + density.shape[axis]), axis=axis) for start in range(3)]
        density = (parts[0] + 2 * parts[1] + parts[2]) / 4
    return density

"""The patients of `PhantomRadiographs`: SYNTHETIC, no number here comes from a person.

A patient is a set of numbers (`Anatomy`), a visit another (`Visit`); both follow from (seed, patient, visit) alone.
Positions are fractions of the image: x to the viewer's right (the patient's left) from the midline, y downwards from
the top edge. Optical depths have no unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating[Any]]  # float32: Python numbers do not widen it (NEP 50)
Device = Literal["none", "pacemaker", "wires", "port"]
SIDES = (-1, 1)  # the patient's right (viewer's left), then left
_PATH_POINTS = 160


class Clavicle(NamedTuple):
    """Centre line of one clavicle, from its medial to its lateral end, and its half thickness."""

    medial_row: float
    lateral_row: float
    lateral_x: float
    bow: float
    half: float


class Spot(NamedTuple):
    """A calcified nodule: where, its radius and its optical depth."""

    x: float
    y: float
    radius: float
    depth: float


@dataclass(frozen=True, eq=False)
class Anatomy:
    """What stays the same in one patient over all visits. Lengths are fractions of the image side."""

    sex: Literal["M", "F"]
    age: float  # years at the first visit
    interval: float  # years between visits
    ratio: float  # heart width / inner thoracic width, mean over the visits
    inverted: bool  # the patient's scanner writes MONOCHROME1
    cage: float  # largest inner half width of the rib cage
    apex: float
    base: float
    flank: float  # soft tissue beside the cage
    axilla: float
    thickness: float  # of the trunk, 1 on average
    rib_row: float
    rib_spacing: float
    rib_drop: float  # how much lower a rib's front end is than its back end
    rib_half: float
    rib_density: float
    rib_warp: tuple[tuple[float, ...], ...]  # [side][rib]
    clavicles: tuple[Clavicle, Clavicle]
    spine_curve: tuple[float, float]  # amplitude and phase of a scoliosis
    vertebra: float  # height
    bone: float
    heart_aspect: float
    heart_right: float  # share of the heart right of the midline
    heart_tilt: float
    heart_waves: tuple[float, ...]  # cos 2, sin 2, cos 3, sin 3 of the polar outline
    aorta: float  # radius of the aortic knob
    pedicle: float  # half width of the mediastinum
    hila: float
    domes: tuple[float, float]  # row of the right and the left diaphragm
    bubble: tuple[float, float, float, float]  # stomach gas: x, half width, height, depth
    breast: tuple[float, float, float]  # depth, x, y
    spots: tuple[Spot, ...]
    device: Device
    device_at: tuple[float, float, float]  # x (signed), y, angle
    vessels: Field  # [points, 4]: x, y, calibre, step length


@dataclass(frozen=True)
class Visit:
    """What changes from film to film: pose, breath, exposure, fluid."""

    right: float
    down: float
    turn: float  # radians
    scale: float
    breath: float  # shift of the diaphragm
    ratio: float  # cardiothoracic ratio of this film
    effusion: tuple[float, float]  # height of the fluid, right and left; 0 = none
    dose: float
    contrast: float
    darkness: float
    blur: float  # standard deviation, fraction of the image


def generator(*key: int) -> np.random.Generator:
    """A random generator that depends on `key` alone, not on what was drawn before."""
    return np.random.default_rng(np.random.SeedSequence(key))


def draw_anatomy(seed: int, patient: int) -> Anatomy:
    """Draw one patient. The same (seed, patient) gives the same anatomy.

    Sex and age show in the anatomy on purpose, a little: women have breast shadows, narrower shoulders and a smaller
    cage; with age bones lose density, the aortic knob grows and a large heart becomes more likely.
    """
    rng = generator(seed, patient, 0)

    def normal(mean: float, deviation: float) -> float:
        return float(rng.normal(mean, deviation))

    def uniform(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    male = bool(rng.random() < 0.52)
    age = float(np.clip(normal(57, 16), 20, 92))
    older = age - 57
    large_heart = rng.random() < 0.42 + 0.004 * older
    ratio = float(np.clip(normal(0.56 if large_heart else 0.44, 0.03), 0.36, 0.66))
    base = normal(0.80, 0.022)
    weight = normal(0, 1)
    side = 1.0 if rng.random() < 0.8 else -1.0
    devices: tuple[Device, ...] = ("none", "pacemaker", "wires", "port")
    return Anatomy(
        sex="M" if male else "F",
        age=age,
        interval=uniform(0.2, 1.5),
        ratio=ratio,
        inverted=bool(rng.random() < 0.25),
        cage=normal(0.37 if male else 0.352, 0.013),
        apex=normal(0.085, 0.012),
        base=base,
        flank=0.04 + 0.035 * abs(weight) + (0.0 if male else 0.006),
        axilla=normal(0.33, 0.02),
        thickness=1 + 0.07 * weight,
        rib_row=normal(0, 0.006),
        rib_spacing=normal(0.068, 0.0035),
        rib_drop=normal(0.235, 0.025),
        rib_half=normal(0.0135, 0.001),
        rib_density=normal(0.54, 0.09) * (1 - 0.004 * older),
        rib_warp=tuple(tuple(rng.normal(0, 1, 11).tolist()) for _ in SIDES),
        clavicles=(_draw_clavicle(rng), _draw_clavicle(rng)),
        spine_curve=(abs(normal(0, 0.006)) + 0.02 * float(rng.random() < 0.08), uniform(0, 2 * math.pi)),
        vertebra=normal(0.058, 0.002),
        bone=normal(0.31, 0.045) * (1 - 0.005 * older),
        heart_aspect=normal(0.80, 0.04),
        heart_right=normal(0.36, 0.025),
        heart_tilt=normal(0.5, 0.1),
        heart_waves=tuple(rng.normal((0, 0, 0.02, 0.065), (0.02, 0.02, 0.022, 0.02)).tolist()),
        aorta=0.034 + 0.00022 * older + normal(0, 0.004),
        pedicle=normal(0.062, 0.005),
        hila=normal(1, 0.2),
        domes=(normal(0.735, 0.012) + base - 0.80, normal(0.765, 0.012) + base - 0.80),
        bubble=(normal(0.18, 0.02), normal(0.077, 0.015), abs(normal(0.038, 0.009)), max(0.0, uniform(-0.4, 0.7))),
        breast=(0.0 if male else abs(normal(0.5, 0.17)), normal(0.205, 0.012), normal(0.575, 0.03)),
        spots=_draw_spots(rng),
        device=devices[int(np.searchsorted((0.78, 0.87, 0.95), rng.random()))],
        device_at=(side * normal(0.24, 0.015), normal(0.235, 0.015), normal(0, 0.3)),
        vessels=_draw_vessels(rng),
    )


def draw_visit(anatomy: Anatomy, seed: int, patient: int, visit: int) -> tuple[Visit, np.random.Generator]:
    """Draw one film of a patient; the generator returned goes on to draw its photons."""
    rng = generator(seed, patient, 1 + visit)

    def normal(mean: float, deviation: float) -> float:
        return float(rng.normal(mean, deviation))

    ratio = anatomy.ratio + normal(0, 0.005)
    effusion = rng.random() < 0.18 + 0.22 * (ratio > 0.5)  # fluid goes with heart failure, now and then
    right, left = ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0))[int(rng.integers(3))]
    heights = rng.uniform(0.05, 0.20, 2) * float(effusion)
    return Visit(
        right=normal(0, 0.012),
        down=normal(0, 0.012),
        turn=normal(0, 0.022),
        scale=1 + normal(0, 0.02),
        breath=normal(0, 0.010),
        ratio=ratio,
        effusion=(right * float(heights[0]), left * float(heights[1])),
        dose=math.exp(normal(0, 0.35)),
        contrast=normal(1, 0.07),
        darkness=normal(0, 0.14),
        blur=float(rng.uniform(0.0006, 0.0022)),
    ), rng


def _draw_clavicle(rng: np.random.Generator) -> Clavicle:
    means, deviations = (0.085, 0.025, 0.36, 0.012, 0.0115), (0.006, 0.012, 0.012, 0.004, 0.0012)
    return Clavicle(*rng.normal(means, deviations).tolist())


def _draw_spots(rng: np.random.Generator) -> tuple[Spot, ...]:
    count = int(rng.integers(0, 4))
    return tuple(Spot(*rng.uniform((-0.3, 0.2, 0.004, 0.4), (0.3, 0.7, 0.009, 0.9)).tolist()) for _ in range(count))


def _draw_vessels(rng: np.random.Generator) -> Field:
    """Pulmonary vessels as points along three generations of branches that leave the hila: [points, 4]."""
    parts = []
    for side in SIDES:
        count = 12
        angle = np.linspace(-1.5, 1.45, count) + rng.normal(0, 0.12, count)  # 0 is lateral, + is down
        start = np.stack(
            [side * rng.uniform(0.075, 0.105, count), 0.43 + 0.055 * np.sin(angle) + rng.normal(0, 0.01, count)], 1
        )
        length = np.where(angle > 0, 0.30, 0.24) * rng.uniform(0.7, 1.1, count)
        calibre = 0.0072 * rng.uniform(0.6, 1.2, count)
        bend = 0.25 * np.sign(angle) * rng.uniform(-0.6, 1.0, count)
        path, heading = _grow(rng, side, start, angle, length, calibre, bend)
        parts.append(path.reshape(-1, 4))
        for children, stride in ((4, 3), (3, 5)):
            parent = np.repeat(np.arange(len(path)), children)
            fork = (rng.uniform(0.12, 0.85, len(parent)) * _PATH_POINTS).astype(int)
            turn = rng.choice((-1, 1), len(parent)) * rng.uniform(0.3, 0.8, len(parent))
            root, length = path[parent, fork], length[parent] * rng.uniform(0.3, 0.6, len(parent))
            bend = rng.normal(0, 0.4, len(parent))
            path, heading = _grow(rng, side, root[:, :2], heading[parent, fork] + turn, length, 0.72 * root[:, 2], bend)
            parts.append(path[:, ::stride].reshape(-1, 4) * (1, 1, 1, stride))
    return np.concatenate(parts).astype(np.float32)


def _grow(
    rng: np.random.Generator, side: int, start: Any, angle: Any, length: Any, calibre: Any, bend: Any
) -> tuple[Any, Any]:
    """Winding, tapering paths [N, points, 4] from `start` [N, 2], and their heading [N, points] in radians."""
    along = np.linspace(0, 1, _PATH_POINTS)
    slow, fast = rng.normal(0, (0.22, 0.12), (len(angle), 2)).T[..., None]
    phase = rng.uniform(0, 2 * np.pi, (len(angle), 1))
    heading = angle[:, None] + bend[:, None] * along
    heading = heading + slow * np.sin(5 * along + phase) + fast * np.sin(11 * along + phase)
    step = np.broadcast_to((length / _PATH_POINTS)[:, None], heading.shape)
    x = start[:, :1] + side * np.cumsum(np.cos(heading) * step, 1)
    y = start[:, 1:] + np.cumsum(np.sin(heading) * step, 1)
    return np.stack([x, y, calibre[:, None] * (1 - 0.8 * along), step], -1), heading

"""The X-ray film of a SYNTHETIC patient: from `Anatomy` and `Visit` to pixels.

Every structure is a smooth function of the position in the body, evaluated on the pixel grid of the posed patient, so
a film is drawn at any size without resampling. Ribs are the projections of tilted ellipses, heart and vessels bodies
whose thickness falls to zero at their edge, lungs the air taken out of the trunk. Thicknesses add up to an optical
depth, Beer and Lambert turn it into photons, Poisson adds the noise, a display curve makes the film (bone white).
"""

from __future__ import annotations

import math

import numpy as np

from monai_deepfixcx.data.phantom_anatomy import SIDES, Anatomy, Field, Visit

GREY_LEVELS = 4095  # 12 bits
_DISPLAY_CENTRE, _DISPLAY_SLOPE, _DISPLAY_WHITE = 1.9, 1.35, 0.97
_LUNG_AIR = 1.75
_SCATTER = 0.012


class BodyGrid:
    """Body coordinates x and y of every pixel centre ([size, size] float32) of a patient posed for one visit."""

    def __init__(self, size: int, visit: Visit) -> None:
        self.size, self.visit = size, visit
        self.pixel = 1 / (size * visit.scale)
        centre = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
        column, row = (centre - visit.right) / visit.scale, (centre - visit.down) / visit.scale
        cosine, sine = math.cos(visit.turn), math.sin(visit.turn)
        self.x: Field = cosine * column[None, :] + sine * row[:, None]
        self.y: Field = cosine * row[:, None] - sine * column[None, :] + 0.5

    def to_pixels(self, x: Field, y: Field) -> tuple[Field, Field]:
        """Column and row, in pixels, of points given in body coordinates."""
        visit, cosine, sine = self.visit, math.cos(self.visit.turn), math.sin(self.visit.turn)
        column = (cosine * x - sine * (y - 0.5)) * visit.scale + visit.right + 0.5
        row = (sine * x + cosine * (y - 0.5)) * visit.scale + visit.down + 0.5
        return column * self.size - 0.5, row * self.size - 0.5

    def window(self, x: tuple[float, float], y: tuple[float, float]) -> tuple[slice, slice]:
        """The smallest block of pixels that holds a box given in body coordinates."""
        corners = np.array([(a, b) for a in x for b in y], np.float32)
        column, row = self.to_pixels(corners[:, 0], corners[:, 1])
        first = [int(np.clip(np.floor(axis.min()) - 1, 0, self.size)) for axis in (row, column)]
        last = [int(np.clip(np.ceil(axis.max()) + 2, 0, self.size)) for axis in (row, column)]
        return slice(first[0], last[0]), slice(first[1], last[1])

    def strokes(self, x: Field, y: Field, weight: Field, width: float) -> Field:
        """Points spread over their four nearest pixels, then blurred to a stroke of about `width`."""
        n = self.size
        column, row = self.to_pixels(x, y)
        inside = (column >= 0) & (column < n - 1) & (row >= 0) & (row < n - 1)
        column, row, weight = column[inside], row[inside], weight[inside]
        left, top = column.astype(np.int64), row.astype(np.int64)
        right, below, at = column - left, row - top, top * n + left
        shares = ((1 - right) * (1 - below), right * (1 - below), (1 - right) * below, right * below)
        total = np.bincount(
            np.concatenate((at, at + 1, at + n, at + n + 1)), np.concatenate([weight * s for s in shares]), n * n
        )
        return gaussian_blur(total.reshape(n, n).astype(np.float32), max(0.3, width * n))


def gaussian_blur(image: Field, sigma: float) -> Field:
    """Separable Gaussian blur, `sigma` in pixels, edges repeated; below 0.2 pixels the image itself."""
    if sigma < 0.2:
        return image
    reach = math.ceil(3 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    taps = (kernel / kernel.sum()).tolist()
    height, width = image.shape
    padded = np.pad(image, reach, mode="edge")
    rows = np.zeros((height, width + 2 * reach), np.float32)
    for shift, tap in enumerate(taps):
        rows += tap * padded[shift : shift + height]
    result = np.zeros_like(image)
    for shift, tap in enumerate(taps):
        result += tap * rows[:, shift : shift + width]
    return result


def step(distance: Field, width: float) -> Field:
    """0 far below zero, 1 far above, over about `width`."""
    rise: Field = np.tanh(distance * (1 / width))
    return 0.5 + 0.5 * rise


def ball(radius_squared: Field) -> Field:
    """Thickness (0 to 1) of a ball seen at a squared distance from its centre, in radii."""
    thickness: Field = np.sqrt(np.maximum(1 - radius_squared, 0))
    return thickness


def ellipse(grid: BodyGrid, centre: tuple[float, float], radii: tuple[float, float]) -> Field:
    """Squared distance from the centre of an upright ellipse, 1 on its edge."""
    x: Field = (grid.x - centre[0]) / radii[0]
    y: Field = (grid.y - centre[1]) / radii[1]
    return x * x + y * y


def cage_half_width(anatomy: Anatomy, y: Field) -> Field:
    """Inner half width of the rib cage at row `y`: a dome from the apex down, widest just above the base."""
    up = 1 - np.clip((y - anatomy.apex) / (0.9 * (anatomy.base - anatomy.apex)), 0, 1)
    half: Field = anatomy.cage * np.sqrt(1 - up * up * np.sqrt(up))
    return half


def heart_distance(grid: BodyGrid, anatomy: Anatomy, visit: Visit) -> Field:
    """Squared distance from the heart's centre, 1 on its outline; its width is the ratio times the thoracic width."""
    angle = np.linspace(0, 2 * np.pi, 721, dtype=np.float32)
    x, y = np.cos(angle), np.sin(angle)
    radius = 1 / np.sqrt(_heart_form(anatomy, x, y))
    outline_x, outline_y = radius * x, radius * y
    width = visit.ratio * 2 * anatomy.cage
    scale_x = width / float(outline_x.max() - outline_x.min())
    scale_y = scale_x * (0.5 / visit.ratio) ** 0.25  # a large heart widens more than it lengthens
    centre_x = -anatomy.heart_right * width - float(outline_x.min()) * scale_x
    bottom = sum(anatomy.domes) / 2 + 0.085 + visit.breath
    centre_y = bottom - float(outline_y.max()) * scale_y
    return _heart_form(anatomy, (grid.x - centre_x) / scale_x, (grid.y - centre_y) / scale_y)


def _heart_form(anatomy: Anatomy, x: Field, y: Field) -> Field:
    """A tilted ellipse whose radius swings with the second and third harmonic of the angle."""
    square = x * x + y * y + 1e-12
    cosine_2, sine_2 = (x * x - y * y) / square, 2 * x * y / square
    root = np.sqrt(square)
    cosine_3, sine_3 = (cosine_2 * x - sine_2 * y) / root, (sine_2 * x + cosine_2 * y) / root
    wave = anatomy.heart_waves
    swing = 1 + wave[0] * cosine_2 + wave[1] * sine_2 + wave[2] * cosine_3 + wave[3] * sine_3
    cosine, sine = math.cos(anatomy.heart_tilt), math.sin(anatomy.heart_tilt)
    long, short = x * cosine + y * sine, (y * cosine - x * sine) / anatomy.heart_aspect
    return (long * long + short * short) / (swing * swing)


def depth_below_diaphragm(grid: BodyGrid, anatomy: Anatomy, visit: Visit) -> Field:
    """Signed distance in rows below the two domes of the diaphragm."""
    right, left = anatomy.domes
    lateral = np.abs(grid.x) / anatomy.cage
    fall = lateral - 0.45
    dome = right + visit.breath + (left - right) * step(grid.x, 0.05)
    dome = dome + fall * fall * np.where(fall > 0, np.float32(0.30), np.float32(0.12))
    depth: Field = grid.y - dome - 2 * np.maximum(lateral - 0.88, 0) ** 2
    return depth


def optical_depth(grid: BodyGrid, anatomy: Anatomy, visit: Visit) -> Field:
    """Optical depth [size, size] of the whole chest: what Beer and Lambert's law takes."""
    below = depth_below_diaphragm(grid, anatomy, visit)
    abdomen = np.sqrt(np.clip(below / 0.16, 0, 1))
    soft = np.maximum(_mediastinum(grid, anatomy, visit), _fluid(grid, anatomy, visit))
    air = _lung_air(grid, anatomy, below, abdomen) * (1 - 0.85 * soft)
    body, trunk = _body(grid, anatomy)
    depth = 1.75 * anatomy.thickness * body + trunk * 0.75 * body
    depth += trunk * np.maximum(0.75 * abdomen, 0.5 * soft * step(visit.breath + 0.89 - grid.y, 0.03))
    depth += air * (_vessels(grid, anatomy) - _LUNG_AIR)
    depth -= _trachea(grid) + _stomach_gas(grid, anatomy, visit, below)
    depth += _hila(grid, anatomy) + _breasts(grid, anatomy) + _spots(grid, anatomy)
    bones = _spine(grid, anatomy) + _clavicles(grid, anatomy) + _shoulders(grid)
    bones += _ribs(grid, anatomy) * (1 - 0.7 * abdomen) * (1 - 0.25 * soft)
    depth += bones * np.minimum(2 * body, 1)
    return np.maximum(depth + _device(grid, anatomy), 0)


def expose(depth: Field, visit: Visit, rng: np.random.Generator) -> Field:
    """A film from an optical depth: blur, scatter, photon noise, display curve, 12 bits; [size, size] in [0, 1]."""
    size = len(depth)
    photons = 50_000 * visit.dose * (128 / size) ** 1.6  # small pixels catch fewer
    transmitted = gaussian_blur(np.exp(-depth), visit.blur * size) + _SCATTER
    counted = rng.poisson(transmitted * photons).astype(np.float32)
    measured = math.log(photons) - np.log(counted + 0.5)
    slope, centre = _DISPLAY_SLOPE * visit.contrast, _DISPLAY_CENTRE + visit.darkness
    black = 1 / (1 + math.exp(slope * centre))
    film = 1 / (1 + np.exp(slope * (centre - measured)))
    film = np.clip((film - black) / (_DISPLAY_WHITE - black), 0, 1)
    levels: Field = np.round(film * GREY_LEVELS).astype(np.float32) / np.float32(GREY_LEVELS)
    return levels


def _rounded(distance: Field) -> Field:
    inside = np.clip(distance, 0, 1)
    return np.sqrt(inside * (2 - inside))


def _body(grid: BodyGrid, anatomy: Anatomy) -> tuple[Field, Field]:
    """Thickness of the body (0 to 1), neck and shoulders included, and where the trunk is."""
    x, y = np.abs(grid.x), grid.y
    neck = 0.105 if anatomy.sex == "M" else 0.092
    shoulder = 0.34 * np.maximum(x - neck, 0) + 0.004 * np.exp(-np.abs(x - neck) * 45)
    trunk = anatomy.cage + anatomy.flank
    half = trunk + 0.05 * (y - 0.6) + 0.30 * step(anatomy.axilla - y, 0.07)
    body = _rounded((y - shoulder) / 0.16) * _rounded((half - x) / 0.11)
    throat = 1.08 * np.sqrt(np.maximum(1 - (x / neck) ** 2, 0)) * step(0.12 - y, 0.05)
    return np.maximum(body, throat), step(trunk - x, 0.02)


def _mediastinum(grid: BodyGrid, anatomy: Anatomy, visit: Visit) -> Field:
    """Share of the chest's depth (0 to 1) that heart, great vessels and mediastinum fill."""
    x, y = grid.x, grid.y
    half = anatomy.pedicle * (1 + 0.25 * step(y - 0.42, 0.1))
    soft = step(half - np.abs(x - 0.006), max(0.006, 0.6 * grid.pixel)) * step(y - 0.02, 0.04)
    knob = anatomy.aorta
    for centre, radii, share in (
        ((0.010, 0.52), (0.088, 0.24), 0.8),
        ((0.042 + 0.3 * knob, 0.285), (knob, 1.4 * knob), 0.9),
        ((0.056, 0.38), (0.036, 0.060), 0.56),
        ((-0.050, 0.33), (0.030, 0.12), 0.4),
    ):
        soft = np.maximum(soft, share * np.sqrt(ball(ellipse(grid, centre, radii))))
    heart = ball(heart_distance(grid, anatomy, visit))
    return np.maximum(soft, 0.35 * heart + 0.65 * np.sqrt(heart))


def _fluid(grid: BodyGrid, anatomy: Anatomy, visit: Visit) -> Field:
    """Pleural fluid (0 to 1): a level that climbs along the chest wall, the meniscus."""
    half = np.maximum(cage_half_width(anatomy, grid.y), 1e-3)
    from_wall = np.clip(1 - np.abs(grid.x) / half, 0, 1)
    fluid = np.zeros_like(grid.x)
    for side, height in zip(SIDES, visit.effusion, strict=True):
        if height > 0:
            level = anatomy.base + visit.breath - height + 0.10 * (1 - np.exp(-7 * from_wall))
            fluid += step(grid.y - level, 0.012) * step(side * grid.x, 0.01)
    wall = 0.004 + 0.5 * np.maximum(grid.y - anatomy.base, 0)  # no edge below the costophrenic angle
    return fluid * step((half - np.abs(grid.x)) / wall, 1.0)


def _lung_air(grid: BodyGrid, anatomy: Anatomy, below: Field, abdomen: Field) -> Field:
    """Share of the chest's depth (0 to 1) that is air: two lungs inside the cage, above the diaphragm."""
    x, y, edge = np.abs(grid.x), grid.y, max(0.004, 0.6 * grid.pixel)
    half = cage_half_width(anatomy, y)
    relative = x / np.maximum(half, 1e-3)
    air = np.sqrt(np.maximum(1 - relative * relative * relative, 0)) * step(half - x, edge)
    medial = np.maximum(1 - (x - 0.04) / (0.40 * anatomy.cage - 0.04), 0)
    air *= step(y - anatomy.apex - 0.05 * medial * medial * medial, max(0.010, edge))
    air *= step(x - anatomy.pedicle + 0.012, max(0.012, edge))
    return air * (1 - 0.45 * step(below, edge) - 0.55 * abdomen)


def _vessels(grid: BodyGrid, anatomy: Anatomy) -> Field:
    stride = max(1, 256 // grid.size)  # half a pixel between points is enough
    x, y, calibre, length = anatomy.vessels[::stride].T
    weight = 0.22 * stride * grid.size**2 * length * calibre
    total = np.zeros_like(grid.x)
    for low, high in ((0, 0.0015), (0.0015, 0.003), (0.003, 1)):
        some = (calibre >= low) & (calibre < high)
        total += grid.strokes(x[some], y[some], weight[some], 0.5 * float(calibre[some].mean()))
    return total


def _trachea(grid: BodyGrid) -> Field:
    across = (grid.x - 0.004) / 0.02
    return 0.5 * ball(across * across) * step(0.33 - grid.y, 0.02)


def _stomach_gas(grid: BodyGrid, anatomy: Anatomy, visit: Visit, below: Field) -> Field:
    x, half_width, height, depth = anatomy.bubble
    bubble = ball(ellipse(grid, (x, anatomy.domes[1] + visit.breath + 0.012), (half_width, height)))
    return 0.8 * depth * bubble * step(below - 0.012, 0.006)


def _hila(grid: BodyGrid, anatomy: Anatomy) -> Field:
    right = np.exp(-ellipse(grid, (-0.095, 0.445), (0.035, 0.06)))
    left = np.exp(-ellipse(grid, (0.095, 0.430), (0.035, 0.06)))
    return 0.42 * anatomy.hila * (right + left)


def _breasts(grid: BodyGrid, anatomy: Anatomy) -> Field:
    depth, x, y = anatomy.breast
    if depth == 0:
        return np.zeros_like(grid.x)
    across, down = (np.abs(grid.x) - x) / 0.16, (grid.y - y) / 0.145
    return depth * ball(across * across + down * down) * step(grid.y - y + 0.06, 0.06)


def _spots(grid: BodyGrid, anatomy: Anatomy) -> Field:
    total = np.zeros_like(grid.x)
    for spot in anatomy.spots:
        radius = max(spot.radius, 0.4 * grid.pixel)
        total += spot.depth * np.exp(-ellipse(grid, (spot.x, spot.y), (radius, radius)))
    return total


def _spine(grid: BodyGrid, anatomy: Anatomy) -> Field:
    """The vertebral column: bodies, the gaps between them, pedicles and spinous processes."""
    amplitude, phase = anatomy.spine_curve
    across = (grid.x - amplitude * np.sin(6 * grid.y + phase)) / (0.036 + 0.014 * grid.y)
    turn = 2 * math.pi * (grid.y - 0.02) / anatomy.vertebra * (1 - 0.12 * grid.y)
    wave = np.cos(turn)
    gap, bony = 0.5 + 0.5 * wave, 0.5 - 0.5 * np.cos(turn - 0.5)
    arch = 0.5 - 0.5 * np.cos(turn + 0.6)
    column = step(1.0 - np.abs(across) + 0.10 * wave, 0.10) * (1 - 0.40 * gap * gap * gap)
    pedicles = np.exp(-(((np.abs(across) - 0.62) / 0.2) ** 2)) * arch * arch * arch
    spinous = np.exp(-((across / 0.16) ** 2)) * bony * bony * bony * bony
    spine: Field = anatomy.bone * (column + 0.28 * pedicles + 0.3 * spinous)
    return spine


def _tube(distance: Field, half: float | Field, pixel: float, marrow: float) -> Field:
    """Projected thickness of a hollow bone at a distance from its centre line, widened by half a pixel."""
    wide = half + 0.5 * pixel
    square = (distance / wide) ** 2
    return (ball(square) - 0.55 * ball(marrow * square)) * (half / wide)


def _ribs(grid: BodyGrid, anatomy: Anatomy) -> Field:
    """Eleven pairs: each a tilted ellipse whose upper half is the rib's back and whose lower half its front."""
    total = np.zeros_like(grid.x)
    for index in range(len(anatomy.rib_warp[0])):
        back = anatomy.apex - 0.004 + anatomy.rib_row + index * anatomy.rib_spacing
        drop = 0.075 + (anatomy.rib_drop - 0.075) * min(1.0, index / 5)
        centre, half_drop = back + drop / 2, drop / 2
        width = max(float(cage_half_width(anatomy, np.array(centre))) - 0.009, 0.13)
        half = anatomy.rib_half * (0.8 + 0.035 * index)
        for side, warp, shift in zip(SIDES, anatomy.rib_warp, reversed(anatomy.rib_warp), strict=True):
            reach = side * (width + 0.03)
            window = grid.window((min(0, reach), max(0, reach)), (back - 0.04, back + drop + 0.04))
            x = side * grid.x[window]
            across = x / width
            bend = 0.024 * warp[index] * across * (1 - across) + 0.003 * shift[index]
            down = (grid.y[window] - centre - bend) / half_drop
            slope = np.sqrt((across / width) ** 2 + (down / half_drop) ** 2) + 1e-3
            distance = (across * across + down * down - 1) / (2 * slope)
            front = step(down, 0.12)
            tangent = across * across * across * across
            shade = (1 + 0.3 * tangent * tangent) * (1 - 0.42 * front)
            shade *= step(x - 0.03, 0.015) * (1 - front * step(0.52 * width - x, 0.03))  # no cartilage
            shade *= 1 - front * min(1.0, 0.3 * max(0, index - 5))
            total[window] += _tube(distance, half * (1 + 0.25 * front), grid.pixel, 2.0) * shade
    return anatomy.rib_density * total


def _clavicles(grid: BodyGrid, anatomy: Anatomy) -> Field:
    total = np.zeros_like(grid.x)
    for side, bone in zip(SIDES, anatomy.clavicles, strict=True):
        medial, lateral = anatomy.apex + bone.medial_row, anatomy.apex + bone.lateral_row
        ends = sorted((side * 0.02, side * (bone.lateral_x + 0.14)))
        rows = min(medial, lateral) - 0.07, max(medial, lateral) + 0.07
        window = grid.window((ends[0], ends[1]), rows)
        x = side * grid.x[window]
        along = (x - 0.03) / (bone.lateral_x - 0.03)
        line = medial + (lateral - medial) * along + bone.bow * np.sin(2 * math.pi * along)
        half = bone.half * (1 + 0.55 * (2 * along - 1) ** 2)
        tube = _tube(grid.y[window] - line, half, grid.pixel, 1.9)
        total[window] += tube * step(x - 0.03, 0.006) * step(bone.lateral_x + 0.08 - x, 0.03)
    return 0.62 * total


def _shoulders(grid: BodyGrid) -> Field:
    """Humerus and shoulder blade, turned out of the lungs as for a posteroanterior film."""
    x, y = np.abs(grid.x), grid.y
    across = (x - 0.505 - 0.25 * (y - 0.2)) / (0.052 - 0.02 * step(y - 0.25, 0.03))
    square = across * across + (np.minimum(y - 0.20, 0) / 0.05) ** 2
    humerus = 0.40 * (ball(square) - 0.3 * ball(1.7 * square))
    along = (y - 0.27) / 0.14
    medial, lateral = 0.345 + 0.03 * along + 0.045 * along * along, 0.455 - 0.075 * along
    blade = 0.12 * step(x - medial, 0.012) * step(lateral - x, 0.006) * step(1 - np.abs(along), 0.12)
    rim = 0.17 * np.exp(-(((x - lateral + 0.008) / 0.009) ** 2)) * step(0.9 - np.abs(along), 0.15)
    shoulders: Field = humerus + blade + rim
    return shoulders


def _device(grid: BodyGrid, anatomy: Anatomy) -> Field:
    """Metal: a pacemaker or a port with its line, or sternal wires."""
    if anatomy.device == "none":
        return np.zeros_like(grid.x)
    along = np.linspace(0, 1, 600, dtype=np.float32)
    if anatomy.device == "wires":
        turn = 2 * np.pi * along
        total = np.zeros_like(grid.x)
        for index in range(6):
            row = 0.24 + 0.062 * index + 0.006 * np.sin(turn + index)
            total += _wire(grid, 0.004 + 0.012 * np.cos(turn), row, 0.0032)
        return total
    x, y, angle = anatomy.device_at
    radius, tip = (0.042, (0.10, 0.66)) if anatomy.device == "pacemaker" else (0.02, (-0.045, 0.42))
    bends = np.array([(x, y - 0.03), (math.copysign(0.10, x), 0.10), (-0.06, 0.30), tip], np.float32)
    back = 1 - along
    shares = np.stack([back * back * back, 3 * along * back * back, 3 * along * along * back, along * along * along])
    line = (bends[:, :, None] * shares[:, None]).sum(0)  # a Bezier curve, [2, 600]
    right, down, cosine, sine = grid.x - x, grid.y - y, math.cos(angle), math.sin(angle)
    case = ((right * cosine + down * sine) / radius) ** 4 + ((down * cosine - right * sine) / (0.9 * radius)) ** 4
    metal = step(1 - case, max(0.06, 0.6 * grid.pixel / radius)) * (1 - 0.35 * step(0.35 - case, 0.1))
    return 1.6 * metal + _wire(grid, line[0], line[1], 0.0045)


def _wire(grid: BodyGrid, x: Field, y: Field, calibre: float) -> Field:
    length = np.hypot(np.diff(x, prepend=x[:1]), np.diff(y, prepend=y[:1]))
    return grid.strokes(x, y, 1.1 * grid.size**2 * calibre * length, 0.4 * calibre)

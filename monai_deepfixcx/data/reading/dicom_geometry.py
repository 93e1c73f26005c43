"""Where a DICOM image lies: pixel spacing, the affine to RAS millimetres, and slices stacked to a volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monai_deepfixcx.data.reading.stored_image import Floats, StoredImage, UnreadableImage, Window

if TYPE_CHECKING:
    from monai_deepfixcx.data.reading.dicom_header import Header

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MACROS = {  # an enhanced object keeps these one level down, per frame or shared (PS3.3 C.7.6.16.2)
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "SpacingBetweenSlices": "PixelMeasuresSequence",
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "WindowCenter": "FrameVOILUTSequence",
    "WindowWidth": "FrameVOILUTSequence",
    "VOILUTFunction": "FrameVOILUTSequence",
}


@dataclass(frozen=True, eq=False)
class Place:
    """Where the frames of one DICOM file lie, in the patient's LPS millimetres."""

    spacing: tuple[float, float]
    """Between rows, between columns."""
    depth: float
    """Between slices, 1 if unknown."""
    known: bool
    """Whether the file states a usable spacing."""
    orientation: NDArray[np.float64] | None
    """Unit vectors ``[2, 3]`` of growing column and growing row index."""
    positions: NDArray[np.float64] | None
    """Centre of each frame's first pixel ``[frames, 3]``."""
    series: str
    """Tells series apart; never to be shown."""

    @property
    def normal(self) -> NDArray[np.float64]:
        """The direction of growing slices; needs an orientation."""
        columns, rows = np.zeros((2, 3)) if self.orientation is None else self.orientation
        return np.cross(columns, rows)


def frame_value(header: Header, keyword: str, frame: int = 0) -> Any:
    """The value of `keyword` for one frame: its own, else the shared one, else the file's; None if there is none."""
    if keyword in _MACROS:
        for groups, index in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
            items = header.get(groups) or []
            macro = items[index].get(_MACROS[keyword]) if index < len(items) else None
            if macro and macro[0].get(keyword) is not None:
                return macro[0].get(keyword)
    return header.get(keyword)


def read_numbers(header: Header, keyword: str, frame: int = 0) -> NDArray[np.float64] | None:
    """The finite numbers of an element, for one frame; None if there are none, or something else."""
    value = frame_value(header, keyword, frame)
    if value is None:
        return None
    try:
        numbers = np.atleast_1d(np.asarray(value, dtype=np.float64))
    except (TypeError, ValueError):  # not worth losing an image over
        return None
    return numbers if numbers.size and np.isfinite(numbers).all() else None


def read_place(header: Header, frames: int) -> Place:
    """Collect what the header says about geometry; nonsense such as a spacing of 0 counts as unsaid.

    Args:
        header: A DICOM header.
        frames: How many frames the image has.
    """
    spacing = _lengths(header, ("PixelSpacing", "ImagerPixelSpacing"), 2)
    depth = _lengths(header, ("SpacingBetweenSlices", "SliceThickness"), 1)
    places = [read_numbers(header, "ImagePositionPatient", i) for i in range(frames)]
    found = [place for place in places if place is not None and len(place) == 3]
    return Place(
        spacing=(1.0, 1.0) if spacing is None else (float(spacing[0]), float(spacing[1])),
        depth=1.0 if depth is None else float(depth[0]),
        known=spacing is not None,
        orientation=_orientation(read_numbers(header, "ImageOrientationPatient")),
        positions=np.stack(found) if len(found) == frames else None,
        series=str(header.get("SeriesInstanceUID") or ""),
    )


def affine_of(place: Place) -> NDArray[np.float64]:
    """The affine ``[4, 4]`` from [row, column, slice] to RAS millimetres (PS3.3 C.7.6.2.1.1, then LPS to RAS).

    Without position and orientation it is a diagonal of the spacings.
    """
    if place.orientation is None or place.positions is None:
        return np.diag([*place.spacing, place.depth, 1.0])
    columns, rows = place.orientation
    affine = np.eye(4)
    affine[:3, 0] = rows * place.spacing[0]
    affine[:3, 1] = columns * place.spacing[1]
    affine[:3, 2] = _step(place)
    affine[:3, 3] = place.positions[0]
    return np.asarray(_LPS_TO_RAS @ affine)


def stack_slices(slices: Sequence[tuple[StoredImage, Place]]) -> StoredImage:
    """Stack the slices of one series to a volume [rows, columns, slices], sorted along their normal.

    Args:
        slices: Decoded single-frame images and where they lie, in any order.

    Raises:
        UnreadableImage: If they are not evenly spaced slices of one series with one shape and orientation.
    """
    _check_same_series(slices)
    normal = slices[0][1].normal
    along = sorted(slices, key=lambda item: float(_position(item[1]) @ normal))
    positions = np.stack([_position(place) for _, place in along])
    _check_gaps(np.diff(positions @ normal))
    images = [image for image, _ in along]
    ends = [image.ends for image in images if image.ends is not None]
    return replace(
        images[0],
        values=np.stack([image.values for image in images], axis=-1),
        affine=affine_of(replace(along[0][1], positions=positions)),
        ends=(min(low for low, _ in ends), max(high for _, high in ends)) if len(ends) == len(images) else None,
        padding=_stacked_padding(images),
        window=_stacked_window([image.window for image in images]),
    )


def _lengths(header: Header, keywords: Sequence[str], count: int) -> NDArray[np.float64] | None:
    """The first of some elements that holds `count` positive lengths."""
    for keyword in keywords:
        numbers = read_numbers(header, keyword)
        if numbers is not None and len(numbers) == count and (numbers > 0).all():
            return numbers
    return None


def _orientation(numbers: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    if numbers is None or len(numbers) != 6:
        return None
    vectors = numbers.reshape(2, 3)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    square = np.allclose(lengths, 1, atol=1e-2) and abs(vectors[0] @ vectors[1]) < 1e-2
    return np.asarray(vectors / lengths) if square else None


def _step(place: Place) -> NDArray[np.float64]:
    """From one slice to the next; measured where several positions are known and evenly spaced."""
    positions = place.positions
    if positions is not None and len(positions) > 1:
        steps = np.diff(positions, axis=0)
        mean = steps.mean(axis=0)
        if np.linalg.norm(mean) > 0 and np.allclose(steps, mean, atol=0.1 * np.linalg.norm(mean)):
            return np.asarray(mean)
    return place.normal * place.depth


def _position(place: Place) -> NDArray[np.float64]:
    if place.positions is None or place.orientation is None:
        raise UnreadableImage("not a series: a slice has no Image Position (Patient) or Orientation to sort it by")
    return np.asarray(place.positions[0])


def _check_same_series(slices: Sequence[tuple[StoredImage, Place]]) -> None:
    first, place = slices[0]
    for image, other in slices:
        _position(other)
        if image.values.ndim != 3:
            raise UnreadableImage("not a series: one of several files holds several frames; read it on its own")
        if other.series != place.series:
            raise UnreadableImage("not one series: the files belong to two or more; read them one by one")
        if image.values.shape != first.values.shape:
            shapes = " and ".join(f"{i.values.shape[1]} x {i.values.shape[2]}" for i in (first, image))
            raise UnreadableImage(f"not one series: slices of {shapes} pixels")
        if not np.allclose(np.asarray(other.orientation), np.asarray(place.orientation), atol=1e-3):
            raise UnreadableImage("not one volume: the slices have different orientations")
        if not np.allclose(other.spacing, place.spacing, rtol=1e-3) or image.inverted != first.inverted:
            raise UnreadableImage("not one volume: the slices differ in pixel spacing or polarity")


def _check_gaps(gaps: NDArray[np.float64]) -> None:
    if gaps.min() < 1e-3:
        raise UnreadableImage("not one volume: two slices lie at the same place")
    if gaps.max() > 1.1 * gaps.min():
        raise UnreadableImage(f"a slice is missing: the gaps run from {gaps.min():.3g} to {gaps.max():.3g} mm")


def _stacked_padding(images: Sequence[StoredImage]) -> NDArray[np.bool_] | None:
    if all(image.padding is None for image in images):
        return None
    empty = np.zeros(images[0].values.shape[1:], dtype=bool)
    return np.stack([empty if image.padding is None else image.padding for image in images], axis=-1)


def _stacked_window(windows: Sequence[Window | None]) -> Window | None:
    """Each slice through its own window, as a viewer would show it; the first one's ends stand for all."""
    own = [window for window in windows if window is not None]
    if len(own) < len(windows):
        return None

    def apply(values: Floats) -> Floats:
        return np.stack([window.apply(values[..., i]) for i, window in enumerate(own)], axis=-1)

    return Window(own[0].ends, apply)

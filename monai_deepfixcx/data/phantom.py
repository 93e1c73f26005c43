"""Synthetic chest radiographs: NOT PATIENTS. For tests, demonstrations and attacks whose ground truth must be known.

The films are drawn from random numbers by a simple model of anatomy and X-ray physics (`phantom_anatomy`,
`phantom_film`). They look like posteroanterior chest films, heart size and pleural fluid can be learnt from them, and
patients can be recognised in them; nothing measured on them says anything about people.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from monai_deepfixcx.data.phantom_anatomy import Anatomy, Field, Visit, draw_anatomy, draw_visit
from monai_deepfixcx.data.phantom_film import (
    GREY_LEVELS,
    BodyGrid,
    cage_half_width,
    depth_below_diaphragm,
    expose,
    heart_distance,
    optical_depth,
)

if TYPE_CHECKING:
    from pydicom import Dataset as DicomDataset

SYNTHETIC = "SYNTHETIC PHANTOM, NOT A PATIENT"
_TABLE = ("image", "patient", "visit", "sex", "age", "view", "cardiothoracic_ratio")
_FIRST_NAMES = {
    "F": ("ANNA", "BERTA", "CLARA", "DORA", "EMMA", "FRIDA", "GRETA", "HILDA"),
    "M": ("ADAM", "BRUNO", "CARL", "DAVID", "EMIL", "FELIX", "GUSTAV", "HUGO"),
}
_IMAGE_SIDE_MM = 350.0
_anatomy = functools.lru_cache(maxsize=64)(draw_anatomy)  # pure: the visits of a patient share one drawing


class PhantomItem(TypedDict):
    """One synthetic film."""

    image: torch.Tensor  # [1, size, size] float32 in [0, 1], bone white
    patient: int
    visit: int
    label: torch.Tensor  # [2] float32: cardiomegaly, effusion
    cardiothoracic_ratio: float
    sex: str
    age: float  # years at this visit


class PhantomArrays(TypedDict):
    """All films of a phantom; a mapping that `run_attack` takes as auxiliary data or as victims."""

    images: torch.Tensor  # [N, 1, size, size] float32
    patients: NDArray[np.int64]  # [N]
    visits: NDArray[np.int64]  # [N]
    labels: torch.Tensor  # [N, 2] float32
    cardiothoracic_ratio: torch.Tensor  # [N] float32
    sex: NDArray[np.str_]  # [N]
    age: torch.Tensor  # [N] float32, years


class PhantomRadiographs(Dataset[PhantomItem]):
    """SYNTHETIC frontal chest radiographs with a known heart, known diagnoses and known identities; no patient's data.

    Films are ordered patient by patient, visit by visit. A film follows from (seed, patient, visit, size) alone, bit
    for bit on one machine, whatever the order of access and the number of patients. Anatomy (ribs, clavicles, spine,
    heart shape, vessels, calcified spots, devices) stays with a patient; pose, breath, exposure, noise and pleural
    fluid change from visit to visit.

    Cardiomegaly is a cardiothoracic ratio above 0.5 (a mixture of two normals at .44 and .56, about 41 % positive);
    effusion is fluid in one or both costophrenic angles (about 27 %, more often with a large heart). Sex and age show
    in the anatomy, a little.

    Args:
        patients: number of patients, at least 1.
        visits_per_patient: films of each, at least 1.
        size: side of the square image in pixels, 64 to 512.
        seed: of everything, at least 0.
        first_patient: number of the first patient; two phantoms whose numbers do not overlap share no patient.

    Raises:
        ValueError: an argument out of range.

    >>> phantom = PhantomRadiographs(patients=3, visits_per_patient=2, size=64, seed=0)
    >>> len(phantom), phantom[5]["image"].shape, phantom[5]["patient"], phantom[5]["visit"]
    (6, torch.Size([1, 64, 64]), 2, 1)
    >>> phantom.region("heart", 5).shape
    torch.Size([64, 64])
    """

    labels: ClassVar[tuple[str, str]] = ("Cardiomegaly", "Effusion")
    regions: ClassVar[tuple[str, ...]] = ("heart", "lungs", "thorax")

    def __init__(
        self, patients: int, visits_per_patient: int = 2, size: int = 128, seed: int = 0, first_patient: int = 0
    ) -> None:
        self.patients = _whole("patients", patients, 1)
        self.visits_per_patient = _whole("visits_per_patient", visits_per_patient, 1)
        self.size = _whole("size", size, 64, 512)
        self.seed = _whole("seed", seed, 0)
        self.first_patient = _whole("first_patient", first_patient, 0)

    def __len__(self) -> int:
        return self.patients * self.visits_per_patient

    def __getitem__(self, index: int) -> PhantomItem:
        patient, visit, anatomy, film, rng = self._draw(index)
        return {
            "image": torch.from_numpy(self._render(anatomy, film, rng))[None],
            "patient": patient,
            "visit": visit,
            "label": torch.tensor([float(film.ratio > 0.5), float(max(film.effusion) > 0)]),
            "cardiothoracic_ratio": film.ratio,
            "sex": anatomy.sex,
            "age": anatomy.age + visit * anatomy.interval,
        }

    def region(self, name: str, index: int) -> torch.Tensor:
        """True place of an organ in one film.

        Args:
            name: "heart"; "lungs" (inside the rib cage, above the diaphragm, outside the heart); or "thorax" (inside
                the rib cage). The widest row of "heart" over that of "thorax" is the cardiothoracic ratio.
            index: of the film.

        Returns:
            bool ``[size, size]``.

        Raises:
            ValueError: an unknown name.
            IndexError: no such film.
        """
        if name not in _REGIONS:
            raise ValueError(f"name must be one of {', '.join(self.regions)}; got {name!r}.")
        _, _, anatomy, film, _ = self._draw(index)
        return torch.from_numpy(_REGIONS[name](BodyGrid(self.size, film), anatomy, film))

    def arrays(self) -> PhantomArrays:
        """All films at once, in the order of the dataset. ``4 * len * size^2`` bytes."""
        items = [self[index] for index in range(len(self))]
        return {
            "images": torch.stack([item["image"] for item in items]),
            "patients": np.array([item["patient"] for item in items], np.int64),
            "visits": np.array([item["visit"] for item in items], np.int64),
            "labels": torch.stack([item["label"] for item in items]),
            "cardiothoracic_ratio": torch.tensor([item["cardiothoracic_ratio"] for item in items]),
            "sex": np.array([item["sex"] for item in items]),
            "age": torch.tensor([item["age"] for item in items]),
        }

    def write_png(self, folder: str | Path) -> list[Path]:
        """Write every film as 8-bit grey PNG, and ``labels.csv`` beside them, which `make_datalist` reads ("csv").

        Args:
            folder: made if absent; files of the same name are replaced.

        Returns:
            the image files, in the order of the dataset.
        """
        from PIL import Image

        def save(item: PhantomItem, path: Path) -> None:
            Image.fromarray((item["image"][0] * 255).round().to(torch.uint8).numpy()).save(path)

        return self._write(Path(folder), ".png", save)

    def write_dicom(self, folder: str | Path) -> list[Path]:
        """Write every film as DICOM (Computed Radiography, 12 bits), and ``labels.csv`` beside them.

        The headers hold *fake* identifying values (name, id, birth date, address, institution, accession number, a
        private element), so that removing them can be tested, and say that the film is synthetic. About every fourth
        patient is stored as MONOCHROME1. The stored values divided by 4095 (MONOCHROME1: subtracted from 4095 first)
        are the images exactly.

        Args:
            folder: made if absent; files of the same name are replaced.

        Returns:
            the image files, in the order of the dataset.
        """

        def save(item: PhantomItem, path: Path) -> None:
            anatomy = _anatomy(self.seed, item["patient"])
            fake_dicom(item, anatomy, self.seed).save_as(path, enforce_file_format=True)

        return self._write(Path(folder), ".dcm", save)

    def _draw(self, index: int) -> tuple[int, int, Anatomy, Visit, np.random.Generator]:
        if not -len(self) <= index < len(self):
            raise IndexError(
                f"index must be from 0 to {len(self) - 1} (this phantom has {len(self)} films); got {index}."
            )
        number, visit = divmod(index % len(self), self.visits_per_patient)
        patient = self.first_patient + number
        anatomy = _anatomy(self.seed, patient)
        film, rng = draw_visit(anatomy, self.seed, patient, visit)
        return patient, visit, anatomy, film, rng

    def _render(self, anatomy: Anatomy, film: Visit, rng: np.random.Generator) -> Field:
        return expose(optical_depth(BodyGrid(self.size, film), anatomy, film), film, rng)

    def _write(self, folder: Path, suffix: str, save: Callable[[PhantomItem, Path], None]) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow((*_TABLE, *self.labels))
            for index in range(len(self)):
                item = self[index]
                path = folder / f"phantom_{item['patient']:06d}_{item['visit']:02d}{suffix}"
                save(item, path)
                ratio, labels = f"{item['cardiothoracic_ratio']:.4f}", item["label"].int().tolist()
                patient, age = patient_id(item["patient"]), f"{item['age']:.1f}"
                table.writerow((path.name, patient, item["visit"], item["sex"], age, "PA", ratio, *labels))
                paths.append(path)
        return paths


def patient_id(patient: int) -> str:
    """The fake PatientID of a phantom patient.

    >>> patient_id(12)
    'PHANTOM-000012'
    """
    return f"PHANTOM-{patient:06d}"


def fake_dicom(item: PhantomItem, anatomy: Anatomy, seed: int) -> DicomDataset:
    """A synthetic film as a DICOM object whose identifying values are all made up.

    Args:
        item: a film of `PhantomRadiographs`.
        anatomy: of its patient.
        seed: of the phantom; it goes into the UIDs, which are the same in every run.

    Returns:
        a Computed Radiography object, with file meta information, ready for ``save_as``.
    """
    from pydicom import Dataset as DicomDataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

    patient, visit, size = item["patient"], item["visit"], item["image"].shape[-1]
    uid = functools.partial(_fake_uid, generate_uid, seed, patient)
    first = date(2001, 1, 1) + timedelta(days=patient * 37 % 3000)
    taken = first + timedelta(days=round(365.25 * anatomy.interval * visit))
    born = first - timedelta(days=round(365.25 * anatomy.age))
    header: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 100",
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "SyntheticData": "YES",
        "SOPClassUID": ComputedRadiographyImageStorage,
        "SOPInstanceUID": uid("image", visit, size),
        "StudyInstanceUID": uid("study", visit),
        "SeriesInstanceUID": uid("series", visit, size),
        "StudyDate": f"{taken:%Y%m%d}",
        "StudyTime": f"{8 + patient % 10:02d}{visit % 60:02d}00",
        "AccessionNumber": f"PHANTOM{patient:06d}{visit:02d}",
        "StudyID": f"PHANTOM{visit}",
        "SeriesNumber": 1,
        "InstanceNumber": 1,
        "Modality": "CR",
        "Manufacturer": "PHANTOM WORKS (FICTITIOUS)",
        "ManufacturerModelName": "monai_deepfixcx PhantomRadiographs",
        "DeviceSerialNumber": f"PHANTOM-{patient % 7}",
        "InstitutionName": "PHANTOM HOSPITAL (FICTITIOUS)",
        "InstitutionAddress": "1 PHANTOM STREET, NOWHERE",
        "StationName": f"PHANTOM{patient % 7}",
        "ReferringPhysicianName": "PHANTOM^DOCTOR",
        "OperatorsName": "PHANTOM^OPERATOR",
        "StudyDescription": "SYNTHETIC CHEST PHANTOM",
        "SeriesDescription": SYNTHETIC,
        "ImageComments": SYNTHETIC,
        "PatientName": f"PHANTOM^{_FIRST_NAMES[item['sex']][patient % 8]}",
        "PatientID": patient_id(patient),
        "PatientBirthDate": f"{born:%Y%m%d}",
        "PatientSex": item["sex"],
        "PatientAge": f"{int(item['age']):03d}Y",
        "PatientAddress": f"{patient + 1} PHANTOM STREET, NOWHERE",
        "PatientOrientation": ["L", "F"],
        "QualityControlSubject": "YES",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "ImagerPixelSpacing": [round(_IMAGE_SIDE_MM / size, 6)] * 2,
    }
    dicom = DicomDataset()
    for keyword, value in header.items():
        setattr(dicom, keyword, value)
    private = dicom.private_block(0x0099, "PHANTOM PRIVATE", create=True)
    private.add_new(0x01, "LO", f"PHANTOM^PRIVATE^{patient:06d}")
    _add_pixels(dicom, item["image"][0].numpy(), anatomy.inverted)
    dicom.file_meta = FileMetaDataset()
    dicom.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dicom


def _add_pixels(dicom: DicomDataset, image: Field, inverted: bool) -> None:
    levels = np.round(image * GREY_LEVELS).astype("<u2")
    dicom.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dicom.SamplesPerPixel, dicom.PixelRepresentation = 1, 0
    dicom.Rows, dicom.Columns = levels.shape
    dicom.BitsAllocated, dicom.BitsStored, dicom.HighBit = 16, 12, 11
    dicom.WindowCenter, dicom.WindowWidth = 2048, 4096
    dicom.PixelData = (GREY_LEVELS - levels if inverted else levels).astype("<u2").tobytes()


def _fake_uid(generate: Callable[..., str], *key: int | str) -> str:
    return generate(entropy_srcs=["monai_deepfixcx phantom", *map(str, key)])


def _thorax(grid: BodyGrid, anatomy: Anatomy, film: Visit) -> NDArray[np.bool_]:
    inside = np.abs(grid.x) <= cage_half_width(anatomy, grid.y)
    return inside & (grid.y >= anatomy.apex) & (grid.y <= anatomy.base)


def _heart(grid: BodyGrid, anatomy: Anatomy, film: Visit) -> NDArray[np.bool_]:
    return heart_distance(grid, anatomy, film) <= 1


def _lungs(grid: BodyGrid, anatomy: Anatomy, film: Visit) -> NDArray[np.bool_]:
    beside = np.abs(grid.x) > anatomy.pedicle
    above = depth_below_diaphragm(grid, anatomy, film) < 0
    return _thorax(grid, anatomy, film) & beside & above & ~_heart(grid, anatomy, film)


_REGIONS: dict[str, Callable[[BodyGrid, Anatomy, Visit], NDArray[np.bool_]]] = {
    "heart": _heart,
    "lungs": _lungs,
    "thorax": _thorax,
}


def _whole(name: str, value: int, low: int, high: int | None = None) -> int:
    """`value` as an int, or an error that says what `name` must be."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        limits = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be a whole number {limits}; got {value!r}.")
    return int(value)

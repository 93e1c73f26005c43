"""The published tables behind `make_datalist`: one function per source, all giving the same records.

Sources: NIH ChestX-ray14 (Wang et al., CVPR 2017), CheXpert (Irvin et al., AAAI 2019), MIMIC-CXR-JPG 2.0.0 (Johnson et
al., PhysioNet 2019), PadChest (Bustos et al., Medical Image Analysis 2020).
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TextIO, cast

Part = Literal["training", "validation", "testing"]

PARTS: tuple[Part, ...] = ("training", "validation", "testing")
_NIH_FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"),
    *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia", "No Finding"),
)
_CHEXPERT_FIELDS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")
_CSV_FIELDS = ("image", "patient", "sex", "age", "view", "split", "findings")
_PHOTOGRAPHS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_SEX = {"m": "M", "male": "M", "f": "F", "female": "F"}
_VIEW = {
    **dict.fromkeys(("PA", "POSTEROANTERIOR"), "PA"),
    **dict.fromkeys(("AP", "ANTEROPOSTERIOR", "AP_HORIZONTAL"), "AP"),
    **dict.fromkeys(("L", "LL", "RL", "LATERAL", "XTABLE LATERAL"), "LATERAL"),
}
_PART: dict[str, Part] = {
    **dict.fromkeys(("train", "training"), "training"),
    **dict.fromkeys(("val", "valid", "validate", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "testing"),
}
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


class Record(NamedTuple):
    """One image as its source describes it."""

    image: Path
    patient: str
    marks: Mapping[str, float | None]  # 1, 0, -1 (uncertain) or None (blank); a finding that is not there is 0
    sex: str = ""
    age: float = math.nan
    view: str = ""
    part: Part | None = None  # of the published split


class Table(NamedTuple):
    """All that a source says."""

    records: list[Record]
    labels: Sequence[str]
    is_classes: bool = False  # one mark per record, its class


class Request(NamedTuple):
    """What a source is asked for."""

    root: Path
    images: Path
    labels: Sequence[str] | None
    columns: Mapping[str, str]
    pattern: str | None
    published: bool

    def wanted(self, available: Sequence[str]) -> list[str]:
        """The labels asked for that are there; only their cells are read."""
        return [name for name in available if self.labels is None or name in self.labels]


class _Csv:
    """A CSV file, plain or gzipped, whose columns are asked for by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as file:
            self.header = [name.strip() for name in next(csv.reader(file), [])]

    def _open(self) -> TextIO:
        opener = gzip.open if self.path.suffix == ".gz" else open
        return cast(TextIO, opener(self.path, "rt", encoding="utf-8-sig", newline=""))

    def column(self, *names: str) -> str:
        """The first of `names` that is a column, or an error."""
        for name in names:
            if name in self.header:
                return name
        wanted = " or ".join(map(repr, names))
        raise ValueError(f"{self.path.name} must have a column {wanted}; it has {', '.join(self.header)}.")

    def rows(self, *columns: str) -> Iterator[list[str]]:
        """The cells of these columns, stripped, row by row; a cell that is not there is blank."""
        places = [self.header.index(self.column(column)) for column in columns]
        with self._open() as file:
            reader = csv.reader(file)
            next(reader, None)
            for row in reader:
                if row:
                    yield [row[place].strip() if place < len(row) else "" for place in places]

    def marks(self, cells: Sequence[str], labels: Sequence[str]) -> dict[str, float | None]:
        """The label values 1, 0, -1 or None (blank) of one row."""
        return {label: self._mark(cell, label) for cell, label in zip(cells, labels, strict=True)}

    def _mark(self, cell: str, label: str) -> float | None:
        if not cell:
            return None
        with contextlib.suppress(ValueError):
            if float(cell) in (1.0, 0.0, -1.0):
                return float(cell)
        raise ValueError(f"{self.path.name} must hold 1, 0, -1 or nothing in column {label!r}; got {cell!r}.")


def _find(root: Path, name: str) -> Path:
    """The newest file of this name (a glob pattern), plain or gzipped."""
    found = sorted([*root.glob(name), *root.glob(f"{name}.gz")])
    if not found:
        raise FileNotFoundError(
            f"{root} must hold {name} or {name}.gz. Point root at the folder of the published tables."
        )
    return found[-1]


def _read_nih(request: Request) -> Table:
    parts: dict[str, Part] = {}
    if request.published:
        for listed, part in (("train_val_list.txt", PARTS[0]), ("test_list.txt", PARTS[2])):
            parts |= dict.fromkeys(_find(request.root, listed).read_text(encoding="utf-8").split(), part)
    folders = ("*.png", "images/*.png", "images_*/*.png", "images_*/images/*.png")
    places = {path.name: path for pattern in folders for path in request.images.glob(pattern)}
    table = _Csv(_find(request.root, "Data_Entry_2017*.csv"))
    gender = table.column("Patient Gender", "Patient Sex")
    columns = ("Image Index", "Finding Labels", "Patient ID", gender, "Patient Age", "View Position")
    records = []
    for image, found, patient, sex, age, view in table.rows(*columns):
        path = places.get(image, request.images / "images" / image)
        records.append(Record(path, patient, _found(found), _sex(sex), _years(age), _view(view), parts.get(image)))
    return Table(records, _NIH_FINDINGS)


def _read_chexpert(request: Request) -> Table:
    records: list[Record] = []
    labels: list[str] = []
    for file, part in (("train.csv", PARTS[0]), ("valid.csv", PARTS[1])):
        table = _Csv(_find(request.root, file))
        labels = [column for column in table.header if column not in _CHEXPERT_FIELDS]
        wanted = request.wanted(labels)
        for path, sex, age, side, view, *cells in table.rows(*_CHEXPERT_FIELDS, *wanted):
            image = request.images / re.sub(r"^CheXpert-v[^/]*/", "", path)
            patient = _group(r"(patient\d+)/", path)
            shown = "LATERAL" if side == "Lateral" else _view(view)
            records.append(Record(image, patient, table.marks(cells, wanted), _sex(sex), _years(age), shown, part))
    return Table(records, labels)


def _read_mimic(request: Request) -> Table:
    root, prefix = request.root, "mimic-cxr-2.0.0-"
    studies = _Csv(_find(root, f"{prefix}chexpert.csv"))
    labels = [column for column in studies.header if column not in ("subject_id", "study_id")]
    wanted = request.wanted(labels)
    marks = {study: studies.marks(cells, wanted) for study, *cells in studies.rows("study_id", *wanted)}
    parts: dict[str, Part] = {}
    if request.published:
        splits = _Csv(_find(root, f"{prefix}split.csv"))
        parts = {image: _part(name) for image, name in splits.rows("dicom_id", "split")}
    people = _mimic_people(root)
    columns = ("dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate")
    records = []
    for image, patient, study, view, day in _Csv(_find(root, f"{prefix}metadata.csv")).rows(*columns):
        if study in marks:
            path = request.images / "files" / f"p{patient[:2]}" / f"p{patient}" / f"s{study}" / f"{image}.jpg"
            sex, born = people.get(patient, ("", math.nan))
            age = _plausible(_number(day[:4]) - born)
            records.append(Record(path, patient, marks[study], sex, age, _view(view), parts.get(image)))
    return Table(records, labels)


def _mimic_people(root: Path) -> dict[str, tuple[str, float]]:
    """Sex and year of birth (shifted as the study dates are) from MIMIC-IV's table of patients, if it is there."""
    if not [*root.glob("patients.csv"), *root.glob("patients.csv.gz")]:
        return {}
    rows = _Csv(_find(root, "patients.csv")).rows("subject_id", "gender", "anchor_age", "anchor_year")
    return {patient: (_sex(sex), _number(year) - _number(age)) for patient, sex, age, year in rows}


def _read_padchest(request: Request) -> Table:
    table = _Csv(_find(request.root, "PADCHEST_chest_x_ray_images_labels_160K*.csv"))
    flat = next(request.images.glob("*.png"), None) is not None
    who = ("PatientID", "PatientSex_DICOM", "PatientBirth", "StudyDate_DICOM")
    rows = table.rows("ImageID", "ImageDir", *who, "Projection", "Labels")
    records = []
    for image, folder, patient, sex, born, day, view, found in rows:
        path = request.images / image if flat else request.images / folder / image
        names = [name.strip() for _, name in re.findall(r"""(['"])(.*?)\1""", found)]
        age = _plausible(_number(day[:4]) - _number(born))
        if found.startswith("["):  # a Python list written out; without one, no label was made
            records.append(Record(path, patient, dict.fromkeys(names, 1.0), _sex(sex), age, _view(view)))
    return Table(records, _all_found(records))


def _read_csv(request: Request) -> Table:
    unknown = sorted(set(request.columns) - set(_CSV_FIELDS))
    if unknown:
        raise ValueError(f"columns must name some of {', '.join(_CSV_FIELDS)}; got {', '.join(unknown)}.")
    if not request.root.is_file():
        raise FileNotFoundError(f"root must be the CSV file itself for source 'csv'; got {request.root}.")
    table = _Csv(request.root)
    fields = {field: request.columns.get(field, field) for field in _CSV_FIELDS}
    for field, name in fields.items():
        if field in ("image", "patient", *request.columns) or (field == "split" and request.published):
            table.column(name)
    fields = {field: name for field, name in fields.items() if name in table.header}
    labels = [] if "findings" in fields else [name for name in table.header if name not in fields.values()]
    wanted = request.wanted(labels)
    records = []
    for cells in table.rows(*fields.values(), *wanted):
        row = dict(zip(fields, cells, strict=False))
        marks = _found(row["findings"]) if "findings" in row else table.marks(cells[len(fields) :], wanted)
        part = _part(row["split"]) if request.published else None
        who = _sex(row.get("sex", "")), _years(row.get("age", "")), _view(row.get("view", ""))
        records.append(Record(request.images / row["image"], row["patient"], marks, *who, part))
    return Table(records, labels or _all_found(records))


def _read_folder(request: Request) -> Table:
    parts: list[tuple[Path, Part | None]] = [(request.root, None)]
    if request.published:
        parts = [(path, _PART[path.name.lower()]) for path in _folders(request.root) if path.name.lower() in _PART]
    pattern = request.pattern or r"^(.*)\.[^.]*$"
    _check_pattern(pattern)
    records = []
    for folder, part in parts:
        for path in (path for group in _folders(folder) for path in group.rglob("*")):
            if path.suffix.lower() in _PHOTOGRAPHS:
                name = path.relative_to(folder).parts[0]
                records.append(Record(path, _group(pattern, path.name), {name: 1.0}, part=part))
    classes = _all_found(records)
    if classes and not request.published and {name.lower() for name in classes} <= _PART.keys():
        raise ValueError(
            f"root must hold one folder per class; it holds parts ({', '.join(classes)}). Use split='published'."
        )
    return Table(records, classes, is_classes=True)


def _check_pattern(pattern: str) -> None:
    try:
        groups = re.compile(pattern).groups
    except re.error:
        groups = 0
    if not groups:
        raise ValueError(
            f"patient_pattern must be a regular expression with a group, as '^([0-9]+)_'; got {pattern!r}."
        )


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


READERS: dict[str, Callable[[Request], Table]] = {
    "nih": _read_nih,
    "chexpert": _read_chexpert,
    "mimic": _read_mimic,
    "padchest": _read_padchest,
    "csv": _read_csv,
    "folder": _read_folder,
}


def _found(text: str) -> dict[str, float]:
    return dict.fromkeys(filter(None, (name.strip() for name in text.split("|"))), 1.0)


def _all_found(records: Iterable[Record]) -> list[str]:
    return sorted({name for record in records for name in record.marks})


def _group(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match.group(1) if match else ""


def _sex(text: str) -> str:
    return _SEX.get(text.lower(), "")


def _view(text: str) -> str:
    return _VIEW.get(text.upper(), "")


def _part(text: str) -> Part:
    choose("the published split", text.lower(), _PART)
    return _PART[text.lower()]


def _number(text: str) -> float:
    with contextlib.suppress(ValueError):
        return float(text)
    return math.nan


def _years(text: str) -> float:
    """An age such as 58, 058Y or 013M in years; nan if it is not one."""
    unit = text[-1:].upper()
    return _plausible(_number(text[:-1]) * _YEARS[unit] if unit in _YEARS else _number(text))


def _plausible(age: float) -> float:
    return age if 0 <= age <= 120 else math.nan


def choose(name: str, value: str, allowed: Iterable[str]) -> None:
    """Refuse a value that is not among those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}.")

"""MONAI data lists from the tables of public chest radiograph sets, from any CSV, or from folders of photographs.

`datalist_sources` reads the tables as their makers publish them; what follows - labels, views, split by patient - is
the same for all and stands here.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypedDict

from monai_deepfixcx.data.datalist_sources import PARTS, READERS, Part, Record, Request, Table, choose

Source = Literal["nih", "chexpert", "mimic", "padchest", "csv", "folder"]

IGNORED = 2.0  # the label value that the losses leave out (METHODS.md, HeartSpot heads)
_UNCERTAIN = {"ignore": IGNORED, "positive": 1.0, "negative": 0.0}
_BLANK = {"negative": 0.0, "ignore": IGNORED}


class Item(TypedDict):
    """One image of a data list."""

    image: str
    label: list[float] | int  # one value (0, 1 or 2 = ignore) per label; a class index for "folder"
    patient: str
    sex: str  # "M", "F" or "" (unknown)
    age: float  # years; nan: unknown
    view: str  # "PA", "AP", "LATERAL" or ""


def make_datalist(
    source: Source,
    root: str | Path,
    labels: Sequence[str] | None = None,
    *,
    split: Literal["patients", "published"] = "patients",
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    uncertain: Literal["ignore", "positive", "negative"] = "ignore",
    blank: Literal["negative", "ignore"] = "negative",
    views: Literal["all", "frontal"] = "all",
    missing: Literal["raise", "skip", "keep"] = "raise",
    images: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    patient_pattern: str | None = None,
) -> dict[Part, list[Item]]:
    r"""Make a MONAI data list whose three parts share no patient.

    The result depends on what the tables say, not on the order in which they say it. `root` holds, per `source`:

    - "nih": ``Data_Entry_2017*.csv``; ``train_val_list.txt`` and ``test_list.txt`` for the published split; images in
      ``images_001/images`` and so on, or in one folder. Ages such as ``058Y`` are understood; ages over 120, which the
      table has, are unknown.
    - "chexpert": ``train.csv`` and ``valid.csv``, the image folders beside them. Films marked neither AP nor PA (``LL``
      and ``RL``) count as lateral.
    - "mimic": ``mimic-cxr-2.0.0-metadata``, ``-chexpert`` and (published split) ``-split``, ``.csv`` or ``.csv.gz``;
      images in ``files``. With MIMIC-IV's ``patients.csv[.gz]`` beside them, sex and age too. The few images whose
      study has no labels are left out.
    - "padchest": ``PADCHEST_chest_x_ray_images_labels_160K*.csv[.gz]``; images in one folder, or in folders by
      ``ImageDir``. Age is study year less birth year. Images whose ``Labels`` are blank are left out.
    - "csv": `root` is the file itself; see `columns`.
    - "folder": one folder per class, ``root/CLASS/*.png``, or with the published split ``root/train/CLASS/*.png``. The
      label is the class index. The patient is the file's stem: equal stems, in any folder, stay together.

    Args:
        source: which of these layouts.
        root: the folder, or the CSV file.
        labels: names to give, in this order; default all that the source has. For "folder": the classes.
        split: "patients" draws the parts by patient; "published" takes the source's own parts, and draws a part that
            the source does not have (NIH: validation; CheXpert: testing) from the patients of its training part.
        fractions: shares of the patients (not images) in training, validation and testing; they add up to 1.
        seed: of the draw. It orders patients by a hash of (seed, patient), so that filters below do not move them.
        uncertain: what an uncertain label (-1) becomes: "ignore" (2), "positive" (1) or "negative" (0).
        blank: what a label that the report does not mention becomes: "negative" (0) or "ignore" (2).
        views: "frontal" keeps PA and AP films only.
        missing: what to do if a file is not there: "raise", "skip" it, or "keep" it (no check: quick on slow disks).
        images: the folder that image paths start from; default `root` (for "csv": the file's folder).
        columns: for "csv": your column names for image, patient, sex, age, view, split and findings ('|'-separated
            names). One that is not named here is looked up under its own name. Without findings, every label is a
            column of 1, 0, -1 or blank, and `labels` says which. Image and patient must be there.
        patient_pattern: for "folder": a regular expression whose first group, searched in the file name, is the
            patient.

    Returns:
        ``{"training": [...], "validation": [...], "testing": [...]}`` of `Item`, sorted by image path.

    Raises:
        ValueError: an unknown option, label or column; a part without a patient; a published split that puts a patient
            in two parts.
        FileNotFoundError: a table or an image is not there.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     table = Path(folder, "table.csv")
    ...     rows = "".join(f"{n}.png,P{n // 2},Edema|Mass\n" for n in range(20))
    ...     _ = table.write_text("image,patient,findings\n" + rows)
    ...     datalist = make_datalist("csv", table, ["Mass", "Edema"], missing="keep")
    >>> {part: len(items) for part, items in datalist.items()}
    {'training': 14, 'validation': 2, 'testing': 4}
    >>> datalist["testing"][0]["label"]
    [1.0, 1.0]
    """
    choose("source", source, READERS)
    choose("split", split, ("patients", "published"))
    choose("uncertain", uncertain, _UNCERTAIN)
    choose("blank", blank, _BLANK)
    choose("views", views, ("all", "frontal"))
    choose("missing", missing, ("raise", "skip", "keep"))
    _check_only("columns", columns, source, "csv")
    _check_only("patient_pattern", patient_pattern, source, "folder")
    weights = _weights(fractions)
    root = Path(root)
    start = Path(images) if images is not None else root.parent if source == "csv" else root
    table = READERS[source](Request(root, start, labels, columns or {}, patient_pattern, split == "published"))
    _check_patients(table.records, root)
    names = list(table.labels if labels is None else labels)
    _check_labels(names, table.labels, source)
    if split == "published":
        parts = _published_parts(table.records, weights, seed)
    else:
        parts = draw_parts({record.patient for record in table.records}, weights, seed)
    label = _class_index if table.is_classes else _label_values
    datalist: dict[Part, list[Item]] = {part: [] for part in PARTS}
    for record in _present(_in_view(_of_class(table, names), views), missing, start):
        values = label(record, names, _UNCERTAIN[uncertain], _BLANK[blank])
        datalist[parts[record.patient]].append(_item(record, values))
    for part in PARTS:
        if part in parts.values() and not datalist[part]:
            raise ValueError(f"{part} must hold an image; labels, views={views!r} and missing={missing!r} leave none.")
    return {part: sorted(items, key=lambda item: (item["image"], item["patient"])) for part, items in datalist.items()}


def _item(record: Record, label: list[float] | int) -> Item:
    return {
        "image": str(record.image),
        "label": label,
        "patient": record.patient,
        "sex": record.sex,
        "age": record.age,
        "view": record.view,
    }


def _label_values(record: Record, names: Sequence[str], uncertain: float, blank: float) -> list[float]:
    marks = (record.marks.get(name, 0.0) for name in names)
    return [blank if mark is None else uncertain if mark < 0 else mark for mark in marks]


def _class_index(record: Record, names: Sequence[str], uncertain: float, blank: float) -> int:
    return names.index(next(iter(record.marks)))


def _of_class(table: Table, names: Sequence[str]) -> list[Record]:
    if not table.is_classes:
        return table.records
    return [record for record in table.records if not record.marks.keys().isdisjoint(names)]


def _in_view(records: list[Record], views: str) -> list[Record]:
    return records if views == "all" else [record for record in records if record.view in ("PA", "AP")]


def _present(records: list[Record], missing: str, start: Path) -> list[Record]:
    if missing == "keep":
        return records
    present = [record for record in records if record.image.is_file()]
    absent = len(records) - len(present)
    if missing == "raise" and absent:
        raise FileNotFoundError(
            f"{absent} of {len(records)} images are not under {start}. Point images at their folder, or use "
            "missing='skip'."
        )
    return present


def draw_parts(patients: Iterable[str], weights: Mapping[Part, float], seed: int) -> dict[str, Part]:
    """Split patients at random, each as a whole, independently of the order they come in.

    They are ordered by a hash of (seed, patient) and cut where the weights say.

    Args:
        patients: their ids.
        weights: of the parts; a part of weight 0 stays empty.
        seed: another seed, another split.

    Returns:
        The part of every patient.

    Raises:
        ValueError: a part with a weight gets no patient.

    >>> sorted(draw_parts("abcd", {"training": 3, "testing": 1}, seed=0).values())
    ['testing', 'training', 'training', 'training']
    """
    ordered = sorted(patients, key=lambda patient: hashlib.sha256(f"{seed}:{patient}".encode()).digest())
    parts: dict[str, Part] = {}
    total, reached, begin = sum(weights.values()), 0.0, 0
    for part, weight in weights.items():
        reached += weight
        end = round(len(ordered) * reached / total)
        if weight > 0 and end == begin:
            raise ValueError(
                f"fractions must leave a patient in every part; {part} gets none of {len(ordered)} patients at "
                f"{weight / total:.3g}. Enlarge that fraction, or set it to 0."
            )
        parts |= dict.fromkeys(ordered[begin:end], part)
        begin = end
    return parts


def _published_parts(records: Sequence[Record], weights: Mapping[Part, float], seed: int) -> dict[str, Part]:
    """The source's own parts; a part that it lacks is drawn from the patients of its training part."""
    parts = {record.patient: record.part for record in records if record.part}
    homeless = sum(record.part is None for record in records)
    if homeless:
        raise ValueError(
            f"split='published' needs a part for every image; {homeless} of {len(records)} have none. "
            "Use split='patients'."
        )
    torn = {record.patient for record in records if record.part != parts[record.patient]}
    if torn:
        raise ValueError(
            f"a published split must keep a patient in one part; {len(torn)} patients are in more. "
            "Use split='patients'."
        )
    lacking: dict[Part, float] = {part: weight for part, weight in weights.items() if part not in parts.values()}
    if not any(lacking.values()):
        return parts
    training = [patient for patient, part in parts.items() if part == "training"]
    return parts | draw_parts(training, {"training": weights["training"], **lacking}, seed)


def _check_only(name: str, value: object, source: str, meant: str) -> None:
    if value is not None and source != meant:
        raise ValueError(f"{name} is for source {meant!r} only; got it with {source!r}. Leave it out.")


def _weights(fractions: Sequence[float]) -> dict[Part, float]:
    if len(fractions) != 3 or min(fractions) < 0 or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise ValueError(f"fractions must be three shares of at least 0 that add up to 1; got {tuple(fractions)}.")
    return dict(zip(PARTS, fractions, strict=True))


def _check_patients(records: Sequence[Record], root: Path) -> None:
    if not records:
        raise ValueError(f"root must list at least one image with labels; {root} lists none.")
    nameless = sum(not record.patient for record in records)
    if nameless:
        raise ValueError(f"every image must have a patient, to split by; {nameless} of {len(records)} have none.")


def _check_labels(names: Sequence[str], available: Sequence[str], source: str) -> None:
    unknown = [name for name in names if name not in available]
    if unknown or not names:
        raise ValueError(
            f"labels must be names that {source!r} has; got {', '.join(unknown) or 'none'}. "
            f"There are: {', '.join(available)}."
        )

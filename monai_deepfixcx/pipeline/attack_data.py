"""What `deepfixcx attack` is given: images of known patients, codecs written on one line, and who is pictured."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from monai_deepfixcx.codecs import Codec, codec_from_config
from monai_deepfixcx.data.code_store import CodeStore
from monai_deepfixcx.data.datalist import IGNORED, draw_parts
from monai_deepfixcx.data.datalist_sources import READERS, Request
from monai_deepfixcx.data.phantom import PhantomRadiographs
from monai_deepfixcx.data.reading import UnreadableImage
from monai_deepfixcx.pipeline.encode import crop_to_square, read_quietly
from monai_deepfixcx.pipeline.workspace import Entry
from monai_deepfixcx.report.pictures import Gallery

Pictures = Literal["phantom", "auxiliary", "none"]

FIRST_FOLDER = "^([^/]+)/"
_SHOWN = 3  # patients in the pictures
_SYNTHETIC = "Nobody's: they are synthetic, drawn by a computer."
_AUXILIARY = (
    "Auxiliary patients', and their original images are shown. Keep this page where the images themselves are kept. No "
    "victim is shown."
)


@dataclass(frozen=True)
class Population:
    """Images whose patients are known.

    Attributes:
        images: ``[N, C, *S]`` in [0, 1].
        patients: N names.
        labels: ``[N, L]`` of 0, 1, or 2 (left out), or None.
        label_names: L names.
        description: for the card; it must not name a path or a patient.
        synthetic: drawn, not of patients.
        left_out: files that are not among the images, with the reasons.
    """

    images: Tensor
    patients: tuple[str, ...]
    labels: Tensor | None
    label_names: tuple[str, ...]
    description: str
    synthetic: bool
    left_out: list[Entry] = field(default_factory=list)

    def part(self, patients: set[str]) -> dict[str, Any]:
        """The images of some of the patients, as `run_attack` takes them."""
        rows = [row for row, name in enumerate(self.patients) if name in patients]
        part: dict[str, Any] = {"images": self.images[rows], "patients": [self.patients[row] for row in rows]}
        return part if self.labels is None else {**part, "labels": self.labels[rows]}


def parse_spec(text: str) -> tuple[str, dict[str, Any]]:
    """A name and its arguments: ``name:key=value,key=[value,value]``.

    Raises:
        ValueError: an argument without "=".

    >>> parse_spec("deepfixcx:levels=4,patch_size=[3,5],features=[l1,max]")
    ('deepfixcx', {'levels': 4, 'patch_size': [3, 5], 'features': ['l1', 'max']})
    """
    name, _, rest = text.partition(":")
    arguments: dict[str, Any] = {}
    for argument in filter(None, re.split(r",(?![^\[]*\])", rest)):
        key, equals, value = argument.partition("=")
        if not equals:
            raise ValueError(f"{text!r} must read name:key=value,key=value; {argument!r} has no value.")
        listed = value.startswith("[") and value.endswith("]")
        arguments[key.strip()] = [_value(item) for item in value[1:-1].split(",")] if listed else _value(value)
    return name.strip(), arguments


def read_codec(text: str, side: int) -> Codec:
    """A codec from ``deepfixcx:levels=4,patch_size=5``, a JSON file of its configuration, or a store's folder.

    Args:
        text: what was asked for.
        side: of the images, in pixels: HeartSpot's `spatial_shape` where it is not given.

    Raises:
        ValueError: no such codec, or an argument it does not take.
    """
    path = Path(text)
    if path.is_dir():
        try:
            return CodeStore.open(path).codec
        except FileNotFoundError as error:
            raise ValueError(str(error)) from None
    if path.is_file():
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            config = None
        if not isinstance(config, dict):
            raise ValueError(f"{path} must hold a codec's configuration as JSON, as store.json does under 'codec'.")
        return _build({**config.get("codec", config)} if isinstance(config.get("codec"), dict) else config, text)
    name, arguments = parse_spec(text)
    if name == "heartspot":
        arguments.setdefault("spatial_shape", [side, side])
    return _build({"codec": name, **arguments}, text)


def read_population(
    data: str,
    patients: str = FIRST_FOLDER,
    labels: Sequence[str] = (),
    side: int = 64,
    seed: int = 0,
    columns: Mapping[str, str] | None = None,
) -> Population:
    """A phantom (``phantom``, ``phantom:patients=60,visits=4``), or a folder of images.

    Args:
        data: which.
        patients: see `folder_population`.
        labels: see `folder_population`; of a phantom, all.
        side: of the images, in pixels.
        seed: of a phantom.
        columns: see `folder_population`.

    Raises:
        ValueError: it cannot be read.
    """
    name, arguments = parse_spec(data) if data.startswith("phantom") else ("", {})
    if name == "phantom":
        return phantom_population(arguments, side, seed)
    return folder_population(Path(data), patients, labels, side, columns)


def phantom_population(arguments: Mapping[str, Any], side: int, seed: int) -> Population:
    """Synthetic radiographs.

    Args:
        arguments: "patients" (100) and "visits" (4) of each.
        side: of the images, 64 to 512.
        seed: of the phantom.

    Raises:
        ValueError: an unknown argument, or one out of range.
    """
    unknown = sorted(arguments.keys() - {"patients", "visits"})
    if unknown:
        raise ValueError(f"phantom takes patients and visits; got {', '.join(unknown)}.")
    patients, visits = arguments.get("patients", 100), arguments.get("visits", 4)
    films = PhantomRadiographs(patients, visits, side, seed).arrays()
    return Population(
        films["images"],
        tuple(f"phantom {number}" for number in films["patients"]),
        films["labels"],
        PhantomRadiographs.labels,
        f"{len(films['images']):,} synthetic chest radiographs of {patients:,} phantom patients (seed {seed}),",
        synthetic=True,
    )


def folder_population(
    folder: Path,
    patients: str = FIRST_FOLDER,
    labels: Sequence[str] = (),
    side: int = 64,
    columns: Mapping[str, str] | None = None,
) -> Population:
    """The images of a folder.

    Args:
        folder: of DICOM, NIfTI, PNG, JPEG or TIFF files.
        patients: a CSV file with a row an image (columns image, below the folder; patient; and labels or "findings"),
            or a regular expression whose first group, searched in the path below the folder, is the patient.
        labels: the CSV's labels to measure utility by.
        side: 2-D images are scaled and cropped to this many pixels a side; volumes are left as they are.
        columns: the CSV's names for image, patient and findings, if others.

    Raises:
        ValueError: the folder, the CSV or the expression cannot be used, or no image can be read.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder. Give a folder of images, or phantom.")
    owners, marks, left_out = _owners(folder, patients, labels, columns)
    found: list[tuple[Tensor, Path]] = []
    for path in owners:
        name = _below(path, folder)
        try:
            pixels = torch.from_numpy(read_quietly(path).pixels)
            if not bool(torch.isfinite(pixels).all()) or bool((pixels == pixels.flatten()[0]).all()):
                raise ValueError("has NaN or infinite pixels, or all of one value")
            found.append((crop_to_square(pixels, side) if pixels.ndim == 3 else pixels, path))
        except Exception as error:
            left_out.append(Entry("", name, reason=_reason(error)))
    if not found:
        raise ValueError(f"{folder} has no image that can be read and whose patient is known.")
    shape = Counter(tuple(pixels.shape) for pixels, _ in found).most_common(1)[0][0]
    others = [(pixels, path) for pixels, path in found if tuple(pixels.shape) != shape]
    left_out += [
        Entry("", _below(path, folder), reason=f"is {_by(p.shape)}, most are {_by(shape)}") for p, path in others
    ]
    kept = [(pixels, path) for pixels, path in found if tuple(pixels.shape) == shape]
    return Population(
        torch.stack([pixels for pixels, _ in kept]),
        tuple(owners[path] for _, path in kept),
        torch.tensor([marks[path] for _, path in kept]) if labels else None,
        tuple(labels),
        f"{len(kept):,} images of {len({owners[path] for _, path in kept}):,} patients from a folder,",
        synthetic=False,
        left_out=left_out,
    )


def split_patients(population: Population, seed: int, victims: float = 0.5) -> tuple[dict[str, Any], dict[str, Any]]:
    """Auxiliary and victim patients, drawn at random.

    Raises:
        ValueError: fewer than four patients, or a share that leaves fewer than two in a part.
    """
    names = set(population.patients)
    if len(names) < 4:
        raise ValueError(
            f"the images must be of at least four patients, two to learn from and two to attack; got {len(names)}. "
            "Is --patients right?"
        )
    parts = draw_parts(names, {"training": 1 - victims, "testing": victims}, seed)
    chosen = [{name for name, part in parts.items() if part == wanted} for wanted in ("training", "testing")]
    if min(map(len, chosen)) < 2:
        raise ValueError(
            f"each part must have two patients; of {len(names)}, {len(chosen[0])} would be auxiliary and "
            f"{len(chosen[1])} victims. Choose another share of victims."
        )
    return population.part(chosen[0]), population.part(chosen[1])


def make_gallery(
    auxiliary: Mapping[str, Any], synthetic: bool, pictures: Pictures, seed: int
) -> tuple[Gallery | None, str]:
    """Who is pictured, and, where nobody can be, why not. It is never given a victim.

    Args:
        auxiliary: the auxiliary patients.
        synthetic: they are a phantom's.
        pictures: "phantom" shows synthetic patients, "auxiliary" some of the auxiliary ones, "none" nobody.
        seed: of the phantom.
    """
    if pictures == "none":
        return None, "not asked for"
    if pictures == "auxiliary" or synthetic:
        whose = _SYNTHETIC if synthetic else _AUXILIARY
        names = sorted(set(auxiliary["patients"]))
        if len(names) < _SHOWN + 2:
            return None, f"at least {_SHOWN + 2} auxiliary patients are needed for it"
        shown = set(names[:_SHOWN])
        learnt, drawn = (_of(auxiliary, keep) for keep in (set(names) - shown, shown))
        return Gallery(learnt, drawn, whose, synthetic), ""
    shape = tuple(auxiliary["images"].shape[1:])
    if len(shape) != 3 or shape[0] != 1 or shape[1] != shape[2] or not 64 <= shape[1] <= 512:
        return None, f"the phantom is drawn for grey square images of 64 to 512 pixels, and these are {_by(shape)}"
    films = PhantomRadiographs(40, 2, shape[1], seed).arrays()
    people: dict[str, Any] = {
        "images": films["images"],
        "patients": [f"pictured phantom {number}" for number in films["patients"]],
    }
    names = sorted(set(people["patients"]))
    learnt, drawn = (_of(people, keep) for keep in (set(names[_SHOWN:]), set(names[:_SHOWN])))
    return Gallery(learnt, drawn, f"{_SYNTHETIC} The attacker in the pictures learnt from synthetic images.", True), ""


def _of(part: Mapping[str, Any], patients: set[str]) -> dict[str, Any]:
    rows = [row for row, name in enumerate(part["patients"]) if name in patients]
    return {"images": part["images"][rows], "patients": [part["patients"][row] for row in rows]}


def _owners(
    folder: Path, patients: str, labels: Sequence[str], columns: Mapping[str, str] | None
) -> tuple[dict[Path, str], dict[Path, list[float]], list[Entry]]:
    """Whose each file is, its labels, and the files that have no patient."""
    table = Path(patients)
    if table.is_file():
        rows = READERS["csv"](Request(table, folder, tuple(labels), columns or {}, None, False))
        unknown = [name for name in labels if name not in rows.labels]
        if unknown:
            raise ValueError(f"{table.name} has no label {', '.join(unknown)}; it has {', '.join(rows.labels)}.")
        known = [record for record in rows.records if record.patient]
        nameless = [record.image for record in rows.records if not record.patient]
        marks = {record.image: [_mark(record.marks.get(name, 0.0)) for name in labels] for record in known}
        left_out = [Entry("", _below(path, folder), reason="has no patient in the CSV") for path in nameless]
        return {record.image: record.patient for record in known}, marks, left_out
    if labels:
        raise ValueError("labels need a CSV that has them: give it with --patients.")
    if columns:
        raise ValueError("columns are those of a CSV: give it with --patients.")
    try:
        pattern = re.compile(patients)
    except re.error:
        pattern = re.compile("")
    if not pattern.groups:
        raise ValueError(
            f"patients must be a CSV file, or a regular expression with a group, such as {FIRST_FOLDER!r}; got "
            f"{patients!r}."
        )
    owners, left_out = {}, []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
        match = pattern.search(_below(path, folder))
        if match and match.group(1):
            owners[path] = match.group(1)
        else:
            left_out.append(Entry("", _below(path, folder), reason="its path names no patient (see --patients)"))
    return owners, {}, left_out


def _mark(mark: float | None) -> float:
    return IGNORED if mark is None or mark < 0 else mark


def _build(config: Mapping[str, Any], text: str) -> Codec:
    try:
        return codec_from_config(config)
    except TypeError as error:  # an argument of another name
        raise ValueError(f"codec {text!r}: {str(error).rpartition('__init__() ')[2]}.") from None


def _below(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.strip()


def _reason(error: Exception) -> str:
    """One line a person understands. Texts of unforeseen errors may quote the file, so only their type is told."""
    if isinstance(error, UnreadableImage | ValueError):
        return " ".join(str(error).split())
    if isinstance(error, OSError):
        return f"cannot be opened: {error.strerror or type(error).__name__}"
    return f"cannot be read (unforeseen {type(error).__name__})"


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))

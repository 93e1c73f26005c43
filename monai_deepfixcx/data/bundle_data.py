"""What the bundles' configurations call for their data; every error names the configuration key to mend.

The bundles' own data are SYNTHETIC: films of `PhantomRadiographs`, written as DICOM the first time they are asked for.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

import torch
from monai.data import Dataset
from monai.transforms import Transform
from torch import Tensor

from monai_deepfixcx import __version__
from monai_deepfixcx.codecs import Codec
from monai_deepfixcx.data.code_store import CodeStore
from monai_deepfixcx.data.datalist import Source, draw_parts, make_datalist
from monai_deepfixcx.data.datalist_sources import PARTS, Part
from monai_deepfixcx.data.phantom import PhantomRadiographs
from monai_deepfixcx.data.reading import UnreadableImage

Items = list[dict[str, Any]]
SOURCES = ("phantom", "datalist", *get_args(Source))
_PATH_OF_CONFIG = re.compile(r"[^\s\[\]'\",]+\.(?:yaml|yml|json)")


def bundle_folder(name: str) -> str:
    """Where a bundle lies: the default of its key `bundle_root`.

    Looked for at the config file that the command line names, in the working directory, in its folder ``bundles``, and
    in the checkout that this package was imported from, in this order.

    Args:
        name: of the bundle's folder.

    Raises:
        ValueError: it is in none of them.
    """
    working = Path.cwd()
    checkout = Path(__file__).resolve().parents[2] / "bundles" / name
    # A copy may have another name; a folder that only happens to be the working directory must have this one.
    places = [working] if working.name == name else []
    for place in (*_folders_of_configs(sys.argv[1:]), *places, working / "bundles" / name, checkout):
        if (place / "configs" / "metadata.json").is_file():
            return str(place.resolve())
    raise ValueError(f"bundle_root: no bundle {name!r} in {working}. Pass --bundle_root FOLDER.")


def _folders_of_configs(arguments: Sequence[str]) -> list[Path]:
    """The bundles whose ``configs`` hold the files of ``--config_file A`` or ``--config_file "['A', 'B']"``."""
    named = re.search(r"--config_file[= ](\[[^\]]*\]|\S+)", " ".join(arguments))
    return [Path(path).resolve().parents[1] for path in _PATH_OF_CONFIG.findall(named[1])] if named else []


def required(key: str, meaning: str) -> NoReturn:
    """Stand in for a key that has no sensible default: reading it is an error that names it.

    Args:
        key: the configuration's.
        meaning: what it must hold.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"{key} must be given: {meaning}. Pass --{key} VALUE, or set it in a config file of your own.")


def check_file(key: str, path: str | Path) -> None:
    """See that a file is there before a run begins.

    Args:
        key: the configuration's that names the file.
        path: of the file.

    Raises:
        FileNotFoundError: it is not there.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{key} must be a file; {path} is not there. Train first, or pass --{key} FILE.")


def bundle_datalist(
    source: str,
    dataset_dir: str | Path,
    label_names: Sequence[str],
    seed: int = 0,
    fractions: Sequence[float] = (0.6, 0.15, 0.25),
    label_aliases: Mapping[str, str] | None = None,
    source_options: Mapping[str, Any] | None = None,
    phantom: Mapping[str, Any] | None = None,
    codec: Codec | None = None,
) -> dict[str, Items]:
    """The three parts of a bundle's data, no patient in two, each label a list of one number per label name.

    Args:
        source: "phantom"; "datalist", a MONAI datalist in JSON, of images or of codes as ``deepfixcx index`` writes it;
            or a source of `make_datalist`.
        dataset_dir: the folder that holds the tables, the class folders or the datalist. The phantom is written there.
        label_names: the labels to learn, in order; for source "folder" the classes.
        seed: of the split by patient, and of the phantom.
        fractions: shares of the patients in training, validation and testing, where the source has no split.
        label_aliases: what the source calls a label, where it does not use our name.
        source_options: further options of `make_datalist`; for "csv" also ``table`` (default ``labels.csv``) and for
            "datalist" ``file`` (default ``datalist.json``), both below `dataset_dir`.
        phantom: the phantom's ``patients``, ``visits_per_patient`` and ``size``.
        codec: what stored codes must have been made by.

    Returns:
        ``{"training": [...], "validation": [...], "testing": [...]}`` of ``{"image", "label", "patient", ...}``; for
        codes, "image" holds the reference that `LoadCode` reads.

    Raises:
        ValueError: an unknown source, a label that the source does not have, or a datalist that is not one.
        FileNotFoundError: `dataset_dir` lacks what the source needs.
    """
    options = dict(source_options or {})
    names = [(label_aliases or {}).get(name, name) for name in label_names]
    _check_source(source, dataset_dir)
    folder = Path(dataset_dir)
    if source == "datalist":
        parts = _read_datalist(folder / options.pop("file", "datalist.json"), names, fractions, seed)
        _check_codes(parts, codec)
        return parts
    if source == "phantom":
        folder, source = phantom_folder(folder, seed=seed, **(phantom or {})), "csv"
    elif not folder.is_dir():
        raise FileNotFoundError(f"dataset_dir must be the folder of the data ({source}); {folder} is not there.")
    table = options.pop("table", "labels.csv")
    try:
        found = make_datalist(
            source,  # type: ignore[arg-type]
            folder / table if source == "csv" else folder,
            names,
            seed=seed,
            fractions=tuple(fractions),  # type: ignore[arg-type]
            **options,
        )
    except TypeError as error:
        raise ValueError(f"source_options must be options of make_datalist; got {sorted(options)}: {error}.") from error
    except (ValueError, FileNotFoundError) as error:
        error.args = (f"dataset_dir, label_names or source_options (source {source!r}): {error}",)
        raise
    return {part: [_with_label_list(dict(item), len(names)) for item in items] for part, items in found.items()}


def _check_source(source: str, dataset_dir: str | Path | None) -> None:
    if source not in SOURCES:
        raise ValueError(f"source must be one of {', '.join(SOURCES)}; got {source!r}.")
    if not dataset_dir:
        raise ValueError(f"dataset_dir must be the folder of the data ({source}); got {dataset_dir!r}.")


def _with_label_list(item: dict[str, Any], classes: int) -> dict[str, Any]:
    """A class index as one number per class: all that follows sees one kind of label."""
    if isinstance(item["label"], int):
        item["label"] = [float(index == item["label"]) for index in range(classes)]
    return item


def _read_datalist(path: Path, names: Sequence[str], fractions: Sequence[float], seed: int) -> dict[str, Items]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"dataset_dir must hold {path.name}, a MONAI datalist; {path} is not there. Name another with "
            "--source_options \"{'file': 'NAME.json'}\"."
        ) from None
    except ValueError as error:
        raise ValueError(f"dataset_dir: {path.name} is no JSON: {error}.") from None
    if not isinstance(content, dict) or "training" not in content:
        raise ValueError(f'dataset_dir: {path.name} must hold an object with a list "training".')
    read = {part: [_listed(item, names, path) for item in content.get(part, [])] for part in PARTS}
    if read["validation"] or read["testing"]:
        return {str(part): items for part, items in read.items()}
    if not read["training"]:
        raise ValueError(f"dataset_dir: {path.name} lists no image.")
    weights: dict[Part, float] = dict(zip(PARTS, fractions, strict=True))
    drawn = draw_parts({item["patient"] for item in read["training"]}, weights, seed)
    return {part: [item for item in read["training"] if drawn[item["patient"]] == part] for part in PARTS}


def _listed(item: Mapping[str, Any], names: Sequence[str], path: Path) -> dict[str, Any]:
    """One item of a datalist: its labels from "label", or from columns of their names."""
    missing = [name for name in ("patient", *([] if "label" in item else names)) if name not in item]
    if missing or not {"image", "code"} & set(item):
        raise ValueError(
            f"label_names: every item of {path.name} must have image or code, patient, and label or one entry per "
            f"label name; one lacks {', '.join(missing) or 'image and code'}. It has {', '.join(sorted(item))}."
        )
    label = item.get("label", [item[name] for name in names if name in item])
    values = [float(value) for value in (label if isinstance(label, list) else [label])]
    if len(values) != len(names) or not set(values) <= {0.0, 1.0, 2.0}:
        raise ValueError(f"label_names: a label of {path.name} must be {len(names)} values of 0, 1 or 2; got {label}.")
    image = item["code"] if "code" in item else str(path.parent / item["image"])
    return {"image": image, "label": values, "patient": str(item["patient"])}


def _check_codes(parts: Mapping[str, Items], codec: Codec | None) -> None:
    """Codes that another configuration made would train a network that no image fits."""
    if codec is None:
        return
    for folder in sorted({item["image"].rpartition("#")[0] for items in parts.values() for item in items}):
        try:
            CodeStore.open(CodeStore(folder).folder, codec)  # open alone would create a store that is not there
        except (ValueError, FileNotFoundError) as error:
            error.args = (f"dataset_dir: {error} Set the keys of the codec to those of the store.",)
            raise


def phantom_folder(
    folder: str | Path, patients: int = 24, visits_per_patient: int = 2, size: int = 64, seed: int = 0
) -> Path:
    """The folder of a phantom's DICOM films and ``labels.csv``, written if it is not there; see `PhantomRadiographs`.

    Args:
        folder: to write a folder into whose name tells the phantom's parameters.
        patients: number of synthetic patients.
        visits_per_patient: films of each.
        size: side of the films in pixels.
        seed: of the phantom.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     films = phantom_folder(folder, patients=1)
    ...     films.name.startswith("phantom_1x2_64px_seed0"), len(list(films.glob("*.dcm")))
    (True, 2)
    """
    home = Path(folder) / f"phantom_{patients}x{visits_per_patient}_{size}px_seed{seed}_v{__version__}"
    if home.exists():
        return home
    # Written aside and renamed: neither a killed run nor a second process leaves a folder that is half full.
    aside = home.with_name(f".{home.name}.{os.getpid()}")
    PhantomRadiographs(patients, visits_per_patient, size, seed).write_dicom(aside)
    try:
        aside.rename(home)
    except OSError:
        shutil.rmtree(aside)
    return home


def class_weights(items: Items) -> Tensor:
    """Weights ``[L]`` of the classes for the loss: inversely proportional to how often each occurs, 1 on average.

    Args:
        items: the training part of `bundle_datalist`.

    Raises:
        ValueError: a class without an image.

    >>> class_weights([{"label": [1.0, 0.0]}, {"label": [1.0, 0.0]}, {"label": [0.0, 1.0]}])
    tensor([0.6667, 1.3333])
    """
    counts = torch.tensor([item["label"] for item in items]).sum(0)
    if not bool((counts > 0).all()):
        absent = (counts == 0).nonzero().flatten().tolist()
        raise ValueError(f"label_names: no training image of class number {', '.join(map(str, absent))}.")
    weights = counts.reciprocal()
    return weights * len(weights) / weights.sum()


def folder_items(dataset_dir: str | Path, output_dir: str | Path | None = None) -> Items:
    """Every file below a folder, but hidden ones, as ``{"image": path, "path": path below the folder}``.

    Args:
        dataset_dir: the folder.
        output_dir: left out, if it is below the folder.

    Raises:
        ValueError: no such folder, or no file in it.
    """
    folder = Path(dataset_dir)
    if not folder.is_dir():
        raise ValueError(f"dataset_dir must be a folder of DICOM, NIfTI, PNG or JPEG files; {folder} is not there.")
    own = None if output_dir is None else Path(output_dir).resolve()
    items: Items = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and not (own and path.resolve().is_relative_to(own)):
            items.append({"image": str(path), "path": path.relative_to(folder).as_posix()})
    if not items:
        raise ValueError(f"dataset_dir must hold at least one file; {folder} holds none.")
    return items


class CheckFilmd(Transform):
    """Refuse what no network can judge: a volume, or pixels that are not finite or all the same.

    Args:
        key: of the image ``[C, H, W]``.

    Raises:
        ValueError: when called on such an image.
    """

    def __init__(self, key: str = "image") -> None:
        self.key = key

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The item as it is."""
        pixels = torch.as_tensor(data[self.key])
        if pixels.ndim != 3:
            raise ValueError(f"a {pixels.ndim - 1}-D image; this bundle reads 2-D ones")
        if not bool(torch.isfinite(pixels).all()):
            raise ValueError("has NaN or infinite pixels")
        if bool((pixels == pixels.flatten()[0]).all()):
            raise ValueError("all pixels have one value: an empty image or a failed export")
        return dict(data)


class ReadableDataset(Dataset):
    """A dataset whose unreadable files cost no more than themselves.

    Items gain "problem": "" or, for a file that could not be read, why not; its "image" is then all zeros.

    Args:
        data: items, see `folder_items`.
        transform: reads and prepares one.
        image_shape: [C, H, W] of the prepared images.
    """

    def __init__(self, data: Items, transform: Callable[..., Any], image_shape: Sequence[int]) -> None:
        super().__init__(data, transform)
        self.image_shape = tuple(image_shape)

    def _transform(self, index: int) -> dict[str, Any]:
        try:
            return {**super()._transform(index), "problem": ""}
        except RuntimeError as error:
            return {**self.data[index], "image": torch.zeros(self.image_shape), "problem": _reason(error)}


def _reason(error: BaseException) -> str:
    """What went wrong first. Texts of unforeseen errors may quote the file, so only their type is told."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, UnreadableImage | ValueError):
        return " ".join(str(error).split())
    return f"cannot be read ({type(error).__name__})"

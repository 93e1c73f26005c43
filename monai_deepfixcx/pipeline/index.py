"""A MONAI datalist of the codes in a store, joined with labels the data holder has."""

import csv
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from monai_deepfixcx.data.code_store import CodeStore
from monai_deepfixcx.pipeline.workspace import Workspace, WorkspaceError


def write_datalist(
    store: CodeStore,
    output: Path,
    labels: Path | None = None,
    key: str = "image",
    split: str | None = None,
    private: Path | None = None,
) -> tuple[dict[str, int], int]:
    """Write ``{"training": [{"code": "FOLDER#ID", "id", "spatial_shape", ...labels}], ...}`` as JSON.

    Args:
        store: whose codes to list.
        output: the JSON file.
        labels: a CSV with a row an image; its other columns join the item, numbers as numbers.
        key: the column with the image's path: below the folder that was privatized, or from the CSV's own folder, or
            just a file name that only one image has.
        split: a column that names the item's part; everything is "training" without it.
        private: the private folder, if not beside the store.

    Returns:
        How many items each part has, and how many codes the CSV has no row for (these are left out).

    Raises:
        WorkspaceError: the CSV or the site key is missing, or the CSV lacks a column.
    """
    items = store.datalist()
    for item in items:
        item["code"] = f"{store.folder.resolve()}#{item['id']}"
    joined = items
    if labels is not None:
        columns = _labels_by_pseudonym(labels, key, split, store, private)
        joined = [{**item, **columns[item["id"]]} for item in items if item["id"] in columns]
    parts: dict[str, list[dict[str, Any]]] = {} if split else {"training": []}
    for item in joined:
        parts.setdefault(item.pop(split) if split else "training", []).append(item)
    try:
        output.write_text(json.dumps(parts, indent=1))
    except OSError as error:
        raise WorkspaceError(f"cannot write {output}: {error.strerror}.") from None
    return {name: len(part) for name, part in parts.items()}, len(items) - len(joined)


def _labels_by_pseudonym(
    labels: Path, key: str, split: str | None, store: CodeStore, private: Path | None
) -> dict[str, dict[str, Any]]:
    workspace = Workspace.reopen(store.folder, private)
    try:
        with labels.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise WorkspaceError(f"cannot read {labels}: {error.strerror}.") from None
    for column in filter(None, (key, split)):
        if rows and column not in rows[0]:
            raise WorkspaceError(f"{labels} has no column {column!r}; it has {', '.join(rows[0])}.")
    sources = {entry.source for entry in workspace.entries(row["id"] for row in store.rows)}
    names = Counter(PurePosixPath(source).name for source in sources)
    only = {PurePosixPath(source).name: source for source in sources if names[PurePosixPath(source).name] == 1}

    def source_of(path: str) -> str | None:
        beside_csv = (labels.resolve().parent / path).resolve()
        if path in sources:
            return path
        if beside_csv.is_relative_to(workspace.source):
            return beside_csv.relative_to(workspace.source).as_posix()
        return only.get(PurePosixPath(path).name)

    found = ((source_of(row[key]), row) for row in rows)
    return {workspace.pseudonym(source): _without(row, key) for source, row in found if source is not None}


def _without(row: Mapping[str, str], key: str) -> dict[str, Any]:
    """The row's other columns; the path itself must not come along."""
    return {name: _number_or_text(value) for name, value in row.items() if name != key}


def _number_or_text(value: str) -> Any:
    # A leading zero means an identifier, not a number.
    if re.fullmatch(r"-?(0|[1-9]\d*)", value):
        return int(value)
    return float(value) if re.fullmatch(r"-?(0|[1-9]\d*)\.\d+", value) else value

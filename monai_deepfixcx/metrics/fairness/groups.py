"""Which subgroup an image belongs to: columns of the data, bins of numbers, the number of findings, intersections."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from monai_deepfixcx.metrics.weighted import Floats, Ints

Attribute = str | Sequence[str]
"""A column of the data, "comorbidity", or several of them: their intersection."""

AGE_EDGES = (0.0, 30.0, 60.0, 70.0, 80.0, 100.0)
COMORBIDITY = "comorbidity"
UNKNOWN = 0  # the code of an image whose group is not known
_JOIN = " & "


def bin_name(value: float, edges: Sequence[float]) -> str | None:
    """The half-open bin that a number falls into; None outside all of them.

    Args:
        value: for example an age in years.
        edges: rising; the ages of the third paper are `AGE_EDGES`.

    Source: Tayebi Arasteh et al., arXiv:2302.01622, for the ages.

    >>> bin_name(60, AGE_EDGES), bin_name(100, AGE_EDGES)
    ('[60,70)', None)
    """
    return next((f"[{low:g},{high:g})" for low, high in pairwise(edges) if low <= value < high), None)


def attribute_parts(attribute: Attribute) -> tuple[str, ...]:
    """The columns that an attribute is made of."""
    return (attribute,) if isinstance(attribute, str) else tuple(attribute)


def attribute_name(attribute: Attribute) -> str:
    """What an attribute is called in reports.

    >>> attribute_name(["sex", "age"])
    'sex & age'
    """
    return _JOIN.join(attribute_parts(attribute))


def check_attributes(attributes: Sequence[Attribute], bins: Mapping[str, Sequence[float]]) -> None:
    """Check what a report is asked for.

    Raises:
        ValueError: no attribute, one twice, an intersection of one column, or edges that do not rise.
    """
    names = [] if isinstance(attributes, str) else [attribute_name(attribute) for attribute in attributes]
    if not names or len(set(names)) != len(names):
        raise ValueError(f'attributes must be a list of different columns, such as ["sex"]; got {attributes!r}.')
    for attribute in attributes:
        parts = attribute_parts(attribute)
        if not isinstance(attribute, str) and (len(parts) < 2 or len(set(parts)) != len(parts)):
            raise ValueError(f"attributes: an intersection needs two or more different columns; got {list(parts)}.")
    for column, edges in bins.items():
        if len(edges) < 2 or any(low >= high for low, high in pairwise(edges)):
            raise ValueError(f"bins[{column!r}] must be two or more rising edges; got {list(edges)}.")


def value_name(value: Any, edges: Sequence[float] | None) -> str | None:
    """The group that a value of a column means; None if it is missing.

    Raises:
        ValueError: text where the column is binned.
    """
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        value = value.item()
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if edges is None:
        return f"{value:g}" if isinstance(value, float) else str(value)
    try:
        return bin_name(float(value), edges)
    except ValueError:
        raise ValueError("bins: a column with bins must hold numbers; got a text. Convert it, or bin it not.") from None


def group_code(name: str | None) -> int:
    """64 bits in place of a group's name: alike on all ranks and gathered as one number."""
    if name is None:
        return UNKNOWN
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little", signed=True)


def comorbidity(labels: Floats) -> list[str]:
    """The number of positive labels of each image, from labels ``[N, L]``; uncertain ones do not count.

    >>> comorbidity(np.array([[1.0, 1.0], [0.0, 2.0]]))
    ['2', '0']
    """
    return [str(count) for count in (labels == 1).sum(axis=1)]


def intersect(columns: Sequence[Sequence[str | None]]) -> list[str | None]:
    """The group of each image in several columns at once; None if one of them is not known.

    >>> intersect([["F", "M"], ["[60,70)", None]])
    ['F & [60,70)', None]
    """
    rows = zip(*columns, strict=True)
    return [None if None in row else _JOIN.join(str(part) for part in row) for row in rows]


def split_by_size(
    names: Sequence[str | None], patients: Ints, smallest: int, attribute: str
) -> tuple[dict[str, Ints], dict[str, dict[str, int]]]:
    """The images of each group of at least `smallest` patients, and the sizes of the groups that are smaller.

    Raises:
        ValueError: no group is large enough.
    """
    rows = {name: np.flatnonzero([other == name for other in names]) for name in sorted({*names} - {None})}  # type: ignore[type-var]
    sizes = {str(name): {"images": len(own), "patients": len(np.unique(patients[own]))} for name, own in rows.items()}
    kept = {str(name): own for name, own in rows.items() if sizes[str(name)]["patients"] >= smallest}
    excluded = {name: size for name, size in sizes.items() if name not in kept}
    if not kept:
        there = ", ".join(f"{name} ({size['patients']})" for name, size in excluded.items()) or "none"
        raise ValueError(
            f"attributes: no subgroup of {attribute!r} has min_patients={smallest} patients; there are {there}. "
            "Lower min_patients, join groups (bins), or leave the attribute out."
        )
    return kept, excluded

"""Pearson's r of what a report measured: does accuracy, its loss, or a gap go with sample counts or epsilon?

Source: Tayebi Arasteh et al., arXiv:2302.01622, who correlate the AUROC lost to privacy, and the AUROC itself, with the
number of samples of each label.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Correlation:
    """Pearson's r of some points.

    Attributes:
        r: -1 to 1; nan with fewer than two points, or where one coordinate does not vary.
        low: lower end of Fisher's 95 % interval; nan with fewer than four points.
        high: its upper end. Few points leave it wide: with eight, only |r| above .7 excludes 0.
        points: name -> (x, y), those that were used.
    """

    r: float
    low: float
    high: float
    points: Mapping[str, tuple[float, float]]

    def as_dict(self) -> dict[str, Any]:
        """The same as a JSON-able mapping; nan is None."""
        found = asdict(self)
        return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in found.items()}


def pearson(x: Sequence[float], y: Sequence[float], names: Sequence[str] | None = None) -> Correlation:
    """Pearson's correlation, with Fisher's interval; points with a coordinate that is nan are left out.

    Args:
        x: N numbers.
        y: N numbers.
        names: of the points; default their numbers.

    Raises:
        ValueError: lengths that differ.

    Source: Fisher, Metron 1 (1921): atanh(r) is nearly normal with a standard deviation of 1 / sqrt(N - 3).

    >>> pearson([1, 2, 3, 4], [2, 4, 6, 9]).r > 0.99
    True
    """
    labels = [str(index) for index in range(len(x))] if names is None else list(names)
    if not len(x) == len(y) == len(labels):
        raise ValueError(f"x, y and names must be of one length; got {len(x)}, {len(y)} and {len(labels)}.")
    points = {
        name: (float(a), float(b))
        for name, a, b in zip(labels, x, y, strict=True)
        if not (math.isnan(a) or math.isnan(b))
    }
    table = np.array(list(points.values())).reshape(-1, 2)
    deviations = table - table.mean(axis=0) if len(table) else table
    spread = float(np.sqrt((deviations**2).sum(axis=0).prod())) if len(table) > 1 else 0.0
    if spread == 0:
        return Correlation(math.nan, math.nan, math.nan, points)
    r = float(np.clip(deviations.prod(axis=1).sum() / spread, -1, 1))
    if len(table) < 4 or abs(r) == 1:
        return Correlation(r, math.nan, math.nan, points)
    reach = NormalDist().inv_cdf(0.975) / math.sqrt(len(table) - 3)
    return Correlation(r, math.tanh(math.atanh(r) - reach), math.tanh(math.atanh(r) + reach), points)


def auroc_against_count(report: Mapping[str, Any]) -> Correlation:
    """Of each label's AUROC with its number of positive images.

    Args:
        report: of `FairnessReport` or `ClassificationReport`.
    """
    labels = report["labels"]
    counts = [float(entry["positives"]) for entry in labels.values()]
    return pearson(counts, [_number(entry["auroc"]["value"]) for entry in labels.values()], list(labels))


def drop_against_count(before: Mapping[str, Any], after: Mapping[str, Any]) -> Correlation:
    """Of the AUROC that each label lost with its number of positive images.

    Args:
        before: report of the non-private network.
        after: report of the private one, on the same images.

    Raises:
        ValueError: the reports are of different labels.
    """
    first, second = before["labels"], after["labels"]
    if list(first) != list(second):
        raise ValueError(f"before and after must report on the same labels; got {list(first)} and {list(second)}.")
    lost = [_number(first[name]["auroc"]["value"]) - _number(second[name]["auroc"]["value"]) for name in first]
    return pearson([float(entry["positives"]) for entry in first.values()], lost, list(first))


def gap_against_epsilon(
    reports: Mapping[float, Mapping[str, Any]], attribute: str, gap: str = "auroc_gap"
) -> Correlation:
    """Of the gap between the subgroups of an attribute with epsilon.

    Args:
        reports: epsilon -> report of `FairnessReport`; without the non-private one, whose epsilon is infinite.
        attribute: such as "sex".
        gap: one of the ``gaps`` of the report's ``mean`` over labels.

    Raises:
        ValueError: an attribute or gap that a report does not have, or an infinite epsilon.
    """
    values = []
    for epsilon, report in reports.items():
        if math.isinf(epsilon):
            raise ValueError("reports must be of private networks; got an infinite epsilon. Leave that one out.")
        if attribute not in report["attributes"]:
            raise ValueError(f"attribute must be one of {', '.join(report['attributes'])}; got {attribute!r}.")
        gaps = report["attributes"][attribute]["mean"]["gaps"]
        if gap not in gaps:
            raise ValueError(f"gap must be one of {', '.join(gaps)}; got {gap!r}.")
        values.append(_number(gaps[gap]["value"]))
    return pearson(list(reports), values, [f"{epsilon:g}" for epsilon in reports])


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)

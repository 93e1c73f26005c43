"""A classification report as a table to read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from monai_deepfixcx.metrics.markdown import estimate_text, table_row

_COLUMNS = ["Label", "Images", "Patients", "Positives", "AUROC", "AUPRC", "no skill", "ECE"]
_DECISIONS = ["Threshold", "Sensitivity", "Specificity"]

_text = partial(estimate_text, to="-")


def report_table(report: Mapping[str, Any]) -> str:
    """Markdown of what `ClassificationReport.aggregate` gave.

    Args:
        report: the mapping, as it is or read back from JSON.

    Returns:
        A heading line, a table with a row per label and one for the mean, and a line on how to read it. Values are
        ``value (low-high)``; "-" is undefined.

    >>> from monai_deepfixcx.metrics import ClassificationReport
    >>> report = ClassificationReport(["Edema"], samples=0)
    >>> _ = report([[0.9], [0.2]], [[1.0], [0.0]], patients=["a", "b"])
    >>> print(report_table(report.aggregate()).splitlines()[4])
    | Edema | 2 | 2 | 1 | 1.000 | 1.000 | 0.500 | 0.150 |
    """
    labels = report["labels"]
    decided = any("threshold" in entry for entry in labels.values())
    columns = _COLUMNS + _DECISIONS * decided
    rows = [_row(name, entry, decided) for name, entry in labels.items()]
    if len(labels) > 1:
        rows.append(_row("**mean**", report["mean"], decided))
    lines = [f"{report['images']} images of {report['patients']} patients.", ""]
    lines += [table_row(columns), table_row(["---"] + ["---:"] * (len(columns) - 1)), *map(table_row, rows), ""]
    if "overall" in report:
        overall = report["overall"]
        lines += [
            f"Accuracy {_text(overall['accuracy'])}, largest class {_number(overall['accuracy']['baseline'])}; "
            f"balanced accuracy {_text(overall['balanced_accuracy'])}, chance "
            f"{_number(overall['balanced_accuracy']['baseline'])}; ECE of the likeliest class {_text(overall['ece'])}.",
            "",
        ]
    return "\n".join([*lines, _footnote(report["bootstrap"]), ""])


def _row(name: str, entry: Mapping[str, Any], decided: bool) -> list[str]:
    cells = [name, *(str(entry.get(count, "")) for count in ("images", "patients", "positives"))]
    cells += [_text(entry["auroc"]), _text(entry["auprc"]), _number(entry["auprc"]["baseline"]), _text(entry["ece"])]
    if decided:
        known = "threshold" in entry
        cells += [_number(entry["threshold"]) if known else ""]
        cells += [_text(entry[kind]) if known else "" for kind in ("sensitivity", "specificity")]
    return cells


def _footnote(bootstrap: Mapping[str, Any]) -> str:
    interval = (
        f"In brackets: {bootstrap['confidence']:.0%} interval from {bootstrap['samples']} bootstrap resamples of "
        f"{bootstrap['unit']}s, seed {bootstrap['seed']}. "
        if bootstrap["samples"]
        else ""
    )
    return f'{interval}"no skill": the AUPRC of a random ranking, the prevalence; that of AUROC is 0.5.'


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

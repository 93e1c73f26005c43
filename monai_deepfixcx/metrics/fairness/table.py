"""A fairness report as tables to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_deepfixcx.metrics.fairness.statistics import DECIDED, RANKED, SPD, gap_name
from monai_deepfixcx.metrics.markdown import estimate_text, table_row

_TITLES = {
    "auroc": "AUROC",
    "ece": "ECE",
    "selection_rate": "Selection rate",
    "tpr": "TPR",
    "fpr": "FPR",
    "accuracy": "Accuracy",
    SPD: "SPD (of accuracy)",
}


def fairness_table(report: Mapping[str, Any]) -> str:
    """Markdown of what `FairnessReport.aggregate` gave.

    Args:
        report: the mapping, as it is or read back from JSON.

    Returns:
        Per attribute a heading, a table with a row per label and subgroup and a row for each label's gap, the worst
        subgroup, and the subgroups that were too small. Values are ``value (low to high)``; "-" is undefined.
    """
    lines = [f"{report['images']} images of {report['patients']} patients.", ""]
    for attribute, entry in report["attributes"].items():
        lines += [f"## By {attribute}", "", *_attribute(entry), ""]
    bootstrap = report["bootstrap"]
    if bootstrap["samples"]:
        lines += [
            f"In brackets: {bootstrap['confidence']:.0%} interval from {bootstrap['samples']} bootstrap resamples of "
            f"{bootstrap['unit']}s, seed {bootstrap['seed']}."
        ]
    lines += [
        "A gap is the largest difference between two subgroups; equal subgroups of few patients show one too, by "
        "chance. That of selection rates is the demographic parity difference. SPD (of accuracy): a subgroup's "
        "accuracy less that of all others together.",
        "",
    ]
    return "\n".join(lines)


def _attribute(entry: Mapping[str, Any]) -> list[str]:
    labels = entry["labels"]
    decided = any("threshold" in found for found in labels.values())
    kinds = [*RANKED, *((*DECIDED, SPD) if decided else ())]
    head = ["Label", "Subgroup", "Images", "Patients", "Positives", *(_TITLES[kind] for kind in kinds)]
    lines = [table_row(head), table_row(["---", "---", *["---:"] * (len(head) - 2)])]
    for label, found in labels.items():
        for group, figures in found["groups"].items():
            counts = [str(figures[key]) for key in ("images", "patients", "positives")]
            lines.append(table_row([label, group, *counts, *(estimate_text(figures.get(kind)) for kind in kinds)]))
        gaps = [estimate_text(found["gaps"].get(gap_name(kind))) for kind in kinds]
        lines.append(table_row([label, "**gap**", "", "", "", *gaps]))
    lines += ["", *(_worst(label, found["worst"].get("auroc")) for label, found in labels.items())]
    if len(labels) > 1:
        lines.append(_worst("mean over labels", entry["mean"]["worst"].get("auroc")))
    if entry["excluded"]:
        small = ", ".join(f"{name} ({size['patients']} patients)" for name, size in entry["excluded"].items())
        lines.append(f"- left out as too small: {small}")
    if entry["unknown"]:
        lines.append(f"- left out as unknown: {entry['unknown']} images")
    return lines


def _worst(label: str, worst: Mapping[str, Any] | None) -> str:
    if worst is None:
        return f"- {label}: no subgroup has a defined AUROC"
    return f"- {label}: lowest AUROC {estimate_text(worst['estimate'])} in {worst['group']}"

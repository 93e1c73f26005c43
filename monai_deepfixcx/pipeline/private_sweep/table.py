"""A sweep as one table to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_deepfixcx.metrics.markdown import estimate_text, table_row


def sweep_table(result: Mapping[str, Any]) -> str:
    """Markdown of what `run_sweep` gave.

    Args:
        result: the mapping, as it is or read back from JSON.

    Returns:
        A heading, a table with a row per contender and epsilon - mean AUROC, its loss to privacy, and per attribute the
        worst subgroup and the gaps - and how to read it. Values are ``value (low to high)``; "-" is undefined.
    """
    images, delta, unit = result["images"], result["delta"], result["unit"]
    lines = [
        f"{result['data']} "
        * bool(result["data"])
        + f"Trained on {images['training']} images, thresholds from {images['validation']}, judged on "
        f"{images['testing']} of other patients. delta = {delta:g}, per {unit}.",
        "",
    ]
    head = ["Trained on", "epsilon", "AUROC", "lost"]
    for attribute in result["attributes"]:
        head += [f"worst {attribute}", f"AUROC gap by {attribute}", f"parity difference by {attribute}"]
    head += ["training, s"]
    lines += [table_row(head), table_row(["---"] * len(head))]
    for name, contender in result["contenders"].items():
        plain = next((_auroc(run) for run in contender["runs"] if run["epsilon"] is None), None)
        for run in contender["runs"]:
            found = _auroc(run)
            lost = None if run["epsilon"] is None or None in (plain, found) else plain - found  # type: ignore[operator]
            cells = [name, "non-private" if run["epsilon"] is None else f"{run['epsilon']:g}"]
            cells += [estimate_text(run["report"]["mean"]["auroc"]), "-" if lost is None else f"{lost:.3f}"]
            for attribute in result["attributes"]:
                mean = run["report"]["attributes"][attribute]["mean"]
                worst = mean["worst"]["auroc"]
                cells += ["-" if worst is None else f"{worst['group']}: {estimate_text(worst['estimate'])}"]
                gaps = (mean["gaps"].get(gap) for gap in ("auroc_gap", "demographic_parity_difference"))
                cells += map(estimate_text, gaps)
            lines.append(table_row([*cells, f"{run['seconds']:.1f}"]))
    spent = ", ".join(f"{name} {contender['composed_epsilon']:.1f}" for name, contender in result["contenders"].items())
    lines += [
        "",
        f"Each epsilon is that of one network released alone. Releasing all networks of a row's kind spends {spent}; "
        f"releasing all of them {result['composed_epsilon']:.1f}. Epsilon covers the training {unit}s; validation and "
        "test patients are outside it. In brackets: 95 % interval over test patients. AUROC and gaps are means over "
        f"labels ({', '.join(result['labels'])}).",
        "",
    ]
    return "\n".join(lines)


def _auroc(run: Mapping[str, Any]) -> float | None:
    value: float | None = run["report"]["mean"]["auroc"]["value"]
    return value

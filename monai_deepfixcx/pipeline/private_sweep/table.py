"""A sweep as one table to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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
    lines += [_line(head), _line(["---"] * len(head))]
    for name, contender in result["contenders"].items():
        plain = next((_auroc(run) for run in contender["runs"] if run["epsilon"] is None), None)
        for run in contender["runs"]:
            found = _auroc(run)
            lost = None if run["epsilon"] is None or None in (plain, found) else plain - found  # type: ignore[operator]
            cells = [name, "non-private" if run["epsilon"] is None else f"{run['epsilon']:g}"]
            cells += [_text(run["report"]["mean"]["auroc"]), "-" if lost is None else f"{lost:.3f}"]
            for attribute in result["attributes"]:
                mean = run["report"]["attributes"][attribute]["mean"]
                worst = mean["worst"]["auroc"]
                cells += ["-" if worst is None else f"{worst['group']}: {_text(worst['estimate'])}"]
                cells += [_text(mean["gaps"].get(gap)) for gap in ("auroc_gap", "demographic_parity_difference")]
            lines.append(_line([*cells, f"{run['seconds']:.1f}"]))
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


def _text(estimate: Mapping[str, float | None] | None) -> str:
    if estimate is None or estimate["value"] is None:
        return "-"
    low, high = estimate["low"], estimate["high"]
    value = f"{estimate['value']:.3f}"
    return value if low is None or high is None else f"{value} ({low:.3f} to {high:.3f})"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"

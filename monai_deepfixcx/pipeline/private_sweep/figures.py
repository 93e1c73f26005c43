"""The figures of a sweep: accuracy, subgroups and fairness against epsilon, and Pearson's panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

_MARKERS = "osD^vP"


def write_figures(result: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """Draw a sweep.

    Args:
        result: what `run_sweep` gave, as it is or read back from JSON.
        folder: to write into.

    Returns:
        ``auroc_against_epsilon.png``, ``auroc_by_subgroup.png``, ``fairness_against_epsilon.png`` and ``panels.png``.
    """
    drawn = {
        "auroc_against_epsilon": _auroc_against_epsilon(result),
        "auroc_by_subgroup": _auroc_by_subgroup(result),
        "fairness_against_epsilon": _fairness_against_epsilon(result),
        "panels": _panels(result),
    }
    paths = []
    for name, figure in drawn.items():
        paths.append(Path(folder) / f"{name}.png")
        figure.savefig(paths[-1], dpi=110)
    return paths


def _auroc_against_epsilon(result: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for number, (name, contender) in enumerate(result["contenders"].items()):
        estimates = [run["report"]["mean"]["auroc"] for run in _ordered(contender)]
        _line(axes, contender, estimates, name, number, len(result["contenders"]))
    _epsilon_axis(axes, result)
    axes.set(ylabel="AUROC, mean over labels (95 % interval)", title=_title(result))
    axes.legend(frameon=False, loc="lower right")
    return figure


def _auroc_by_subgroup(result: Mapping[str, Any]) -> Figure:
    contenders, attributes = result["contenders"], result["attributes"]
    figure = Figure(figsize=(4.2 * len(contenders), 3.4 * len(attributes)), layout="constrained")
    grid = figure.subplots(len(attributes), len(contenders), squeeze=False, sharey=True)
    for row, attribute in enumerate(attributes):
        for column, (name, contender) in enumerate(contenders.items()):
            axes = grid[row, column]
            means = [run["report"]["attributes"][attribute]["mean"]["auroc"] for run in _ordered(contender)]
            groups = sorted({group for mean in means for group in mean})
            for number, group in enumerate(groups):
                _line(axes, contender, [mean.get(group) for mean in means], group, number, len(groups))
            _epsilon_axis(axes, result)
            axes.set(title=f"{name}, by {attribute}", ylabel="AUROC" if column == 0 else "")
            if groups:
                axes.legend(frameon=False, fontsize="small", loc="lower right")
            else:
                axes.text(0.5, 0.5, "undefined: no label has both classes", transform=axes.transAxes, ha="center")
    figure.suptitle(_title(result))
    return figure


def _fairness_against_epsilon(result: Mapping[str, Any]) -> Figure:
    gaps = {"auroc_gap": "AUROC gap", "demographic_parity_difference": "demographic parity difference"}
    attributes = result["attributes"]
    figure = Figure(figsize=(4.4 * len(attributes), 6.4), layout="constrained")
    grid = figure.subplots(len(gaps), len(attributes), squeeze=False)
    for row, (gap, title) in enumerate(gaps.items()):
        for column, attribute in enumerate(attributes):
            axes = grid[row, column]
            for number, (name, contender) in enumerate(result["contenders"].items()):
                means = [run["report"]["attributes"][attribute]["mean"] for run in _ordered(contender)]
                estimates = [mean["gaps"].get(gap) for mean in means]
                _line(axes, contender, estimates, name, number, len(result["contenders"]))
            _epsilon_axis(axes, result)
            axes.set_ylim(bottom=0)
            axes.set(title=f"by {attribute}", ylabel=title if column == 0 else "")
    grid[0, 0].legend(frameon=False, fontsize="small", loc="upper right")
    figure.suptitle(_title(result))
    return figure


def _panels(result: Mapping[str, Any]) -> Figure:
    """Drop against count, AUROC against count, gap against epsilon: a column of three for each contender."""
    contenders = result["contenders"]
    figure = Figure(figsize=(4.2 * len(contenders), 9), layout="constrained")
    grid = figure.subplots(3, len(contenders), squeeze=False, sharey="row")
    for column, (name, contender) in enumerate(contenders.items()):
        panels = contender["panels"]
        _scatter(grid[0, column], panels.get("drop_against_count", {}), "positive test images", "AUROC lost")
        _scatter(grid[1, column], panels["auroc_against_count"], "positive test images", "AUROC")
        _scatter(grid[2, column], panels["gap_against_epsilon"], "epsilon", "AUROC gap")
        grid[0, column].set_title(name)
    figure.suptitle(f"{_title(result)}: Pearson's r")
    return figure


def _scatter(axes: Axes, panels: Mapping[str, Mapping[str, Any]], x: str, y: str) -> None:
    for number, (name, panel) in enumerate(panels.items()):
        points = list(panel["points"].values())
        r = panel["r"]
        # Two points lie on a line whatever they are.
        told = f"r = {r:.2f}" if r is not None and len(points) > 2 else f"{len(points)} points, no r"
        axes.plot(
            *zip(*points, strict=True) if points else ([], []),
            linestyle="none",
            marker=_MARKERS[number % len(_MARKERS)],
            label=f"{name}: {told}",
        )
    axes.set(xlabel=x, ylabel=y)
    if panels:
        axes.legend(frameon=False, fontsize="x-small")


def _ordered(contender: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Runs by rising epsilon, the one without privacy last."""
    return sorted(contender["runs"], key=lambda run: (run["epsilon"] is None, run["epsilon"] or 0))


def _line(
    axes: Axes,
    contender: Mapping[str, Any],
    estimates: Sequence[Mapping[str, float | None] | None],
    label: str,
    number: int,
    count: int,
) -> None:
    """Values with intervals at the places of the runs, shifted a little so that lines do not hide each other."""
    shift = 0.06 * (number - (count - 1) / 2)
    places, values, below, above = [], [], [], []
    for place, estimate in enumerate(estimates):
        if estimate is None or estimate["value"] is None:
            continue
        value, low, high = estimate["value"], estimate["low"], estimate["high"]
        places.append(place + shift)
        values.append(value)
        below.append(0.0 if low is None else value - low)
        above.append(0.0 if high is None else high - value)
    if not places:
        axes.text(0.5, 0.5 - 0.08 * number, f"{label}: undefined", transform=axes.transAxes, ha="center")
        return
    marker = _MARKERS[number % len(_MARKERS)]
    axes.errorbar(places, values, [below, above], label=label, marker=marker, markersize=4, linewidth=1.2, capsize=2)


def _epsilon_axis(axes: Axes, result: Mapping[str, Any]) -> None:
    runs = _ordered(next(iter(result["contenders"].values())))
    names = ["none" if run["epsilon"] is None else f"{run['epsilon']:g}" for run in runs]
    axes.set_xticks(range(len(names)), names)
    axes.set_xlabel("epsilon (none: trained without privacy)")
    axes.grid(alpha=0.25)


def _title(result: Mapping[str, Any]) -> str:
    return result["data"].split(":")[0].strip() or "Sweep over privacy budgets"

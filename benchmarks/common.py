"""What the benchmarks share: repeats taken in turn, medians, and results that say where they were measured."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_deepfixcx.metrics import auroc

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "monai", "numpy", "PyWavelets", "numba")
Row = Mapping[str, Any]


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run? Its figures mean nothing")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch (default: %(default)s)")
    return parser


def in_turn(tasks: Mapping[str, Callable[[], object]], repeats: int, pause: float = 0) -> dict[str, list[float]]:
    """Seconds that each task took, repeat by repeat.

    Every repeat runs all tasks once, so that what slows the machine down for a while slows them all down. After a task,
    OpenMP's threads spin for some milliseconds: a pause, in seconds, keeps that out of the next task's time.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            time.sleep(pause)
            start = time.perf_counter()
            task()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest.

    >>> spread([3.0, 1.0, 2.0])
    {'median': 2.0, 'least': 1.0, 'greatest': 3.0}
    """
    return {"median": statistics.median(values), "least": min(values), "greatest": max(values)}


def machine() -> dict[str, Any]:
    """Processor, cores, threads in use, memory, and how busy the machine is just now."""
    return {
        "processor": _proc("/proc/cpuinfo", "model name") or platform.processor(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _proc(file: str, key: str) -> str | None:
    path = Path(file)
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), None)


def write(folder: Path, name: str, result: Mapping[str, Any]) -> Path:
    """Write ``folder/name.json``: the result, and the versions and machine it was measured with."""
    versions = {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}
    document = {"benchmark": name, "versions": versions, "machine": machine(), **result}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def table(rows: Iterable[Row]) -> str:
    """A markdown table with the keys of the first row as its head.

    >>> print(table([{"network": "MLP", "images/s": "700"}]))
    | network | images/s |
    |---|---|
    | MLP | 700 |
    """
    rows = list(rows)
    lines = [list(rows[0]), *(list(map(str, row.values())) for row in rows)]
    head, *body = [f"| {' | '.join(cells)} |" for cells in lines]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def interval(estimate: Mapping[str, float]) -> str:
    """A value with its interval.

    >>> interval({"value": 0.9812, "low": 0.95, "high": 0.991})
    '.981 (.950 - .991)'
    """
    value, low, high = (f"{estimate[key]:.3f}".removeprefix("0") for key in ("value", "low", "high"))
    return f"{value} ({low} - {high})"


def mean_auroc(scores: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """Mean over repeats (seeds, draws of folds) of the AUROC: scores ``[N, repeats]``, labels ``[N]``.

    Unlike the AUROC of mean scores, which is that of an ensemble, it says what to expect of one training.
    """
    return float(np.mean([auroc(column, labels) for column in scores.T]))


def auroc_gain(scores: NDArray[np.float64], others: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """How far one mean AUROC lies above another on the same images."""
    return mean_auroc(scores, labels) - mean_auroc(others, labels)

"""How much memory a training step takes: the peak of a process of its own, by batch size.

As a script, the child process: it takes two training steps (the optimizer's state is made in the first) and prints the
peak of its resident memory in bytes: interpreter, libraries, weights, images and all.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

GIB = 2**30


def peak(name: str, batch: int, side: int, threads: int) -> int:
    """Bytes that a process needs at most to train the network on batches of this size."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.training_memory", name, str(batch)]
    command += ["--side", str(side), "--threads", str(threads)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def largest_batch(name: str, batches: Sequence[int], side: int, threads: int, budget: int) -> dict[str, Any]:
    """The largest batch within a budget of bytes: by a straight line through measured peaks, then by trying it.

    The batch tried is the line's, less 3 %: what it needs is measured like the others, and must be within the budget.
    """
    peaks = [peak(name, batch, side, threads) for batch in batches]
    slope, fixed = np.polyfit(batches, peaks, deg=1)
    fitted = max(1, int((budget - fixed) / slope))
    tried = max(1, int(0.97 * fitted))
    tried_peak = peak(name, tried, side, threads)
    return {
        "batches": list(batches),
        "peak_gib": [round(value / GIB, 4) for value in peaks],
        "megabytes_per_image": float(slope) / 1e6,
        "fixed_gib": float(fixed) / GIB,
        "largest_batch_by_fit": fitted,
        "batch_tried": tried,
        "batch_tried_peak_gib": round(tried_peak / GIB, 4),
        "batch_tried_fits": tried_peak <= budget,
    }


def _own_peak() -> int:
    # Linux's VmHWM belongs to this program alone; ru_maxrss still holds the peak of the process that started it.
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return own if sys.platform == "darwin" else own * 1024


def _main() -> None:
    import torch

    from benchmarks.contenders import Training, random_batch

    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("batch", type=int)
    parser.add_argument("--side", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    training, batch = Training(asked.name, asked.side), random_batch(asked.batch, asked.side)
    for _ in range(2):
        training.step(*batch)
    print(_own_peak())


if __name__ == "__main__":
    _main()

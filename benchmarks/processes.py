"""What processes are seen to use, on Linux: the memory of a command and its workers, and others' share of the cores."""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

SAMPLE_SECONDS = 0.05


def peak_memory(command: Sequence[str]) -> int:
    """Most bytes that a command and its descendants had between them, of those looked at: proportional set sizes.

    A page that n processes share (libraries, mostly) counts as 1/n of a page in each.
    """
    most = 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        most = max(most, sum(map(_proportional_bytes, _family(process.pid))))
        time.sleep(SAMPLE_SECONDS)
    if process.returncode:
        raise RuntimeError(f"the command ended with status {process.returncode}.")
    return most


def _family(process: int) -> list[int]:
    """A process and its descendants."""
    children = [
        int(child) for path in Path(f"/proc/{process}/task").glob("*/children") for child in _read(path).split()
    ]
    return [process, *itertools.chain.from_iterable(map(_family, children))]


def _proportional_bytes(process: int) -> int:
    lines = _read(Path(f"/proc/{process}/smaps_rollup")).splitlines()
    return 1024 * next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


class Neighbours:
    """How much of the machine was busy with what is none of ours, from this object's making on."""

    def __init__(self) -> None:
        self.load, self.start = os.getloadavg()[0], self._now()

    def told(self) -> dict[str, float | None]:
        """To be asked when all of our own processes have ended."""
        seconds, busy, stolen, own = (now - then for now, then in zip(self._now(), self.start, strict=True))
        known = Path("/proc/stat").exists()
        return {
            "load_average_before": round(self.load, 2),
            "cores_busy_with_others": round(max(0.0, busy - own) / seconds, 3) if known else None,
            "cores_stolen_by_the_host": round(stolen / seconds, 3) if known else None,
        }

    @staticmethod
    def _now() -> tuple[float, float, float, float]:
        """Seconds: of the clock; of all cores busy, and stolen; of this process and those it has waited for."""
        numbers = [int(number) for number in _read(Path("/proc/stat")).partition("\n")[0].split()[1:]] or [0] * 8
        user, nice, system, _, _, interrupt, soft, stolen, *_ = (n / os.sysconf("SC_CLK_TCK") for n in numbers)
        return time.perf_counter(), user + nice + system + interrupt + soft, stolen, sum(os.times()[:4])


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""  # it has ended meanwhile

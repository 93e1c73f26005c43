"""Work on two processes that talk to each other, as two GPUs would."""

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

Work = Callable[[int, Path], Any]


def on_two_ranks(work: Work, folder: Path, seconds: int = 30) -> list[Any]:
    """What ``work(rank, folder)`` returns on each rank, by way of JSON.

    Args:
        work: a function of a module that holds no test, so that spawn can import it.
        folder: of the test.
        seconds: after which a rank gives up waiting for the other.
    """
    spawn(_run, args=(work, folder, seconds), nprocs=2)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def _run(rank: int, work: Work, folder: Path, seconds: int) -> None:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(seconds=seconds),
    )
    try:
        (folder / f"{rank}.json").write_text(json.dumps(work(rank, folder)))
    finally:
        dist.destroy_process_group()

"""Sharing out a batch over threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def in_parts(work: Callable[[slice], None], count: int) -> None:
    """Do `work` on parts of a batch of `count`, one for each of torch's threads.

    Threads of our own: Numba's default pool must not be entered by two Python threads at once.
    """
    step = -(-count // max(1, torch.get_num_threads()))
    parts = [slice(start, start + step) for start in range(0, count, step)]
    if len(parts) == 1:
        work(parts[0])
    else:
        with ThreadPoolExecutor(len(parts)) as pool:
            list(pool.map(work, parts))

"""Sharing out work over threads."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

_WORTH_IT = 200_000  # nanoseconds of work for which a thread is woken: that takes some 50_000
_MOST = 16  # threads, on a machine of fewer cores that torch is told to have more of
_pool: ThreadPoolExecutor | None = None


def in_parts(work: Callable[..., None], count: int, nanoseconds: float, *arguments: Any) -> None:
    """Call ``work(first, last, *arguments)`` for parts of `count` jobs, at most one for each of torch's threads.

    Threads of our own: Numba's default pool must not be entered by two Python threads at once.

    Args:
        work: what to do; it works on nothing that another part does.
        count: of jobs.
        nanoseconds: that a job takes, roughly.
        arguments: handed on.
    """
    threads = torch.get_num_threads() if count * nanoseconds > _WORTH_IT else 1
    if threads == 1:
        work(0, count, *arguments)
        return
    step = max(-(-count // threads), int(_WORTH_IT / nanoseconds))
    others = [
        _threads().submit(work, first, min(count, first + step), *arguments) for first in range(step, count, step)
    ]
    work(0, step, *arguments)
    for other in others:
        other.result()


def _threads() -> ThreadPoolExecutor:
    """Threads that are started when needed and sleep in between."""
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(max(_MOST, os.cpu_count() or 1), "deepfixcx")
    return _pool


def _forget() -> None:
    """A forked process has none of its parent's threads."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

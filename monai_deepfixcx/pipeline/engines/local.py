"""Engines on this machine, with nothing but the standard library."""

import multiprocessing
import os
import threading
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from typing import Any

import torch

from monai_deepfixcx.pipeline.engines.base import Task, Tell, Work


class ThisProcess:
    """Encodes right here: a file that kills this process ends the run."""

    at_once = 1
    lost = BrokenExecutor

    def __enter__(self) -> "ThisProcess":
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to end."""

    def submit(self, work: Work, task: Task, tell: Tell) -> "Future[None]":
        """Do it before returning."""
        future: Future[None] = Future()
        try:
            work(task, tell)
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(None)
        return future

    def poll(self) -> None:
        """It has told by itself."""


class Processes:
    """So many processes, each a pool of its own: one that dies takes no other's shard along, and is replaced.

    They compute with one thread each, and end with this process, however it ends.

    Args:
        count: of processes, at least 1.
    """

    lost = BrokenExecutor

    def __init__(self, count: int) -> None:
        self.at_once = count
        self._idle: list[_Process] = []
        self._busy: dict[Future[None], tuple[_Process, Tell]] = {}

    def __enter__(self) -> "Processes":
        self._idle = [_Process() for _ in range(self.at_once)]
        return self

    def __exit__(self, *exception: object) -> None:
        for process in [*self._idle, *(process for process, _ in self._busy.values())]:
            process.pool.shutdown(wait=False, cancel_futures=True)

    def submit(self, work: Work, task: Task, tell: Tell) -> "Future[None]":
        """Give a task to an idle process."""
        self._free()
        process = self._idle.pop()
        process.files_through.value = 0
        future = process.pool.submit(_work_in_child, work, task)
        self._busy[future] = process, tell
        return future

    def poll(self) -> None:
        """Read how far each process says it is."""
        for future, (process, tell) in self._busy.items():
            if not future.done():
                tell(process.files_through.value)

    def _free(self) -> None:
        for future in [future for future in self._busy if future.done()]:
            process, _ = self._busy.pop(future)
            if isinstance(future.exception(), BrokenExecutor):
                process.pool.shutdown(wait=False)
                process = _Process()
            self._idle.append(process)


class _Process:
    """One process, started when it is first needed, and the number it tells how far it is by."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        # Written by that one process: no lock that a killed process could keep.
        self.files_through: Any = context.RawValue("Q", 0)
        self.pool = ProcessPoolExecutor(1, context, _start_child, (self.files_through,))


_files_through: Any = None


def _start_child(files_through: Any) -> None:
    global _files_through
    _files_through = files_through
    torch.set_num_threads(1)
    # glibc gives large blocks back to the system, and every image would be paid for page by page; having freed one of
    # nearly 32 MB, it keeps such blocks from then on. Large radiographs are read twice as fast.
    block = bytearray(31 << 20)
    del block
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work_in_child(work: Work, task: Task) -> None:
    def tell(count: int) -> None:
        _files_through.value = count

    work(task, tell)

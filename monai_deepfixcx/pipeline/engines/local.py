"""The engine that needs no other process."""

from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, Future
from functools import partial

from monai_deepfixcx.pipeline.engines.base import Advance, Task, Tell, Work


class ThisProcess:
    """Encodes right here: a file that kills this process ends the run."""

    at_once = together = 1
    lost = BrokenExecutor

    def __enter__(self) -> "ThisProcess":
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to end."""

    def submit(self, work: Work, tasks: Sequence[Task], advance: Advance) -> "list[Future[None]]":
        """Do them before returning."""
        return [self._carry_out(work, task, partial(advance, task.shard)) for task in tasks]

    def _carry_out(self, work: Work, task: Task, tell: Tell) -> "Future[None]":
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

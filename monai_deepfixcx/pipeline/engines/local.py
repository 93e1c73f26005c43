"""The engine that needs no other process."""

from concurrent.futures import BrokenExecutor, Future

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

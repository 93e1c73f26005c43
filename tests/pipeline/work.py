"""What workers are made to do besides encoding; in a module that they import quickly."""

import os
import time

from monai_deepfixcx.pipeline.engines.base import Task, Tell, encode_task


def crash_on_poison(task: Task, tell: Tell) -> None:
    """`encode_task`, for which a file with poison in its name is the end."""
    if any("poison" in name for name in task.run.take(task.shard).files.values()):
        os._exit(1)
    encode_task(task, tell)


def encode_slowly(task: Task, tell: Tell) -> None:
    """`encode_task` of large files."""

    def tell_slowly(count: int) -> None:
        tell(count)
        time.sleep(0.2)

    encode_task(task, tell_slowly)

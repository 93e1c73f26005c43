"""A decoder that takes its process along; in a module that a worker imports quickly."""

import os

from monai_deepfixcx.pipeline.engines.base import Task, Tell, encode_task


def crash_on_poison(task: Task, tell: Tell) -> None:
    """`encode_task`, for which a file with poison in its name is the end."""
    if any("poison" in name for name in task.run.take(task.shard).files.values()):
        os._exit(1)
    encode_task(task, tell)

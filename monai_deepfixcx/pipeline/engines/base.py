"""What every engine runs, and how a run gets through whatever happens to its workers."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import torch

from monai_deepfixcx import __version__
from monai_deepfixcx.data.code_store import CodeStore
from monai_deepfixcx.pipeline.encode import Settings, Shard, encode_shard
from monai_deepfixcx.pipeline.run import Run
from monai_deepfixcx.pipeline.workspace import Entry, OutputError, Workspace, WorkspaceError

Tell = Callable[[int], None]
VERSIONS = f"monai-deepfixcx {__version__} and torch {torch.__version__}"


@dataclass(frozen=True)
class Task:
    """A shard to encode, as it is told to a worker: no path of an image, no key.

    Attributes:
        run: that the shard belongs to.
        shard: its name.
        settings: how to encode.
        versions: of the software that the run began with.
    """

    run: Run
    shard: str
    settings: Settings
    versions: str = VERSIONS


Work = Callable[[Task, Tell], None]
Advance = Callable[[str, int], None]  # a shard's name, and how many of its files are through


class Engine(Protocol):
    """Something that carries out tasks; entered, it has its workers."""

    @property
    def at_once(self) -> int:
        """Tasks to hand over before the first is done."""

    @property
    def together(self) -> int:
        """Tasks to hand over in one go, as many of them cost little more than one."""

    @property
    def lost(self) -> type[BaseException]:
        """What a task's future raises when the process that had the task died."""

    def __enter__(self) -> object: ...

    def __exit__(self, *exception: object) -> None: ...

    def submit(self, work: Work, tasks: Sequence[Task], advance: Advance) -> "list[Future[None]]":
        """Begin ``work(task, tell)`` for each task; `advance` hears what is told, if the engine can say."""

    def poll(self) -> None:
        """Pass on what workers have told since the last time."""


def encode_task(task: Task, tell: Tell) -> None:
    """Encode a shard, on any machine that sees the folders; what became of its files is in the ledger.

    Raises:
        WorkspaceError: this machine does not see the folders, or has other software than the run began with.
        OutputError: the run was taken over by a newer one.
        OSError: the output cannot be written.
    """
    if task.versions != VERSIONS:
        raise WorkspaceError(
            f"a worker has {VERSIONS}, and this run began with {task.versions}: codes might differ in their last "
            "digits. Install the same on both."
        )
    try:
        workspace = Workspace.reopen(task.run.output, task.run.private)
        unseen = next((path for path in (workspace.source, workspace.output) if not path.is_dir()), None)
    except WorkspaceError:
        unseen = task.run.private
    if unseen is not None:
        raise WorkspaceError(
            f"a worker does not see {unseen}: input, output and private folder must lie on a file system that all "
            "workers share, under the same paths."
        )
    encode_shard(task.run.take(task.shard), workspace, task.settings, tell, task.run.writing)


class _Trial(IntEnum):
    """How often a shard's worker has died, and so how closely the shard is looked at."""

    FIRST = 0
    AGAIN = 1  # the worker may have died of something else
    ALONE = 2  # a single file, and nothing else under way that the worker could die of


def run_shards(
    engine: Engine,
    shards: Sequence[Shard],
    workspace: Workspace,
    run: Run,
    settings: Settings,
    on_progress: Tell,
    work: Work = encode_task,
) -> Iterator[list[Entry]]:
    """Have every shard encoded: a future each.

    A shard whose worker dies is tried again; if that worker dies too, its halves are, and theirs, until the file that
    kills is by itself. It is tried once more when nothing else is under way, and then quarantined.

    Yields:
        What became of the files of one more shard.

    Raises:
        WorkspaceError: a worker does not see the folders, or lacks this package.
        OutputError: the scheduler is gone, or a newer run has taken over.
        OSError: the output cannot be written.
    """
    waiting = deque((shard, _Trial.FIRST) for shard in shards)
    suspects: list[Shard] = []
    pending: dict[Future[None], tuple[Shard, _Trial]] = {}
    under_way: dict[str, int] = {}
    done: deque[Shard] = deque()
    through = 0

    def advance(shard: str, count: int) -> None:
        under_way[shard] = count
        on_progress(through + sum(under_way.values()))

    def submit(*some: tuple[Shard, _Trial]) -> None:
        tasks = [Task(run, run.hand_out(shard), settings) for shard, _ in some]
        pending.update(zip(engine.submit(work, tasks, advance), some, strict=True))

    def try_again(shard: Shard, trial: _Trial) -> Shard | None:
        """After the death of its worker; returns what is through nevertheless."""
        if trial is _Trial.FIRST:
            waiting.append((shard, _Trial.AGAIN))
            return None
        if len(shard.files) > 1:
            stored, *halves = _stored_and_halves(shard, workspace, run)
            waiting.extend((half, _Trial.AGAIN) for half in halves if half.files)
            return stored if stored.files else None
        if trial is _Trial.AGAIN:
            suspects.append(shard)
            return None
        with run.writing():
            workspace.record(shard.name, [_crashed(shard)])
        return shard

    def read_done() -> Iterator[list[Entry]]:
        while done:
            yield workspace.recorded(done.popleft().name)

    while waiting or suspects or pending:
        while waiting and len(pending) + engine.together <= engine.at_once:
            submit(*(waiting.popleft() for _ in range(min(engine.together, len(waiting)))))
        if not pending:
            submit((suspects.pop(), _Trial.ALONE))
        yield from read_done()  # now that the workers have the next ones
        finished, _ = wait(pending, timeout=0.1, return_when=FIRST_COMPLETED)
        engine.poll()
        for future in finished:
            shard, trial = pending.pop(future)
            complete: Shard | None = shard
            under_way.pop(shard.name, None)
            run.forget(shard.name)
            try:
                future.result()
            except engine.lost:
                complete = try_again(shard, trial)
            except (ImportError, RuntimeError) as error:
                # Dask wraps what its scheduler could not import.
                if not isinstance(error, ImportError) and not isinstance(error.__cause__, ImportError):
                    raise
                raise WorkspaceError(
                    "the scheduler or a worker cannot import monai_deepfixcx: install the same release there, and run "
                    "again."
                ) from None
            except CancelledError:
                raise OutputError(
                    "the scheduler is gone. What is finished is safe: start it and run the same command again."
                ) from None
            if complete is None:
                continue
            through += len(complete.files)
            done.append(complete)
            on_progress(through + sum(under_way.values()))
    yield from read_done()


def _stored_and_halves(shard: Shard, workspace: Workspace, run: Run) -> tuple[Shard, Shard, Shard]:
    """What the store has of a shard, as its worker may have died of another one while it wrote this; and two halves."""
    ids = CodeStore(workspace.output).ids()
    stored = Shard({name: path for name, path in shard.files.items() if name in ids})
    if stored.files:
        with run.writing():
            workspace.record(stored.name, [entry for entry in workspace.recorded(shard.name) if entry.id in ids])
    rest = [(name, path) for name, path in shard.files.items() if name not in ids]
    middle = len(rest) // 2
    return stored, Shard(dict(rest[:middle])), Shard(dict(rest[middle:]))


def _crashed(shard: Shard) -> Entry:
    ((identifier, source),) = shard.files.items()
    return Entry(identifier, source, reason="reading it crashed the process (a decoder's fault, or out of memory)")

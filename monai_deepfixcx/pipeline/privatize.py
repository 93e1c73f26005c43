"""A folder of images to a store of codes: plan shards, run them, survive what cannot be read, resume."""

import json
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from monai_deepfixcx.codecs import Codec
from monai_deepfixcx.data.code_store import CodeStore
from monai_deepfixcx.pipeline.encode import Settings, Shard, encode_shard
from monai_deepfixcx.pipeline.workspace import Entry, OutputError, Workspace, WorkspaceError

SHARD_FILES = 256
Report = Callable[[list[Entry]], None]


@dataclass(frozen=True)
class Summary:
    """What a run did, and what the store holds now.

    Attributes:
        encoded: files encoded by this run.
        already_done: files an earlier run had encoded.
        quarantined: files that cannot be encoded, with the reasons.
        source_bytes: size on disk of all encoded source files.
        pixels: pixels times channels of all encoded images.
        code_values: numbers in all codes.
        store_bytes: size on disk of the store.
        seconds: this run took.
    """

    encoded: int
    already_done: int
    quarantined: list[Entry]
    source_bytes: int
    pixels: int
    code_values: int
    store_bytes: int
    seconds: float


def privatize(
    workspace: Workspace,
    codec: Codec,
    settings: Settings,
    workers: int = 0,
    part: tuple[int, int] = (1, 1),
    on_plan: Callable[[int, int], None] = lambda files, already: None,
    on_progress: Callable[[int], None] = lambda files: None,
    on_entries: Report = lambda entries: None,
) -> Summary:
    """Encode every file of a workspace that its store does not hold yet.

    Args:
        workspace: source, output and private folder.
        codec: to encode with; the store refuses another than the one it was begun with.
        settings: with ``settings.codec`` the JSON of ``codec.config()``.
        workers: processes; 0 encodes in this one.
        part: (i, n) takes the i-th of n parts of the files, so that n jobs share a run.
        on_plan: told the number of files to do and of those done earlier.
        on_progress: told how many files are through so far.
        on_entries: told what became of the files of each finished shard.

    Raises:
        WorkspaceError: no files, or another configuration's store.
        OutputError: the output cannot be written any more.
    """
    start = time.monotonic()
    inputs = workspace.find_inputs()
    if not inputs:
        raise WorkspaceError(f"{workspace.source} has no files to privatize.")
    try:
        store = CodeStore.open(workspace.output, codec)
    except (ValueError, OSError) as error:
        raise WorkspaceError(str(error)) from None
    done = {row["id"] for row in store.rows}
    mine = {name: path for name, path in inputs.items() if int(name, 16) % part[1] == part[0] - 1}
    shards = plan({name: path for name, path in mine.items() if name not in done})
    on_plan(sum(len(shard.files) for shard in shards), len(mine.keys() & done))
    encoded = 0
    try:
        runs = (
            _run_in_processes(shards, workspace, settings, workers, on_progress)
            if workers
            else _run_here(shards, workspace, settings, on_progress)
        )
        for entries in runs:
            encoded += sum(not entry.reason for entry in entries)
            on_entries(entries)
    except OSError as error:
        raise OutputError(
            f"cannot write to {workspace.output}: {error.strerror}. What is finished is safe; make room and run the "
            "same command again."
        ) from None
    store.refresh()
    known = workspace.entries(row["id"] for row in store.rows)
    quarantined = [entry for entry in known if entry.reason and entry.id in inputs]
    workspace.write_quarantine(quarantined)
    good = [entry for entry in known if not entry.reason]
    return Summary(
        encoded=encoded,
        already_done=len(mine.keys() & done),
        quarantined=quarantined,
        source_bytes=sum(entry.source_bytes for entry in good),
        pixels=sum(entry.pixels for entry in good),
        code_values=sum(entry.code_values for entry in good),
        store_bytes=store.bytes_on_disk,
        seconds=time.monotonic() - start,
    )


def plan(files: dict[str, str], shard_files: int = SHARD_FILES) -> list[Shard]:
    """Cut the files into shards, in the order given; the last one may be smaller."""
    items = list(files.items())
    return [Shard(dict(items[i : i + shard_files])) for i in range(0, len(items), shard_files)]


def _run_here(
    shards: Iterable[Shard], workspace: Workspace, settings: Settings, on_progress: Callable[[int], None]
) -> Iterator[list[Entry]]:
    through = 0
    for shard in shards:
        yield encode_shard(shard, workspace, settings, partial(_advance, on_progress, through))
        through += len(shard.files)


def _advance(on_progress: Callable[[int], None], before: int, count: int) -> None:
    on_progress(before + count)


# One slot a shard, written by the one process that encodes it: no lock that a killed process could keep.
_progress_slots: Any = None


def _start_worker(slots: Any) -> None:
    global _progress_slots
    _progress_slots = slots
    torch.set_num_threads(1)


def _encode_numbered(number: int, shard: Shard, workspace: Workspace, settings: Settings) -> list[Entry]:
    def progress(count: int) -> None:
        _progress_slots[number] = count

    return encode_shard(shard, workspace, settings, progress)


def _run_in_processes(
    shards: list[Shard],
    workspace: Workspace,
    settings: Settings,
    workers: int,
    on_progress: Callable[[int], None],
    work: Callable[..., list[Entry]] = _encode_numbered,
) -> Iterator[list[Entry]]:
    context = multiprocessing.get_context("spawn")
    slots = context.RawArray("Q", max(1, len(shards)))
    crashed: list[int] = []
    with ProcessPoolExecutor(workers, context, _start_worker, (slots,)) as pool:
        pending: dict[Future[list[Entry]], int] = {
            pool.submit(work, number, shard, workspace, settings): number for number, shard in enumerate(shards)
        }
        try:
            while pending:
                finished, _ = wait(pending, timeout=0.1, return_when=FIRST_COMPLETED)
                on_progress(sum(slots))
                for future in finished:
                    number = pending.pop(future)
                    try:
                        yield future.result()
                    except BrokenProcessPool:
                        crashed.append(number)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for number in crashed:
        yield from _isolate(shards[number], workspace, settings, work)


def _isolate(
    shard: Shard, workspace: Workspace, settings: Settings, work: Callable[..., list[Entry]]
) -> Iterator[list[Entry]]:
    """Encode a shard in a process of its own; if that dies too, halve it until the file that kills it is alone."""
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, context, _start_worker, (context.RawArray("Q", 1),)) as pool:
            yield pool.submit(work, 0, shard, workspace, settings).result()
        return
    except BrokenProcessPool:
        pass
    if len(shard.files) > 1:
        for half in plan(shard.files, -(-len(shard.files) // 2)):
            yield from _isolate(half, workspace, settings, work)
        return
    ((identifier, source),) = shard.files.items()
    entries = [Entry(identifier, source, reason="reading it crashed the process (a decoder's fault, or out of memory)")]
    workspace.record(shard.name, entries)
    yield entries


def settings_for(codec: Codec, **options: Any) -> Settings:
    """Settings that encode with `codec`."""
    return Settings(codec=json.dumps(codec.config(), sort_keys=True), **options)


def read_part(text: str) -> tuple[int, int]:
    """Parse "i/n", the i-th of n parts.

    Raises:
        ValueError: not two integers with 1 <= i <= n.

    >>> read_part("3/8")
    (3, 8)
    """
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise ValueError(f"--shard must be i/n with 1 <= i <= n, as 3/8; got {text!r}.")
    return int(index), int(count)

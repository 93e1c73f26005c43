"""A folder of images to a store of codes: plan shards, run them, survive what cannot be read, resume."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from monai_deepfixcx.codecs import Codec
from monai_deepfixcx.data.code_store import CodeStore
from monai_deepfixcx.pipeline.encode import Settings, Shard
from monai_deepfixcx.pipeline.engines.base import Engine, run_shards
from monai_deepfixcx.pipeline.engines.local import ThisProcess
from monai_deepfixcx.pipeline.run import Run
from monai_deepfixcx.pipeline.workspace import Entry, OutputError, Workspace, WorkspaceError

SHARD_FILES = 512
SHARD_VOLUMES = 64  # each takes as long as many images
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
    engine: Engine | None = None,
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
        engine: what encodes; this process by default.
        part: (i, n) takes the i-th of n parts of the files, so that n jobs share a run.
        on_plan: told the number of files to do and of those done earlier.
        on_progress: told how many files are through so far.
        on_entries: told what became of the files of each finished shard.

    Raises:
        WorkspaceError: no files, or another configuration's store.
        OutputError: the output cannot be written any more, or the engine is gone.
    """
    start = time.monotonic()
    engine = engine or ThisProcess()
    inputs = workspace.find_inputs()
    if not inputs:
        raise WorkspaceError(f"{workspace.source} has no files to privatize.")
    try:
        store = CodeStore.open(workspace.output, codec)
    except (ValueError, OSError) as error:
        raise WorkspaceError(str(error)) from None
    run = Run.begin(workspace, part)
    done = store.ids()
    mine = {name: path for name, path in inputs.items() if int(name, 16) % part[1] == part[0] - 1}
    to_do = {name: path for name, path in mine.items() if name not in done}
    shards = plan(to_do, SHARD_VOLUMES if codec.spatial_dims == 3 else SHARD_FILES)
    on_plan(sum(len(shard.files) for shard in shards), len(mine.keys() & done))
    encoded = 0
    try:
        with engine:
            for entries in run_shards(engine, shards, workspace, run, settings, on_progress):
                encoded += sum(not entry.reason for entry in entries)
                on_entries(entries)
    except OSError as error:
        raise OutputError(
            f"cannot write to {workspace.output}: {error.strerror}. What is finished is safe; make room and run the "
            "same command again."
        ) from None
    store.refresh()
    known = workspace.entries(store.ids())
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


def plan(files: dict[str, str], shard_files: int) -> list[Shard]:
    """Cut the files, in the order given, into shards of at most so many.

    The last ones are smaller and smaller, each a quarter of what is left but no less than an eighth of the largest:
    workers then end at about the same time (guided self-scheduling, Polychronopoulos and Kuck, 1987).
    """
    items, shards, left = iter(files.items()), list[Shard](), len(files)
    while left > 0:
        size = min(shard_files, max(-(-left // 4), -(-shard_files // 8)))
        shards.append(Shard(dict(islice(items, size))))
        left -= size
    return shards


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

"""One run of the main job: what it hands to workers, and its right to write until a newer run takes over.

Both lie in the private folder, on the file system that all workers share. A worker is told the name of a shard and
where the private folder is; which files that shard has, and under which paths, never travels.
"""

import fcntl
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from monai_deepfixcx.pipeline.encode import Shard
from monai_deepfixcx.pipeline.workspace import OutputError, Workspace

_ABANDONED_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Run:
    """One run of one part of the files.

    What an older run of the same files still has under way when this one begins (its driver was killed, say, but not
    its workers) can no longer be written: this run encodes those files, and no code is stored twice.

    Attributes:
        output: folder of the store.
        private: folder of the site key and the ledger.
        part: as "3-of-8".
        token: tells this run from an older one of the same part.
    """

    output: Path
    private: Path
    part: str
    token: str

    @classmethod
    def begin(cls, workspace: Workspace, part: tuple[int, int] = (1, 1)) -> "Run":
        """Take over from any older run of these files; waits for what that one is writing just now."""
        name, count = f"{part[0]}-of-{part[1]}", part[1]
        run = cls(workspace.output, workspace.private, name, secrets.token_hex(16))
        run._plans.mkdir(parents=True, exist_ok=True)
        for token in (workspace.private / "runs").glob("*.token"):
            # Runs of another number of parts share files with this one.
            if not token.stem.endswith(f"-of-{count}"):
                _replace_token(token, "")
        _replace_token(run._token, run.token)
        for left_over in run._plans.iterdir():
            left_over.unlink()
        for temporary in (workspace.output / "shards").glob(".*.tmp"):
            # A killed writer's; what another part is writing just now is younger.
            with suppress(FileNotFoundError):
                if time.time() - temporary.stat().st_mtime > _ABANDONED_SECONDS:
                    temporary.unlink()
        return run

    def hand_out(self, shard: Shard) -> str:
        """Leave a shard's files for the worker that will ask for them by the name returned."""
        (self._plans / f"{shard.name}.json").write_text(json.dumps(shard.files))
        return shard.name

    def take(self, name: str) -> Shard:
        """The shard of that name."""
        return Shard(json.loads((self._plans / f"{name}.json").read_text()))

    def forget(self, name: str) -> None:
        """A shard is done with."""
        (self._plans / f"{name}.json").unlink(missing_ok=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold while a shard is written: no newer run begins meanwhile.

        Raises:
            OutputError: a newer run has begun.
        """
        with self._token.open() as file:
            _lock(file, fcntl.LOCK_SH)
            if file.read() != self.token:
                raise OutputError("another run of these files has begun and goes on with them; this one stops.")
            yield

    @property
    def _plans(self) -> Path:
        return self.private / "runs" / self.part

    @property
    def _token(self) -> Path:
        return self.private / "runs" / f"{self.part}.token"


def _replace_token(path: Path, token: str) -> None:
    with path.open("a") as file:
        _lock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(token)


def _lock(file: IO[str], kind: int) -> None:
    # The kernel frees it when a process is killed. A file system without locks leaves the token alone to tell.
    with suppress(OSError):
        fcntl.flock(file, kind)

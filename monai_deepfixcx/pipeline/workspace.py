"""Where a run reads and writes: the input folder, the output that may be shared, and the private folder that may not.

OUT holds codes under pseudonyms. OUT-private holds what ties them to the source: the site key the pseudonyms are made
with, and the ledger, a line per input file with its path and, if it was quarantined, the reason.
"""

import csv
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class WorkspaceError(Exception):
    """The run cannot start; the message is one line for a person."""


class OutputError(WorkspaceError):
    """The run cannot go on: the output cannot be written any more, or the scheduler is gone."""


class Entry(NamedTuple):
    """What became of one input file.

    Attributes:
        id: its pseudonym.
        source: its path below the input folder.
        reason: why it was quarantined; empty when it was encoded.
        source_bytes: size of the file.
        pixels: pixels times channels it decoded to.
        code_values: numbers in its code.
    """

    id: str
    source: str
    reason: str = ""
    source_bytes: int = 0
    pixels: int = 0
    code_values: int = 0


class _LedgerFile(NamedTuple):
    stamp: tuple[int, int]  # another one when the file has been replaced
    entries: list[Entry]


@dataclass(frozen=True)
class Workspace:
    """The three folders of a run, and the key its pseudonyms are made with."""

    source: Path
    output: Path
    private: Path
    key: bytes
    _read: dict[Path, _LedgerFile] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def open(cls, source: Path, output: Path, private: Path | None = None, moved: bool = False) -> "Workspace":
        """Make the folders where they are missing, and the site key on the first run.

        Args:
            source: an existing folder of images.
            output: what may be shared.
            private: what may not; beside the output by default, as OUT-private.
            moved: the same files now lie in another source folder than in the earlier run.

        Raises:
            WorkspaceError: a folder is missing, unwritable, inside another, or belongs to another run.
        """
        source, output = source.resolve(), output.resolve()
        private = private.resolve() if private else _private_beside(output)
        if not source.is_dir():
            raise WorkspaceError(f"{source} is not a folder.")
        if output == source or source.is_relative_to(output):
            raise WorkspaceError(f"the output {output} must not hold the input {source}: choose another output folder.")
        if private == output or private.is_relative_to(output):
            raise WorkspaceError(f"the private folder {private} must lie outside the output, which is to be shared.")
        try:
            output.mkdir(parents=True, exist_ok=True)
            (private / "ledger").mkdir(parents=True, exist_ok=True)
            private.chmod(0o700)
            _check_writable(output)
            key = _read_or_make_key(private / "site.key", may_make=not any((output / "shards").glob("*.done.json")))
            _remember_source(private / "source.json", source, moved)
        except OSError as error:
            raise WorkspaceError(f"cannot write to {error.filename or output}: {error.strerror}.") from None
        return cls(source, output, private, key)

    @classmethod
    def reopen(cls, output: Path, private: Path | None = None) -> "Workspace":
        """The workspace of an earlier run, from its output folder.

        Raises:
            WorkspaceError: the private folder does not lie there.
        """
        private = private or _private_beside(output.resolve())
        try:
            source = Path(json.loads((private / "source.json").read_text())["source"])
            return cls(source, output.resolve(), private, bytes.fromhex((private / "site.key").read_text()))
        except OSError as error:
            raise WorkspaceError(f"cannot read {error.filename}: {error.strerror}. Say where with --private.") from None

    def pseudonym(self, relative_path: str) -> str:
        """128 bits of HMAC-SHA256 of a path below the input folder, as hex: the same on every worker, in every run."""
        return hmac.new(self.key, os.fsencode(relative_path), hashlib.sha256).hexdigest()[:32]

    def find_inputs(self) -> dict[str, str]:
        """Pseudonym -> path below the input folder of every file there but hidden ones and the run's own folders.

        Ordered by pseudonym, so that neighbours in a store are not neighbours in the hospital's folders.
        """
        own = {self.output, self.private}
        found: dict[str, str] = {}
        for folder, subfolders, names in os.walk(self.source):
            subfolders[:] = [name for name in subfolders if name[0] != "." and Path(folder, name) not in own]
            below = Path(folder).relative_to(self.source).as_posix()
            start = "" if below == "." else f"{below}/"
            found.update((self.pseudonym(start + name), start + name) for name in names if name[0] != ".")
        return dict(sorted(found.items()))

    def record(self, shard: str, entries: Iterable[Entry]) -> None:
        """Write what became of a shard's files into the ledger."""
        lines = "".join(json.dumps(entry._asdict()) + "\n" for entry in entries)
        path = self.private / "ledger" / f"{shard}.jsonl"
        # Not by process number: two machines may have the same.
        temporary = path.with_suffix(f".{secrets.token_hex(8)}.tmp")
        temporary.write_text(lines)
        temporary.replace(path)

    def recorded(self, shard: str) -> list[Entry]:
        """What became of a shard's files, as last recorded."""
        return self._entries_of(self.private / "ledger" / f"{shard}.jsonl")

    def entries(self, stored: Iterable[str]) -> list[Entry]:
        """The ledger: one entry a file, encoded if its pseudonym is in the store, else as last quarantined."""
        in_store = set(stored)
        latest: dict[str, Entry] = {}
        for path in sorted((self.private / "ledger").glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns):
            for entry in self._entries_of(path):
                if (entry.id in in_store) == (not entry.reason):
                    latest[entry.id] = entry
        return sorted(latest.values(), key=lambda entry: entry.source)

    def _entries_of(self, path: Path) -> list[Entry]:
        """Read once, and again when the file has been replaced."""
        status = path.stat()
        stamp = status.st_ino, status.st_mtime_ns
        if path not in self._read or self._read[path].stamp != stamp:
            lines = path.read_text().splitlines()
            fields = json.loads(f"[{','.join(lines)}]")  # at once is twice as fast
            self._read[path] = _LedgerFile(stamp, [Entry(**values) for values in fields])
        return self._read[path].entries

    def write_quarantine(self, entries: Iterable[Entry]) -> Path:
        """Write ``quarantine.csv`` (source, reason) into the private folder."""
        path = self.private / "quarantine.csv"
        # Names that are not UTF-8 keep their bytes.
        with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(["source", "reason"])
            writer.writerows((entry.source, entry.reason) for entry in entries)
        return path


def shard_name(ids: Iterable[str]) -> str:
    """A name that follows from the files in the shard: workers that plan alone never take each other's."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]


def _private_beside(output: Path) -> Path:
    return output.with_name(output.name + "-private")


def _check_writable(folder: Path) -> None:
    probe = folder / f".write-test-{secrets.token_hex(8)}"
    probe.write_bytes(b"")
    probe.unlink()


def _read_or_make_key(path: Path, may_make: bool) -> bytes:
    if not path.exists():
        if not may_make:
            raise WorkspaceError(
                f"{path} is missing, but the output already holds codes: without the key they cannot be matched to "
                "their files. Put the key back, or write into another folder."
            )
        temporary = path.with_suffix(f".{secrets.token_hex(8)}.tmp")
        temporary.touch(mode=0o600)
        temporary.write_text(secrets.token_hex(32))
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            pass  # another worker was faster; its key is the one
        finally:
            temporary.unlink()
    return bytes.fromhex(path.read_text())


def _remember_source(path: Path, source: Path, moved: bool) -> None:
    before = json.loads(path.read_text())["source"] if path.exists() else None
    if before not in (None, str(source)) and not moved:
        raise WorkspaceError(
            f"this output was made from {before}, not from {source}. Write into another folder, or say --moved if "
            "these are the same files in a new place."
        )
    if before != str(source):
        path.write_text(json.dumps({"source": str(source)}))

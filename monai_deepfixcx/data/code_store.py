"""Codes on disk: safetensors shards, each with a side-car and a marker that says it is complete."""

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import pywt
import torch
from safetensors import safe_open
from torch import Tensor
from torch.utils.data import Dataset

from monai_deepfixcx import __version__
from monai_deepfixcx.codecs import Codec, codec_from_config

_FORMAT = 1
_SHARD_NAME = re.compile(r"[A-Za-z0-9_-]+")
# safetensors' names, and the room its head is given: how many codes there will be is known at the end only.
_DTYPES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64"}
_HEAD_BYTES = 256
_SYNCED_BYTES = 2**21  # brought to the disk at a time while the next codes are made
_BUFFER_BYTES = 2**16  # larger ones leave the processor's cache: four times as slow


class Row(TypedDict):
    """What a store says about one code: a pseudonym and what decoding needs. Nothing else may be stored."""

    id: str
    spatial_shape: list[int]


_ROW_KEYS = Row.__annotations__.keys()


class CodeItem(TypedDict):
    """One code and its row."""

    code: Tensor
    id: str
    spatial_shape: list[int]


@dataclass(frozen=True)
class ShardProblem:
    """A shard that is not what its marker says."""

    shard: str
    problem: str


class CodeStore(Dataset[CodeItem]):
    """A folder of codes made by one codec; a map-style dataset of ``{"code" [C, D], "id", "spatial_shape"}``.

    ``store.json`` names the codec. ``shards/NAME.safetensors`` holds codes ``[N, C, D]``, ``NAME.jsonl`` their rows,
    and ``NAME.done.json`` the hashes of both: a shard counts only once its marker is there, so a killed writer leaves
    nothing half-written. Several processes may append to one store, each its own shards.

    Args:
        folder: of an existing store; use `CodeStore.open` to create one.

    Raises:
        FileNotFoundError: there is no store in the folder.
        ValueError: the store was written by a newer release or is damaged.

    >>> import tempfile
    >>> from monai_deepfixcx.codecs import DeepFixCXCodec
    >>> codec = DeepFixCXCodec(levels=2, patch_size=3)
    >>> store = CodeStore.open(tempfile.mkdtemp(), codec)
    >>> codes = codec.encode(torch.rand(2, 1, 32, 32))
    >>> store.append("first", codes, [{"id": name, "spatial_shape": [32, 32]} for name in "ab"])
    >>> len(store), store[1]["id"], store[1]["code"].shape, store.verify()
    (2, 'b', torch.Size([1, 144]), [])
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        try:
            manifest = json.loads((self.folder / "store.json").read_text())
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.folder} is no code store: it has no store.json.") from None
        except ValueError:
            raise ValueError(f"{self.folder / 'store.json'} is damaged: it is not JSON.") from None
        if manifest["format"] != _FORMAT:
            raise ValueError(
                f"{self.folder} has store format {manifest['format']}, this release reads {_FORMAT}: "
                "upgrade monai-deepfixcx."
            )
        self.codec = codec_from_config(manifest["codec"])
        self.fingerprint: str = manifest["fingerprint"]

    @classmethod
    def open(cls, folder: str | os.PathLike[str], codec: Codec | None = None) -> "CodeStore":
        """Open a store, or create it when `codec` is given and the folder has none.

        Args:
            folder: of the store.
            codec: to append codes of it; `None` to read only.

        Raises:
            FileNotFoundError: there is no store and no codec to create one with.
            ValueError: the store holds codes of another configuration.
        """
        manifest = Path(folder) / "store.json"
        if codec is not None and not manifest.exists():
            (manifest.parent / "shards").mkdir(parents=True, exist_ok=True)
            content = {"format": _FORMAT, "codec": codec.config(), "fingerprint": codec.fingerprint()}
            _write_durably(manifest, json.dumps({**content, "versions": _versions()}, indent=2).encode())
        store = cls(folder)
        if codec is not None and codec.fingerprint() != store.fingerprint:
            there, here = store.codec.config(), codec.config()
            differing = [key for key in sorted(there | here) if there.get(key) != here.get(key)]
            changes = ", ".join(f"{key}: {there.get(key)!r} there, {here.get(key)!r} now" for key in differing)
            raise ValueError(
                f"{store.folder} holds codes of another configuration ({changes or 'other learned parameters'}). "
                "Codes of two configurations do not mix: write into another folder."
            )
        return store

    def append(self, name: str, codes: Tensor, rows: Sequence[Row]) -> None:
        """Write one shard, whole or not at all; a shard of that name is replaced.

        Args:
            name: of the shard: letters, digits, ``_`` and ``-``.
            codes: ``[N, C, D]``, floating point.
            rows: N rows.

        Raises:
            ValueError: a bad name, or codes and rows that do not fit each other.
            OSError: the disk is full, or the folder not writable.
        """
        if codes.ndim != 3 or len(codes) != len(rows) or not rows:
            raise ValueError(f"codes must be [N, C, D] with N >= 1 rows; got {list(codes.shape)} and {len(rows)} rows.")
        with self.begin_shard(name, len(rows)) as shard:
            for code, row in zip(codes, rows, strict=True):
                shard.add(code, row)
            shard.commit()
        self.refresh()

    def begin_shard(self, name: str, expected: int | None = None) -> "ShardWriter":
        """A shard to be written code by code, and whole or not at all; one of that name is replaced.

        Args:
            name: of the shard: letters, digits, ``_`` and ``-``.
            expected: how many codes there will probably be. If so many come, they have been hashed on their way, and
                the shard is not read again for that.

        Raises:
            ValueError: a bad name.
            OSError: the folder is not writable.

        >>> import tempfile
        >>> from monai_deepfixcx.codecs import DeepFixCXCodec
        >>> codec = DeepFixCXCodec(levels=2, patch_size=3)
        >>> store = CodeStore.open(tempfile.mkdtemp(), codec)
        >>> with store.begin_shard("first") as shard:
        ...     for name in "abc":
        ...         code = codec.encode(torch.rand(1, 1, 32, 32))[0]
        ...         shard.add(code, {"id": name, "spatial_shape": [32, 32]})
        ...     shard.commit()
        >>> store.refresh()
        >>> store.read("first")[0].shape
        torch.Size([3, 1, 144])
        """
        if not _SHARD_NAME.fullmatch(name):
            raise ValueError(f"name must be letters, digits, '_' and '-'; got {name!r}.")
        return ShardWriter(self._shards, name, self.fingerprint, expected)

    def read(self, name: str) -> tuple[Tensor, list[Row]]:
        """All codes ``[N, C, D]`` and rows of one shard.

        Raises:
            KeyError: no complete shard of that name.
        """
        if name not in self.shards:
            raise KeyError(f"no complete shard {name!r} in {self.folder}.")
        with safe_open(self._shards / f"{name}.safetensors", framework="pt") as tensors:
            return tensors.get_tensor("codes"), self._rows_of_shards[name]

    def verify(self) -> list[ShardProblem]:
        """Hash every shard again; the shards that are not as they were written, with what is wrong."""
        return [ShardProblem(name, problem) for name in self.shards if (problem := self._problem_of(name))]

    @cached_property
    def shards(self) -> list[str]:
        """The complete shards' names, sorted."""
        return sorted(path.name.removesuffix(".done.json") for path in self._shards.glob("*.done.json"))

    @cached_property
    def rows(self) -> list[Row]:
        """Every code's row, in the order of the dataset."""
        return [row for rows in self._rows_of_shards.values() for row in rows]

    def ids(self) -> set[str]:
        """Every code's id; of the rows, which take more memory, no more than one shard's are held."""
        return {row["id"] for name in self.shards for row in self._rows_of(name)}

    def refresh(self) -> None:
        """Look again at what is on disk; another process may have appended."""
        for cached in ("shards", "rows", "_rows_of_shards", "_places", "_index_of", "_open_shards"):
            self.__dict__.pop(cached, None)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> CodeItem:
        row = self.rows[index]
        name, offset = self._places[index]
        if name not in self._open_shards:
            self._open_shards[name] = safe_open(self._shards / f"{name}.safetensors", framework="pt")
        # A copy: a slice of the mapped file would hold the whole shard in memory when pickled.
        code = self._open_shards[name].get_slice("codes")[offset].clone()
        return {"code": code, **row}

    def __iter__(self) -> Iterator[CodeItem]:
        return (self[index] for index in range(len(self)))

    def datalist(self) -> list[dict[str, Any]]:
        """One MONAI datalist item a code: ``{"code": "FOLDER#INDEX", "id", "spatial_shape"}``; see `LoadCoded`."""
        return [{"code": f"{self.folder}#{row['id']}", **row} for row in self.rows]

    def code_of(self, identifier: str) -> Tensor:
        """The code ``[C, D]`` of a row's id.

        Raises:
            KeyError: no such id in the store.
        """
        if identifier not in self._index_of:
            raise KeyError(f"no code with id {identifier!r} in {self.folder}.")
        return self[self._index_of[identifier]]["code"]

    @property
    def bytes_on_disk(self) -> int:
        """Size of the shards, side-cars and markers, in bytes."""
        return sum(path.stat().st_size for path in self._shards.iterdir() if path.name[0] != ".")

    @property
    def _shards(self) -> Path:
        return self.folder / "shards"

    @cached_property
    def _places(self) -> list[tuple[str, int]]:
        return [(name, offset) for name, rows in self._rows_of_shards.items() for offset in range(len(rows))]

    @cached_property
    def _index_of(self) -> dict[str, int]:
        return {row["id"]: index for index, row in enumerate(self.rows)}

    @cached_property
    def _open_shards(self) -> dict[str, Any]:
        return {}

    @cached_property
    def _rows_of_shards(self) -> dict[str, list[Row]]:
        return {name: self._rows_of(name) for name in self.shards}

    def _rows_of(self, name: str) -> list[Row]:
        lines = (self._shards / f"{name}.jsonl").read_text().splitlines()
        rows: list[Row] = json.loads(f"[{','.join(lines)}]")
        return rows

    def _problem_of(self, name: str) -> str | None:
        try:
            marker: Mapping[str, Any] = json.loads((self._shards / f"{name}.done.json").read_text())
            hashes = dict(marker["sha256"])
            if marker["fingerprint"] != self.fingerprint:
                return "was written by another configuration"
        except (ValueError, KeyError, TypeError):
            return "its marker is damaged"
        for suffix, expected in hashes.items():
            path = self._shards / f"{name}.{suffix}"
            if not path.exists():
                return f"{path.name} is missing"
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                    return f"{path.name} has changed since it was written"
        return None

    def __getstate__(self) -> dict[str, Any]:
        # Open files do not travel to worker processes.
        return {key: value for key, value in self.__dict__.items() if key != "_open_shards"}


class ShardWriter:
    """A shard on its way to disk: of its codes, no more than 64 kB is in memory.

    As a context manager it removes what was not committed. See `CodeStore.begin_shard`.
    """

    def __init__(self, folder: Path, name: str, fingerprint: str, expected: int | None) -> None:
        self._path, self._fingerprint, self._expected = folder / f"{name}.safetensors", fingerprint, expected
        self._temporary = _temporary(self._path)
        self._file = self._temporary.open("xb", buffering=_BUFFER_BYTES)
        self._file.seek(_HEAD_BYTES)
        self._rows: list[str] = []
        self._shape, self._dtype = torch.Size(), torch.float32
        self._digest = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1)
        self._sync = self._thread.submit(os.fsync, self._file.fileno())
        self._unsynced = 0

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self._thread.shutdown()
        with suppress(OSError):  # what a full disk did not take
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def add(self, code: Tensor, row: Row) -> None:
        """Write a code ``[C, D]`` and keep its row.

        Raises:
            ValueError: a code of another shape or dtype than those before, or a row that holds something else.
            OSError: the disk is full.
        """
        if row.keys() != _ROW_KEYS:
            raise ValueError(f"a row must hold id and spatial_shape, nothing else; got {sorted(row)}.")
        if not self._rows:
            self._shape, self._dtype = code.shape, code.dtype
        if code.shape != self._shape or code.dtype != self._dtype or code.dtype not in _DTYPES or code.ndim != 2:
            raise ValueError(
                "codes must be floating point, [C, D], and of one shape and dtype in a shard; got "
                f"{list(code.shape)} of {code.dtype} after {list(self._shape)} of {self._dtype}."
            )
        content = code.detach().cpu().contiguous().view(torch.uint8).numpy().data
        if self._expected is not None:
            if not self._rows:
                self._digest.update(self._head(self._expected))
            self._digest.update(content)
        self._unsynced += self._file.write(content)
        if self._unsynced > _SYNCED_BYTES and self._sync.done():
            self._sync.result()
            self._sync = self._thread.submit(os.fsync, self._file.fileno())
            self._unsynced = 0
        self._rows.append(json.dumps(row))

    def commit(self) -> None:
        """Put the shard in place, its marker last.

        Raises:
            ValueError: nothing was added.
            OSError: the disk is full.
        """
        if not self._rows:
            raise ValueError("a shard must hold at least one code; none was added.")
        self._file.seek(0)
        self._file.write(self._head(len(self._rows)))
        self._file.flush()
        self._sync.result()  # the system tells an error once
        os.fsync(self._file.fileno())
        self._file.close()
        if len(self._rows) != self._expected:
            with self._temporary.open("rb") as file:
                self._digest = hashlib.file_digest(file, "sha256")
        self._temporary.replace(self._path)
        rows = "".join(f"{row}\n" for row in self._rows).encode()
        _write_durably(self._path.with_suffix(".jsonl"), rows)
        marker = {
            "rows": len(self._rows),
            "sha256": {"safetensors": self._digest.hexdigest(), "jsonl": hashlib.sha256(rows).hexdigest()},
            "fingerprint": self._fingerprint,
            "versions": _versions(),
        }
        _write_durably(self._path.with_suffix(".done.json"), json.dumps(marker, indent=2).encode())

    def _head(self, count: int) -> bytes:
        """safetensors': its length as 8 bytes, then JSON, which may end in spaces."""
        length = count * self._shape.numel() * self._dtype.itemsize
        codes = {"dtype": _DTYPES[self._dtype], "shape": [count, *self._shape], "data_offsets": [0, length]}
        return (_HEAD_BYTES - 8).to_bytes(8, "little") + json.dumps({"codes": codes}).encode().ljust(_HEAD_BYTES - 8)


def _temporary(path: Path) -> Path:
    """A name of its own beside `path`: two containers may share a process number."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def _versions() -> dict[str, str]:
    return {"monai-deepfixcx": __version__, "torch": torch.__version__, "PyWavelets": pywt.__version__}


def _write_durably(path: Path, content: bytes) -> None:
    """Write and fsync a temporary file, then put it in place: readers see all of it or nothing."""
    temporary = _temporary(path)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

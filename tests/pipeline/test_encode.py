"""One shard: what is checked of pixels, what is held in memory, and which files the system fetches ahead."""

import ctypes
import mmap
import os
import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from monai_deepfixcx.codecs import Codec, DeepFixCXCodec, IdentityCodec
from monai_deepfixcx.data.code_store import CodeStore
from monai_deepfixcx.data.reading import UnreadableImage
from monai_deepfixcx.pipeline import encode as encoding
from monai_deepfixcx.pipeline.encode import Shard, encode_pixels, encode_shard
from monai_deepfixcx.pipeline.engines.base import Advance, Task, Work, encode_task, run_shards
from monai_deepfixcx.pipeline.engines.local import ThisProcess
from monai_deepfixcx.pipeline.privatize import settings_for
from monai_deepfixcx.pipeline.run import Run
from monai_deepfixcx.pipeline.workspace import Workspace
from tests.pipeline.conftest import write_picture

CODEC = DeepFixCXCodec(2, 3)
ODD = [0.0, -0.0, 1.0, float("nan"), float("inf"), -float("inf")]


@settings(deadline=None)
@given(values=st.lists(st.sampled_from([*ODD, 0.5]), min_size=2, max_size=6), fill=st.sampled_from(ODD))
def test_only_finite_images_of_two_values_are_encoded(values: list[float], fill: float) -> None:
    """Against every pixel looked at by itself."""
    pixels = torch.full((1, 16, 16), fill)
    pixels.view(-1)[:: 256 // len(values)][: len(values)] = torch.tensor(values)
    each = pixels.flatten().tolist()
    if not all(abs(value) < float("inf") for value in each):
        expected = "has NaN or infinite pixels"
    elif len({value + 0.0 for value in each}) == 1:
        expected = "all pixels have one value: an empty image or a failed export"
    else:
        encode_pixels(pixels, CODEC)
        return
    with pytest.raises(ValueError, match=expected):
        encode_pixels(pixels, CODEC)


def begin(folder: Path, codec: Codec) -> Workspace:
    workspace = Workspace.open(folder / "in", folder / "out")
    CodeStore.open(workspace.output, codec)
    return workspace


def resident_bytes() -> int:
    path = Path("/proc/self/statm")
    if not path.exists():
        pytest.skip("the system does not tell how much memory is used")
    return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_shard_holds_the_memory_of_one_image(tmp_path: Path) -> None:
    """Codes as large as the images, 4 MB each: what is in memory after a few of them, and after all."""
    picture = Image.fromarray(np.arange(1024**2, dtype=np.uint32).astype(np.uint8).reshape(1024, 1024))
    (tmp_path / "in").mkdir()
    picture.save(tmp_path / "in" / "0.png")
    for number in range(1, 48):
        (tmp_path / "in" / f"{number}.png").hardlink_to(tmp_path / "in" / "0.png")
    workspace, codec, used = begin(tmp_path, IdentityCodec()), IdentityCodec(), list[int]()
    shard = Shard(workspace.find_inputs())
    encode_shard(shard, workspace, settings_for(codec), lambda count: used.append(resident_bytes()))
    assert len(CodeStore(workspace.output)) == len(used) == 48
    assert sum(path.stat().st_size for path in workspace.output.rglob("*.safetensors")) > 48 * 4 * 1024**2
    assert used[-1] - used[7] < 40 * 1024**2  # not the 160 MiB of forty codes, or twice that


def test_files_that_cannot_be_read_are_not_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        write_picture(tmp_path / "in" / f"{number}.png", number)
    workspace = Workspace.open(tmp_path / "in", tmp_path / "out")
    read: list[weakref.ref[NDArray[np.uint8]]] = []

    def fail(data: bytes, suffix: str, *, color: str, scale: str) -> None:
        assert not [contents for contents in read if contents() is not None]
        contents = np.zeros(10, dtype=np.uint8)
        read.append(weakref.ref(contents))
        raise UnreadableImage(f"damaged after {len(contents)} bytes")

    monkeypatch.setattr(encoding, "read_contents", fail)
    entries = encode_shard(Shard(workspace.find_inputs()), workspace, settings_for(CODEC))
    assert [entry.reason for entry in entries] == ["damaged after 10 bytes"] * 5


def test_a_shard_whose_writing_is_refused_leaves_nothing(tmp_path: Path) -> None:
    for number in range(3):
        write_picture(tmp_path / "in" / f"{number}.png", number)
    workspace = begin(tmp_path, CODEC)

    def refuse() -> None:
        raise PermissionError("taken over")

    with pytest.raises(PermissionError, match="taken over"):
        encode_shard(Shard(workspace.find_inputs()), workspace, settings_for(CODEC), writing=refuse)  # type: ignore[arg-type]
    assert not list((workspace.output / "shards").iterdir())
    assert workspace.entries([]) == []


def test_a_full_disk_is_no_fault_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes are written while files are read: an error of the one must not quarantine the other."""
    write_picture(tmp_path / "in" / "a.png", 0)
    workspace = begin(tmp_path, CODEC)
    (workspace.output / "shards").rmdir()
    with pytest.raises(FileNotFoundError, match="shards"):
        encode_shard(Shard(workspace.find_inputs()), workspace, settings_for(CODEC))
    assert workspace.entries([]) == []


def is_cached(path: Path) -> bool:
    """Whether all of it is in the system's cache; to try to read it would fetch it."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        pages = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
        start = ctypes.c_char.from_buffer(mapped)
        failed = ctypes.CDLL(None).mincore(ctypes.byref(start), ctypes.c_size_t(len(mapped)), pages)
        del start
    if failed:
        pytest.skip("the system does not tell what is in its cache")
    return all(page & 1 for page in pages)


def test_the_system_fetches_files_ahead(tmp_path: Path) -> None:
    path = tmp_path / "film.dcm"
    path.write_bytes(os.urandom(200_000))
    if not hasattr(os, "posix_fadvise"):
        pytest.skip("the system takes no advice")
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if is_cached(path):
        pytest.skip("this file system has no cache to leave")
    paths = [*(tmp_path / f"{number}" for number in range(encoding._AHEAD)), path]
    files = encoding._opened_ahead(paths)
    assert isinstance(next(files), FileNotFoundError)
    for _ in range(200):
        if is_cached(path):
            return
        time.sleep(0.05)
    pytest.fail("it was not fetched")


def test_fetching_ahead_waits_for_nothing_and_minds_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    paths = [tmp_path / name for name in ("pipe", "gone", "folder", "none")] * 5
    before = len(list(Path("/dev/fd").iterdir()))
    found = []
    for path, file in zip(paths, encoding._opened_ahead(paths), strict=True):
        try:
            encoding._read_opened(path, file, "grey", "auto")
        except (UnreadableImage, OSError) as error:
            found.append(encoding._reason(error))
    no_file, none = "not a file but a folder, a pipe or a device", "cannot be opened: No such file or directory"
    assert found == [no_file, none, no_file, none] * 5
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_a_shard_is_encoded_while_another_is_written(tmp_path: Path) -> None:
    for number in range(4):
        write_picture(tmp_path / "in" / f"{number}.png", number, (32, 32))
    workspace, how, encoded = begin(tmp_path, CODEC), settings_for(CODEC), Event()
    first, second = (Shard({name: path}) for name, path in list(workspace.find_inputs().items())[:2])

    @contextmanager
    def until_the_other_is_encoded() -> Iterator[None]:
        assert encoded.wait(30)
        yield

    with ThreadPoolExecutor(1) as thread:
        written = thread.submit(encode_shard, first, workspace, how, writing=until_the_other_is_encoded)
        encode_shard(second, workspace, how, progress=lambda count: encoded.set())
        written.result()
    assert CodeStore(workspace.output).ids() == first.files.keys() | second.files.keys()


def test_a_worker_has_its_next_shard_before_the_ledger_is_read(tmp_path: Path) -> None:
    for number in range(6):
        write_picture(tmp_path / "in" / f"{number}.png", number, (32, 32))
    workspace, events = begin(tmp_path, CODEC), list[str]()

    class Watched(ThisProcess):
        def submit(self, work: Work, tasks: Sequence[Task], advance: Advance) -> "list[Future[None]]":
            events.append("begun")
            return super().submit(work, tasks, advance)

    files = list(workspace.find_inputs().items())
    shards = [Shard(dict(files[start : start + 2])) for start in (0, 2, 4)]
    for entries in run_shards(
        Watched(), shards, workspace, Run.begin(workspace), settings_for(CODEC), print, encode_task
    ):
        events.append("told")
        assert len(entries) == 2
    assert events == ["begun", "begun", "told", "begun", "told", "told"]

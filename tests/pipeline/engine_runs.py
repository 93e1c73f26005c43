"""How the tests of engines run: a Dask cluster of their own, the command in a process of its own, what came out."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import distributed
import pytest
import torch

from monai_deepfixcx.codecs import DeepFixCXCodec
from monai_deepfixcx.data.code_store import CodeStore
from monai_deepfixcx.pipeline import privatize as pipeline
from monai_deepfixcx.pipeline.engines.base import Engine
from monai_deepfixcx.pipeline.workspace import Entry, Workspace

ROOT = Path(__file__).parents[2]
CODEC = DeepFixCXCodec(2, 3)
SMALL = ("--levels", "2", "--patch-size", "3")
# The command, in a process of its own, with shards of eight files.
DRIVER = """
from monai_deepfixcx import cli
from monai_deepfixcx.pipeline import privatize
privatize.SHARD_FILES = 8
if __name__ == "__main__":
    cli.main()
"""
FILES, SHARDS = 160, 26


class Cluster:
    """A Dask scheduler and workers with nannies, as processes, on 127.0.0.1."""

    def __init__(self, folder: Path, package: Path = ROOT) -> None:
        self.folder, self.package = folder, package
        self.folder.mkdir()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start("dask_scheduler", "--scheduler-file", str(folder / "address"), "--port", "0")
        wait_until((folder / "address").exists)
        self.address = json.loads((folder / "address").read_text())["address"]

    def add_worker(self) -> None:
        options = ("--nthreads", "2", "--local-directory", str(self.folder), "--memory-limit", "0")
        self._start("dask_worker", self.address, *options)

    def worker_ids(self) -> list[int]:
        with distributed.Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
            return list(client.run(os.getpid).values())

    def end(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
            process.wait()

    def _start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-W", "ignore", "-m", f"distributed.cli.{module}", "--host", "127.0.0.1"]
        environment = {
            "PYTHONPATH": str(self.package),
            "OMP_NUM_THREADS": "1",
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",  # not four, which takes longer
        }
        log = (self.folder / "log").open("ab")
        process = subprocess.Popen(
            [*command, *arguments, "--no-dashboard", "--dashboard-address", "127.0.0.1:0"],
            env={**os.environ, **environment},
            cwd=self.folder,
            stdout=log,
            stderr=log,
        )
        self.processes.append(process)
        return process


@contextmanager
def cluster_in(folder: Path, workers: int = 1, package: Path = ROOT) -> Iterator[Cluster]:
    cluster = Cluster(folder, package)
    try:
        for _ in range(workers):
            cluster.add_worker()
        yield cluster
    finally:
        cluster.end()


def wait_until(there: Callable[[], object]) -> None:
    """Wait for something that must come; five minutes are far more than it needs on any machine."""
    for _ in range(6000):
        if there():
            return
        time.sleep(0.05)
    pytest.fail("it never came")


def share_key(source: Path, output: Path) -> None:
    """Pseudonyms as in the reference."""
    key, private = source.with_name("reference-private") / "site.key", output.with_name(f"{output.name}-private")
    if key.exists() and not private.exists():
        private.mkdir()
        (private / "site.key").write_bytes(key.read_bytes())


def encode_all(
    source: Path, output: Path, engine: Engine, after_first: Callable[[], object] = lambda: None
) -> pipeline.Summary:
    """Privatize in shards of eight; `after_first` is called when the first is done."""
    share_key(source, output)
    called: list[object] = []

    def on_entries(entries: list[Entry]) -> None:
        if not called:
            called.append(after_first())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "SHARD_FILES", 8)
        workspace, how = Workspace.open(source, output), pipeline.settings_for(CODEC)
        return pipeline.privatize(workspace, CODEC, how, engine, on_entries=on_entries)


def start_driver(source: Path, output: Path, *options: str) -> subprocess.Popen[str]:
    """The command in a process of its own, waited for until the first shard is written."""
    share_key(source, output)
    command = [sys.executable, "-c", DRIVER, "privatize", str(source), str(output), *SMALL, *options]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: any(output.glob("shards/*.done.json")) or driver.poll() is not None)
    return driver


def contents(output: Path) -> dict[str, bytes]:
    """Without what a killed writer had not finished."""
    files = (path for path in output.rglob("*") if path.is_file() and path.suffix != ".tmp")
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


def check_nothing_lost_or_doubled(output: Path, reference: Path) -> None:
    store, expected = CodeStore(output), {item["id"]: item["code"] for item in CodeStore(reference)}
    ids = [row["id"] for row in store.rows]
    assert len(ids) == len(set(ids)) == FILES
    assert store.verify() == []
    assert all(torch.equal(expected[item["id"]], item["code"]) for item in store)


def children_of(process: int) -> list[int]:
    lists = list(Path(f"/proc/{process}/task").glob("*/children"))  # of each thread
    if not lists and command_of(process):
        pytest.skip("finding the processes needs Linux")
    children = [int(child) for path in lists for child in path.read_text().split()]
    return [child for child in children if b"spawn_main" in command_of(child)]


def command_of(process: int) -> bytes:
    """Empty once the process has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def listening_at(process: int) -> list[str]:
    """The IPv4 addresses a process waits for connections at; "IPv6" for any of the other kind."""
    sockets = {str(file.readlink()) for file in Path(f"/proc/{process}/fd").iterdir() if file.is_symlink()}
    found = []
    for table, name in (("tcp", ""), ("tcp6", "IPv6")):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in sockets:
                found.append(name or ".".join(str(int(local[i : i + 2], 16)) for i in (6, 4, 2, 0)))
    return found

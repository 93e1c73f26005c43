"""Shards on processes, on a real Dask scheduler with its workers, and in jobs that a stand-in for SLURM starts."""

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_deepfixcx.codecs import DeepFixCXCodec
from monai_deepfixcx.data.code_store import CodeStore
from monai_deepfixcx.pipeline import privatize as pipeline
from monai_deepfixcx.pipeline.encode import Shard
from monai_deepfixcx.pipeline.engines import cluster as dask_engines
from monai_deepfixcx.pipeline.engines.base import Engine, Task, Tell, Work, encode_task, run_shards
from monai_deepfixcx.pipeline.engines.cluster import DaskScheduler, Slurm
from monai_deepfixcx.pipeline.engines.local import Processes, ThisProcess
from monai_deepfixcx.pipeline.run import Run
from monai_deepfixcx.pipeline.workspace import Entry, OutputError, Workspace, WorkspaceError
from tests.pipeline.conftest import Run as Command
from tests.pipeline.conftest import write_picture
from tests.pipeline.poison import crash_on_poison

distributed = pytest.importorskip("distributed", reason="the extra scale is not installed")

psutil = pytest.importorskip("psutil")  # comes with distributed

ROOT = Path(__file__).parents[2]
CODEC = DeepFixCXCodec(2, 3)
SMALL = ("--levels", "2", "--patch-size", "3")
# The command, in a process of its own, with shards of eight files.
DRIVER = """
from monai_deepfixcx import cli
from monai_deepfixcx.pipeline import privatize
plan = privatize.plan
privatize.plan = lambda files: plan(files, 8)
if __name__ == "__main__":
    cli.main()
"""
FILES, SHARDS = 160, 20


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
        options = ("--nthreads", "1", "--local-directory", str(self.folder), "--memory-limit", "0")
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


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines") / "in"
    for number in range(FILES):
        write_picture(folder / f"Mustermann-{number}.png", number, (48, 48))
    return folder


@pytest.fixture(scope="module")
def reference(source: Path) -> Path:
    """What one process makes of it."""
    output = source.with_name("reference")
    assert encode_all(source, output, ThisProcess()).encoded == FILES
    assert len(CodeStore(output).shards) == SHARDS
    return output


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_in(tmp_path_factory.mktemp("cluster") / "dask", workers=2) as cluster:
        yield cluster


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
        patch.setattr(pipeline, "plan", partial(pipeline.plan, shard_files=8))
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
    path = Path(f"/proc/{process}/task/{process}/children")
    if not path.exists():
        pytest.skip("finding the processes needs Linux")
    return [int(child) for child in path.read_text().split() if b"spawn_main" in command_of(int(child))]


def command_of(process: int) -> bytes:
    """Empty once the process has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_dask_cluster_makes_the_same_bytes_though_a_worker_is_killed(
    cluster: Cluster, source: Path, reference: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    victim = cluster.worker_ids()[0]
    engine = DaskScheduler(cluster.address)
    summary = encode_all(source, tmp_path / "out", engine, lambda: os.kill(victim, signal.SIGKILL))
    assert summary.encoded == FILES
    assert contents(tmp_path / "out") == contents(reference)
    assert capfd.readouterr().err == ""
    log = (cluster.folder / "log").read_text()
    assert f"Worker process {victim} was killed by signal 9" in log
    # What the scheduler and the workers tell: neither the pictures' names nor their pseudonyms.
    assert "Mustermann" not in log
    assert not any(row["id"] in log for row in CodeStore(reference).rows)


def test_no_path_and_no_key_is_told_to_a_worker(source: Path, tmp_path: Path) -> None:
    told: list[Task] = []

    def spy(task: Task, tell: Tell) -> None:
        told.append(task)
        encode_task(task, tell)

    workspace, how = Workspace.open(source, tmp_path / "out"), pipeline.settings_for(CODEC)
    files = workspace.find_inputs()
    CodeStore.open(workspace.output, CODEC)
    list(run_shards(ThisProcess(), [Shard(files)], workspace, Run.begin(workspace), how, print, work=spy))
    (message,) = map(pickle.dumps, told)
    assert b"out-private" in message, "the search finds what is there"
    for secret in (workspace.key, workspace.key.hex().encode(), b"Mustermann", *(name.encode() for name in files)):
        assert secret not in message


def test_a_killed_driver_on_a_dask_cluster_loses_and_doubles_nothing(
    cluster: Cluster, source: Path, reference: Path, tmp_path: Path
) -> None:
    driver = start_driver(source, tmp_path / "out", "--scheduler", cluster.address)
    driver.kill()
    driver.communicate()
    done = len(CodeStore(tmp_path / "out"))
    assert 0 < done < FILES
    # At once: the workers still have shards of the killed run.
    summary = encode_all(source, tmp_path / "out", DaskScheduler(cluster.address))
    assert summary.already_done >= done
    assert summary.encoded + summary.already_done == FILES
    check_nothing_lost_or_doubled(tmp_path / "out", reference)


def test_a_killed_scheduler_ends_the_run_which_can_be_resumed(source: Path, reference: Path, tmp_path: Path) -> None:
    with cluster_in(tmp_path / "dask") as cluster:
        with pytest.raises(OutputError, match=r"the scheduler is gone\. What is finished is safe: start it and run"):
            encode_all(source, tmp_path / "out", DaskScheduler(cluster.address), cluster.scheduler.kill)
        done = len(CodeStore(tmp_path / "out"))
        assert 0 < done < FILES
    encode_all(source, tmp_path / "out", ThisProcess())
    check_nothing_lost_or_doubled(tmp_path / "out", reference)


@pytest.mark.slow
def test_processes_make_the_same_bytes_though_one_is_killed(source: Path, reference: Path, tmp_path: Path) -> None:
    summary = encode_all(
        source, tmp_path / "out", Processes(2), lambda: os.kill(children_of(os.getpid())[0], signal.SIGKILL)
    )
    assert summary.encoded == FILES
    assert contents(tmp_path / "out") == contents(reference)


@pytest.mark.slow
def test_processes_end_with_a_killed_driver(source: Path, reference: Path, tmp_path: Path) -> None:
    driver = start_driver(source, tmp_path / "out", "--workers", "2")
    left = children_of(driver.pid)
    driver.kill()
    driver.communicate()
    assert left
    wait_until(lambda: not any(map(command_of, left)))
    encode_all(source, tmp_path / "out", ThisProcess())
    check_nothing_lost_or_doubled(tmp_path / "out", reference)


def check_that_only_poison_is_lost(engine: Engine, folder: Path, shard_files: int) -> None:
    for number in range(5):
        write_picture(folder / "in" / f"{number}.png", number)
    write_picture(folder / "in" / "poison.png", 9)
    workspace = Workspace.open(folder / "in", folder / "out")
    CodeStore.open(workspace.output, CODEC)
    how, told = pipeline.settings_for(CODEC), list[int]()
    shards = pipeline.plan(workspace.find_inputs(), shard_files)
    run = Run.begin(workspace)
    with engine:
        results = run_shards(engine, shards, workspace, run, how, told.append, work=crash_on_poison)
        entries = {entry.source: entry.reason for part in results for entry in part}
    assert len(entries) == 6
    assert entries.pop("poison.png").startswith("reading it crashed the process")
    assert set(entries.values()) == {""}
    assert len(CodeStore(folder / "out")) == 5
    stored = [row["id"] for row in CodeStore(folder / "out").rows]
    assert [entry.source for entry in workspace.entries(stored) if entry.reason] == ["poison.png"]
    assert told[-1] == 6
    assert not list((workspace.private / "runs" / "1-of-1").iterdir())


def test_a_file_that_kills_its_process_costs_no_other(tmp_path: Path) -> None:
    check_that_only_poison_is_lost(Processes(1), tmp_path, shard_files=1)


@pytest.mark.slow
def test_a_file_that_kills_its_dask_worker_costs_no_other(cluster: Cluster, tmp_path: Path) -> None:
    check_that_only_poison_is_lost(DaskScheduler(cluster.address), tmp_path, shard_files=3)


class Mortal(ThisProcess):
    """Takes some files as the end of the process that reads them."""

    def __init__(self, deadly: set[str]) -> None:
        self.deadly = deadly

    def submit(self, work: Work, task: Task, tell: Tell) -> "Future[None]":
        if self.deadly & task.run.take(task.shard).files.keys():
            future: Future[None] = Future()
            future.set_exception(BrokenExecutor())
            return future
        return super().submit(work, task, tell)


@settings(max_examples=20, deadline=None)
@given(deadly=st.sets(st.integers(0, 15)), shard_files=st.integers(1, 16))
def test_halving_finds_every_deadly_file_and_no_other(source: Path, deadly: set[int], shard_files: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.open(source, Path(folder) / "out")
        CodeStore.open(workspace.output, CODEC)
        files = dict(list(workspace.find_inputs().items())[:16])
        killers = {list(files)[number] for number in deadly}
        shards, run = pipeline.plan(files, shard_files), Run.begin(workspace)
        results = run_shards(Mortal(killers), shards, workspace, run, pipeline.settings_for(CODEC), lambda count: None)
        entries = [entry for part in results for entry in part]
        assert sorted(entry.id for entry in entries) == sorted(files)
        assert {entry.id for entry in entries if entry.reason} == killers
        assert {row["id"] for row in CodeStore(workspace.output).rows} == files.keys() - killers


STAND_IN = {
    "sbatch": 'script=$(cat "$1"); setsid bash -c "$script" > "$0.log" 2>&1 &\n'
    'echo $! > "$0.pid"; echo "Submitted batch job $!"',
    "scancel": 'echo "$1" > "$0.done"; kill -- "-$1"',
}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with what stands in for SLURM: it runs each job script at once, on this machine."""
    dask = pytest.importorskip("dask")
    pytest.importorskip("dask_jobqueue", reason="the extra slurm is not installed")
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, script in STAND_IN.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with dask.config.set({"jobqueue.slurm.interface": "lo", "jobqueue.slurm.queue": "long"}):
        yield folder


@pytest.mark.slow
def test_slurm_jobs_encode_and_are_cancelled_at_the_end(
    slurm: Path, source: Path, reference: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    private = tmp_path / "out-private"
    share_key(source, tmp_path / "out")
    listening = set[str]()

    def look() -> None:
        job = psutil.Process(int((slurm / "sbatch.pid").read_text()))
        for process in (psutil.Process(), *job.children(recursive=True)):
            sockets = process.net_connections("tcp")
            listening.update(socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN)

    assert encode_all(source, tmp_path / "out", Slurm(1, private), look).encoded == FILES
    assert listening == {"127.0.0.1"}
    assert contents(tmp_path / "out") == contents(reference)
    assert capfd.readouterr().err == ""
    wait_until((slurm / "scancel.done").exists)
    assert "tls://127.0.0.1" in (slurm / "sbatch.log").read_text()
    assert (private / "tls").stat().st_mode & 0o777 == 0o700


def test_the_job_script_can_be_read_before_it_is_submitted(slurm: Path, run: Command, tmp_path: Path) -> None:
    status, out, _ = run("privatize", tmp_path / "in", tmp_path / "out", "--slurm-script")
    assert status == 0
    for line in ("#SBATCH -p long", "#SBATCH --cpus-per-task=1", "#SBATCH --mem=4G", "export OMP_NUM_THREADS=1"):
        assert line in out.splitlines()
    assert "distributed.cli.dask_worker tls://ADDRESS" in out
    for option in ("--nthreads 1", "--no-dashboard", "--interface lo", "--protocol tls://"):
        assert option in out
    assert not (tmp_path / "out").exists()


def test_slurm_needs_an_interface_and_sbatch(slurm: Path, source: Path, tmp_path: Path, run: Command) -> None:
    import dask

    (slurm / "sbatch").unlink()
    command = ("privatize", source, tmp_path / "out", *SMALL, "--slurm")
    status, _, err = run(*command)
    assert (status, err.count("\n")) == (2, 1)
    assert "--slurm found no sbatch: run it on a machine that submits jobs" in err
    with dask.config.set({"jobqueue.slurm.interface": None}):
        status, _, err = run(*command)
    assert (status, err.count("\n")) == (2, 1)
    assert "--slurm must know the network interface by which compute nodes reach this machine, as ib0" in err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--scheduler", "tcp://127.0.0.1:1", "--slurm"), "--scheduler and --slurm are two engines"),
        (("--scheduler", "tcp://127.0.0.1:1", "--workers", 2), "--workers is for this machine or --slurm"),
        (("--slurm", "--workers", 0), "--slurm needs at least one job: --workers must be 1 or more, got 0"),
    ],
)
def test_two_engines_at_once_are_a_usage_error(
    source: Path, tmp_path: Path, run: Command, options: tuple[object, ...], text: str
) -> None:
    status, _, err = run("privatize", source, tmp_path / "out", *options)
    assert status == 2
    assert text in " ".join(err.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "module", "extra"),
    [
        (("--scheduler", "tcp://127.0.0.1:1"), "distributed", "scale"),
        (("--slurm",), "dask_jobqueue", "slurm"),
        (("--slurm",), "cryptography", "slurm"),
    ],
)
def test_a_missing_package_names_the_extra(
    source: Path,
    tmp_path: Path,
    run: Command,
    monkeypatch: pytest.MonkeyPatch,
    option: tuple[str, ...],
    module: str,
    extra: str,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    status, _, err = run("privatize", source, tmp_path / "out", *SMALL, *option)
    assert (status, err.count("\n")) == (2, 1)
    assert f'{option[0]} needs {module}, which is not installed: pip install "monai-deepfixcx[{extra}]"' in err


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense://x"])
def test_a_scheduler_that_does_not_answer_is_one_line(
    source: Path, tmp_path: Path, run: Command, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(dask_engines, "ANSWER_SECONDS", 1)
    status, _, err = run("privatize", source, tmp_path / "out", *SMALL, "--scheduler", address)
    assert (status, err.count("\n")) == (2, 1)
    assert f"no Dask scheduler answers at {address}" in err
    assert "is the address right, as tcp://127.0.0.1:8786, and is it running?" in err


def test_a_scheduler_without_workers_is_one_line(
    source: Path, tmp_path: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_engines, "WORKER_SECONDS", 1)
    with cluster_in(tmp_path / "dask", workers=0) as empty:
        status, _, err = run("privatize", source, tmp_path / "out", *SMALL, "--scheduler", empty.address)
    assert (status, err.count("\n")) == (2, 1)
    assert "has no worker after 1 s: start some with dask worker tcp://127.0.0.1:" in err


@pytest.mark.slow
def test_a_cluster_without_this_package_is_one_line(source: Path, tmp_path: Path, run: Command) -> None:
    (tmp_path / "none" / "monai_deepfixcx").mkdir(parents=True)
    (tmp_path / "none" / "monai_deepfixcx" / "__init__.py").write_text("raise ModuleNotFoundError")
    with cluster_in(tmp_path / "dask", package=tmp_path / "none") as bare:
        status, _, err = run("privatize", source, tmp_path / "out", *SMALL, "--scheduler", bare.address)
    assert (status, err.count("\n")) == (2, 1)
    assert "the scheduler or a worker cannot import monai_deepfixcx: install the same release there" in err


def task_for(source: Path, output: Path) -> Task:
    workspace = Workspace.open(source, output)
    CodeStore.open(output, CODEC)
    run = Run.begin(workspace)
    return Task(run, run.hand_out(Shard(workspace.find_inputs())), pipeline.settings_for(CODEC))


def test_a_worker_must_see_the_folders_and_have_the_same_software(source: Path, tmp_path: Path) -> None:
    task = task_for(source, tmp_path / "out")
    with pytest.raises(WorkspaceError, match=r"a worker has .* began with monai-deepfixcx 0: codes might differ"):
        encode_task(replace(task, versions="monai-deepfixcx 0"), print)
    elsewhere = replace(task.run, private=tmp_path / "unmounted")
    with pytest.raises(WorkspaceError, match=r"a worker does not see .*unmounted: input, output and private folder"):
        encode_task(replace(task, run=elsewhere), print)
    (tmp_path / "out-private" / "source.json").write_text(json.dumps({"source": "/elsewhere"}))
    with pytest.raises(WorkspaceError, match="a worker does not see /elsewhere"):
        encode_task(task, print)


def test_what_an_older_run_has_under_way_is_not_written(source: Path, tmp_path: Path) -> None:
    older = task_for(source, tmp_path / "out")
    newer = task_for(source, tmp_path / "out")
    older.run.hand_out(newer.run.take(newer.shard))
    with pytest.raises(OutputError, match="another run of these files has begun and goes on with them"):
        encode_task(older, lambda count: None)
    assert len(CodeStore(tmp_path / "out")) == 0
    encode_task(newer, lambda count: None)
    assert len(CodeStore(tmp_path / "out")) == FILES


def test_runs_of_other_parts_go_on_and_of_other_counts_do_not(source: Path, tmp_path: Path) -> None:
    workspace = Workspace.open(source, tmp_path / "out")
    first, second = Run.begin(workspace, (1, 2)), Run.begin(workspace, (2, 2))
    with first.writing(), second.writing():
        pass
    Run.begin(workspace, (3, 3))
    for run in (first, second):
        with pytest.raises(OutputError, match="another run of these files"), run.writing():
            pytest.fail("it may write")


def test_a_new_run_waits_for_what_an_older_one_is_writing(source: Path, tmp_path: Path) -> None:
    workspace = Workspace.open(source, tmp_path / "out")
    older = Run.begin(workspace)
    with ThreadPoolExecutor(1) as pool:
        with older.writing():
            newer = pool.submit(Run.begin, workspace)
            assert wait([newer], timeout=0.2).not_done
        newer.result()


def test_what_a_killed_writer_left_is_removed_a_day_later(source: Path, tmp_path: Path) -> None:
    workspace = Workspace.open(source, tmp_path / "out")
    CodeStore.open(workspace.output, CODEC)
    old, young = (workspace.output / "shards" / f".{name}.safetensors.7.tmp" for name in ("old", "young"))
    for path in (old, young):
        path.touch()
    os.utime(old, (0, 0))
    Run.begin(workspace)
    assert (old.exists(), young.exists()) == (False, True)

"""Shards on real Dask schedulers with their workers, of which some are killed."""

import os
import pickle
import signal
import tempfile
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, Future
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from monai_deepfixcx.data.code_store import CodeStore
from monai_deepfixcx.pipeline import privatize as pipeline
from monai_deepfixcx.pipeline.encode import Shard
from monai_deepfixcx.pipeline.engines.base import Advance, Engine, Task, Tell, Work, encode_task, run_shards
from monai_deepfixcx.pipeline.engines.choice import choose_engine
from monai_deepfixcx.pipeline.engines.cluster import DaskScheduler
from monai_deepfixcx.pipeline.engines.local import ThisProcess
from monai_deepfixcx.pipeline.run import Run
from monai_deepfixcx.pipeline.workspace import OutputError, Workspace
from tests.pipeline.conftest import write_picture
from tests.pipeline.engine_runs import (
    CODEC,
    FILES,
    Cluster,
    check_nothing_lost_or_doubled,
    children_of,
    cluster_in,
    command_of,
    contents,
    encode_all,
    listening_at,
    start_driver,
    wait_until,
)
from tests.pipeline.work import crash_on_poison, encode_slowly


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


def test_a_local_cluster_makes_the_same_bytes_though_a_worker_is_killed(
    source: Path, reference: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    listening: list[str] = []

    def look_and_kill() -> None:
        workers = children_of(os.getpid())
        listening.extend(address for process in (os.getpid(), *workers) for address in listening_at(process))
        os.kill(workers[0], signal.SIGKILL)

    summary = encode_all(source, tmp_path / "out", choose_engine(tmp_path, workers=2), look_and_kill)
    assert summary.encoded == FILES
    assert contents(tmp_path / "out") == contents(reference)
    assert capfd.readouterr().err == ""
    assert set(listening) == {"127.0.0.1"}
    wait_until(lambda: not children_of(os.getpid()))


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


def test_workers_end_with_a_killed_driver(source: Path, reference: Path, tmp_path: Path) -> None:
    driver = start_driver(source, tmp_path / "out", "--workers", "2")
    left = children_of(driver.pid)
    driver.kill()
    driver.communicate()
    assert left
    wait_until(lambda: not any(map(command_of, left)))
    encode_all(source, tmp_path / "out", ThisProcess())
    check_nothing_lost_or_doubled(tmp_path / "out", reference)


def test_an_interrupt_ends_the_workers_and_says_how_to_go_on(source: Path, reference: Path, tmp_path: Path) -> None:
    driver = start_driver(source, tmp_path / "out", "--workers", "2")
    workers = children_of(driver.pid)
    for process in (driver.pid, *workers):  # as the terminal does
        os.kill(process, signal.SIGINT)
    _, err = driver.communicate()
    assert driver.returncode == 130
    assert err == "stopped. What is finished is safe: run the same command again to go on.\n"
    assert workers
    wait_until(lambda: not any(map(command_of, workers)))
    encode_all(source, tmp_path / "out", ThisProcess())
    check_nothing_lost_or_doubled(tmp_path / "out", reference)


def test_a_dask_worker_tells_how_far_it_is(cluster: Cluster, source: Path, tmp_path: Path) -> None:
    workspace, told = Workspace.open(source, tmp_path / "out"), list[int]()
    CodeStore.open(workspace.output, CODEC)
    shards = [Shard(dict(list(workspace.find_inputs().items())[:10]))]
    with DaskScheduler(cluster.address) as engine:
        run, how = Run.begin(workspace), pipeline.settings_for(CODEC)
        list(run_shards(engine, shards, workspace, run, how, told.append, work=encode_slowly))
    assert told[-1] == 10
    assert told == sorted(told)
    assert any(0 < count < 10 for count in told)


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
    check_that_only_poison_is_lost(choose_engine(tmp_path), tmp_path, shard_files=1)


@pytest.mark.slow
def test_a_file_that_kills_its_dask_worker_costs_no_other(cluster: Cluster, tmp_path: Path) -> None:
    check_that_only_poison_is_lost(DaskScheduler(cluster.address), tmp_path, shard_files=3)


class Mortal(ThisProcess):
    """Takes some files as the end of the process that reads them."""

    def __init__(self, deadly: set[str]) -> None:
        self.deadly = deadly

    def submit(self, work: Work, tasks: Sequence[Task], advance: Advance) -> "list[Future[None]]":
        (task,) = tasks
        if self.deadly & task.run.take(task.shard).files.keys():
            future: Future[None] = Future()
            future.set_exception(BrokenExecutor())
            return [future]
        return super().submit(work, tasks, advance)


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


class Late(ThisProcess):
    """Its process ends, the first few times, after a shard was written and before anybody hears of it.

    Of what was written, the end of the process may have come before the last of two parts was in place.
    """

    def __init__(self, times: int, parts_lost: int) -> None:
        self.times, self.parts_lost = times, parts_lost

    def submit(self, work: Work, tasks: Sequence[Task], advance: Advance) -> "list[Future[None]]":
        (future,) = super().submit(work, tasks, advance)
        self.times -= 1
        if self.times < 0:
            return [future]
        markers = sorted((tasks[0].run.output / "shards").glob(f"{tasks[0].shard}-*.done.json"))
        for marker in markers[max(0, len(markers) - self.parts_lost) :]:
            marker.unlink()
        lost: Future[None] = Future()
        lost.set_exception(BrokenExecutor())
        return [lost]


@pytest.mark.parametrize("parts_lost", [0, 1, 2])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_what_was_written_before_its_worker_died_is_not_written_again(
    tmp_path: Path, times: int, parts_lost: int
) -> None:
    for number in range(7):
        write_picture(tmp_path / "in" / f"{number}.png", number, (32, 32))
    for number in range(5):
        colours = np.random.default_rng(number).integers(256, size=(32, 32, 3), dtype=np.uint8)
        Image.fromarray(colours).save(tmp_path / "in" / f"colour-{number}.png")
    (tmp_path / "in" / "none.png").write_text("not an image")
    workspace = Workspace.open(tmp_path / "in", tmp_path / "out")
    CodeStore.open(workspace.output, CODEC)
    files, heard = workspace.find_inputs(), list[int]()
    how = pipeline.settings_for(CODEC, color="keep")
    engine, run = Late(times, parts_lost), Run.begin(workspace)
    entries = [
        entry for part in run_shards(engine, [Shard(files)], workspace, run, how, heard.append) for entry in part
    ]
    assert sorted(entry.id for entry in entries) == sorted(files)
    assert [entry.source for entry in entries if entry.reason] == ["none.png"]
    assert heard[-1] == len(files)
    store = CodeStore(workspace.output)
    assert sorted(row["id"] for row in store.rows) == sorted(entry.id for entry in entries if not entry.reason)
    assert len(workspace.entries(store.ids())) == len(files)
    assert len({name.rpartition("-")[2] for name in store.shards}) == 2  # the two parts, of grey and of colour

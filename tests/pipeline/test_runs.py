"""A run goes on with what it may, and a newer one takes over."""

import json
import os
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_deepfixcx.data.code_store import CodeStore
from monai_deepfixcx.pipeline import privatize as pipeline
from monai_deepfixcx.pipeline.encode import Shard
from monai_deepfixcx.pipeline.engines.base import Task, encode_task
from monai_deepfixcx.pipeline.run import Run
from monai_deepfixcx.pipeline.workspace import Entry, OutputError, Workspace, WorkspaceError
from tests.pipeline.engine_runs import (
    CODEC,
    FILES,
)


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


@given(count=st.integers(0, 3000), most=st.integers(1, 256))
def test_shards_hold_every_file_in_order_and_get_smaller_towards_the_end(count: int, most: int) -> None:
    files = {str(number): f"{number}.png" for number in range(count)}
    shards = pipeline.plan(files, most)
    assert [item for shard in shards for item in shard.files.items()] == list(files.items())
    sizes, left = [len(shard.files) for shard in shards], count
    assert all(size <= most for size in sizes)
    assert sizes == sorted(sizes, reverse=True)
    for size in sizes:
        assert size <= max(left / 4 + 1, most / 8 + 1)
        left -= size


def test_what_became_of_files_is_read_again_only_when_it_was_written_again(source: Path, tmp_path: Path) -> None:
    workspace = Workspace.open(source, tmp_path / "out")
    workspace.record("first", [Entry("1", "a.png", reason="is no image")])
    before = workspace.recorded("first")
    assert workspace.entries([]) == before == [Entry("1", "a.png", reason="is no image")]
    assert workspace.recorded("first") is before
    workspace.record("first", [Entry("1", "a.png", "", 9, 8, 7)])
    assert workspace.entries(["1"]) == workspace.recorded("first") == [Entry("1", "a.png", "", 9, 8, 7)]

"""A run goes on with what it may, and a newer one takes over."""

import json
import os
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import pytest

from monai_deepfixcx.data.code_store import CodeStore
from monai_deepfixcx.pipeline import privatize as pipeline
from monai_deepfixcx.pipeline.encode import Shard
from monai_deepfixcx.pipeline.engines.base import Task, encode_task
from monai_deepfixcx.pipeline.run import Run
from monai_deepfixcx.pipeline.workspace import OutputError, Workspace, WorkspaceError
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

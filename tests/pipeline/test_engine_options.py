"""What the command says when an engine cannot be used."""

import sys
from pathlib import Path

import dask
import pytest

from monai_deepfixcx.pipeline.engines import cluster as dask_engines
from tests.pipeline.conftest import Run as Command
from tests.pipeline.engine_runs import SMALL, cluster_in


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


def test_a_missing_package_names_the_extra(
    source: Path, tmp_path: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    status, _, err = run("privatize", source, tmp_path / "out", *SMALL, "--slurm")
    assert (status, err.count("\n")) == (2, 1)
    assert '--slurm needs dask_jobqueue, which is not installed: pip install "monai-deepfixcx[slurm]"' in err


def test_workers_that_cannot_be_started_are_one_line(
    source: Path, tmp_path: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, as a worker finds it that has to write its certificate."""
    (tmp_path / "file").touch()
    with dask.config.set({"temporary-directory": str(tmp_path / "file")}):
        status, _, err = run("privatize", source, tmp_path / "out", *SMALL, "--workers", 1)
    assert (status, err.count("\n")) == (2, 1)
    assert "cannot start workers on this machine" in err
    assert "--workers 0 works without" in err


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

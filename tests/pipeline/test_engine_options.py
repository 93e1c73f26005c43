"""What the command says when an engine cannot be used."""

import sys
from pathlib import Path

import pytest

from monai_deepfixcx.pipeline.engines import cluster as dask_engines
from tests.pipeline.conftest import Run as Command
from tests.pipeline.engine_runs import SMALL, cluster_in

pytest.importorskip("distributed", reason="the extra scale is not installed")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--scheduler", "tcp://127.0.0.1:1", "--slurm"), "--scheduler and --slurm are two engines"),
        (("--scheduler", "tcp://127.0.0.1:1", "--workers", 2), "--workers is for this machine or --slurm"),
        (("--scheduler", "local", "--workers", 0), "--scheduler local needs at least one worker"),
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
        (("--scheduler local",), "cryptography", "slurm"),
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
    status, _, err = run("privatize", source, tmp_path / "out", *SMALL, *option[0].split(), *option[1:])
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

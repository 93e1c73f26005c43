"""Shards in jobs that a stand-in for SLURM starts."""

from pathlib import Path

import pytest

from monai_deepfixcx.pipeline.engines.cluster import Slurm
from tests.pipeline.conftest import Run as Command
from tests.pipeline.engine_runs import FILES, SMALL, contents, encode_all, share_key, wait_until

psutil = pytest.importorskip("psutil")  # comes with distributed


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
    for option in ("--nthreads 2", "--no-dashboard", "--interface lo", "--protocol tls://"):
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

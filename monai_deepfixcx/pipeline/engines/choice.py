"""Which engine the options of the command ask for."""

from pathlib import Path

from monai_deepfixcx.pipeline.engines.base import Engine
from monai_deepfixcx.pipeline.engines.cluster import DaskScheduler, LocalDask, Slurm
from monai_deepfixcx.pipeline.engines.local import Processes, ThisProcess

_LOCAL = "local"


def choose_engine(
    private: Path, workers: int | None = None, scheduler: str | None = None, slurm: bool = False
) -> Engine:
    """The engine to encode with.

    Args:
        private: the private folder.
        workers: processes on this machine (0: this one), or with `slurm` the number of jobs; 1 by default.
        scheduler: address of a Dask scheduler, or "local": one of this run's own, with so many `workers`.
        slurm: submit jobs to SLURM.

    Raises:
        WorkspaceError: what the engine needs is not installed.
    """
    count = 1 if workers is None else workers
    if scheduler is not None:
        return LocalDask(count) if scheduler == _LOCAL else DaskScheduler(scheduler)
    if slurm:
        return Slurm(count, private)
    return Processes(count) if count else ThisProcess()


def slurm_job_script() -> str:
    """The script of each job that `Slurm` would submit.

    Raises:
        WorkspaceError: dask-jobqueue is not installed.
    """
    return Slurm(jobs=1, private=Path()).job_script()


def check_one_engine(workers: int | None, scheduler: str | None, slurm: bool) -> None:
    """Refuse options that ask for two engines.

    Raises:
        ValueError: they do.
    """
    if scheduler is not None and slurm:
        raise ValueError("--scheduler and --slurm are two engines: give one of them.")
    if scheduler not in (None, _LOCAL) and workers is not None:
        raise ValueError("--workers is for this machine or --slurm; the workers of --scheduler are those it has.")
    if slurm and workers == 0:
        raise ValueError("--slurm needs at least one job: --workers must be 1 or more, got 0.")
    if scheduler == _LOCAL and workers == 0:
        raise ValueError("--scheduler local needs at least one worker: --workers must be 1 or more, got 0.")

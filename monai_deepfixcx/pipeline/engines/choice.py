"""Which engine the options of the command ask for."""

from pathlib import Path

from monai_deepfixcx.pipeline.engines.base import Engine
from monai_deepfixcx.pipeline.engines.cluster import DaskScheduler, LocalDask, Slurm
from monai_deepfixcx.pipeline.engines.local import ThisProcess


def choose_engine(
    private: Path, workers: int | None = None, scheduler: str | None = None, slurm: bool = False
) -> Engine:
    """The engine to encode with.

    Args:
        private: the private folder.
        workers: of a Dask cluster on this machine (0: this process), or with `slurm` the number of jobs; 1 by default.
        scheduler: address of a Dask scheduler that runs already.
        slurm: submit jobs to SLURM.

    Raises:
        WorkspaceError: dask-jobqueue is not installed.
    """
    count = 1 if workers is None else workers
    if scheduler is not None:
        return DaskScheduler(scheduler)
    if slurm:
        return Slurm(count, private)
    return LocalDask(count) if count else ThisProcess()


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
    if scheduler is not None and workers is not None:
        raise ValueError("--workers is for this machine or --slurm; the workers of --scheduler are those it has.")
    if slurm and workers == 0:
        raise ValueError("--slurm needs at least one job: --workers must be 1 or more, got 0.")

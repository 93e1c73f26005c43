"""Engines on Dask workers: of a cluster on this machine, of one that runs already, or started as SLURM jobs.

The only module that knows Dask.
"""

import ctypes
import gc
import importlib
import logging
import secrets
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache, partial
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import dask
import distributed
import torch

from monai_deepfixcx.pipeline.engines.base import Advance, Task, Tell, Work
from monai_deepfixcx.pipeline.workspace import WorkspaceError

ANSWER_SECONDS = 10
WORKER_SECONDS = 60
_THREADS = 2  # of a worker, on one core: one encodes, one waits for the disk
_TELL_SECONDS = 0.5  # between two words of a worker on how far it is
# Even without its dashboard, Dask serves web pages about itself, by default to every network.
_NO_WEB = "127.0.0.1:0"
# What Dask looks at besides, many times a second, costs driver and workers time. See `_settle`, too.
_CALM = {
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.tick.interval": "10s",
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.work-stealing": False,
    "distributed.worker.profile.enabled": False,
}


class DaskScheduler:
    """Workers of a running Dask scheduler.

    Args:
        address: of the scheduler, as ``tcp://127.0.0.1:8786``; for ``tls://``, Dask's configuration names the
            certificates.

    Raises:
        WorkspaceError: on entering: no scheduler answers, or it has no worker.
    """

    at_once, together = 2000, 50
    lost: type[BaseException] = distributed.KilledWorker

    def __init__(self, address: str) -> None:
        self._address = address
        self._topic = f"deepfixcx-{secrets.token_hex(8)}"
        self._under_way: dict[Future[None], tuple[distributed.Future[None], str, Advance]] = {}
        self._told: dict[str, int] = {}

    def __enter__(self) -> "DaskScheduler":
        with ExitStack() as stack:
            stack.enter_context(_quiet())
            gc.freeze()  # looking through all that is imported for garbage would take a third of a second each time
            stack.callback(gc.unfreeze)
            self._client = self._connect(stack)
            stack.callback(self._client.close, timeout=ANSWER_SECONDS)
            self._client.subscribe_topic(self._topic, self._hear)
            stack.callback(self._cancel)
            self._to_end = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._to_end.close()

    def _connect(self, stack: ExitStack) -> Any:
        try:
            client = distributed.Client(self._address, timeout=ANSWER_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise WorkspaceError(
                f"no Dask scheduler answers at {self._address} ({type(error).__name__}): is the address right, as "
                "tcp://127.0.0.1:8786, and is it running?"
            ) from None
        try:
            client.wait_for_workers(1, timeout=WORKER_SECONDS)
        except TimeoutError:
            client.close()
            raise WorkspaceError(
                f"the Dask scheduler at {self._address} has no worker after {WORKER_SECONDS} s: start some with "
                f"dask worker {self._address} --nthreads {_THREADS}, and run again."
            ) from None
        return client

    def submit(self, work: Work, tasks: Sequence[Task], advance: Advance) -> "list[Future[None]]":
        """Send tasks to the scheduler."""
        futures: list[Future[None]] = []
        sent = self._client.map(_work_on_worker, tasks, work=work, topic=self._topic, pure=False, retries=2)
        for task, remote in zip(tasks, sent, strict=True):
            future: Future[None] = Future()
            self._under_way[future] = remote, task.shard, advance
            remote.add_done_callback(partial(_hand_on, future))
            futures.append(future)
        return futures

    def poll(self) -> None:
        """Pass on what workers have told of shards that are still under way."""
        for future, (_, shard, advance) in list(self._under_way.items()):
            count = self._told.pop(shard, None)
            if future.done():
                del self._under_way[future]
            elif count is not None:
                advance(shard, count)

    def _cancel(self) -> None:
        self._client.cancel([remote for remote, *_ in self._under_way.values() if not remote.done()])

    def _hear(self, event: tuple[float, tuple[str, int]]) -> None:
        """Called by a thread of the client's."""
        _, (shard, count) = event
        self._told[shard] = count


class LocalDask(DaskScheduler):
    """A Dask cluster of this run's own, on 127.0.0.1: its processes end with the run, and its talk is encrypted.

    Args:
        workers: processes that encode on one core each, started again by Dask when one is killed.

    Raises:
        WorkspaceError: on entering: they cannot be started.
    """

    def __init__(self, workers: int) -> None:
        super().__init__("127.0.0.1")
        self._workers = workers
        self.together = 2 * workers
        self.at_once = 2 * self.together  # the next shard is there when one is done

    def _connect(self, stack: ExitStack) -> Any:
        try:
            with _without_interrupts(), dask.config.set(_CALM):
                cluster = self._start()  # its workers inherit both
                stack.callback(cluster.close)
        except (OSError, RuntimeError) as error:
            raise WorkspaceError(
                f"cannot start workers on this machine ({error}): is there room in the folder for temporary files? "
                "--workers 0 works without."
            ) from None
        return distributed.Client(cluster, set_as_default=False)

    def _start(self) -> Any:
        return distributed.LocalCluster(
            n_workers=self._workers,
            threads_per_worker=_THREADS,
            memory_limit=0,  # Dask would kill whoever has more than its part of the machine, also when alone
            host="127.0.0.1",
            dashboard_address=_NO_WEB,
            worker_dashboard_address=_NO_WEB,
            security=distributed.Security.temporary(),  # whoever can speak to a scheduler can run code
            silence_logs=logging.CRITICAL,
            scheduler_kwargs={"allowed_failures": 0},  # `run_shards` tries again, and looks for the file that kills
        )


class Slurm(DaskScheduler):
    """Workers as SLURM jobs of one process and one core each, started through dask-jobqueue.

    The scheduler runs in this process, and listens where compute nodes can reach it: on the network interface named in
    Dask's configuration (``jobqueue.slurm.interface``), encrypted, with certificates made for this run.

    Args:
        jobs: how many; partition, account, wall time and memory come from the same configuration.
        private: folder for the certificates, which the jobs must see.

    Raises:
        WorkspaceError: dask-jobqueue is not installed, or no interface is configured.
    """

    def __init__(self, jobs: int, private: Path) -> None:
        super().__init__("this process")
        self._jobqueue = _need("dask_jobqueue", "--slurm", "slurm")
        self._jobs, self._private = jobs, private

    def _connect(self, stack: ExitStack) -> Any:
        if self._configured("interface") is None:
            raise WorkspaceError(
                "--slurm must know the network interface by which compute nodes reach this machine, as ib0: set "
                "jobqueue.slurm.interface in ~/.config/dask/jobqueue.yaml, or DASK_JOBQUEUE__SLURM__INTERFACE."
            )
        if shutil.which("sbatch") is None:
            raise WorkspaceError("--slurm found no sbatch: run it on a machine that submits jobs to SLURM.")
        certificates = self._private / "tls"
        certificates.mkdir(mode=0o700, exist_ok=True)
        cluster = self._jobqueue.SLURMCluster(
            security=distributed.Security.temporary(),
            shared_temp_directory=str(certificates),
            scheduler_options={"dashboard": False, "dashboard_address": _NO_WEB},
            **self._job(),
        )
        stack.callback(cluster.close)
        cluster.scale(jobs=self._jobs)
        return distributed.Client(cluster, set_as_default=False)

    def job_script(self) -> str:
        """The script that would be submitted for each job, with the scheduler's address left open."""
        job = self._jobqueue.slurm.SLURMJob("tls://ADDRESS", name="NAME", protocol="tls://", **self._job())
        return str(job.job_script())

    def _job(self) -> dict[str, Any]:
        return {
            "cores": _THREADS,
            "job_cpu": 1,
            "processes": 1,
            "memory": self._configured("memory") or "4GB",
            "job_script_prologue": ["export OMP_NUM_THREADS=1", *(self._configured("job-script-prologue") or [])],
            "worker_extra_args": [
                "--no-dashboard",
                "--dashboard-address",
                _NO_WEB,
                *(self._configured("worker-extra-args") or []),
            ],
        }

    def _configured(self, key: str) -> Any:
        return dask.config.get(f"jobqueue.slurm.{key}", None)


def _need(module: str, option: str, extra: str) -> Any:
    """Import an optional package.

    Raises:
        WorkspaceError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise WorkspaceError(
            f'{option} needs {module}, which is not installed: pip install "monai-deepfixcx[{extra}]".'
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Dask would tell the terminal at length what the one line of an error says, or what needs nobody's attention."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _hand_on(future: "Future[None]", remote: "distributed.Future[None]") -> None:
    """What became of Dask's future, whose result is nothing: Dask's executor would fetch it from the worker."""
    if remote.status == "finished":
        future.set_result(None)
    elif remote.status == "error":
        future.set_exception(remote.exception())
    else:
        future.cancel()
        future.set_running_or_notify_cancel()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A terminal's Ctrl-C, which goes to every process, waits; for ever in threads and processes that are started."""
    resource_tracker.ensure_running()  # starting it with the first process, Python would let interrupts through again
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _work_on_worker(task: Task, work: Work, topic: str) -> None:
    torch.set_num_threads(1)
    _settle()
    work(task, _teller(topic, task.shard))


def _teller(topic: str, shard: str) -> Tell:
    """Sends the driver a word now and then on how many files of a shard are through."""
    worker, told = distributed.get_worker(), time.monotonic()

    def tell(count: int) -> None:
        nonlocal told
        if time.monotonic() - told > _TELL_SECONDS:
            told = time.monotonic()
            worker.log_event(topic, [shard, count])

    return tell


@lru_cache(maxsize=1)
def _settle() -> None:
    """What a worker does once: leave what is imported out of the search for garbage, and keep freed memory.

    glibc gives large blocks back, and Dask even tells it to: each image would be paid for page by page. Large
    radiographs are read twice as fast.
    """
    gc.freeze()
    trim_threshold, mmap_threshold = -1, -3  # of malloc.h
    with suppress(AttributeError, OSError):  # another C library
        allocator = ctypes.CDLL(None)
        allocator.mallopt(mmap_threshold, 31 << 20)
        allocator.mallopt(trim_threshold, 62 << 20)

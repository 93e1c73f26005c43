"""Work shared out over threads."""

import multiprocessing
import threading
from collections.abc import Iterator
from multiprocessing.queues import SimpleQueue

import pytest
import torch

from monai_deepfixcx.codecs import DeepFixCXCodec
from monai_deepfixcx.codecs.kernels.threads import in_parts
from tests.codecs.kernels.test_haar import images_of

LONG = 1e6  # nanoseconds


@pytest.fixture
def three_threads() -> None:
    torch.set_num_threads(3)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize(
    ("count", "nanoseconds", "parts"), [(7, LONG, 3), (2, LONG, 2), (7, 1, 1), (6, 1e5, 3), (6, 7e4, 3)]
)
def test_every_job_is_done_once_by_as_many_threads_as_are_worth_it(count: int, nanoseconds: float, parts: int) -> None:
    seen: list[tuple[int, int]] = []
    in_parts(lambda first, last: seen.append((first, last)), count, nanoseconds)
    assert len(seen) == parts
    assert [i for first, last in sorted(seen) for i in range(first, last)] == list(range(count))


@pytest.mark.usefixtures("three_threads")
def test_parts_run_at_the_same_time_and_one_of_them_here() -> None:
    together, threads = threading.Barrier(3, timeout=30), set[int]()

    def work(first: int, last: int) -> None:
        threads.add(threading.get_ident())
        together.wait()

    in_parts(work, 3, LONG)
    assert len(threads) == 3
    assert threading.get_ident() in threads


@pytest.mark.usefixtures("three_threads")
def test_what_a_part_raises_is_raised() -> None:
    def work(first: int, last: int) -> None:
        if first:
            raise MemoryError("too large")

    with pytest.raises(MemoryError, match="too large"):
        in_parts(work, 2, LONG)


def encode(queue: SimpleQueue[float]) -> None:
    queue.put(float(DeepFixCXCodec(1, 1).encode(images_of((4, 1, 400, 400))).sum()))


def test_a_forked_process_has_threads_of_its_own() -> None:
    """A DataLoader's workers are forked from a process that may have encoded before."""
    torch.set_num_threads(2)
    here = float(DeepFixCXCodec(1, 1).encode(images_of((4, 1, 400, 400))).sum())
    context = multiprocessing.get_context("fork")
    queue: SimpleQueue[float] = context.SimpleQueue()
    process = context.Process(target=encode, args=(queue,))
    process.start()
    process.join(60)
    alive = process.is_alive()
    process.kill()
    assert not alive
    assert queue.get() == here

"""The benchmark of the whole way from files to a store runs, and its figures follow from what was measured."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import end_to_end, processes

ALLOCATE = "import sys, subprocess; held = bytearray(b'x') * (int(sys.argv[1]) << 20)"


@pytest.fixture(autouse=True)
def _keep_threads() -> Any:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def measured(kinds: tuple[str, ...]) -> end_to_end.Seconds:
    """Two repeats, of which the second is twice as slow; Pillow reads 1000 of 1000 files in a second."""
    cost = {"privatize": 1.6, "read_image": 1.2, "plain": 1.0, "driver": 0.1}
    return {
        (kind, count, name): [cost[name] / count, 2 * cost[name] / count]
        for kind in kinds
        for count in end_to_end.WORKERS
        for name in cost
    }


def test_ratios_are_taken_repeat_by_repeat() -> None:
    found = end_to_end.rates(measured(("JPEG",)), "JPEG", files=1000)
    assert found["images_per_s"]["2"]["plain"] == {"median": 1500.0, "least": 1000.0, "greatest": 2000.0}
    for count in ("1", "2"):
        assert found["of_plain"][count] == pytest.approx({"median": 0.625, "least": 0.625, "greatest": 0.625})
        assert found["of_read_image"][count]["median"] == pytest.approx(0.75)
    assert found["driver_seconds_per_image"]["1"]["median"] == pytest.approx(0.15 / 1000)
    assert found["two_against_one"]["privatize"]["median"] == pytest.approx(2)


def test_summary_has_a_figure_for_every_target(tmp_path: Path) -> None:
    formats = {kind: end_to_end.rates(measured((kind,)), kind, 1000) for kind in (*end_to_end.NAMED, "PNG")}
    memory = {"ratio": {"median": 1.05}, "peak_bytes": {"10": {"median": 1e9}, "20": {"median": 1.05e9}}}
    figures = end_to_end.summary(formats, memory)
    assert figures.keys() == end_to_end.LEAST.keys() | end_to_end.MOST.keys()
    assert figures["of a loop that only reads and decodes, least"] == pytest.approx(0.625)
    assert figures["images/s, JPEG, 2 workers"] == pytest.approx((2000 / 1.6 + 1000 / 1.6) / 2)
    result = {
        "formats": formats,
        "summary": figures,
        "memory": memory,
        "command": {
            "files": 1000,
            "workers": 2,
            "seconds": {"JPEG": {"median": 5.0}},
            "images_per_s": {"JPEG": 200.0},
            "start_up_seconds": {"median": 4.0},
        },
        "neighbours": processes.Neighbours().told(),
    }
    text = end_to_end.tables(result)
    assert "| of a loop that only reads and decodes, least | 0.625 | at least 0.6 |" in text
    assert "| memory for the most images against the fewest | 1.05 | at most 1.1 |" in text
    assert "Beside 2 workers the driver takes 75 us of a processor an image" in text
    assert "JPEG 5.0 s (200 images/s); of this 4.0 s are start-up" in text
    end_to_end.draw(result, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_copies_are_files_of_their_own(tmp_path: Path) -> None:
    films = [tmp_path / f"{name}.png" for name in "ab"]
    for path in films:
        path.write_text(path.stem)
    paths = end_to_end.copies(films, tmp_path / "many", 5)
    assert [path.read_text() for path in paths] == ["a", "b", "a", "b", "a"]
    assert len({path.stat().st_ino for path in paths}) == 5


def test_a_loop_of_processes_reads_every_file(tmp_path: Path) -> None:
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "a.png")
    loop = end_to_end.Loop(end_to_end.decode_plainly, 1)
    try:
        loop.warm_up([tmp_path / "a.png"])
        assert loop.seconds([tmp_path / "a.png"] * 300) > 0
        with pytest.raises(FileNotFoundError):
            loop.seconds([tmp_path / "a.png"] * 299 + [tmp_path / "none.png"])
    finally:
        loop.pool.shutdown()


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system does not tell")
def test_peak_memory_is_that_of_a_command_and_its_children() -> None:
    sleep = f"{ALLOCATE}; import time; time.sleep(1)"
    alone = processes.peak_memory([sys.executable, "-c", sleep, "100"])
    both = f"{ALLOCATE}; subprocess.run([sys.executable, '-c', {sleep!r}, '200'])"
    assert 100 << 20 < alone < 150 << 20
    assert 300 << 20 < processes.peak_memory([sys.executable, "-c", both, "100"]) < 400 << 20
    with pytest.raises(RuntimeError, match="the command ended with status 3"):
        processes.peak_memory([sys.executable, "-c", "raise SystemExit(3)"])


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the system does not tell")
def test_own_work_is_not_the_neighbours() -> None:
    """What a process that was waited for did counts as own, and as a part of what the cores did."""
    neighbours = processes.Neighbours()
    subprocess.run([sys.executable, "-c", "sum(range(10**7))"], check=True)
    _, busy, _, own = np.subtract(neighbours._now(), neighbours.start)
    assert 0.05 < own < busy + 0.05  # the system counts what the cores do in hundredths of a second
    told = neighbours.told()
    assert told["cores_busy_with_others"] is not None
    assert told["cores_busy_with_others"] >= 0


@pytest.mark.slow
def test_the_benchmark_writes_its_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    end_to_end.main(["--quick", "--out", str(tmp_path)])
    document = json.loads((tmp_path / "end_to_end.json").read_text())
    assert document["settings"]["quick"] is True
    assert "SYNTHETIC" in document["data"]
    assert document["formats"].keys() == {"uncompressed DICOM", "JPEG", "PNG"}
    for found in document["formats"].values():
        for entry in found["images_per_s"].values():
            assert all(entry[name]["least"] > 0 for name in end_to_end.CONTENDERS)
    assert document["command"]["start_up_seconds"]["median"] > 0
    assert "load_average_before" in document["neighbours"]
    assert (tmp_path / "end_to_end.png").stat().st_size > 10_000
    assert "| uncompressed DICOM | 2 |" in capsys.readouterr().out

"""How fast files on disk become a finished store, and in how much memory.

    python -m benchmarks.end_to_end

Synthetic films of 320 x 320 as uncompressed DICOM, PNG and JPEG: a few hundred distinct ones, each copied to several
files of its own. `privatize()` with its workers, everything that `deepfixcx privatize` does, from finding the
files to the last fsync, against a loop that only reads and decodes the same files with pydicom or Pillow, and against
`read_image` alone, each in as many processes, in turn. All processes have started and warmed up before, so that these
figures are the steady state of a long run; the whole command, start-up included, is timed beside them. Files are in the
page cache: a disk or network slower than the decoder makes everything slower.
"""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import torch
from PIL import Image

from benchmarks import common
from benchmarks.processes import SAMPLE_SECONDS, Neighbours, peak_memory
from benchmarks.scaling import write_films
from monai_deepfixcx.codecs import DeepFixCXCodec
from monai_deepfixcx.data.reading import read_image
from monai_deepfixcx.pipeline.engines.cluster import LocalDask
from monai_deepfixcx.pipeline.privatize import SHARD_FILES, plan, privatize, settings_for
from monai_deepfixcx.pipeline.workspace import Workspace

NAME = "end_to_end"
WORKERS = (1, 2)
NAMED = ("uncompressed DICOM", "JPEG")  # the formats that the targets name
LEAST = {
    "images/s, uncompressed DICOM, 2 workers": 1700,
    "images/s, JPEG, 2 workers": 1700,
    "of a loop that only reads and decodes, least": 0.6,
    "2 workers against 1, least": 1.7,
}
MOST = {"memory for the most images against the fewest": 1.1}
CONTENDERS = ("privatize", "read_image", "plain")
Seconds = dict[tuple[str, int, str], list[float]]


def copies(films: Sequence[Path], folder: Path, count: int) -> list[Path]:
    """So many files, distinct on disk, of a few films."""
    folder.mkdir(parents=True)
    names = [folder / f"film-{number:06}{films[0].suffix}" for number in range(count)]
    for source, target in zip(itertools.cycle(films), names, strict=False):
        shutil.copyfile(source, target)
    return names


def decode_plainly(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.suffix == ".dcm":
            _ = pydicom.dcmread(path).pixel_array
        else:
            np.asarray(Image.open(path))


def read_ours(paths: Sequence[Path]) -> None:
    for path in paths:
        read_image(path)


class Loop:
    """A loop over files in so many processes, each of which takes the next part when it is through with one."""

    def __init__(self, work: Callable[[Sequence[Path]], None], count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.work, self.count = work, count
        self.pool = ProcessPoolExecutor(count, context, _start_child, (context.Barrier(count),))

    def warm_up(self, paths: Sequence[Path]) -> None:
        """Every process does `paths` once."""
        list(self.pool.map(_meet, [self.work] * self.count, [paths] * self.count))

    def seconds(self, paths: Sequence[Path]) -> float:
        """Of all processes together, until the last is through."""
        shards = plan({str(number): str(path) for number, path in enumerate(paths)}, SHARD_FILES)
        parts = [[Path(name) for name in shard.files.values()] for shard in shards]
        start = time.perf_counter()
        list(self.pool.map(self.work, parts))
        return time.perf_counter() - start


_barrier: Any = None


def _start_child(barrier: Any) -> None:
    global _barrier
    _barrier = barrier
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def _meet(work: Callable[[Sequence[Path]], None], paths: Sequence[Path]) -> None:
    _barrier.wait()  # or the first process to start would warm up twice, and another not at all
    work(paths)


class Kept(LocalDask):
    """Workers that stay from one run to the next."""

    def start(self) -> None:
        """They are needed from now on."""
        super().__enter__()

    def end(self) -> None:
        """They are no longer needed."""
        super().__exit__()

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *exception: object) -> None:
        """A run has ended; there will be others."""


def privatize_seconds(engine: Kept, source: Path, files: int, driver: list[float] | None = None) -> float:
    """Of the whole run, as it tells itself; what this process, the driver, has of a processor goes to `driver`."""
    codec = DeepFixCXCodec(levels=4, patch_size=5)
    with tempfile.TemporaryDirectory(dir=source.parent) as name:
        workspace = Workspace.open(source, Path(name) / "out")
        begin = time.process_time()
        summary = privatize(workspace, codec, settings_for(codec), engine)
        if driver is not None:
            driver.append(time.process_time() - begin)
    if summary.encoded != files:
        raise RuntimeError(f"{summary.encoded} of {files} films were encoded.")
    return summary.seconds


def measure_speed(films: Mapping[str, list[Path]], folder: Path, files: int, repeats: int) -> Seconds:
    """Seconds of every contender, all in turn; as "driver", those that it has of a processor."""
    seconds: Seconds = {}
    tasks: dict[tuple[str, int, str], Callable[[], float]] = {}
    with ExitStack() as stack:
        engines = {count: Kept(count) for count in WORKERS}
        loops = {
            (name, count): Loop(work, count)
            for name, work in (("read_image", read_ours), ("plain", decode_plainly))
            for count in WORKERS
        }
        for engine in engines.values():
            engine.start()
            stack.callback(engine.end)
        for loop in loops.values():
            stack.callback(loop.pool.shutdown)
        for kind, sources in films.items():
            few, many = folder / f"few-{kind}", folder / f"many-{kind}"
            warm, paths = copies(sources, few, min(files, max(WORKERS) * SHARD_FILES)), copies(sources, many, files)
            for count in WORKERS:
                privatize_seconds(engines[count], few, len(warm))
                driver = seconds.setdefault((kind, count, "driver"), [])
                tasks[kind, count, "privatize"] = functools.partial(
                    privatize_seconds, engines[count], many, files, driver
                )
                for name in ("read_image", "plain"):
                    loops[name, count].warm_up(warm[:SHARD_FILES])
                    tasks[kind, count, name] = functools.partial(loops[name, count].seconds, paths)
        os.sync()  # or writing the copies out would disturb the first repeat
        for _ in range(repeats):
            for key, task in tasks.items():
                seconds.setdefault(key, []).append(task())
    return seconds


def rates(seconds: Seconds, kind: str, files: int) -> dict[str, Any]:
    """Images/s of a format, and its ratios, repeat by repeat."""

    def ratio(slow: tuple[str, int, str], fast: tuple[str, int, str]) -> dict[str, float]:
        return common.spread([a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)])

    ours = {count: (kind, count, "privatize") for count in WORKERS}
    return {
        "images_per_s": {
            str(count): {name: common.spread([files / s for s in seconds[kind, count, name]]) for name in CONTENDERS}
            for count in WORKERS
        },
        "driver_seconds_per_image": {
            str(count): common.spread([s / files for s in seconds[kind, count, "driver"]]) for count in WORKERS
        },
        "of_plain": {str(count): ratio((kind, count, "plain"), ours[count]) for count in WORKERS},
        "of_read_image": {str(count): ratio((kind, count, "read_image"), ours[count]) for count in WORKERS},
        "two_against_one": {name: ratio((kind, WORKERS[0], name), (kind, WORKERS[-1], name)) for name in CONTENDERS},
    }


def command(source: Path, output: Path) -> list[str]:
    script = "from monai_deepfixcx.cli import main\nif __name__ == '__main__':\n    main()"
    return [sys.executable, "-c", script, "privatize", str(source), str(output), "--workers", str(WORKERS[-1])]


def command_seconds(source: Path) -> float:
    """Of the whole command, from nothing to its last line."""
    with tempfile.TemporaryDirectory(dir=source.parent) as name:
        start = time.perf_counter()
        subprocess.run(command(source, Path(name) / "out"), capture_output=True, check=True)
        return time.perf_counter() - start


def measure_command(films: Mapping[str, list[Path]], folder: Path, files: int, repeats: int) -> dict[str, Any]:
    """The whole command on many files, and on two, which is start-up."""
    copies(films["JPEG"], folder / "two", 2)
    tasks = {kind: functools.partial(command_seconds, folder / f"many-{kind}") for kind in NAMED}
    tasks["start-up"] = functools.partial(command_seconds, folder / "two")
    seconds = common.in_turn(tasks, repeats)
    start_up = common.spread(seconds.pop("start-up"))
    return {
        "files": files,
        "workers": WORKERS[-1],
        "start_up_seconds": start_up,
        "seconds": {kind: common.spread(values) for kind, values in seconds.items()},
        "images_per_s": {kind: files / statistics.median(values) for kind, values in seconds.items()},
    }


def measure_memory(films: Sequence[Path], folder: Path, counts: Sequence[int], repeats: int) -> dict[str, Any] | None:
    """Peak memory for few and for many images, in turn; None where the system does not tell."""
    if not Path("/proc/self/smaps_rollup").exists():
        return None
    for count in counts:
        copies(films, folder / f"memory-{count}", count)
    peaks: dict[int, list[int]] = {count: [] for count in counts}
    for _ in range(repeats):
        for count in counts:
            with tempfile.TemporaryDirectory(dir=folder) as name:
                peaks[count].append(peak_memory(command(folder / f"memory-{count}", Path(name) / "out")))
    fewest, most = (peaks[count] for count in counts)
    return {
        "of": "proportional set sizes of the driver and its workers, summed, the most of samples",
        "sample_seconds": SAMPLE_SECONDS,
        "workers": WORKERS[-1],
        "peak_bytes": {str(count): common.spread(values) for count, values in peaks.items()},
        "ratio": common.spread([b / a for a, b in zip(fewest, most, strict=True)]),
    }


def summary(formats: Mapping[str, Any], memory: Mapping[str, Any] | None) -> dict[str, float]:
    """The figures that the targets speak of."""
    two = str(WORKERS[-1])
    named = [formats[kind] for kind in NAMED]
    figures = {
        f"images/s, {kind}, 2 workers": formats[kind]["images_per_s"][two]["privatize"]["median"] for kind in NAMED
    }
    figures["of a loop that only reads and decodes, least"] = min(
        ratio["median"] for entry in named for ratio in entry["of_plain"].values()
    )
    figures["2 workers against 1, least"] = min(entry["two_against_one"]["privatize"]["median"] for entry in named)
    if memory is not None:
        figures["memory for the most images against the fewest"] = memory["ratio"]["median"]
    return figures


def tables(result: Mapping[str, Any]) -> str:
    """The result as markdown."""
    speed = [
        {
            "320 x 320 as": kind,
            "workers": count,
            **{f"{name}, images/s": f"{entry[name]['median']:,.0f}" for name in CONTENDERS},
            "privatize of plain": f"{found['of_plain'][count]['median']:.2f}",
            "of read_image": f"{found['of_read_image'][count]['median']:.2f}",
        }
        for kind, found in result["formats"].items()
        for count, entry in found["images_per_s"].items()
    ]
    twice = [
        {"2 workers against 1": kind}
        | {name: f"{ratio['median']:.2f}x" for name, ratio in found["two_against_one"].items()}
        for kind, found in result["formats"].items()
    ]
    reached = [
        {"": name, "reached": f"{result['summary'][name]:,.4g}", "target": f"at {which} {target:,}"}
        for which, targets in (("least", LEAST), ("most", MOST))
        for name, target in targets.items()
        if name in result["summary"]
    ]
    whole, neighbours = result["command"], result["neighbours"]
    seconds = ", ".join(
        f"{kind} {value['median']:.1f} s ({whole['images_per_s'][kind]:,.0f} images/s)"
        for kind, value in whole["seconds"].items()
    )
    words = [
        f"The whole command on {whole['files']:,} files with {whole['workers']} workers: {seconds}; of this "
        f"{whole['start_up_seconds']['median']:.1f} s are start-up."
    ]
    words.append(what_bounds(result["formats"]))
    if result["memory"]:
        peaks = [f"{v['median'] / 1e6:,.0f} MB for {int(n):,}" for n, v in result["memory"]["peak_bytes"].items()]
        words.append(f"Peak memory of driver and {whole['workers']} workers: {', '.join(peaks)} JPEG images.")
    words.append(
        f"Meanwhile others kept {neighbours['cores_busy_with_others']} cores busy, and the host took "
        f"{neighbours['cores_stolen_by_the_host']}."
    )
    return "\n\n".join([common.table(speed), common.table(twice), common.table(reached), " ".join(words)])


def what_bounds(formats: Mapping[str, Any]) -> str:
    """Where the time goes that the plain loop leaves, in the format that has least of it."""
    kind = min(NAMED, key=lambda kind: formats[kind]["of_plain"]["1"]["median"])
    rates = formats[kind]["images_per_s"]["1"]
    plain, read, whole = (1000 / rates[name]["median"] for name in ("plain", "read_image", "privatize"))
    target = LEAST["of a loop that only reads and decodes, least"]
    driver = formats[kind]["driver_seconds_per_image"][str(WORKERS[-1])]["median"]
    return (
        f"{kind} in one process: the plain loop takes {plain:.2f} ms an image, so {target} of its speed is "
        f"{plain / target:.2f} ms. read_image, which decodes grey JPEG faster than Pillow, takes {read:.2f} ms with "
        f"all checks, fetching ahead, encoding, hashing and writing {whole - read:.2f} ms. Beside "
        f"{WORKERS[-1]} workers the driver takes {driver * 1e6:.0f} us of a processor an image."
    )


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Images/s of every contender, with least and greatest."""
    from matplotlib import pyplot

    colours = {"privatize": "tab:blue", "read_image": "0.55", "plain": "0.8"}
    names = {"privatize": "files to store", "read_image": "read_image alone", "plain": "pydicom or Pillow alone"}
    figure, panels = pyplot.subplots(1, len(WORKERS), figsize=(10, 4.2), sharey=True, layout="constrained")
    for panel, count in zip(panels, WORKERS, strict=True):
        for place, name in enumerate(CONTENDERS):
            entries = [found["images_per_s"][str(count)][name] for found in result["formats"].values()]
            heights = [entry["median"] for entry in entries]
            sides = [
                [entry["median"] - entry["least"] for entry in entries],
                [entry["greatest"] - entry["median"] for entry in entries],
            ]
            at = np.arange(len(entries)) + 0.27 * (place - 1)
            panel.bar(at, heights, 0.25, yerr=sides, color=colours[name], label=names[name], error_kw={"linewidth": 1})
        panel.set_xticks(range(len(result["formats"])), list(result["formats"]))
        panel.set_title(f"{count} {'process' if count == 1 else 'processes'}")
    panels[0].set_ylabel("images/s, 320 x 320")
    panels[-1].axhline(LEAST["images/s, JPEG, 2 workers"], color="tab:red", linestyle=":", linewidth=1, label="target")
    panels[-1].legend(frameon=False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    asked = common.arguments(__doc__).parse_args(arguments)
    distinct, files, side, repeats = (4, 300, 96, 1) if asked.quick else (300, 10_000, 320, 7)
    counts = (300, 600) if asked.quick else (1000, 20_000)
    neighbours = Neighbours()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        films = write_films(folder / "films", distinct, side)
        seconds = measure_speed(films, folder, files, repeats)
        whole = measure_command(films, folder, files, min(repeats, 3))
        memory = measure_memory(films["JPEG"], folder, counts, min(repeats, 3))
    formats = {kind: rates(seconds, kind, files) for kind in films}
    result = {
        "settings": {
            "distinct_films": distinct,
            "files_of_each_format": files,
            "side": side,
            "repeats": repeats,
            "files_in_a_shard": SHARD_FILES,
            "codec": "db1, J=4, P=5, l1",
            "quick": asked.quick,
        },
        "data": "SYNTHETIC films of phantoms",
        "formats": formats,
        "command": whole,
        "memory": memory,
        "neighbours": neighbours.told(),
        "summary": summary(formats, memory),
        "targets": {"at least": LEAST, "at most": MOST},
    }
    path = common.write(asked.out, NAME, result)
    draw(result, asked.out / f"{NAME}.png")
    print(f"{tables(result)}\n\nwritten to {path}")


if __name__ == "__main__":
    main()

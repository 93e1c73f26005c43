"""What an image costs to privatize, and where a run stops growing in proportion to its images.

    python -m benchmarks.scaling

Per image, in one process with one thread: reading and decoding, encoding, writing, for synthetic films as uncompressed
DICOM, PNG and JPEG; and what they take on disk. Per file and per shard, on made-up folders and stores of growing size:
what the driver does alone. From both: machines, hours and bytes for 10^5, 10^7 and 10^9 images.
"""

from __future__ import annotations

import gc
import re
import resource
import tempfile
import tracemalloc
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import common
from monai_deepfixcx.codecs import DeepFixCXCodec
from monai_deepfixcx.data import PhantomRadiographs
from monai_deepfixcx.data.code_store import CodeStore, Row
from monai_deepfixcx.data.reading import Radiograph
from monai_deepfixcx.pipeline.encode import encode_pixels, read_quietly
from monai_deepfixcx.pipeline.privatize import SHARD_FILES, plan
from monai_deepfixcx.pipeline.workspace import Entry, Workspace, shard_name

NAME = "scaling"
DOCUMENT = Path(__file__).parents[1] / "docs" / "scaling.md"
COUNTS = (10**5, 10**7, 10**9)
CORES, HOURS = 16, 24  # a machine, and when everything is to be done
MEMORY = 16 * 10**9  # of the driver's machine, in bytes


def write_films(folder: Path, count: int, side: int) -> dict[str, list[Path]]:
    """The same synthetic films in three formats."""
    films = PhantomRadiographs(patients=count, visits_per_patient=1, size=side, seed=0)
    png = films.write_png(folder / "PNG")
    jpeg = [folder / "JPEG" / f"{path.stem}.jpg" for path in png]
    (folder / "JPEG").mkdir()
    for source, target in zip(png, jpeg, strict=True):
        Image.open(source).save(target, quality=90)
    return {"uncompressed DICOM": films.write_dicom(folder / "DICOM"), "PNG": png, "JPEG": jpeg}


def measure_images(folder: Path, count: int, side: int, repeats: int) -> dict[str, Any]:
    """Seconds per image of each step, steps and formats in turn, and bytes per image."""
    codec = DeepFixCXCodec(levels=4, patch_size=5)
    films = write_films(folder / "films", count, side)
    workspace = Workspace.open(folder / "films", folder / "out")
    store = CodeStore.open(workspace.output, codec)
    images = {name: [read_quietly(path) for path in paths] for name, paths in films.items()}
    codes = torch.stack([encode_pixels(torch.from_numpy(image.pixels), codec)[0] for image in images["PNG"]])
    entries = [Entry(f"{i:032x}", f"folder-{i // 100}/image-{i}.dcm", "", 10**5, side**2, 6400) for i in range(count)]

    def read(paths: Sequence[Path]) -> None:
        for path in paths:
            read_quietly(path)

    def encode(images: Sequence[Radiograph]) -> None:
        for image in images:
            encode_pixels(torch.from_numpy(image.values), codec, white=image.white)

    def write() -> None:
        for first in range(0, count, SHARD_FILES):
            part = entries[first : first + SHARD_FILES]
            name = shard_name(entry.id for entry in part)
            workspace.record(name, part)
            rows: list[Row] = [{"id": entry.id, "spatial_shape": [side, side]} for entry in part]
            store.append(name, codes[first : first + SHARD_FILES], rows)

    tasks: dict[str, Callable[[], object]] = {f"read {name}": partial(read, paths) for name, paths in films.items()}
    tasks |= {f"encode {name}": partial(encode, each) for name, each in images.items()}
    seconds = common.in_turn(tasks | {"write": write}, repeats)
    ledger = sum(path.stat().st_size for path in (workspace.private / "ledger").iterdir())
    return {
        "seconds": {task: common.spread([value / count for value in values]) for task, values in seconds.items()},
        "source_bytes": {name: sum(path.stat().st_size for path in paths) / count for name, paths in films.items()},
        "store_bytes": store.bytes_on_disk / count,
        "ledger_bytes": ledger / count,
        "code_values": codes.shape[-1],
    }


def cost(task: Callable[[], object]) -> dict[str, float]:
    """Seconds, and the bytes that the result keeps in Python's memory (in a call of its own: counting takes time).

    The least of three: it takes long enough that other work on the machine falls into it, which only ever adds.
    """
    (seconds,) = common.in_turn({"task": task}, repeats=3).values()
    gc.collect()
    tracemalloc.start()
    kept = task()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del kept
    return {"seconds": min(seconds), "bytes": held}


def find_and_plan(workspace: Workspace) -> object:
    files = workspace.find_inputs()
    return files, plan(files, SHARD_FILES)


def read_manifest(folder: Path) -> object:
    return CodeStore.open(folder).ids()


def measure_driver(folder: Path, counts: Sequence[int]) -> dict[str, list[dict[str, float]]]:
    """What the driver does alone, for growing numbers of files: each with seconds and bytes held."""
    results: dict[str, list[dict[str, float]]] = {"find and plan": [], "read the manifest": [], "read the ledger": []}
    codec = DeepFixCXCodec(levels=1, patch_size=1)
    for count in counts:
        source = folder / f"in-{count}"
        for first in range(0, count, 1000):
            subfolder = source / f"folder-{first // 1000:06}"
            subfolder.mkdir(parents=True)
            for number in range(first, min(first + 1000, count)):
                (subfolder / f"image-{number:09}.dcm").touch()
        workspace = Workspace.open(source, folder / f"out-{count}")
        store = CodeStore.open(workspace.output, codec)
        for shard in plan(workspace.find_inputs(), SHARD_FILES):
            rows: list[Row] = [{"id": name, "spatial_shape": [320, 320]} for name in shard.files]
            store.append(shard.name, torch.zeros(len(rows), 1, 4), rows)
            sources = shard.files.items()
            workspace.record(shard.name, [Entry(name, path, "", 10**5, 320**2, 6400) for name, path in sources])
        ids = store.ids()
        for name, task in (
            ("find and plan", partial(find_and_plan, workspace)),
            ("read the manifest", partial(read_manifest, store.folder)),
            ("read the ledger", partial(read_ledger, workspace, ids)),
        ):
            results[name].append({"files": count, **cost(task)})
    return results


def read_ledger(workspace: Workspace, ids: Iterable[str]) -> object:
    return Workspace.reopen(workspace.output).entries(ids)  # which has read nothing yet


def list_markers(place: Path) -> object:
    return sorted(place.glob("*.done.json"))


def measure_folder(folder: Path, counts: Sequence[int]) -> list[dict[str, float]]:
    """Seconds to list the markers of a store's folder that holds so many shards, of three files each."""
    results = []
    for shards in counts:
        place = folder / f"shards-{shards}"
        place.mkdir()
        for number in range(shards):
            for suffix in ("safetensors", "jsonl", "done.json"):
                (place / f"{number:016x}-1x6400.{suffix}").touch()
        (seconds,) = common.in_turn({"list": partial(list_markers, place)}, 3).values()
        results.append({"shards": shards, "seconds": min(seconds)})
    return results


def slope(measured: Sequence[Mapping[str, float]], by: str, of: str) -> float:
    """Cost per item, from the two largest counts: what is fixed cancels.

    >>> slope([{"files": 10, "seconds": 2.0}, {"files": 110, "seconds": 3.0}], "files", "seconds")
    0.01
    """
    first, last = measured[-2:]
    return (last[of] - first[of]) / (last[by] - first[by])


def extrapolate(result: Mapping[str, Any]) -> dict[str, Any]:
    """Machines, hours and bytes in proportion; and the counts at which proportion ends."""
    images, driver = result["images"], result["driver"]
    median = {task: value["median"] for task, value in images["seconds"].items()}
    per_image = {
        name: median[f"read {name}"] + median[f"encode {name}"] + median["write"] for name in images["source_bytes"]
    }
    driver_seconds = sum(slope(measured, "files", "seconds") for measured in driver.values())
    driver_bytes = sum(slope(measured, "files", "bytes") for measured in driver.values())
    slowest = max(per_image.values())
    rows = [
        {
            "images": count,
            "core_hours": {name: count * seconds / 3600 for name, seconds in per_image.items()},
            "machines": {name: max(1, int(np.ceil(count * s / 3600 / CORES / HOURS))) for name, s in per_image.items()},
            "source_bytes": {name: count * size for name, size in images["source_bytes"].items()},
            "store_bytes": count * images["store_bytes"],
            "ledger_bytes": count * images["ledger_bytes"],
            "files_in_store": 3 * -(-count // SHARD_FILES) + 1,
            "driver_hours": count * driver_seconds / 3600,
            "driver_bytes": count * driver_bytes,
        }
        for count in COUNTS
    ]
    return {
        "seconds_per_image": per_image,
        "driver_seconds_per_image": driver_seconds,
        "driver_bytes_per_image": driver_bytes,
        "rows": rows,
        "driver_memory_full_at_images": MEMORY / driver_bytes,
        "cores_or_parts_that_halve_efficiency": slowest / driver_seconds,
    }


def tables(result: Mapping[str, Any]) -> str:
    """The section of docs/scaling.md."""
    images, total, machine = result["images"], result["extrapolated"], result["machine"]
    seconds = images["seconds"]
    per_image = [
        {
            "320 x 320 as": name,
            "read and decode, ms": f"{1000 * seconds[f'read {name}']['median']:.3g}",
            "encode, ms": f"{1000 * seconds[f'encode {name}']['median']:.3g}",
            "write, ms": f"{1000 * seconds['write']['median']:.3g}",
            "images/s of one core": f"{1 / total['seconds_per_image'][name]:,.0f}",
            "kB of source": f"{size / 1e3:.4g}",
            "kB of store": f"{images['store_bytes'] / 1e3:.4g}",
        }
        for name, size in images["source_bytes"].items()
    ]
    whole = [
        {
            "images": f"10^{np.log10(row['images']):.0f}",
            **{f"core hours, {name}": f"{hours:,.3g}" for name, hours in row["core_hours"].items()},
            f"machines of {CORES} cores for {HOURS} h": str(max(row["machines"].values())),
            "store": size(row["store_bytes"]),
            "ledger": size(row["ledger_bytes"]),
            "files in the store": f"{row['files_in_store']:,}",
            "driver alone": f"{row['driver_hours']:.2g} h, {size(row['driver_bytes'])}",
        }
        for row in total["rows"]
    ]
    driver = [
        {
            "the driver alone": name,
            **{f"{entry['files']:,} files": f"{entry['seconds']:.2g} s, {size(entry['bytes'])}" for entry in measured},
        }
        for name, measured in result["driver"].items()
    ]
    folder = [
        {
            "shards in one folder": f"{entry['shards']:,}",
            "listed in": f"{entry['seconds']:.2g} s",
            "per shard": f"{1e6 * entry['seconds'] / entry['shards']:.2g} us",
        }
        for entry in result["folder"]
    ]
    full, cores = total["driver_memory_full_at_images"], total["cores_or_parts_that_halve_efficiency"]
    how = (
        f"*Measured by `python -m benchmarks.scaling` on synthetic films ({machine['processor']}, one process, one "
        f"thread, load average {machine['load_average'][0]} on {machine['cores']} cores: whatever else ran on the "
        "machine makes times longer and uneven). Files were in the page cache: a disk or network slower than the "
        f"decoder adds to reading. J=4, P=5, float32 codes, shards of {SHARD_FILES}. Medians of five per image; the "
        "least of three for what the driver does alone.*"
    )
    where = (
        f"*Where proportion ends:* the driver holds {total['driver_bytes_per_image']:,.0f} bytes per image in Python "
        f"objects, so {size(MEMORY)} are full at {full:.2g} images; alone it spends "
        f"{1e6 * total['driver_seconds_per_image']:,.0f} us per image, so beyond about {cores:,.0f} cores (or parts of "
        "`--shard i/n`, each of which looks through all files) more than half of the time is the driver's."
    )
    proportion = "*In proportion to these:*"
    parts = [how, *map(common.table, (per_image, driver, folder)), proportion, common.table(whole), where]
    return "\n\n".join(parts)


def size(count: float) -> str:
    """Bytes for a reader.

    >>> size(25_600)
    '25.6 kB'
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} PB"


def fill_section(document: Path, section: str) -> None:
    """Put a section between the two marks of a document."""
    begin, end = f"<!-- {NAME}:begin -->", f"<!-- {NAME}:end -->"
    text = document.read_text()
    pattern = re.compile(f"{begin}.*{end}", re.DOTALL)
    document.write_text(pattern.sub(lambda _: f"{begin}\n{section}\n{end}", text))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--document", type=Path, default=DOCUMENT, help="whose section to fill (default: %(default)s)")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    images, side, repeats = (4, 96, 1) if asked.quick else (512, 320, 5)
    files, shards = ((300, 600), (10, 20)) if asked.quick else ((10_000, 50_000, 100_000), (4_000, 40_000, 100_000))
    result: dict[str, Any] = {"settings": {"images": images, "side": side, "repeats": repeats, "quick": asked.quick}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result["images"] = measure_images(folder / "images", images, side, repeats)
        result["driver"] = measure_driver(folder / "driver", files)
        result["folder"] = measure_folder(folder, shards)
    result["peak_bytes_of_this_process"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    result["extrapolated"] = extrapolate(result)
    path = common.write(asked.out, NAME, result)
    fill_section(asked.document, tables({**result, "machine": common.machine()}))
    print(f"written to {path} and {asked.document}")


if __name__ == "__main__":
    main()

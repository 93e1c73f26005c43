"""How fast images are encoded, against the published way, and decoded.

    python -m benchmarks.encode_speed

Images of 320 x 320 in memory, all tasks of a row in turn, medians of the ratios repeat by repeat. The published way is
`tests.reference.published_encode`: a grouped convolution per level, unfold, sum of absolute values, in torch.
"""

from __future__ import annotations

import functools
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import common
from monai_deepfixcx.codecs import DeepFixCXCodec, HeartSpotCodec
from monai_deepfixcx.codecs.kernels.threads import in_parts
from monai_deepfixcx.codecs.wavelet_packet import WaveletPacket
from tests import reference

NAME = "encode_speed"
TARGETS = {"db1, least": 12, "db1, median": 20, "other wavelets, least": 4, "uint8, median": 1.3, "uint8, least": 1.3}
SHORTEST, PAUSE = 0.02, 0.02  # seconds of each repeat of a task, and before it
LEVELS, PATCHES, OTHERS = range(1, 7), (1, 5, 19), ("db2", "coif1", "coif2")


def grid(side: int) -> list[tuple[int, int]]:
    """The published settings (J, P) that fit."""
    return [(j, p) for j in LEVELS for p in PATCHES if p <= -(-side // 2**j)]


def seconds_per_call(tasks: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Of tasks in turn, each called so often that a repeat takes about `SHORTEST`."""

    def call(task: Callable[[], object], times: int) -> None:
        for _ in range(times):
            task()

    calls = {}
    for name, task in tasks.items():
        task()  # compiles, and fills caches
        (once,) = common.in_turn({name: task}, 3).values()
        calls[name] = max(1, round(SHORTEST / min(once)))
    turns = {name: functools.partial(call, task, calls[name]) for name, task in tasks.items()}
    measured = common.in_turn(turns, repeats, PAUSE)
    return {name: [seconds / calls[name] for seconds in values] for name, values in measured.items()}


def against(
    tasks: Mapping[str, Callable[[], object]], images: int, repeats: int, reference_task: str = "published"
) -> dict[str, Any]:
    """Images/s of every task, and how many times as fast as the reference it is."""
    seconds = seconds_per_call(tasks, repeats)
    return {
        "images_per_s": {name: images / statistics.median(values) for name, values in seconds.items()},
        "times": {
            name: common.spread([slow / fast for slow, fast in zip(seconds[reference_task], values, strict=True)])
            for name, values in seconds.items()
            if name != reference_task
        },
    }


def encode_row(images: Tensor, levels: int, patches: int, wavelet: str, repeats: int) -> dict[str, Any]:
    """One setting: the published way, ours on float32, ours on the same images as uint8."""
    codec = DeepFixCXCodec(levels, patches, wavelet, spatial_dims=images.ndim - 2)
    eight_bits = (images * 255).byte()
    tasks = {
        "published": functools.partial(reference.published_encode, images, levels, patches, wavelet),
        "float32": functools.partial(codec.encode, images),
        "uint8": functools.partial(codec.encode, eight_bits),
    }
    row = against(tasks, len(images), repeats)
    faster = row["times"]["uint8"]["median"] / row["times"]["float32"]["median"]
    size = "x".join(map(str, images.shape[2:]))
    return {
        "wavelet": wavelet,
        "J": levels,
        "P": patches,
        "batch": len(images),
        "size": size,
        **row,
        "uint8": faster,
    }


def decode_row(images: Tensor, wavelet: str, repeats: int) -> dict[str, Any]:
    """Decoding against the same subbands repeated and inverted in full."""
    codec = DeepFixCXCodec(4, 5, wavelet)
    codes = codec.encode(images)
    subbands = codes.unflatten(2, (-1, 5, 5)) / 16

    def in_full() -> Tensor:
        return codec.synthesis(subbands.repeat_interleave(4, dim=3).repeat_interleave(4, dim=4), 4)

    row = against(
        {"in full": in_full, "decode": lambda: codec.decode(codes, (320, 320))}, len(images), repeats, "in full"
    )
    return {"wavelet": wavelet, "J": 4, "P": 5, "batch": len(images), **row}


def heartspot_row(images: Tensor, prior: str, repeats: int) -> dict[str, Any]:
    """HeartSpot where no gradient is needed against the path that carries one."""
    codec = HeartSpotCodec(prior, tuple(images.shape[2:]))
    recorded = images.clone().requires_grad_()
    tasks = {"with gradient": lambda: codec.encode(recorded), "encode": lambda: codec.encode(images)}
    return {"prior": prior, "batch": len(images), **against(tasks, len(images), repeats, "with gradient")}


def transform_row(images: Tensor, repeats: int) -> dict[str, Any]:
    """The packet transform alone against ptwt's, subbands written out."""
    from ptwt.packets import WaveletPacket2D

    ours = WaveletPacket("db2")

    def theirs() -> Any:
        packets = WaveletPacket2D(images[:, 0], "db2", mode="zero", maxlevel=3)
        return [packets["".join(path)] for path in packets.get_natural_order(3)]

    return {
        "wavelet": "db2",
        "J": 3,
        **against({"ptwt": theirs, "ours": lambda: ours(images, 3)}, len(images), repeats, "ptwt"),
    }


def first_call(wavelet: str) -> dict[str, float]:
    """Seconds of the first encoding in a new process: with nothing compiled before, and after that."""
    script = (
        "import time, torch; from monai_deepfixcx.codecs import DeepFixCXCodec; x = torch.rand(1, 1, 320, 320);"
        f"c = DeepFixCXCodec(4, 5, {wavelet!r}); t = time.perf_counter(); c.encode(x); print(time.perf_counter() - t)"
    )
    with tempfile.TemporaryDirectory() as cache:
        command, place = [sys.executable, "-W", "ignore", "-c", script], {**os.environ, "NUMBA_CACHE_DIR": cache}
        answers = [subprocess.run(command, env=place, capture_output=True, text=True, check=True) for _ in range(2)]
    seconds = [float(answer.stdout) for answer in answers]
    return {"compiling": seconds[0], "compiled before": seconds[1]}


def start_up(repeats: int) -> dict[str, dict[str, float]]:
    """Seconds of processes that only start."""
    commands = {
        "deepfixcx --help": [sys.executable, "-c", "from monai_deepfixcx.cli import main; main()", "--help"],
        "import monai_deepfixcx": [sys.executable, "-c", "import monai_deepfixcx"],
        "python -c pass": [sys.executable, "-c", "pass"],
    }
    tasks = {
        name: functools.partial(subprocess.run, command, capture_output=True, check=True)
        for name, command in commands.items()
    }
    return {name: common.spread(values) for name, values in common.in_turn(tasks, repeats).items()}


def read_once(images: Tensor, repeats: int) -> float:
    """Images/s of reading every pixel once from memory: no encoder of whole images can be faster."""
    seconds = seconds_per_call({"sum": images.sum}, repeats)["sum"]
    return len(images) / statistics.median(seconds)


def cost_of_a_call(repeats: int) -> float:
    """Microseconds to encode four pixels: what one image costs before its pixels are looked at."""
    task = functools.partial(DeepFixCXCodec(1, 1).encode, torch.rand(1, 1, 2, 2))
    return 1e6 * statistics.median(seconds_per_call({"call": task}, repeats)["call"])


def cost_of_a_thread(repeats: int) -> float:
    """Microseconds to have another thread do nothing, and to hear of it."""
    task = functools.partial(in_parts, lambda first, last: None, 2, nanoseconds=1e9)
    return 1e6 * statistics.median(seconds_per_call({"thread": task}, repeats)["thread"])


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The figures that the targets speak of."""
    haar = [row for row in rows if row["wavelet"] == "db1" and row["size"].count("x") == 1]
    times = [row["times"]["float32"]["median"] for row in haar]
    others = [row["times"]["float32"]["median"] for row in rows if row["wavelet"] != "db1"]
    eight_bits = [row["uint8"] for row in haar]
    return {
        "db1, least": min(times),
        "db1, median": statistics.median(times),
        "other wavelets, least": min(others),
        "uint8, median": statistics.median(eight_bits),
        "uint8, least": min(eight_bits),
    }


def tables(result: Mapping[str, Any]) -> str:
    """The result as markdown."""
    rows = [
        {
            "wavelet": row["wavelet"],
            "J, P": f"{row['J']}, {row['P']}",
            "size": row["size"],
            "batch": row["batch"],
            "published, images/s": f"{row['images_per_s']['published']:,.0f}",
            "ours, float32": f"{row['images_per_s']['float32']:,.0f} ({row['times']['float32']['median']:.0f}x)",
            "ours, uint8": f"{row['images_per_s']['uint8']:,.0f} ({row['times']['uint8']['median']:.0f}x)",
        }
        for row in result["encode"]
    ]
    reached = [
        {"": name, "reached": f"{result['summary'][name]:.1f}x", "target": f"{target}x"}
        for name, target in TARGETS.items()
    ]
    parts = [common.table(rows), common.table(reached), common.table(beside(result)), what_bounds(result)]
    return "\n\n".join(parts)


def beside(result: Mapping[str, Any]) -> list[dict[str, str]]:
    """What else was measured, each against what it is compared with."""

    def times(row: Mapping[str, Any], task: str) -> str:
        return f"{row['times'][task]['median']:.2g}x"

    fastest = max(row["images_per_s"]["float32"] for row in result["encode"])
    compared = [("fastest float32 encoding", "reading once", f"{fastest / result['read once, images/s']:.2g}x")]
    compared += [
        (f"decoding {row['wavelet']}, J={row['J']}, P={row['P']}", "inverting every pixel", times(row, "decode"))
        for row in result.get("decode", [])
    ]
    compared += [
        (f"HeartSpot {row['prior']}", "the path with gradients", times(row, "encode"))
        for row in result.get("heartspot", [])
    ]
    if "transform" in result:
        row = result["transform"]
        compared.append((f"{row['wavelet']} packets alone, J={row['J']}", "ptwt", times(row, "ours")))
    empty = result["start_up"]["python -c pass"]["median"]
    compared += [
        (name, f"python -c pass, {empty:.2g} s", f"{value['median'] / empty:.2g}x as long, {value['median']:.2g} s")
        for name, value in result["start_up"].items()
        if name != "python -c pass"
    ]
    compared += [
        (f"first call, {wavelet}", "compiled before", f"{value['compiling']:.3g} s, {value['compiled before']:.2g} s")
        for wavelet, value in result.get("first_call", {}).items()
    ]
    return [{"": what, "against": other, "came to": figure} for what, other, figure in compared]


def one_thread_each(images: Tensor, rows: Sequence[Mapping[str, Any]], repeats: int) -> dict[str, Any]:
    """The setting at which one image gains least, again with one thread for the published way, as ours uses."""
    alone = [row for row in rows if row["wavelet"] == "db1" and row["batch"] == 1]
    row = min(alone, key=lambda row: row["times"]["float32"]["median"])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return encode_row(images[:1], row["J"], row["P"], "db1", repeats)
    finally:
        torch.set_num_threads(threads)


def what_bounds(result: Mapping[str, Any]) -> str:
    """What stands between one image at a time and the targets."""
    row = result["one thread each"]
    took = {pixels: 1e6 / row["images_per_s"][pixels] for pixels in ("float32", "uint8")}
    return (
        f"One image at a time gains least at J={row['J']}, P={row['P']}: it takes {took['float32']:.0f} us, "
        f"{took['uint8']:.0f} as uint8, of which {result['a call, us']:.0f} go by before a pixel is read (a call with "
        f"four pixels), in one thread, as to have another one do nothing takes {result['a thread, us']:.0f} us. The "
        "published way uses all threads also for one image; with one thread each, ours is "
        f"{row['times']['float32']['median']:.0f}x as fast. {cost_of_codes(result['encode'], result['a call, us'])}"
    )


def cost_of_codes(rows: Sequence[Mapping[str, Any]], call: float) -> str:
    """What is the same for every type of pixels: to write many numbers; and how much faster bytes are without it."""
    deepest = max(row["J"] for row in rows)
    alone = [row for row in rows if (row["wavelet"], row["J"], row["batch"]) == ("db1", deepest, 1)]
    few, many = min(alone, key=lambda row: row["P"]), max(alone, key=lambda row: row["P"])
    took, shorter = ([1e6 / row["images_per_s"][pixels] for pixels in ("float32", "uint8")] for row in (many, few))
    longer = [a - b for a, b in zip(took, shorter, strict=True)]
    faster, without = took[0] / took[1], (shorter[0] - call) / (shorter[1] - call)
    return (
        f"At J={deepest}, P={many['P']} {many['P'] ** 2} times as many float32 numbers are written as at P={few['P']}, "
        f"and nothing else is more: it takes {longer[0]:.0f} us longer, {longer[1]:.0f} as uint8. With this and the "
        f"call, uint8 is {faster:.2f} times as fast as float32 there; without, {without:.2f} times."
    )


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Images/s over J for every P: the published way and ours, one image at a time and 64."""
    from matplotlib import pyplot

    rows = [row for row in result["encode"] if row["wavelet"] == "db1" and row["size"].count("x") == 1]
    batches = sorted({row["batch"] for row in rows})
    looks = {"uint8": ("tab:green", "ours, uint8"), "float32": ("tab:blue", "ours"), "published": ("0.55", "published")}
    figure, panels = pyplot.subplots(1, len(batches), figsize=(10, 4.2), sharey=True, layout="constrained")
    for panel, batch in zip(panels, batches, strict=True):
        for task, (colour, name) in looks.items():
            for patches, style in zip(PATCHES, ("-", "--", ":"), strict=True):
                chosen = [row for row in rows if (row["batch"], row["P"]) == (batch, patches)]
                rates = [row["images_per_s"][task] for row in chosen]
                panel.plot(
                    [row["J"] for row in chosen], rates, style, marker=".", color=colour, label=f"{name}, P={patches}"
                )
        panel.set(title=f"batches of {batch}", xlabel="J", yscale="log", xticks=LEVELS)
        panel.grid(alpha=0.25)
    panels[0].set_ylabel(f"images/s, {rows[0]['size']}, db1")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    given = common.arguments(__doc__).parse_args(arguments)
    torch.set_num_threads(given.threads)
    side, large, repeats = (64, 4, 1) if given.quick else (320, 64, 11)
    images = torch.rand(large, 1, side, side, generator=torch.Generator().manual_seed(0))
    volumes = torch.rand(2, 1, *[16 if given.quick else 128] * 3, generator=torch.Generator().manual_seed(1))
    settings = [(2, 5)] if given.quick else grid(side)
    rows = [
        encode_row(images[:batch], levels, patches, "db1", repeats)
        for levels, patches in settings
        for batch in (1, large)
    ]
    rows += [
        encode_row(images, levels, 5, wavelet, repeats)
        for wavelet in OTHERS
        for levels in ((2,) if given.quick else (1, 4, 6))
    ]
    rows.append(encode_row(volumes, 2, 4, "db1", repeats))
    result = {
        "settings": {"images": large, "side": side, "repeats": repeats, "quick": given.quick},
        "encode": rows,
        "summary": summary(rows),
        "targets": TARGETS,
        "read once, images/s": read_once(images, repeats),
        "a call, us": cost_of_a_call(repeats),
        "a thread, us": cost_of_a_thread(repeats),
        "one thread each": one_thread_each(images, rows, repeats),
        "start_up": start_up(repeats),
    }
    if not given.quick:
        result |= {
            "decode": [decode_row(images, wavelet, repeats) for wavelet in ("db1", "coif1")],
            "heartspot": [
                heartspot_row(images[:8], prior, repeats) for prior in ("rhline+heart", "median+rhline+heart")
            ],
            "transform": transform_row(images, repeats),
            "first_call": {wavelet: first_call(wavelet) for wavelet in ("db1", "coif1")},
        }
    path = common.write(given.out, NAME, result)
    draw(result, path.with_suffix(".png"))
    print(f"{tables(result)}\n\n{path}")


if __name__ == "__main__":
    main()

"""How fast images are encoded on a GPU, against the published way and against torch.

    python -m benchmarks.encode_gpu

Images of 320 x 320 in the GPU's memory (a batch that its cache can hold stays there), all tasks of a row in turn, timed
between CUDA events, medians of the ratios repeat by repeat. The published way is `tests.reference.published_encode`;
"torch" is our own path that carries gradients; "read once" sums all pixels. Without a CUDA device nothing is measured
or written.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from benchmarks import common, encode_speed
from monai_deepfixcx.codecs import DeepFixCXCodec
from tests import reference

NAME = "encode_gpu"


def in_turn(tasks: Mapping[str, Callable[[], object]], repeats: int, calls: int) -> dict[str, list[float]]:
    """Seconds that one call of each task took on the GPU, repeat by repeat; as `common.in_turn`, of many calls each."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(calls):
                task()
            end.record()
            end.synchronize()
            seconds[name].append(start.elapsed_time(end) / 1000 / calls)
    return seconds


def encode_row(images: Tensor, levels: int, patches: int, repeats: int, calls: int) -> dict[str, Any]:
    """One setting: the published way, torch, ours on float32, ours on the same images as uint8."""
    codec = DeepFixCXCodec(levels, patches)
    recorded, eight_bits = images.clone().requires_grad_(), (images * 255).byte()
    tasks: dict[str, Callable[[], Tensor]] = {
        "published": functools.partial(reference.published_encode, images, levels, patches),
        "torch": functools.partial(codec.encode, recorded),
        "float32": functools.partial(codec.encode, images),
        "uint8": functools.partial(codec.encode, eight_bits),
        "read once": images.sum,
    }
    torch.testing.assert_close(tasks["float32"](), tasks["torch"]().detach(), rtol=1e-4, atol=1e-3)
    in_turn(tasks, 1, 3)  # compiles, and fills caches
    seconds = in_turn(tasks, repeats, calls)
    times = {
        name: common.spread([slow / fast for slow, fast in zip(seconds["published"], values, strict=True)])
        for name, values in seconds.items()
        if name != "published"
    }
    rate = {name: len(images) / statistics.median(values) for name, values in seconds.items()}
    return {"J": levels, "P": patches, "batch": len(images), "images_per_s": rate, "times": times}


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """How many times as fast as the published way, over all settings; and how close to reading the pixels once."""
    ours = [row["times"]["float32"]["median"] for row in rows]
    share = [row["images_per_s"]["float32"] / row["images_per_s"]["read once"] for row in rows if row["batch"] > 1]
    return {"least": min(ours), "median": statistics.median(ours), "of read once, median": statistics.median(share)}


def tables(result: Mapping[str, Any]) -> str:
    """The result as markdown."""
    rows = [
        {
            "J, P": f"{row['J']}, {row['P']}",
            "batch": row["batch"],
            "published, images/s": f"{row['images_per_s']['published']:,.0f}",
            **{
                f"{task}, images/s": f"{row['images_per_s'][task]:,.0f} ({row['times'][task]['median']:.1f}x)"
                for task in ("torch", "float32", "uint8")
            },
        }
        for row in result["encode"]
    ]
    reached = {name: f"{value:.2f}" for name, value in result["summary"].items()}
    return f"{result['gpu']}\n\n{common.table(rows)}\n\n{common.table([reached])}"


def main(arguments: Sequence[str] | None = None) -> None:
    given = common.arguments(__doc__).parse_args(arguments)
    if not torch.cuda.is_available():
        print("There is no CUDA device here: nothing was measured.")
        return
    side, large, repeats, calls = (64, 4, 1, 2) if given.quick else (320, 64, 9, 20)
    images = torch.rand(large, 1, side, side, generator=torch.Generator().manual_seed(0)).cuda()
    rows = [
        encode_row(images[:batch], levels, patches, repeats, calls)
        for levels, patches in ([(2, 5)] if given.quick else encode_speed.grid(side))
        for batch in (1, large)
    ]
    result = {
        "settings": {"quick": given.quick, "side": side, "repeats": repeats, "calls": calls},
        "gpu": torch.cuda.get_device_name(),
        "cuda": torch.version.cuda,
        "triton": version("triton"),
        "encode": rows,
        "summary": summary(rows),
    }
    path = common.write(given.out, NAME, result)
    print(f"{tables(result)}\n\n{path}")


if __name__ == "__main__":
    main()

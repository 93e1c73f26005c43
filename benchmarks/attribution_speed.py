"""How long integrated gradients of a code MLP take, against Captum called one code at a time, and by batch size.

    python -m benchmarks.attribution_speed

Codes of J=4, P=5 (6,400 values), a `CodeMLP` of width 300 and 8 outputs, 32 steps; both sides give the same values.
Processor seconds of all threads stand beside those of the clock: they tell a slow method from a busy machine.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from captum.attr import IntegratedGradients
from torch import Tensor

from benchmarks import common
from monai_deepfixcx.attribution import attribute
from monai_deepfixcx.codecs import DeepFixCXCodec
from monai_deepfixcx.networks import CodeMLP

NAME = "attribution_speed"
SHAPE, STEPS, TARGET_S = (320, 320), 32, 10.0
CODEC = DeepFixCXCodec(levels=4, patch_size=5)


def ours(network: CodeMLP, codes: Tensor, batch_size: int = 256) -> Tensor:
    """Attributions ``[B, C, D]`` by `attribute`."""
    return attribute(network, codes, CODEC, SHAPE, target=0, batch_size=batch_size, baseline="zero", steps=STEPS).code


def one_by_one(network: CodeMLP, codes: Tensor) -> Tensor:
    """The same by Captum, a call for each code."""
    method = IntegratedGradients(network.eval())
    calls = (method.attribute(code.requires_grad_(), code * 0, 0, n_steps=STEPS) for code in codes.detach().split(1))
    return torch.cat([found.detach() for found in calls])


def clocked(task: Callable[[], Tensor]) -> dict[str, float]:
    """Seconds by the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    task()
    return {"seconds": time.perf_counter() - clock, "processor_seconds": time.process_time() - processor}


def measure(count: int, repeats: int, batch_sizes: Sequence[int]) -> dict[str, Any]:
    """Every side and batch size in turn, repeat by repeat."""
    torch.manual_seed(0)
    network, codes = CodeMLP(CODEC.code_length(SHAPE), out_channels=8, width=300), torch.rand(count, 1, 6400)
    difference = (ours(network, codes[:4]) - one_by_one(network, codes[:4])).abs().max().item()
    tasks: dict[str, Callable[[], Tensor]] = {"one by one": functools.partial(one_by_one, network, codes)}
    tasks |= {f"batch {size}": functools.partial(ours, network, codes, size) for size in batch_sizes}
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            taken[name].append(clocked(task))
    kinds = ("seconds", "processor_seconds")
    summary = {
        name: {kind: common.spread([run[kind] for run in runs]) for kind in kinds} for name, runs in taken.items()
    }
    ratios = {
        kind: common.spread(
            [slow[kind] / fast[kind] for slow, fast in zip(taken["one by one"], taken["batch 256"], strict=True)]
        )
        for kind in kinds
    }
    return {"largest_difference": difference, "tasks": summary, "ratio_one_by_one_to_ours": ratios}


def table(result: Mapping[str, Any]) -> str:
    """The result as markdown."""
    rows = [
        {"integrated gradients": name, "s": f"{task['seconds']['median']:.2f}"}
        | {"processor s": f"{task['processor_seconds']['median']:.2f}"}
        for name, task in result["tasks"].items()
    ]
    return common.table(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    asked = common.arguments(__doc__).parse_args(arguments)
    torch.set_num_threads(asked.threads)
    count, repeats = (8, 2) if asked.quick else (1000, 3)
    result: dict[str, Any] = {
        "settings": {"codes": count, "values": 6400, "steps": STEPS, "repeats": repeats, "quick": asked.quick},
        "target_seconds": TARGET_S,
        **measure(count, repeats, [256] if asked.quick else [64, 256, 1024]),
    }
    path = common.write(asked.out, NAME, result)
    print(f"{table(result)}\n\nwritten to {path}")


if __name__ == "__main__":
    main()

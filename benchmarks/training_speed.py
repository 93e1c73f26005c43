"""How many images a second can be trained on, and how many at once in the same memory: codes against full images.

    python -m benchmarks.training_speed

A training step goes from a batch of 320 x 320 images in memory to new weights: encoding, forward, backward, Adam. Each
network has the batch size that was fastest for it among a few; MONAI's DenseNet121 also the faster memory format.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks import common
from benchmarks.contenders import DENSENETS, ENCODED_AT_ONCE, NETWORKS, PRIVATIZED, Training, random_batch
from benchmarks.training_memory import GIB, largest_batch

NAME = "training_speed"
SPEED_TARGETS = {"DeepFixCX + MLP": 200, "HeartSpot + MLP": 50}
MEMORY_TARGET = 100


def fastest_batch(training: Training, batch: tuple[Tensor, Tensor], sizes: Sequence[int]) -> dict[int, float]:
    """Images/s of one step at each batch size, after one that is not counted."""
    rates = {}
    for size in sizes:
        images, labels = (part[:size] for part in batch)
        training.step(images, labels)
        start = time.perf_counter()
        training.step(images, labels)
        rates[size] = size / (time.perf_counter() - start)
    return rates


def measure_speed(
    names: Sequence[str], sizes: Mapping[str, Sequence[int]], side: int, repeats: int
) -> dict[str, dict[str, Any]]:
    """Images/s of every network at its best batch size, repeats taken in turn, and where its time goes."""
    trainings = {name: Training(name, side) for name in names}
    images, labels = random_batch(max(max(sizes[name]) for name in names), side)
    rates = {name: fastest_batch(trainings[name], (images, labels), sizes[name]) for name in names}
    best = {name: max(rate, key=lambda size: rate[size]) for name, rate in rates.items()}
    batches = {name: (images[:size], labels[:size]) for name, size in best.items()}
    steps = {name: functools.partial(trainings[name].step, *batches[name]) for name in names}
    seconds = common.in_turn(steps, repeats)
    results = {}
    for name in names:
        phases = common.in_turn(trainings[name].phases(*batches[name]), max(1, repeats // 2))
        parameters = sum(parameter.numel() for parameter in trainings[name].network.parameters())
        results[name] = {
            "parameters": parameters,
            "images_per_s_by_batch": {str(size): round(rate, 2) for size, rate in rates[name].items()},
            "batch": best[name],
            "images_per_s": common.spread([best[name] / value for value in seconds[name]]),
            "seconds_per_step": seconds[name],
            "ms_per_image": {
                phase: 1000 * common.spread(values)["median"] / best[name] for phase, values in phases.items()
            },
        }
    return results


def speed_ratios(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Times the speed of the faster DenseNet121, repeat by repeat."""
    reference = max(DENSENETS, key=lambda name: results[name]["images_per_s"]["median"])

    def rates(name: str) -> list[float]:
        return [results[name]["batch"] / seconds for seconds in results[name]["seconds_per_step"]]

    pairs = {name: zip(rates(name), rates(reference), strict=True) for name in PRIVATIZED}
    return {name: common.spread([ours / theirs for ours, theirs in pair]) for name, pair in pairs.items()}


def tables(result: Mapping[str, Any]) -> str:
    """The result as markdown."""
    speed, memory = result["speed"], result["memory"]
    rows = [
        {
            "network": name,
            "batch": entry["batch"],
            "images/s": f"{entry['images_per_s']['median']:.3g}",
            "against DenseNet121": f"{result['speed_ratios'][name]['median']:.0f}x" if name in PRIVATIZED else "",
            **{
                f"{phase}, ms/image": f"{value:.3g}" if phase != "encode" or name in PRIVATIZED else ""
                for phase, value in entry["ms_per_image"].items()
            },
        }
        for name, entry in speed.items()
    ]
    gib = result["settings"]["budget_gib"]
    weights = [
        {
            "network": name,
            "MB/image": f"{entry['megabytes_per_image']:.3g}",
            "fixed, GiB": f"{entry['fixed_gib']:.2f}",
            f"largest batch in {gib} GiB": entry["largest_batch_by_fit"],
            "against DenseNet121": f"{result['memory_ratios'][name]:.0f}x" if name in PRIVATIZED else "",
            "tried": f"{entry['batch_tried']}: {entry['batch_tried_peak_gib']:.2f} GiB",
        }
        for name, entry in memory.items()
    ]
    return f"{common.table(rows)}\n\n{common.table(weights)}"


def main(arguments: Sequence[str] | None = None) -> None:
    asked = common.arguments(__doc__).parse_args(arguments)
    torch.set_num_threads(asked.threads)
    side, repeats, budget = (64, 2, 1 * GIB) if asked.quick else (320, 7, 8 * GIB)
    few, many = ([1], [8]) if asked.quick else ([1, 4, 8, 16], [256, 512, 1024])
    sizes = {name: few if name in DENSENETS else many for name in NETWORKS}
    weighed = {name: [2, 4] if asked.quick else [4, 8, 12, 16] for name in DENSENETS}
    weighed |= {name: [16, 32] if asked.quick else [512, 1024, 2048, 3072] for name in PRIVATIZED}
    memory = {name: largest_batch(name, weighed[name], side, asked.threads, budget) for name in NETWORKS}
    speed = measure_speed(list(NETWORKS), sizes, side, repeats)
    most = max(memory[name]["largest_batch_by_fit"] for name in DENSENETS)
    result: dict[str, Any] = {
        "settings": {
            "side": side,
            "seed": 0,
            "repeats": repeats,
            "budget_gib": budget // GIB,
            "encoded_at_once": ENCODED_AT_ONCE,
            "optimizer": "Adam, fused",
            "quick": asked.quick,
        },
        "speed": speed,
        "speed_ratios": speed_ratios(speed),
        "speed_targets": SPEED_TARGETS,
        "memory": memory,
        "memory_ratios": {name: memory[name]["largest_batch_by_fit"] / most for name in PRIVATIZED},
        "memory_target": MEMORY_TARGET,
    }
    path = common.write(asked.out, NAME, result)
    print(f"{tables(result)}\n\nwritten to {path}")


if __name__ == "__main__":
    main()

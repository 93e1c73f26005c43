"""Differentially private training on SYNTHETIC radiographs (the phantom, no patients): codes against the full image.

    python -m benchmarks.private_training

Accuracy: 2,000 training films of 64 pixels, one a patient, so that a record is a patient; the same head on the codes
without privacy and at epsilon 8, delta 1e-4, and ResNet9 on the films, in one table by `run_sweep`. Judged by the mean
AUROC of both labels on 1,000 other patients. The codes' recipe was chosen on the phantom of seed 0; these are patients
of seed 1. ResNet9's recipe is a usual one and was not searched for: one run of it takes as long as hundreds of the
codes'.

Speed: seconds per image of training in MONAI's trainer and in DPTrainer, whole epochs taken in turn, films of 128
pixels; the code's include encoding every image anew in every epoch. The accountant's one question at the start of a
run is left out and told apart.
"""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmarks import common
from monai_deepfixcx.codecs import Codec, DeepFixCXCodec, HeartSpotCodec
from monai_deepfixcx.data.phantom import PhantomRadiographs
from monai_deepfixcx.networks import ResNet9
from monai_deepfixcx.pipeline.private_sweep import (
    Contender,
    Recipe,
    film_parts,
    publicly_normalized_mlp,
    run_sweep,
    train_contender,
)

NAME = "private_training"
EPSILON, DELTA = 8.0, 1e-4
PHANTOM_SEED = 1  # no choice of settings has seen its patients
LABELS = list(PhantomRadiographs.labels)
CODE, FULL_IMAGE = "DeepFixCX (J=2, P=8) + MLP", "full image, ResNet9"
TARGETS = {"auroc_lost_on_codes": 0.03, "slower_than_non_private": 3.0, "faster_than_full_image": 20.0}
CODE_RECIPE = Recipe(epochs=30, batch_size=256, learning_rate=5e-3)
IMAGE_RECIPE = Recipe(epochs=10, batch_size=128, learning_rate=1e-3, physical_batch_size=32)


def contenders(size: int, code: Recipe, image: Recipe, width: int = 64) -> list[Contender]:
    """The same head on two kinds of codes, and the third paper's network on the films."""
    shape = (size, size)
    codecs: dict[str, Codec] = {
        CODE: DeepFixCXCodec(2, 8),
        "HeartSpot (rhline+heart) + MLP": HeartSpotCodec("rhline+heart", shape),
    }
    heads = [
        Contender(
            name,
            functools.partial(publicly_normalized_mlp, codec, shape, out_channels=len(LABELS), inputs="codes"),
            codec,
            code,
            ("normalization",),
        )
        for name, codec in codecs.items()
    ]
    return [*heads, Contender(FULL_IMAGE, functools.partial(ResNet9, 1, len(LABELS), width), None, image)]


def measure_accuracy(quick: bool) -> dict[str, Any]:
    """The sweep at one epsilon, its figures left out, and what is asked of it."""
    counts = (24, 12, 24) if quick else (2000, 300, 1000)
    code = Recipe(epochs=1, batch_size=12) if quick else CODE_RECIPE
    image = Recipe(epochs=1, batch_size=12, physical_batch_size=8) if quick else IMAGE_RECIPE
    with tempfile.TemporaryDirectory() as folder:
        result = run_sweep(
            film_parts(counts, 64, PHANTOM_SEED),
            contenders(64, code, image, width=32 if quick else 64),
            LABELS,
            folder,
            epsilons=(None, EPSILON),
            delta=DELTA,
            attributes=["sex", "age"],
            min_patients=2 if quick else 10,
            samples=50 if quick else 1000,
            noise_seed=0,
            data="SYNTHETIC films of 64 pixels",
            figures=False,
        )
    found = {}
    for name, contender in result["contenders"].items():
        plain, private = contender["runs"]
        found[name] = {
            "values": contender["values"],
            "parameters": contender["parameters"],
            "privacy": private["privacy"],
            "seconds": {"non_private": plain["seconds"], "private": private["seconds"]},
            **{
                key: {
                    "mean_auroc": run["report"]["mean"]["auroc"],
                    "auroc": {label: run["report"]["labels"][label]["auroc"] for label in LABELS},
                    "subgroups": {
                        attribute: {"worst": entry["mean"]["worst"]["auroc"], "gaps": entry["mean"]["gaps"]}
                        for attribute, entry in run["report"]["attributes"].items()
                    },
                }
                for key, run in (("non_private", plain), ("private", private))
            },
        }
        values = [found[name][key]["mean_auroc"]["value"] for key in ("non_private", "private")]
        found[name]["auroc_lost"] = None if None in values else values[0] - values[1]
    return found


def measure_speed(quick: bool, repeats: int) -> dict[str, Any]:
    """Seconds per image of one epoch, least to greatest over repeats in turn, and their ratios."""
    size, films, few = (64, 24, 8) if quick else (128, 2000, 64)
    heads = contenders(size, Recipe(2, 8 if quick else 256), Recipe(2, 8 if quick else 32, physical_batch_size=32))
    phantom = PhantomRadiographs(few, 1, size, seed=PHANTOM_SEED)
    images = [{**phantom[index]} for index in range(few)]
    # What is in an image does not change how long a step takes, and rendering does take long.
    many = [{**images[index % few], "patient": index} for index in range(films)]
    code = next(head for head in heads if head.name == CODE)
    full = next(head for head in heads if head.name == FULL_IMAGE)
    codes = code.inputs(many)
    seconds: dict[str, list[float]] = {name: [] for name in ("encode", "code", "code_private", "full_private")}
    accounting = []
    for repeat in range(repeats):
        start = time.perf_counter()
        code.inputs(many)
        seconds["encode"].append((time.perf_counter() - start) / films)
        for name, contender, items, epsilon in (
            ("code", code, codes, None),
            ("code_private", code, codes, EPSILON),
            ("full_private", full, images, EPSILON),
        ):
            delta = min(DELTA, 0.1 / len(items))
            trained = train_contender(
                contender, items, epsilon, delta, accountant="rdp", seed=repeat, noise_seed=repeat
            )
            seconds[name].append(trained.epoch_seconds[1] / len(items))
            if name == "code_private":
                accounting.append(trained.epoch_seconds[0] - trained.epoch_seconds[1])
    slower = [ours / plain for ours, plain in zip(seconds["code_private"], seconds["code"], strict=True)]
    whole = [ours + encode for ours, encode in zip(seconds["code_private"], seconds["encode"], strict=True)]
    faster = [full / ours for full, ours in zip(seconds["full_private"], whole, strict=True)]
    return {
        "size": size,
        "microseconds_per_image": {
            name: common.spread([1e6 * value for value in values]) for name, values in seconds.items()
        },
        "accounting_seconds_once": max(0.0, statistics.median(accounting)),
        "private_code_slower_than_non_private": common.spread(slower),
        "private_code_faster_than_private_full_image": common.spread(faster),
    }


def tables(result: Mapping[str, Any]) -> str:
    """The result as markdown."""
    rows = [
        {
            "trained on": name,
            "values": f"{entry['values']:,}",
            "AUROC, non-private": _interval(entry["non_private"]["mean_auroc"]),
            f"AUROC at epsilon {EPSILON:g}": _interval(entry["private"]["mean_auroc"]),
            "lost": "-" if entry["auroc_lost"] is None else f"{entry['auroc_lost']:+.3f}",
            "worst sex, private": _worst(entry["private"]["subgroups"]["sex"]["worst"]),
            "worst age, private": _worst(entry["private"]["subgroups"]["age"]["worst"]),
        }
        for name, entry in result["accuracy"].items()
    ]
    speed = result["speed"]
    times = {name: f"{value['median']:,.0f}" for name, value in speed["microseconds_per_image"].items()}
    slower = speed["private_code_slower_than_non_private"]["median"]
    faster = speed["private_code_faster_than_private_full_image"]["median"]
    ratios = {
        "code, private against non-private": f"{slower:.1f}x slower",
        "private, code against full image": f"{faster:.0f}x faster",
    }
    return f"{common.table(rows)}\n\n{common.table([times])}\n\n{common.table([ratios])}"


def main(arguments: Sequence[str] | None = None) -> None:
    asked = common.arguments(__doc__).parse_args(arguments)
    torch.set_num_threads(asked.threads)
    speed = measure_speed(asked.quick, 1 if asked.quick else 5)
    print(speed, flush=True)
    accuracy = measure_accuracy(asked.quick)
    private = {name: entry["private"]["mean_auroc"]["value"] or 0.0 for name, entry in accuracy.items()}
    lost = accuracy[CODE]["auroc_lost"]
    result = {
        "data": f"SYNTHETIC: PhantomRadiographs, size=64, seed={PHANTOM_SEED}, 1 film a patient, no real patient",
        "settings": {"epsilon": EPSILON, "delta": DELTA, "unit": "record", "quick": asked.quick},
        "targets": TARGETS,
        "reached": {
            "auroc_lost_on_codes": lost is not None and lost <= TARGETS["auroc_lost_on_codes"],
            "above_full_image": private[CODE] > private[FULL_IMAGE],
            "slower_than_non_private": speed["private_code_slower_than_non_private"]["median"]
            <= TARGETS["slower_than_non_private"],
            "faster_than_full_image": speed["private_code_faster_than_private_full_image"]["median"]
            >= TARGETS["faster_than_full_image"],
        },
        "accuracy": accuracy,
        "speed": speed,
    }
    path = common.write(asked.out, NAME, result)
    print(f"{tables(result)}\n\nwritten to {path}")


def _interval(estimate: Mapping[str, Any]) -> str:
    return "-" if estimate["low"] is None else common.interval(estimate)


def _worst(worst: Mapping[str, Any] | None) -> str:
    return "-" if worst is None else f"{worst['group']}: {_interval(worst['estimate'])}"


if __name__ == "__main__":
    main()

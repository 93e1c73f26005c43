"""Cardiomegaly on SYNTHETIC radiographs (the phantom, no patients): two kinds of codes against the full image.

    python -m benchmarks.accuracy_phantom

Same films, same split by patient, same labels, one run. Every network is trained by AdamW on binary cross-entropy with
a cosine schedule, and judged on the test patients with the weights of its best validation epoch; training stops where
validation has not improved for `patience` epochs. The settings were chosen on the phantom of seed 0; these are other
patients, of seed 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.networks.nets.densenet import DenseNet121
from torch import Tensor, nn

from benchmarks import common
from monai_deepfixcx.data.phantom import PhantomArrays, PhantomRadiographs
from monai_deepfixcx.metrics import auroc, patient_bootstrap
from monai_deepfixcx.networks import CodeMLP, PrivatizedNetwork, privatized_heartspot_mlp, privatized_mlp

NAME = "accuracy_phantom"
TARGET, MARGIN = 0.95, 0.03
FULL_IMAGE = "DenseNet121, full image"
PHANTOM_SEED = 1  # no choice of settings has seen its patients
Build = Callable[[int], nn.Module]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained."""

    epochs: int
    patience: int
    batch: int
    rate: float = 1e-3
    weight_decay: float = 0.1


def _deepfixcx(size: int) -> nn.Module:
    codec = {"codec": "deepfixcx", "levels": 2, "patch_size": 16}
    return privatized_mlp(codec, (size, size), inputs="codes", normalization="whiten")


def _heartspot(size: int) -> nn.Module:
    codec = {"codec": "heartspot", "prior": "rhline+heart", "spatial_shape": [size, size]}
    return privatized_heartspot_mlp(codec, (size, size), inputs="codes")


def _densenet(size: int) -> nn.Module:
    return DenseNet121(spatial_dims=2, in_channels=1, out_channels=1)


NETWORKS: dict[str, tuple[Build, Recipe]] = {
    "DeepFixCX (J=2, P=16) + MLP": (_deepfixcx, Recipe(epochs=30, patience=10, batch=64)),
    "HeartSpot (rhline+heart) + MLP": (_heartspot, Recipe(epochs=12, patience=4, batch=64)),
    FULL_IMAGE: (_densenet, Recipe(epochs=6, patience=3, batch=16)),
}


def scores(network: nn.Module, inputs: Tensor) -> Tensor:
    """Logits ``[N]``, in evaluation mode."""
    network.eval()
    with torch.no_grad():
        return torch.cat([network(part)[:, 0] for part in inputs.split(64)])


def fit(network: nn.Module, recipe: Recipe, data: Mapping[str, tuple[Tensor, Tensor]], seed: int) -> list[float]:
    """Train on "training", keep the weights that do best on "validation"; the validation AUROC of every epoch."""
    inputs, labels = data["training"]
    optimizer = torch.optim.AdamW(network.parameters(), recipe.rate, weight_decay=recipe.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs)
    generator = torch.Generator().manual_seed(seed)
    history: list[float] = []
    best: dict[str, Tensor] = {}
    for _ in range(recipe.epochs):
        network.train()
        for rows in torch.randperm(len(inputs), generator=generator).split(recipe.batch):
            if len(rows) > 1:  # batch normalization needs two
                optimizer.zero_grad()
                F.binary_cross_entropy_with_logits(network(inputs[rows])[:, 0], labels[rows]).backward()
                optimizer.step()
        schedule.step()
        history.append(auroc(scores(network, data["validation"][0]), data["validation"][1]))
        if history[-1] == max(history):
            best = {name: value.clone() for name, value in network.state_dict().items()}
        elif len(history) - history.index(max(history)) > recipe.patience:
            break
    network.load_state_dict(best)
    return history


def run(
    build: Build, recipe: Recipe, films: Mapping[str, PhantomArrays], seeds: Sequence[int]
) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """What is reported of a network, and its test scores ``[N, seeds]``."""
    start = time.perf_counter()
    size = films["test"]["images"].shape[-1]
    test_scores, histories, values = [], [], 0
    for seed in seeds:
        torch.manual_seed(seed)
        network = build(size)
        data = {part: (arrays["images"], arrays["labels"][:, 0]) for part, arrays in films.items()}
        if isinstance(network, PrivatizedNetwork):
            with torch.no_grad():
                data = {part: (network.encode(images), labels) for part, (images, labels) in data.items()}
            if isinstance(network.network, CodeMLP):
                network.fit_normalization([data["training"][0]])
        values = data["test"][0][0].numel()
        histories.append(fit(network, recipe, data, seed))
        test_scores.append(scores(network, data["test"][0]).numpy())
    columns = np.stack(test_scores, axis=1)
    report = {
        "values_kept": values,
        "recipe": asdict(recipe),
        "seeds": list(seeds),
        "seconds": time.perf_counter() - start,
        "validation_auroc_by_epoch": histories,
        "test_auroc_by_seed": [auroc(column, films["test"]["labels"][:, 0]) for column in columns.T],
    }
    return report, columns


def tables(result: Mapping[str, Any]) -> str:
    """The result as markdown."""
    full = result["networks"][FULL_IMAGE]["values_kept"]
    return common.table(
        {
            "network": name,
            "values kept": f"{entry['values_kept']:,} ({100 * entry['values_kept'] / full:.0f} %)",
            "AUROC (95 % interval)": common.interval(entry["test_auroc"]),
            "less DenseNet121": ""
            if name == FULL_IMAGE
            else f"{entry['less_full_image']['value']:+.3f} "
            f"({entry['less_full_image']['low']:+.3f} to {entry['less_full_image']['high']:+.3f})",
            "seeds": len(entry["seeds"]),
            "training, s a seed": f"{entry['seconds'] / len(entry['seeds']):.0f}",
        }
        for name, entry in result["networks"].items()
    )


def main(arguments: Sequence[str] | None = None) -> None:
    asked = common.arguments(__doc__).parse_args(arguments)
    torch.set_num_threads(asked.threads)
    size, counts = (64, (16, 12, 12)) if asked.quick else (128, (500, 100, 300))
    parts, films, first = ("training", "validation", "test"), {}, 0
    for part, count in zip(parts, counts, strict=True):
        films[part] = PhantomRadiographs(count, 2, size, seed=PHANTOM_SEED, first_patient=first).arrays()
        first += count
    networks, columns = {}, {}
    for name, (build, recipe) in NETWORKS.items():
        seeds = [0] if asked.quick or name == FULL_IMAGE else [0, 1, 2]
        recipe = Recipe(1, 1, 8) if asked.quick else recipe
        networks[name], columns[name] = run(build, recipe, films, seeds)
        print(f"{name}: {networks[name]['test_auroc_by_seed']} in {networks[name]['seconds']:.0f} s", flush=True)
    patients, labels = films["test"]["patients"], films["test"]["labels"][:, 0]
    for name, entry in networks.items():
        entry["test_auroc"] = asdict(patient_bootstrap(common.mean_auroc, [columns[name], labels], patients))
        entry["less_full_image"] = asdict(
            patient_bootstrap(common.auroc_gain, [columns[name], columns[FULL_IMAGE], labels], patients)
        )
    ours = [entry for name, entry in networks.items() if name != FULL_IMAGE]
    result = {
        "data": f"SYNTHETIC: PhantomRadiographs, size={size}, seed={PHANTOM_SEED}, 2 visits, no real patient",
        "label": "Cardiomegaly",
        "patients": dict(zip(parts, counts, strict=True)),
        "positives": {part: float(arrays["labels"][:, 0].mean()) for part, arrays in films.items()},
        "settings": {"size": size, "quick": asked.quick},
        "targets": {"auroc": TARGET, "less_full_image": -MARGIN},
        "reached": all(
            entry["test_auroc"]["value"] >= TARGET and entry["less_full_image"]["value"] >= -MARGIN for entry in ours
        ),
        "networks": networks,
    }
    path = common.write(asked.out, NAME, result)
    print(f"{tables(result)}\n\nwritten to {path}")


if __name__ == "__main__":
    main()

"""A sweep over privacy budgets: train, evaluate by subgroups, and write one table and its figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import DataLoader, Dataset
from torch import nn

from monai_deepfixcx.data.phantom import PhantomRadiographs
from monai_deepfixcx.dp.accounting import Accountant, epsilon_of
from monai_deepfixcx.dp.evaluator import DPEvaluator
from monai_deepfixcx.dp.sampling import Unit
from monai_deepfixcx.handlers.classification_report_handler import ClassificationReportHandler
from monai_deepfixcx.handlers.fairness_handler import FairnessHandler
from monai_deepfixcx.metrics.fairness import Attribute, auroc_against_count, drop_against_count, gap_against_epsilon
from monai_deepfixcx.metrics.fairness.groups import attribute_name
from monai_deepfixcx.pipeline.private_sweep.figures import write_figures
from monai_deepfixcx.pipeline.private_sweep.table import sweep_table
from monai_deepfixcx.pipeline.private_sweep.training import Contender, Items, Trained, train_contender

Parts = Mapping[str, Items]


def run_sweep(
    parts: Parts,
    contenders: Sequence[Contender],
    label_names: Sequence[str],
    output_dir: str | Path,
    epsilons: Sequence[float | None] = (None, 8.0, 1.0),
    delta: float = 1e-5,
    attributes: Sequence[Attribute] = ("sex", "age"),
    unit: Unit = "record",
    accountant: Accountant = "prv",
    samples: int = 1000,
    min_patients: int = 10,
    seed: int = 0,
    noise_seed: int | None = None,
    device: str | torch.device = "cpu",
    data: str = "",
    figures: bool = True,
) -> dict[str, Any]:
    """Train every contender without privacy and at every epsilon, judge each on the test patients, write what came.

    `output_dir` then holds ``sweep.json``, ``sweep.md``, figures (PNG) and, per run, the tables of `FairnessHandler`.
    Thresholds are chosen on validation patients. Epsilon covers the training patients only, and each run by itself:
    whoever publishes the whole sweep has spent the composition of its runs, which is reported too.

    Args:
        parts: "training", "validation" and "testing" items with "image" ``[C, *S]``, "label" ``[L]``, "patient" and
            the columns that `attributes` names; no patient in two.
        contenders: with different names.
        label_names: L names.
        output_dir: made if absent.
        epsilons: None is the training without privacy.
        delta: of every budget.
        attributes: see `FairnessReport`.
        unit: whom epsilon protects, "record" or "patient".
        accountant: "prv" or "rdp".
        samples: bootstrap resamples of test patients.
        min_patients: of a subgroup.
        seed: of initial weights, order and resamples.
        noise_seed: see `train_contender`; for synthetic data only.
        device: where to train.
        data: what the data are, for the head of the table.
        figures: draw them.

    Returns:
        What ``sweep.json`` holds.

    Raises:
        ValueError: contenders of one name, no epsilon or one twice, or a part that is missing.
    """
    names = [contender.name for contender in contenders]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"contenders must have different names; got {names}.")
    if not epsilons or len(set(epsilons)) != len(epsilons):
        raise ValueError(f"epsilons must be different numbers or None, at least one; got {list(epsilons)}.")
    if missing := [part for part in ("training", "validation", "testing") if not parts.get(part)]:
        raise ValueError(f"parts must hold items for training, validation and testing; {missing[0]} has none.")
    output = Path(output_dir)
    result: dict[str, Any] = {
        "data": data,
        "unit": unit,
        "delta": delta,
        "labels": list(label_names),
        "attributes": [attribute_name(attribute) for attribute in attributes],
        "images": {part: len(items) for part, items in parts.items()},
        "contenders": {},
    }
    everything = []
    for contender in contenders:
        inputs = {part: contender.inputs(items) for part, items in parts.items()}
        runs = []
        accounted = []
        for epsilon in epsilons:
            trained = train_contender(
                contender, inputs["training"], epsilon, delta, unit, accountant, seed, noise_seed, device
            )
            accounted += trained.steps
            folder = output / _file_name(contender.name) / _run_name(epsilon)
            report = _evaluate(
                trained, contender, inputs, label_names, folder, attributes, samples, min_patients, seed, device
            )
            runs.append({"epsilon": epsilon, "privacy": trained.privacy, "seconds": trained.seconds, "report": report})
        everything += accounted
        result["contenders"][contender.name] = {
            "values": int(inputs["training"][0]["image"].numel()),
            "parameters": sum(parameter.numel() for parameter in contender.build().parameters()),
            "composed_epsilon": epsilon_of(accounted, delta, accountant).epsilon,
            "panels": _panels(runs, result["attributes"]),
            "runs": runs,
        }
    result["composed_epsilon"] = epsilon_of(everything, delta, accountant).epsilon
    output.mkdir(parents=True, exist_ok=True)
    (output / "sweep.json").write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    (output / "sweep.md").write_text(sweep_table(result))
    if figures:
        write_figures(result, output)
    return result


def film_parts(counts: Sequence[int] = (1200, 300, 500), size: int = 64, seed: int = 0) -> dict[str, list[Any]]:
    """SYNTHETIC films, one a patient, in memory, in three parts that share no patient.

    Args:
        counts: patients in training, validation and testing.
        size: side of the films in pixels.
        seed: of the phantom.

    >>> {part: len(items) for part, items in film_parts((3, 1, 2)).items()}
    {'training': 3, 'validation': 1, 'testing': 2}
    """
    parts: dict[str, list[Any]] = {}
    first = 0
    for part, count in zip(("training", "validation", "testing"), counts, strict=True):
        films = PhantomRadiographs(count, 1, size, seed, first)
        parts[part] = [{**films[index], "view": "PA"} for index in range(count)]
        first += count
    return parts


def load_parts(datalist: Parts, transform: Any) -> dict[str, list[Any]]:
    """Every item of a datalist, read and prepared once, in memory.

    Args:
        datalist: of `bundle_datalist`.
        transform: reads an item's image ``[C, *S]`` and makes its label a tensor.
    """
    return {part: [transform(dict(item)) for item in items] for part, items in datalist.items()}


def _evaluate(
    trained: Trained,
    contender: Contender,
    inputs: Parts,
    label_names: Sequence[str],
    folder: Path,
    attributes: Sequence[Attribute],
    samples: int,
    min_patients: int,
    seed: int,
    device: str | torch.device,
) -> dict[str, Any]:
    """Choose thresholds on the validation patients, and judge the test patients by them."""
    thresholds = folder / "thresholds.json"
    patients = {item["patient"] for item in inputs["training"]}
    handlers = {
        "validation": ClassificationReportHandler(
            folder / "validation", label_names, save_thresholds=thresholds, samples=0
        ),
        "testing": FairnessHandler(
            folder,
            label_names,
            attributes,
            thresholds=thresholds,
            min_patients=min_patients,
            samples=samples,
            seed=seed,
        ),
    }
    for part, handler in handlers.items():
        DPEvaluator(
            torch.device(device),
            DataLoader(Dataset(inputs[part]), batch_size=128, num_workers=0),
            _ready(trained.network),
            patients,
            public_statistics=contender.public_statistics,
            decollate=False,
            val_handlers=[handler],
        ).run()
    report: dict[str, Any] = json.loads((folder / "fairness.json").read_text())
    return report


def _ready(network: nn.Module) -> nn.Module:
    return network.eval()


def _panels(runs: Sequence[Mapping[str, Any]], attributes: Sequence[str]) -> dict[str, Any]:
    """Pearson's r over the labels of each run, and over the epsilons for each attribute."""
    reports = {run["epsilon"]: run["report"] for run in runs}
    private = {epsilon: report for epsilon, report in reports.items() if epsilon is not None}
    panels: dict[str, Any] = {
        "auroc_against_count": {
            _run_name(epsilon): auroc_against_count(report).as_dict() for epsilon, report in reports.items()
        },
        "gap_against_epsilon": {
            attribute: gap_against_epsilon(private, attribute).as_dict() for attribute in attributes if private
        },
    }
    if None in reports:
        panels["drop_against_count"] = {
            _run_name(epsilon): drop_against_count(reports[None], report).as_dict()
            for epsilon, report in private.items()
        }
    return panels


def _run_name(epsilon: float | None) -> str:
    return "non-private" if epsilon is None else f"epsilon {epsilon:g}"


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)

"""What codes of real chest radiographs still tell: AUROC of sex and effusion, by the share of pixels kept.

    python -m benchmarks.accuracy_nih

733 films of NIH ChestX-ray14 at 64 x 64, 215 patients. Every input, the full image included, gets the same head:
logistic regression on the whitened values with an l2 penalty. Scores are out of fold: folds share no patient, and
whitening and penalty (by an inner cross-validation, also by patient) come from the training folds alone.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks import common
from monai_deepfixcx.codecs import Codec, DeepFixCXCodec, HeartSpotCodec, IdentityCodec
from monai_deepfixcx.metrics import auroc, patient_bootstrap
from monai_deepfixcx.networks import CodeNormalization

NAME = "accuracy_nih"
DATA = Path(__file__).parents[2] / "shared/data/nih1000"
SIDE = 64
LABELS = ("sex (male)", "effusion")
# Of the mean squared norm of a whitened code, so that one list serves codes of all lengths.
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
LEVELS_AND_PATCHES = ((1, 1), (1, 2), (1, 4), (1, 8), (1, 16), (2, 2), (2, 4), (2, 8), (3, 1), (3, 2), (3, 4), (4, 2))
PRIORS = ("hline", "rline", "rhline", "heart", "hline+heart", "rhline+heart", "median+hline", "median+rhline+heart")


@dataclass(frozen=True)
class Films:
    """Images, labels and patients."""

    images: Tensor  # [N, 1, 64, 64], in [0, 1]
    labels: Tensor  # [N, len(LABELS)] of 0 and 1
    patients: NDArray[np.str_]  # [N]


def read_films(folder: Path) -> Films:
    """All films of a folder that has a ``labels.csv``."""
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    images = np.stack([np.asarray(Image.open(folder / row["image"]), dtype=np.float32) for row in rows])
    labels = [[row["sex"] == "M", "Effusion" in row["findings"].split("|")] for row in rows]
    patients = np.array([row["patient_id"] for row in rows])
    return Films(torch.from_numpy(images)[:, None] / 255, torch.tensor(labels).double(), patients)


def inputs() -> dict[str, tuple[str, Codec]]:
    """What is compared: name -> (family, codec)."""
    codecs: dict[str, tuple[str, Codec]] = {"full image": ("full image", IdentityCodec())}
    for levels, patches in LEVELS_AND_PATCHES:
        codecs[f"DeepFixCX J={levels} P={patches}"] = ("DeepFixCX", DeepFixCXCodec(levels, patches))
    for prior in PRIORS:
        codecs[f"HeartSpot {prior}"] = ("HeartSpot", HeartSpotCodec(prior, (SIDE, SIDE)))
    return codecs


def folds(patients: NDArray[np.str_], count: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows to train on and rows held out, `count` times; every row is held out once, and no patient is in both."""
    names, owner = np.unique(patients, return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(names)) % count
    for number in range(count):
        held_out = torch.from_numpy(fold[owner] == number)
        yield (~held_out).nonzero()[:, 0], held_out.nonzero()[:, 0]


class LogisticHead:
    """Logistic regression with an l2 penalty on whitened codes, solved in the span of the training codes.

    There it has as many weights as there are training codes, however long a code is, and the same minimum.

    Args:
        codes: ``[N, D]``, to learn from.
    """

    def __init__(self, codes: Tensor) -> None:
        self._whiten = CodeNormalization(1, codes.shape[1], "whiten")
        self._whiten.fit([codes[:, None]])
        self._codes = self._whitened(codes)
        values, vectors = torch.linalg.eigh(self._codes @ self._codes.T)
        spanned = values > values.max() * 1e-10
        self._basis = vectors[:, spanned] / values[spanned].sqrt()
        self._coordinates = vectors[:, spanned] * values[spanned].sqrt()

    def _whitened(self, codes: Tensor) -> Tensor:
        return self._whiten(codes[:, None])[:, 0] / codes.shape[1] ** 0.5

    def coordinates(self, codes: Tensor) -> Tensor:
        """Codes ``[M, D]`` as the solver sees them."""
        return self._whitened(codes) @ (self._codes.T @ self._basis)

    def fit(self, labels: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
        """Weights and bias for `coordinates`."""
        weights = torch.zeros(self._coordinates.shape[1], dtype=torch.float64, requires_grad=True)
        bias = labels.mean().logit().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [weights, bias], max_iter=100, tolerance_grad=1e-4, tolerance_change=1e-7, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            logits = self._coordinates @ weights + bias
            value = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
            value = value + penalty / 2 * weights.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        return weights.detach(), bias.detach()


def best_penalties(codes: Tensor, films: Films, rows: Tensor, seed: int) -> list[float]:
    """The penalty of each label with the best AUROC in a cross-validation by patient within these rows."""
    patients = films.patients[rows.numpy()]
    held = torch.empty((len(LABELS), len(PENALTIES), len(rows)), dtype=torch.float64)
    for train, test in folds(patients, 3, seed):
        head = LogisticHead(codes[rows[train]])
        coordinates = head.coordinates(codes[rows[test]])
        for label in range(len(LABELS)):
            for number, penalty in enumerate(PENALTIES):
                weights, bias = head.fit(films.labels[rows[train], label], penalty)
                held[label, number, test] = coordinates @ weights + bias
    truths = films.labels[rows].T
    return [
        max(zip(PENALTIES, scores, strict=True), key=lambda pair: auroc(pair[1], truth))[0]
        for scores, truth in zip(held, truths, strict=True)
    ]


def out_of_fold(codes: Tensor, films: Films, count: int, seed: int) -> tuple[Tensor, list[list[float]]]:
    """Scores ``[labels, N]``, each by a head that never saw the patient, and the penalties chosen."""
    scores = torch.empty((len(LABELS), len(codes)), dtype=torch.float64)
    chosen = []
    for train, test in folds(films.patients, count, seed):
        penalties = best_penalties(codes, films, train, seed)
        head = LogisticHead(codes[train])
        coordinates = head.coordinates(codes[test])
        for label, penalty in enumerate(penalties):
            weights, bias = head.fit(films.labels[train, label], penalty)
            scores[label, test] = coordinates @ weights + bias
        chosen.append(penalties)
    return scores, chosen


def measure(family: str, codec: Codec, films: Films, count: int, seeds: Sequence[int]) -> dict[str, Any]:
    """AUROC of each label, mean over draws of the folds, with an interval over patients."""
    codes = codec.encode(films.images)[:, 0].double()
    runs = [out_of_fold(codes, films, count, seed) for seed in seeds]
    entry: dict[str, Any] = {
        "family": family,
        "config": codec.config(),
        "values_kept": codes.shape[1],
        "share_kept": codes.shape[1] / SIDE**2,
        "penalties": [chosen for _, chosen in runs],
        "auroc": {},
    }
    for number, label in enumerate(LABELS):
        scores = torch.stack([scores[number] for scores, _ in runs], dim=1)
        estimate = patient_bootstrap(common.mean_auroc, [scores, films.labels[:, number]], films.patients, samples=500)
        entry["auroc"][label] = asdict(estimate)
    return entry


def draw(result: Mapping[str, Any], path: Path) -> None:
    """AUROC against the share of pixels kept, a panel for each label."""
    from matplotlib import pyplot

    styles = {"DeepFixCX": ("o", "tab:blue"), "HeartSpot": ("s", "tab:orange")}
    figure, panels = pyplot.subplots(1, len(LABELS), figsize=(11, 4.6), sharex=True, sharey=True, layout="constrained")
    for panel, label in zip(panels, LABELS, strict=True):
        full = result["inputs"]["full image"]["auroc"][label]
        panel.axhspan(full["low"], full["high"], color="0.9", zorder=0)
        panel.axhline(full["value"], color="0.35", linestyle="--", linewidth=1.2, label="full image")
        for family, (marker, colour) in styles.items():
            named = {name: e for name, e in result["inputs"].items() if e["family"] == family}
            estimates = [entry["auroc"][label] for entry in named.values()]
            values = np.array([estimate["value"] for estimate in estimates])
            sides = np.array([[e["value"] - e["low"], e["high"] - e["value"]] for e in estimates]).T
            shares = 100 * np.array([entry["share_kept"] for entry in named.values()])
            panel.errorbar(
                _apart(shares),
                values,
                sides,
                fmt=marker,
                color=colour,
                markersize=5,
                linewidth=1,
                alpha=0.8,
                label=family,
            )
        panel.axhline(0.5, color="0.6", linestyle=":", linewidth=1)
        panel.text(110, 0.497, "chance", color="0.4", fontsize=8, ha="right", va="top")
        panel.set(xscale="log", xlabel="values kept, % of the pixels", title=label)
        panel.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
        panel.grid(alpha=0.25)
    panels[0].set_ylabel("AUROC (out of fold; 95 % interval over patients)")
    panels[0].legend(loc="lower right", frameon=False)
    figure.suptitle(f"{result['films']} NIH chest radiographs, 64 x 64: the same logistic head on every input")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _apart(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Equal shares moved a little apart, so that their intervals do not hide each other."""
    moved = shares.copy()
    for share in np.unique(shares):
        (same,) = np.nonzero(shares == share)
        moved[same] *= 1.09 ** (np.arange(len(same)) - (len(same) - 1) / 2)
    return moved


def tables(result: Mapping[str, Any]) -> str:
    """The result as markdown."""
    return common.table(
        {
            "input": name,
            "values kept": f"{entry['values_kept']:,} ({100 * entry['share_kept']:.3g} %)",
            **{f"AUROC, {label}": common.interval(entry["auroc"][label]) for label in LABELS},
        }
        for name, entry in result["inputs"].items()
    )


def main(arguments: Sequence[str] | None = None) -> None:
    asked = common.arguments(__doc__).parse_args(arguments)
    torch.set_num_threads(asked.threads)
    if not (DATA / "labels.csv").exists():
        print(f"{DATA} is not here, so nothing was measured.")
        return
    films = read_films(DATA)
    compared, count, seeds = inputs(), 5, [0, 1, 2]
    if asked.quick:
        chosen = [*np.unique(films.patients)[:20]]
        rows = np.isin(films.patients, chosen)
        films = Films(films.images[rows], films.labels[rows], films.patients[rows])
        names = ("full image", "DeepFixCX J=1 P=4", "HeartSpot hline")
        compared, count, seeds = {name: compared[name] for name in names}, 2, [0]
    entries = {}
    for name, (family, codec) in compared.items():
        entries[name] = measure(family, codec, films, count, seeds)
        print(name, *(common.interval(entries[name]["auroc"][label]) for label in LABELS), flush=True)
    result = {
        "data": "NIH ChestX-ray14, a part, 64 x 64",
        "films": len(films.images),
        "patients": len(np.unique(films.patients)),
        "positives": dict(zip(LABELS, films.labels.sum(0).int().tolist(), strict=True)),
        "settings": {
            "head": "whitening, then logistic regression with an l2 penalty, for every input",
            "folds": count,
            "seeds": seeds,
            "penalties": PENALTIES,
            "quick": asked.quick,
        },
        "inputs": entries,
    }
    path = common.write(asked.out, NAME, result)
    draw(result, path.with_suffix(".png"))
    print(f"{tables(result)}\n\nwritten to {path}")


if __name__ == "__main__":
    main()

"""What attackers get back from codes of real chest radiographs: the whole suite, for eight settings.

    python -m benchmarks.attacks_nih

733 films of NIH ChestX-ray14 at 64 x 64, 215 patients: half of them are attacked, the attacker learns from the other
half. Utility is measured on the same split. The table goes into docs/attacks_nih.md, between its two markers.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import common
from benchmarks.accuracy_nih import DATA, LABELS, SIDE, read_films
from monai_deepfixcx.attacks.suite import ATTACKS
from monai_deepfixcx.codecs import Codec, DeepFixCXCodec, HeartSpotCodec
from monai_deepfixcx.pipeline.attack import AttackSettings, attack_population
from monai_deepfixcx.pipeline.attack_data import Population
from monai_deepfixcx.report.sentences import worst_first

NAME = "attacks_nih"
DOCS = Path(__file__).parents[1] / "docs" / "attacks_nih.md"
BEGIN, END = "<!-- table: python -m benchmarks.attacks_nih -->", "<!-- end of table -->"
LEVELS_AND_PATCHES = ((1, 16), (2, 8), (3, 4), (4, 2))
PRIORS = ("hline", "rhline+heart", "heart", "median+rhline+heart")
QUICK_ATTACKS = ("MeanImage", "DecoderAttack", "LinearMMSE", "EuclideanLinkage")


def codecs() -> list[Codec]:
    """What is attacked."""
    deepfixcx = [DeepFixCXCodec(levels, patches) for levels, patches in LEVELS_AND_PATCHES]
    return [*deepfixcx, *(HeartSpotCodec(prior, (SIDE, SIDE)) for prior in PRIORS)]


def population(folder: Path, patients: int | None = None) -> Population:
    """All films, or those of the first so many patients."""
    films = read_films(folder)
    chosen = np.unique(films.patients)[:patients]
    rows = np.isin(films.patients, chosen)
    return Population(
        films.images[rows],
        tuple(films.patients[rows].tolist()),
        films.labels[rows].float(),
        LABELS,
        f"{rows.sum()} films of {len(chosen)} patients of NIH ChestX-ray14, a part,",
        synthetic=False,
    )


def tables(result: Mapping[str, Any]) -> str:
    """The result as markdown: a row a setting, the undefended images last."""
    rows = [_row(entry["name"], entry["values_kept"] / entry["pixels"], entry) for entry in result["codecs"]]
    return common.table([*rows, _row("undefended images", 1.0, result["undefended"])])


def _row(name: str, share: float, entry: Mapping[str, Any]) -> dict[str, str]:
    attacks = {attack["attack"]: attack["metrics"] for attack in entry["attacks"]}
    drawn, linked = (worst_first(entry["attacks"], goal)[0] for goal in ("reconstruct", "link"))
    similarity, first = drawn["metrics"]["ssim"], linked["metrics"]["precision_at_1"]
    return {
        "setting": name,
        "values kept": f"{100 * share:.3g} %",
        "explained variance: papers' decoder": f"{attacks['DecoderAttack']['explained_variance']['value']:.2f}",
        "strongest": f"{_interval(drawn['metrics']['explained_variance'])} {drawn['attack']}",
        "its SSIM (mean image)": f"{similarity['value']:.2f} ({similarity['baseline']:.2f})",
        "linking AUC: Euclidean distance": f"{attacks['EuclideanLinkage']['auc']['value']:.2f}",
        "the strongest": f"{_interval(linked['metrics']['auc'])} {linked['attack']}",
        "its first try right (chance)": f"{first['value']:.2f} ({first['baseline']:.2f})",
        **{f"AUROC, {label}": _interval(entry["utility"][label]) for label in LABELS},
    }


def _interval(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:.2f} ({estimate['low']:.2f} - {estimate['high']:.2f})"


def write_table(page: Path, table: str) -> None:
    """Put the table between the page's markers."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} must hold the markers {BEGIN!r} and {END!r}; put them back.")
    page.write_text(f"{before}{begin}\n\n{table}\n\n{end}{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--without", nargs="*", default=[], choices=ATTACKS, help="attacks to leave out, to save time")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    if not (DATA / "labels.csv").exists():
        print(f"{DATA} is not here, so nothing was measured.")
        return
    people, compared = population(DATA, 20 if asked.quick else None), codecs()
    attacks = QUICK_ATTACKS if asked.quick else tuple(name for name in ATTACKS if name not in asked.without)
    settings = AttackSettings(attacks, samples=50 if asked.quick else 1000, pictures="none")
    card = attack_population(
        people, compared[::4] if asked.quick else compared, settings, lambda name: print(name, flush=True)
    )
    kept = ("name", "config", "fingerprint", "values_kept", "pixels", "utility", "attacks", "failed", "not_run")
    result = {
        "data": card["data"],
        "settings": {**card["settings"], "quick": asked.quick, "without": asked.without},
        "codecs": [{key: entry[key] for key in kept} for entry in card["codecs"]],
        "undefended": card["undefended"],
    }
    path = common.write(asked.out, NAME, result)
    table = tables(result)
    if asked.out == common.RESULTS and not asked.quick:
        write_table(DOCS, table)
    print(f"{table}\n\nwritten to {path}")
    if any(entry["failed"] for entry in card["codecs"]):
        sys.exit(1)


if __name__ == "__main__":
    main()

"""How long attacks take: the linear estimate on 2,000 images of 4,096 pixels, and the whole suite without membership.

    python -m benchmarks.attack_speed

The linear attack is timed against the same regression in the larger of its two spaces, in turn; the suite runs on
SYNTHETIC films of 64 pixels, at one setting of DeepFixCX and on undefended images.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks import common
from monai_deepfixcx.attacks import Auxiliary, LinearMMSE, Victims
from monai_deepfixcx.attacks.reconstruction.linear import RidgeRegression
from monai_deepfixcx.attacks.suite import run_suite
from monai_deepfixcx.codecs import DeepFixCXCodec
from monai_deepfixcx.data import PhantomRadiographs

NAME = "attack_speed"
TARGETS = {"linear_seconds": 10, "suite_seconds": 240}


def linear(images: int, side: int, repeats: int) -> dict[str, Any]:
    """Seconds of a fit with its choice of a ridge, and of one regression in either space."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((images, 1, side // 4, side // 4), generator=generator)
    films = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    codec = DeepFixCXCodec(levels=3, patch_size=side // 8)  # as many code entries as pixels
    codes = codec.encode(films)
    auxiliary = Auxiliary(codec, films, tuple(str(k // 2) for k in range(images)), codes)
    inputs, targets = codes.flatten(1), films.flatten(1)

    def attack() -> None:
        LinearMMSE().fit(auxiliary).run(Victims(codes[:100]))

    tasks = {
        "LinearMMSE": attack,
        "smaller space": lambda: RidgeRegression(inputs, targets, 0.1)(inputs[:100]),
        "larger space": lambda: larger_space(inputs, targets, 0.1, inputs[:100]),
    }
    seconds = common.in_turn(tasks, repeats)
    pairs = zip(seconds["larger space"], seconds["smaller space"], strict=True)
    return {
        "images": images,
        "pixels": side**2,
        "code_length": codes.shape[2],
        "seconds": {name: common.spread(values) for name, values in seconds.items()},
        "smaller_against_larger": common.spread([large / small for large, small in pairs]),
    }


def larger_space(inputs: Tensor, targets: Tensor, ridge: float, new: Tensor) -> Tensor:
    """The same regression, solved in the larger of the spaces of code entries and images."""
    mean, target_mean = inputs.mean(0), targets.mean(0)
    x, y = inputs - mean, targets - target_mean
    unit = x.square().sum() / min(x.shape)
    if x.shape[1] > x.shape[0]:
        gram = (x.T @ x).double()
        gram.diagonal().add_(ridge * unit)
        solved = torch.cholesky_solve((x.T @ y).double(), torch.linalg.cholesky(gram)).to(x)
        return (new - mean) @ solved + target_mean
    gram = (x @ x.T).double()
    gram.diagonal().add_(ridge * unit)
    solved = torch.cholesky_solve(y.double(), torch.linalg.cholesky(gram)).to(x)
    return (new - mean) @ x.T @ solved + target_mean


def suite(patients: int, visits: int) -> dict[str, Any]:
    """Seconds that every attack took on half of the patients' films, the other half being auxiliary."""
    phantom = PhantomRadiographs(patients, visits, size=64, seed=0).arrays()
    half = patients // 2 * visits
    parts = [
        {"images": phantom["images"][part], "patients": phantom["patients"][part]}
        for part in (slice(0, half), slice(half, None))
    ]
    start = time.perf_counter()
    found = run_suite(DeepFixCXCodec(levels=2, patch_size=8), parts[0], parts[1], seed=0)
    seconds = time.perf_counter() - start
    return {
        "images": patients * visits,
        "patients": patients,
        "seconds": seconds,
        "seconds_by_attack": {result.attack: result.seconds for result in found.results},
        "seconds_undefended": {name: result.seconds for name, result in found.undefended.items()},
        "failed": found.failed,
        "not_run": found.not_run,
    }


def tables(result: Mapping[str, Any]) -> str:
    """The result as markdown."""
    line, whole = result["linear"], result["suite"]
    rows = [
        {"regression": name, "median s": f"{seconds['median']:.2f}", "least s": f"{seconds['least']:.2f}"}
        for name, seconds in line["seconds"].items()
    ]
    attacks = [
        {"attack": name, "s": f"{seconds:.1f}", "undefended, s": f"{whole['seconds_undefended'].get(name, 0):.1f}"}
        for name, seconds in whole["seconds_by_attack"].items()
    ]
    ratio = line["smaller_against_larger"]["median"]
    return (
        f"{line['images']} images, {line['pixels']} pixels, {line['code_length']} code entries; the smaller space is "
        f"{ratio:.1f} times as fast.\n\n{common.table(rows)}\n\nThe suite on {whole['images']} films of "
        f"{whole['patients']} patients: {whole['seconds']:.0f} s.\n\n{common.table(attacks)}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    asked = common.arguments(__doc__).parse_args(arguments)
    torch.set_num_threads(asked.threads)
    result: dict[str, Any] = {
        "settings": {"seed": 0, "quick": asked.quick, "targets": TARGETS},
        "data": "SYNTHETIC: smooth random images; phantom films",
        "linear": linear(60, 16, 2) if asked.quick else linear(2000, 64, 3),
        "suite": suite(8, 2) if asked.quick else suite(100, 5),
    }
    path = common.write(asked.out, NAME, result)
    print(f"{tables(result)}\n\nwritten to {path}")


if __name__ == "__main__":
    main()

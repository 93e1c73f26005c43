"""What each of two processes does in `test_reconstruction_attack_handler`; in a module that spawn can import."""

from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine

from monai_deepfixcx.attacks import LinearInverse, MeanImage
from monai_deepfixcx.codecs import DeepFixCXCodec
from monai_deepfixcx.handlers import ReconstructionAttackHandler

CODEC = DeepFixCXCodec(levels=1, patch_size=4)
SPLITS = {"uneven": 9, "second empty": 14, "first empty": 0}


def films(first: int, count: int) -> dict[str, Any]:
    """Smooth films, two of each patient."""
    generator = torch.Generator().manual_seed(first)
    coarse = torch.rand((count, 1, 4, 4), generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(16, 16), mode="bilinear")
    return {"images": images, "patients": [f"SECRET-{first + k // 2}" for k in range(count)]}


def batches(part: slice) -> list[dict[str, Any]]:
    victims = films(100, 14)
    images, patients = victims["images"][part], victims["patients"][part]
    return [
        {"original": images[k : k + 4], "image": CODEC.encode(images[k : k + 4]), "patient": patients[k : k + 4]}
        for k in range(0, len(images), 4)
    ]


def evaluate(part: slice, folder: Path, victims_known: bool = False) -> dict[str, float]:
    """Run the handler in an engine, twice; `folder` tells who wrote."""
    engine = Engine(lambda _, batch: batch)
    auxiliary = films(100 if victims_known else 0, 14)
    attacks = [MeanImage(), LinearInverse()]
    handler = ReconstructionAttackHandler(CODEC, auxiliary, attacks, output_dir=folder, samples=20, undefended=False)
    handler.attach(engine)
    rows = batches(part)
    # An engine does not run over nothing, so a rank without images calls what the engine would.
    for _ in range(2):
        if rows:
            engine.run(rows)
        else:
            handler._start(engine)
            handler._finish(engine)
    return dict(engine.state.metrics)


def run_rank(rank: int, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, first in SPLITS.items():
        part = slice(0, first) if rank == 0 else slice(first, 14)
        found[name] = evaluate(part, Path(folder, f"{name} of {rank}"))
    part = slice(0, 7) if rank == 0 else slice(7, 14)
    for name, options in {"patient in both": {"victims_known": True}}.items():
        try:
            evaluate(part, Path(folder, "none"), **options)
        except (RuntimeError, ValueError) as error:
            found[name] = f"{type(error).__name__}: {error}"
    try:
        ReconstructionAttackHandler(CODEC, films(0, 14), [MeanImage()])._finish(Engine(lambda _, batch: batch))
    except ValueError as error:
        found["all empty"] = str(error)
    return found

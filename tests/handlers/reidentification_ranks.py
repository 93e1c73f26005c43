"""What each of two processes does in `test_reidentification_handler`; a module of its own, for spawn to import."""

from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine

from monai_deepfixcx.attacks import EuclideanLinkage
from monai_deepfixcx.codecs import DeepFixCXCodec
from monai_deepfixcx.handlers import ReidentificationHandler

SHARES = {"uneven": 17, "second empty": 30, "first empty": 0}
CODEC = DeepFixCXCodec(1, 4)


def people(first: int) -> dict[str, Any]:
    """Thirty small images of ten patients."""
    generator = torch.Generator().manual_seed(first)
    owners = torch.arange(10).repeat_interleave(3)
    shared, own = (torch.rand(number, 1, 16, 16, generator=generator) for number in (10, 30))
    return {"images": shared[owners] + 0.2 * own, "patients": [f"SECRET-{first + owner}" for owner in owners]}


def evaluate(part: slice, folder: Path) -> dict[str, float]:
    known, victims = people(0), people(100)
    batch = {
        "original": victims["images"][part],
        "image": CODEC.encode(victims["images"][part]),
        "patient": victims["patients"][part],
    }
    engine = Engine(lambda _, batch: batch)
    attacks = [EuclideanLinkage(), EuclideanLinkage("raw")]
    handler = ReidentificationHandler(CODEC, known, attacks, output_dir=folder, samples=30)
    if not batch["patient"]:  # a rank without images still ends its epoch with the others
        handler._start(engine)
        handler._finish(engine)
        return dict(engine.state.metrics)
    handler.attach(engine)
    return dict(engine.run([batch]).metrics)


def run_rank(rank: int, folder: Path) -> dict[str, Any]:
    found = {}
    for name, first in SHARES.items():
        part = slice(0, first) if rank == 0 else slice(first, 30)
        found[name] = evaluate(part, Path(folder, f"{name} of {rank}"))
    return found

"""What each of two processes does in tests of the attribution handler; spawn can import it from here."""

from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine

from monai_deepfixcx.handlers import PrivatizedAttributionHandler
from monai_deepfixcx.networks import PrivatizedNetwork, privatized_mlp

NAMES = ["Cardiomegaly", "Effusion"]
SPLITS = {"uneven": 4, "first empty": 0, "all empty": None}  # how many of six cases the first rank has


def small_network(**options: Any) -> PrivatizedNetwork:
    torch.manual_seed(0)
    codec = {"codec": "deepfixcx", "levels": 2, "patch_size": 4}
    return privatized_mlp(codec, (32, 32), out_channels=2, width=8, **options).eval()


def batch(network: PrivatizedNetwork, count: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, 1, 32, 32, generator=generator)
    return {"code": network.encode(images), "label": torch.tensor([[0.0, 1], [1, 2], [1, 0]] * 2)[:count]}


def explain(folder: Path, part: slice, **options: Any) -> None:
    """Run the handler over some of six cases, in batches of three; without a case every file is a problem."""
    network = small_network()
    data = {key: value[part] for key, value in batch(network).items()}
    batches = [{key: value[start : start + 3] for key, value in data.items()} for start in range(0, 6, 3)]
    batches = [found for found in batches if len(found["code"])]
    if not batches:
        batches = [{**batch(network, 1), "problem": ["unreadable"]}]  # type: ignore[dict-item]
    engine = Engine(lambda _, given: {"pred": None})
    settings: dict[str, Any] = {"region": "heart", "samples": 20, "drawn": 0, **options}
    PrivatizedAttributionHandler(network, folder, NAMES, **settings).attach(engine)
    engine.run(batches)


def run_rank(rank: int, folder: Path) -> None:
    for name, first in SPLITS.items():
        part = slice(0, 0) if first is None else slice(0, first) if rank == 0 else slice(first, 6)
        explain(Path(folder, name, str(rank)), part, drawn=2 if name == "uneven" else 0)

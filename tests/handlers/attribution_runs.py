"""Running the attribution handler on small networks, and reading what it wrote."""

import json
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine

from monai_deepfixcx.handlers import PrivatizedAttributionHandler
from tests.handlers.attribution_ranks import NAMES

QUICK: dict[str, Any] = {"samples": 0, "drawn": 0, "measures": ()}


def read(folder: Path) -> Any:
    return json.loads((folder / "attributions.json").read_text())


def run(
    network: torch.nn.Module, data: dict[str, Any], folder: Path, names: list[str] | None = None, **options: Any
) -> Any:
    """One batch through the handler; what it wrote."""
    engine = Engine(lambda _, given: {"pred": None})
    names = NAMES if names is None else names
    PrivatizedAttributionHandler(network, folder, names, **{**QUICK, **options}).attach(engine)
    engine.run([data])
    return read(folder)

"""What each of two processes does in `test_fairness_handler`; in a module of its own, so that spawn can import it."""

from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine

from monai_deepfixcx.handlers import FairnessHandler
from tests.metrics.cohort import CUTS, NAMES, cohort

COUNT = 60
SPLITS = {"uneven": 17, "second empty": COUNT, "first empty": 0}
# Seen by the first rank only, in the first of these splits: the other must learn its name.
RARE = 5


def evaluate(part: slice, folder: Path) -> dict[str, float]:
    """Run the handler in an engine; `folder` tells who wrote."""
    data = cohort(patients=COUNT // 2)
    data.columns["view"][:RARE] = ["LATERAL"] * RARE
    data = data.rows(part)
    engine = Engine(lambda _, batch: batch)
    options: dict[str, Any] = {"activation": "none", "samples": 30, "min_patients": 2, "thresholds": CUTS}
    FairnessHandler(folder, NAMES, ["sex", "view", ["sex", "view"]], **options).attach(engine)
    batch = {"pred": torch.tensor(data.scores), "label": torch.tensor(data.labels), "patient": data.patients}
    batches = [{**batch, **data.columns}] if data.patients else [None]
    if batches == [None]:
        # A rank without images still ends its epoch with the others.
        engine = Engine(lambda _, batch: batch)
        handler = FairnessHandler(folder, NAMES, ["sex", "view", ["sex", "view"]], **options)
        handler._start(engine)
        handler._finish(engine)
        return dict(engine.state.metrics)
    return dict(engine.run(batches).metrics)


def run_rank(rank: int, folder: Path) -> dict[str, Any]:
    parts = {name: (slice(0, first), slice(first, COUNT))[rank] for name, first in SPLITS.items()}
    found = {name: evaluate(part, Path(folder, f"{name} of {rank}")) for name, part in parts.items()}
    return found

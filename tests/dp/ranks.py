"""What each of two processes does in `test_two_processes`; in a module of its own, so that spawn can import it."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Events

from tests.dp.data import budget, flat, linear, trainer

RUNS: dict[str, dict[str, Any]] = {
    "ghost": {"grad_sample_mode": "ghost"},
    "hooks": {"grad_sample_mode": "hooks", "physical_batch_size": 3},
    "patient": {"unit": "patient", "batch_size": 2, "physical_batch_size": 3},
    # Two units: often one process has nobody, and sometimes neither.
    "few": {"unit": "patient", "batch_size": 1},
}
QUIET, NOISY = 1e-12, 2.0


def train(name: str, noise: float) -> dict[str, Any]:
    """One run; the processes begin with other weights, which the trainer makes the first one's."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    network = linear(seed=rank)
    options = {"learning_rate": 0.5, **RUNS[name]}
    engine = trainer(network, spend=budget(epsilon=None, noise_multiplier=noise, max_grad_norm=0.5), **options)
    engine.run()
    return {"weights": flat(network).tolist(), "report": engine.privacy_report()}


def noise_of(steps: int = 50) -> list[list[float]]:
    """The updates of steps that draw nobody."""
    network = linear()
    spend = budget(epsilon=None, noise_multiplier=NOISY, epochs=steps // 5)
    engine = trainer(network, spend=spend, seed=None)
    engine.sampler.sample_rate = 0.0
    seen = [flat(network)]
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: seen.append(flat(network)))
    engine.run()
    return torch.stack(seen).diff(dim=0).tolist()


def run_rank(rank: int, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {name: train(name, QUIET) for name in RUNS}
    found["noise"] = noise_of()
    return found

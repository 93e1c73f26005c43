"""Two processes train as one does: the same draw, the same steps, the same noise and the same epsilon."""

from typing import Any

import pytest
import torch

from tests.dp.ranks import NOISY, QUIET, RUNS, run_rank, train
from tests.two_ranks import on_two_ranks

pytest.importorskip("opacus", reason="opacus comes with the extra 'dp'")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_two_ranks(run_rank, tmp_path_factory.mktemp("ranks"), seconds=60)


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_take_the_steps_of_one_at_the_same_epsilon(ranks: list[dict[str, Any]], name: str) -> None:
    one = train(name, QUIET)
    for two in ranks:
        assert two[name]["report"] == one["report"]
        torch.testing.assert_close(torch.tensor(two[name]["weights"]), torch.tensor(one["weights"]), rtol=0, atol=1e-6)


def test_the_noise_is_added_once(ranks: list[dict[str, Any]]) -> None:
    noise = torch.tensor(ranks[0]["noise"])
    assert torch.equal(noise, torch.tensor(ranks[1]["noise"])), "the weights stay the same in both"
    # learning rate .5, clip 1, 8 expected units in both processes together
    assert float(noise.std()) == pytest.approx(0.5 * NOISY / 8, rel=0.08)

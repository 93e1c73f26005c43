"""Two processes report what one does, also if their shares are uneven or one has no image."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.handlers.ranks import SPLITS, evaluate, measure, run_rank
from tests.two_ranks import on_two_ranks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    return on_two_ranks(run_rank, folder)


def test_the_metrics_of_two_ranks_are_those_of_one(ranks: list[dict[str, Any]]) -> None:
    expected = json.loads(json.dumps(measure(slice(0, 30))))
    for found in ranks:
        for split in SPLITS:
            assert found[split] == expected, split


def test_ranks_without_any_image_do_not_wait_for_each_other(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert found["all empty"].startswith("MaskedAUROCMetric has seen no image on any rank")


def test_the_handler_gives_all_ranks_the_values_and_lets_the_first_write(
    ranks: list[dict[str, Any]], folder: Path, tmp_path: Path
) -> None:
    expected = evaluate(slice(0, 30), tmp_path)
    assert ranks[0]["handler"] == ranks[1]["handler"] == expected
    assert sorted(path.name for path in folder.glob("report of *")) == ["report of 0"]
    for written in tmp_path.iterdir():
        assert (folder / "report of 0" / written.name).read_bytes() == written.read_bytes()

"""The benchmark of private training runs, and says what it measured."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import private_training


def test_private_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        private_training.main(["--quick", "--threads", "1", "--out", str(tmp_path)])
    finally:
        torch.set_num_threads(threads)
    document = json.loads((tmp_path / "private_training.json").read_text())
    assert "SYNTHETIC" in document["data"]
    assert document["reached"].keys() == {*private_training.TARGETS, "above_full_image"}
    assert list(document["accuracy"])[-1] == private_training.FULL_IMAGE
    for entry in document["accuracy"].values():
        assert entry["privacy"]["epsilon"] <= private_training.EPSILON
        assert entry["privacy"]["unit"] == "record"
    assert document["accuracy"][private_training.CODE]["values"] == 1024
    assert document["speed"]["microseconds_per_image"]["code_private"]["least"] > 0
    assert f"| {private_training.FULL_IMAGE} |" in capsys.readouterr().out

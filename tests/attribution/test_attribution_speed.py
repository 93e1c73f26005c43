"""The benchmark runs, compares like with like, and says where it ran."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import attribution_speed


def test_attribution_speed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        attribution_speed.main(["--quick", "--threads", "1", "--out", str(tmp_path)])
    finally:
        torch.set_num_threads(threads)
    document = json.loads((tmp_path / f"{attribution_speed.NAME}.json").read_text())
    assert document["settings"]["quick"] is True
    assert document["largest_difference"] < 1e-4
    assert document["tasks"].keys() == {"one by one", "batch 256"}
    assert document["ratio_one_by_one_to_ours"]["seconds"]["least"] > 0
    assert {"processor", "torch_threads", "load_average"} <= document["machine"].keys()
    assert "| batch 256 |" in capsys.readouterr().out

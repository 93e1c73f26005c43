import json
from pathlib import Path

import pytest
import torch

from benchmarks import encode_gpu


def test_without_a_gpu_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    encode_gpu.main(["--out", str(tmp_path)])
    assert "nothing was measured" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_with_a_gpu_ratios_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encode_gpu.main(["--quick", "--out", str(tmp_path)])
    (row, _) = json.loads((tmp_path / "encode_gpu.json").read_text())["encode"]
    assert row["times"].keys() == {"torch", "float32", "uint8", "read once"}
    assert "| J, P |" in capsys.readouterr().out


def test_summary_and_tables_hold_ratios_to_the_published_way() -> None:
    rates = {"published": 100.0, "torch": 200.0, "float32": 1000.0, "uint8": 2000.0, "read once": 4000.0}
    times = {name: {"median": rate / 100, "least": 0.0, "greatest": 0.0} for name, rate in rates.items()}
    rows = [{"J": 1, "P": 5, "batch": batch, "images_per_s": rates, "times": times} for batch in (1, 64)]
    figures = encode_gpu.summary(rows)
    assert figures == {"least": 10, "median": 10, "of read once, median": 0.25}
    table = encode_gpu.tables({"gpu": "a GPU", "encode": rows, "summary": figures})
    assert "| 1, 5 | 64 | 100 | 200 (2.0x) | 1,000 (10.0x) | 2,000 (20.0x) |" in table

"""The benchmark of the attacks runs, and its slower twin of the regression gives the same."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import attack_speed
from monai_deepfixcx.attacks.reconstruction.linear import RidgeRegression


@pytest.mark.parametrize(("images", "entries"), [(30, 12), (12, 30)])
def test_either_space_gives_the_same(images: int, entries: int) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, targets = (torch.randn((images, width), generator=generator) for width in (entries, 5))
    expected = RidgeRegression(inputs, targets, 0.1)(inputs[:4])
    torch.testing.assert_close(attack_speed.larger_space(inputs, targets, 0.1, inputs[:4]), expected, atol=1e-4, rtol=0)


def test_the_linear_attack_is_timed() -> None:
    found = attack_speed.linear(images=20, side=16, repeats=1)
    assert found["code_length"] == found["pixels"] == 256
    assert found["seconds"].keys() == {"LinearMMSE", "smaller space", "larger space"}


@pytest.mark.slow
def test_the_benchmark_writes_its_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attack_speed.main(["--quick", "--threads", "1", "--out", str(tmp_path)])
    document = json.loads((tmp_path / "attack_speed.json").read_text())
    assert document["settings"]["quick"] is True
    assert "SYNTHETIC" in document["data"]
    assert "LinearMMSE" in document["suite"]["seconds_by_attack"]
    assert not document["suite"]["failed"]
    assert "The suite on 16 films of 8 patients" in capsys.readouterr().out

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import (
    accuracy_nih,
    accuracy_phantom,
    common,
    contenders,
    encode_speed,
    tables,
    training_memory,
    training_speed,
)


@pytest.fixture(autouse=True)
def _keep_threads() -> Any:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def result(folder: Path, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    assert document["benchmark"] == name
    assert document["settings"]["quick"] is True
    assert {"python", "torch", "monai"} <= document["versions"].keys()
    assert {"processor", "cores", "torch_threads", "load_average"} <= document["machine"].keys()
    return document


def test_accuracy_phantom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accuracy_phantom.main(["--quick", "--threads", "1", "--out", str(tmp_path)])
    document = result(tmp_path, accuracy_phantom.NAME)
    assert "SYNTHETIC" in document["data"]
    assert document["networks"].keys() == accuracy_phantom.NETWORKS.keys()
    for entry in document["networks"].values():
        assert entry["test_auroc"]["low"] <= entry["test_auroc"]["value"] <= entry["test_auroc"]["high"]
        assert {"recipe", "seeds", "seconds", "values_kept", "less_full_image"} <= entry.keys()
    tables.main([str(tmp_path)])
    assert "| DenseNet121, full image |" in capsys.readouterr().out


@pytest.mark.skipif(not accuracy_nih.DATA.exists(), reason="the NIH films are not here")
def test_accuracy_nih(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accuracy_nih.main(["--quick", "--threads", "1", "--out", str(tmp_path)])
    document = result(tmp_path, accuracy_nih.NAME)
    assert {entry["family"] for entry in document["inputs"].values()} == {"full image", "DeepFixCX", "HeartSpot"}
    for entry in document["inputs"].values():
        assert entry["auroc"].keys() == set(accuracy_nih.LABELS)
        assert entry["share_kept"] == entry["values_kept"] / 64**2
    assert (tmp_path / "accuracy_nih.png").stat().st_size > 10_000
    tables.main([str(tmp_path)])
    assert "| full image |" in capsys.readouterr().out


def test_accuracy_nih_without_the_films(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(accuracy_nih, "DATA", tmp_path / "absent")
    accuracy_nih.main(["--out", str(tmp_path)])
    assert "nothing was measured" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_folds_share_no_patient() -> None:
    patients = np.array(["a", "a", "b", "c", "c", "d"])
    rows = []
    for train, test in accuracy_nih.folds(patients, count=2, seed=0):
        assert not set(patients[train]) & set(patients[test])
        rows += test.tolist()
    assert sorted(rows) == list(range(6))


def test_logistic_head_reaches_the_minimum() -> None:
    """Held against plain gradient descent on the weights of the whitened values themselves."""
    generator = torch.Generator().manual_seed(0)
    codes, other = torch.rand((12, 30), generator=generator).double(), torch.rand((5, 30), generator=generator).double()
    labels = (torch.arange(12) % 2).double()
    head = accuracy_nih.LogisticHead(codes)
    weights, bias = head.fit(labels, penalty=0.3)
    mean, std = codes.mean(0), codes.std(0, correction=0)
    whitened, whitened_other = (codes - mean) / std / 30**0.5, (other - mean) / std / 30**0.5
    plain, offset = torch.zeros(30, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for _ in range(5000):
        error = torch.sigmoid(whitened @ plain + offset) - labels
        plain -= 0.1 * (whitened.T @ error + 0.3 * plain)
        offset -= 0.1 * error.sum()
    expected = whitened_other @ plain + offset
    torch.testing.assert_close(head.coordinates(other) @ weights + bias, expected, atol=1e-3, rtol=0)


def test_training_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With peaks that lie on a line, so that not every batch size needs a process of its own."""
    per_image = {name: 2**20 if name in contenders.PRIVATIZED else 2**27 for name in contenders.NETWORKS}
    fixed = 2**28 - 2**19  # so that half an image's room is left: whole batches are not a matter of rounding
    monkeypatch.setattr(training_memory, "peak", lambda name, batch, *_: fixed + batch * per_image[name])
    training_speed.main(["--quick", "--threads", "1", "--out", str(tmp_path)])
    document = result(tmp_path, training_speed.NAME)
    for name, entry in document["speed"].items():
        assert entry["images_per_s"]["least"] > 0
        assert entry["ms_per_image"].keys() == {"encode", "forward", "backward", "optimizer"}
        assert document["memory"][name]["batch_tried_fits"]
    assert document["speed_ratios"].keys() == set(contenders.PRIVATIZED)
    assert document["memory_ratios"] == pytest.approx(dict.fromkeys(contenders.PRIVATIZED, 768 / 6))
    tables.main([str(tmp_path)])
    assert "128x" in capsys.readouterr().out


def test_encode_speed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encode_speed.main(["--quick", "--threads", "1", "--out", str(tmp_path)])
    document = result(tmp_path, encode_speed.NAME)
    assert document["summary"].keys() == document["targets"].keys()
    assert {row["wavelet"] for row in document["encode"]} == {"db1", *encode_speed.OTHERS}
    for row in document["encode"]:
        assert all(entry["least"] <= entry["median"] <= entry["greatest"] for entry in row["times"].values())
    assert (tmp_path / "encode_speed.png").stat().st_size > 10_000
    tables.main([str(tmp_path)])
    assert "| db1, least |" in capsys.readouterr().out


def test_every_published_setting_that_fits_is_measured() -> None:
    assert encode_speed.grid(320) == [
        *((j, p) for j in (1, 2, 3, 4) for p in (1, 5, 19)),
        *((j, p) for j in (5, 6) for p in (1, 5)),
    ]


def test_short_calls_are_timed_many_at_once() -> None:
    calls: list[int] = []
    seconds = encode_speed.seconds_per_call({"short": lambda: calls.append(1)}, repeats=2)
    assert len(seconds["short"]) == 2
    assert len(calls) > 1000
    assert max(seconds["short"]) < encode_speed.SHORTEST


def test_peak_is_that_of_the_child() -> None:
    """Not of this process, which holds more."""
    held = torch.ones(2**28)  # 1 GiB
    small = training_memory.peak("DeepFixCX + MLP", 2, side=64, threads=1)
    assert 2**27 < small < held.nbytes


def test_in_turn() -> None:
    calls: list[str] = []
    seconds = common.in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2)
    assert calls == ["a", "b", "a", "b"]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}

"""The table and the images that an inference writes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from PIL import Image

from monai_deepfixcx.handlers.prediction_writer import PredictionWriter, write_png


def run(writer: PredictionWriter, items: list[dict[str, Any]]) -> None:
    def evaluate(engine: Engine, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"pred": item["pred"], "image": item["image"]} for item in batch]

    engine = Engine(evaluate)
    writer.attach(engine)
    engine.run([items[:1], items[1:]])


def item(path: str, problem: str = "", pred: float = 0.25) -> dict[str, Any]:
    return {"path": path, "problem": problem, "pred": torch.tensor([pred]), "image": torch.full((1, 4, 4), 2.0)}


def test_table_and_images(tmp_path: Path) -> None:
    run(PredictionWriter(tmp_path / "out", ["Edema"]), [item("b/1.dcm"), item("a.png", "truncated"), item("a,b.png")])
    table = (tmp_path / "out" / "predictions.csv").read_text().splitlines()
    assert table == ["path,problem,Edema", '"a,b.png",,0.250000', "a.png,truncated,", "b/1.dcm,,0.250000"]
    images = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png"))
    assert images == ["images/a,b.png.png", "images/b/1.dcm.png"]


def test_without_images(tmp_path: Path) -> None:
    run(PredictionWriter(tmp_path, ["Edema"], write_images=False), [item("a.png"), item("b.png")])
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]


def test_a_second_run_starts_anew(tmp_path: Path) -> None:
    writer = PredictionWriter(tmp_path, ["Edema"])
    for _ in range(2):
        run(writer, [item("a.png"), item("b.png")])
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 3


def test_pictures_are_clipped_and_bare(tmp_path: Path) -> None:
    write_png(torch.tensor([[[-1.0, 0.5], [1.0, 3.0]]]), tmp_path / "new" / "grey.png")
    write_png(torch.rand(3, 2, 2), tmp_path / "colour.png")
    with Image.open(tmp_path / "new" / "grey.png") as grey, Image.open(tmp_path / "colour.png") as colour:
        assert np.array(grey).tolist() == [[0, 128], [255, 255]]
        assert (grey.mode, colour.mode, grey.info) == ("L", "RGB", {})


def test_errors_name_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"label_names must name 1 predictions; got \['a', 'b'\]"):
        run(PredictionWriter(tmp_path, ["a", "b"]), [item("a.png")])
    with pytest.raises(ValueError, match=r"path_key 'path' must hold paths below the input folder; got '../../a.png'"):
        run(PredictionWriter(tmp_path, ["a"]), [item("../../a.png")])
    engine = Engine(lambda _, batch: batch)
    PredictionWriter(tmp_path, ["a"]).attach(engine)
    with pytest.raises(TypeError, match="needs an evaluator with decollate=True"):
        engine.run([{"path": ["a"]}])

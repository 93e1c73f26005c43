"""Writes what an inference found: a table of probabilities, and the privatized images."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import Tensor


class PredictionWriter:
    """Collects an evaluator's predictions and writes ``predictions.csv``, and each privatized image as PNG.

    Rows are sorted by path: ``path, problem, LABEL...``. A file that could not be read keeps its row, with the problem
    and no probabilities, and has no image. Paths are those below the folder of the input, so that the data holder can
    tell whose prediction it is: where they identify patients, so do these. Nothing else of a file's header is written.

    Args:
        output_dir: folder to write into; made if absent. Images go to its folder ``images``, as ``PATH.png``.
        label_names: L names, the columns.
        write_images: write the privatized images.
        pred_key: where `engine.state.output` holds the probabilities ``[L]``.
        image_key: where it holds the privatized images ``[C, H, W]``, clipped to [0, 1] here.
        path_key: where `engine.state.batch` holds the relative paths.
        problem_key: where `engine.state.batch` says why a file could not be read ("" if it could).

    Raises:
        ValueError: while it runs, predictions of another length than `label_names`, or a path that leaves `output_dir`.
    """

    def __init__(
        self,
        output_dir: str | Path,
        label_names: Sequence[str],
        write_images: bool = True,
        pred_key: str = "pred",
        image_key: str = "image",
        path_key: str = "path",
        problem_key: str = "problem",
    ) -> None:
        self.output_dir, self.label_names, self.write_images = Path(output_dir), list(label_names), write_images
        self.pred_key, self.image_key = pred_key, image_key
        self.path_key, self.problem_key = path_key, problem_key
        self._rows: list[list[str]] = []

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator that decollates its batches.

        Args:
            engine: runs over the images once.
        """
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        self._rows = []
        self.output_dir.mkdir(parents=True, exist_ok=True)

    def _collect(self, engine: Engine) -> None:
        for item, output in zip(_items(engine.state.batch), _items(engine.state.output), strict=True):
            path, problem = item[self.path_key], item[self.problem_key]
            values = output[self.pred_key].flatten().tolist()
            if len(values) != len(self.label_names):
                raise ValueError(f"label_names must name {len(values)} predictions; got {self.label_names}.")
            shown = [f"{value:.6f}" for value in values] if not problem else [""] * len(values)
            self._rows.append([path, problem, *shown])
            if self.write_images and not problem:
                write_png(output[self.image_key], self._place(path))

    def _place(self, path: str) -> Path:
        images = self.output_dir / "images"
        place = images / f"{path}.png"
        if not place.resolve().is_relative_to(images.resolve()):
            raise ValueError(f"path_key {self.path_key!r} must hold paths below the input folder; got {path!r}.")
        return place

    def _finish(self, engine: Engine) -> None:
        with (self.output_dir / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["path", "problem", *self.label_names])
            table.writerows(sorted(self._rows))
        unread = sum(bool(problem) for _, problem, *_ in self._rows)
        engine.logger.info("%d predictions, %d files that could not be read.", len(self._rows) - unread, unread)


def write_png(image: Tensor, path: Path) -> None:
    """Write an image ``[1 or 3, H, W]`` in [0, 1] as 8-bit PNG, without metadata.

    Args:
        image: values outside [0, 1] are clipped.
        path: its folder is made.
    """
    from PIL import Image

    levels = (torch.as_tensor(image).detach().cpu().clamp(0, 1) * 255).round().byte().numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(levels.transpose(1, 2, 0) if len(levels) == 3 else levels[0])).save(path)


def _items(data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise TypeError("PredictionWriter needs an evaluator with decollate=True.")
    return data

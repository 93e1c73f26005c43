"""Explains an evaluation's codes as it runs, for people who never see the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from matplotlib.figure import Figure
from monai.utils.module import optional_import
from torch import Tensor, nn

from monai_deepfixcx.codecs import Codec
from monai_deepfixcx.handlers.attribution_measures import AttributionSettings
from monai_deepfixcx.handlers.attribution_pictures import pixels_of
from monai_deepfixcx.handlers.attribution_report import AttributionReport
from monai_deepfixcx.networks import PrivatizedNetwork


class PrivatizedAttributionHandler:
    """Explains the first codes of each epoch of a MONAI evaluator or trainer, and writes pictures, maps and metrics.

    It reads codes ``[C, D]`` under one key of the engine's state, labels, regions and patients under others, nothing
    else: images in their place are refused, and no key of the original image is known to it. Files are those of
    `AttributionReport`; cases are numbered as the data loader brings them. On several ranks each writes its own cases'
    pictures, and the first what all have found.

    Args:
        network: whose outputs are explained: takes codes, or is a `PrivatizedNetwork`.
        output_dir: folder to write into; made if absent.
        label_names: of the network's L outputs.
        code_key: where `engine.state.output` (or else the batch) holds the codes.
        label_key: where they hold the labels ``[L]`` of 0, 1, or 2 (uncertain), or class indices; they are used if
            there are any, to tell cases with from cases without the finding, in means only.
        region_key: where they hold a bool mask ``[1, *S]`` of each case.
        patient_key: where the batch says whose each code is, if it does: metrics' intervals are then over patients, of
            whom only hashes are kept.
        skip_key: where the batch says why a case cannot be explained ("" if it can), if it says so.
        codec: that made the codes; default: that of the `PrivatizedNetwork`.
        spatial_shape: of the encoded images; default: that of the `PrivatizedNetwork`.
        fingerprint: of the codec that made the codes, if known; another than the codec's is an error.
        every: explain each n-th epoch, into a folder ``epoch_NNNN`` each; `None`: each run, into `output_dir` itself.
        tensorboard_dir: folder for TensorBoard, to which pictures and mean metrics go as well.
        enabled: False does nothing, for a configuration's switch.
        **settings: those of `AttributionSettings`.

    Raises:
        ValueError: no codec where the network has none, or what `AttributionSettings` and `AttributionReport` refuse;
            while it runs, what `attribute` refuses.
        KeyError: while it runs, there is no such `code_key` or `region_key`.

    Source: Gaudio et al., WIREs DMKD 2023, doi:10.1002/widm.1495, section on privatized attribution.

    >>> from tempfile import TemporaryDirectory
    >>> from monai_deepfixcx.networks import privatized_mlp
    >>> network = privatized_mlp({"codec": "deepfixcx", "levels": 2, "patch_size": 4}, (32, 32), inputs="codes")
    >>> batch = {"code": network.encode(torch.rand(2, 1, 32, 32))}
    >>> engine = Engine(lambda _, batch: {"pred": network(batch["code"])})
    >>> with TemporaryDirectory() as folder:
    ...     PrivatizedAttributionHandler(network, folder, ["Cardiomegaly"], drawn=1, samples=0).attach(engine)
    ...     _ = engine.run([batch])
    ...     sorted(path.name for path in Path(folder).rglob("*.*"))
    ['attributions.json', 'case_0000_Cardiomegaly.nii.gz', 'case_0000_Cardiomegaly.png', 'cohort_Cardiomegaly.png']
    """

    def __init__(
        self,
        network: nn.Module,
        output_dir: str | Path,
        label_names: Sequence[str],
        code_key: str = "code",
        label_key: str = "label",
        region_key: str | None = None,
        patient_key: str = "patient",
        skip_key: str = "problem",
        codec: Codec | None = None,
        spatial_shape: Sequence[int] | None = None,
        fingerprint: str | None = None,
        every: int | None = None,
        tensorboard_dir: str | Path | None = None,
        enabled: bool = True,
        **settings: Any,
    ) -> None:
        inner = network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
        if isinstance(inner, PrivatizedNetwork):
            codec, spatial_shape = codec or inner.codec, spatial_shape or inner.spatial_shape
        if codec is None or spatial_shape is None:
            raise ValueError("codec and spatial_shape must be given for a network that is no PrivatizedNetwork.")
        if every is not None and every < 1:
            raise ValueError(f"every must be at least 1, or none; got {every}.")
        self.report = AttributionReport(
            inner,
            codec,
            spatial_shape,
            label_names,
            AttributionSettings(**settings),
            region_key is not None,
            fingerprint,
            self._show,
        )
        self.output_dir, self.every, self.enabled = Path(output_dir), every, enabled
        self.code_key, self.label_key, self.region_key = code_key, label_key, region_key
        self.patient_key, self.skip_key = patient_key, skip_key
        self.tensorboard_dir = tensorboard_dir
        self._board: Any = None
        self._epoch = self._seen = 0

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator or a trainer, decollating or not.

        Args:
            engine: runs over the codes once per epoch.
        """
        if not self.enabled:
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._explain)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    @property
    def _due(self) -> bool:
        return self.every is None or self._epoch % self.every == 0

    @property
    def _folder(self) -> Path:
        return self.output_dir if self.every is None else self.output_dir / f"epoch_{self._epoch:04d}"

    def _start(self, engine: Engine) -> None:
        self._epoch, self._seen = engine.state.epoch, 0
        if not self._due:
            return
        self.report.start()
        if self.tensorboard_dir is not None and self._board is None:
            writer, found = optional_import("torch.utils.tensorboard", name="SummaryWriter")
            if not found:
                raise ImportError('tensorboard_dir needs TensorBoard: pip install "monai-deepfixcx[bundle]".')
            self._board = writer(str(self.tensorboard_dir))

    def _explain(self, engine: Engine) -> None:
        if not self._due:
            return
        places = [engine.state.output, engine.state.batch]
        codes = _stacked(places, self.code_key)
        if codes is None:
            raise KeyError(
                f"code_key: there is no {self.code_key!r} in the engine's state; name the key of the codes there."
            )
        regions = None if self.region_key is None else _stacked(places, self.region_key)
        if self.region_key is not None and regions is None:
            raise KeyError(f"region_key: there is no {self.region_key!r} in the engine's state.")
        truth, patients = _stacked(places, self.label_key), _column(engine.state.batch, self.patient_key)
        skipped = _column(engine.state.batch, self.skip_key) or [""] * len(codes)
        first, world = self._seen, idist.get_world_size()
        self._seen += len(codes)
        rows = [row for row, problem in enumerate(skipped) if not problem]
        if rows:
            self.report.add(
                codes[rows],
                [idist.get_rank() + (first + row) * world for row in rows],
                self._folder,
                None if truth is None else _as_labels(truth, len(self.report.label_names))[rows],
                None if regions is None else regions[rows],
                None if patients is None else [patients[row] for row in rows],
            )

    def _finish(self, engine: Engine) -> None:
        if not self._due:
            return
        found = self.report.finish(self._folder)
        if found is None:
            engine.logger.info("No code was explained: none could be read.")
            return
        if self._board is not None:
            for label, entry in found["labels"].items():
                for name, estimate in entry["metrics"].items():
                    if isinstance(estimate, Mapping) and estimate["value"] is not None:
                        self._board.add_scalar(f"attribution/{label}/{name}", estimate["value"], self._epoch)
            self._board.flush()

    def _show(self, name: str, figure: Figure) -> None:
        if self._board is not None:
            self._board.add_image(f"attribution/{name}", pixels_of(figure), self._epoch, dataformats="HWC")


def _column(data: Any, key: str) -> Any:
    """What a decollated list of dictionaries, or one dictionary of a batch, holds under one key; no other is read."""
    first = data[0] if isinstance(data, list) and data else data
    if (
        not isinstance(first, Mapping) or first.get(key) is None
    ):  # MONAI's output has a "label" of None if there is none
        return None
    return [item[key] for item in data] if isinstance(data, list) else data[key]


def _stacked(places: Sequence[Any], key: str) -> Tensor | None:
    column = next((found for place in places if (found := _column(place, key)) is not None), None)
    if column is None or isinstance(column, Tensor):
        return None if column is None else column.detach().as_subclass(Tensor)
    return torch.stack([torch.as_tensor(row).detach().as_subclass(Tensor) for row in column])


def _as_labels(truth: Tensor, count: int) -> Tensor:
    """Labels ``[B, L]`` of 0, 1 and 2, or the same of class indices ``[B]`` or ``[B, 1]``."""
    truth = truth.cpu().reshape(len(truth), -1)
    if truth.shape[1] == 1 and count > 1:
        return (truth == torch.arange(count)).double()
    return truth.double()

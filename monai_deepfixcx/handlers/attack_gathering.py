"""What the attack handlers share: originals, codes and patients of every rank, and attacks run on them by the first."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.utils import evenly_divisible_all_gather
from torch import Tensor

from monai_deepfixcx.attacks.base import Attack, AttackResult, run_attack, without_output
from monai_deepfixcx.codecs import Codec, IdentityCodec
from monai_deepfixcx.handlers.classification_report_handler import column_of
from monai_deepfixcx.metrics.bootstrap import check_bootstrap
from monai_deepfixcx.metrics.classification_report import patient_code

_SHAPES = "images must have one shape [C, *S]; got several. Crop or resize them."


class GatheredVictims:
    """Originals, codes and patients of all ranks, also of a rank that saw no image; kept in memory, never written.

    Of a patient only a 64-bit hash of the name is kept.

    >>> gathered = GatheredVictims()
    >>> gathered.add(torch.rand(2, 1, 16, 16), None, ["a", "b"])
    >>> gathered.of_all_ranks()["images"].shape
    torch.Size([2, 1, 16, 16])
    """

    def __init__(self) -> None:
        self._batches: list[tuple[Tensor, Tensor, Tensor]] = []

    def reset(self) -> None:
        """Forget what was gathered."""
        self._batches = []

    def add(self, images: Tensor, codes: Tensor | None, patients: Iterable[Any]) -> None:
        """Keep a batch of this rank.

        Args:
            images: the originals, ``[B, C, *S]``.
            codes: ``[B, C, D]``, or None to have the attacks encode the originals.
            patients: B names or whole numbers.

        Raises:
            ValueError: lengths or numbers of axes that do not fit.
        """
        names = list(patients)
        codes = images.new_zeros((len(images), 0, 0)) if codes is None else codes
        if images.ndim not in (4, 5) or codes.ndim != 3 or not len(images) == len(codes) == len(names):
            raise ValueError(
                "a batch must hold originals [B, C, *S], codes [B, C, D] and B patients; got originals "
                f"{list(images.shape)}, codes {list(codes.shape)} and {len(names)} patients. "
                "Where the batch holds no codes, set code_key to null: the originals are then encoded."
            )
        # Every row carries its shape, so that a rank without rows can take part in gathering.
        shape = [*images.shape[1:], *codes.shape[1:]]
        rows = torch.tensor([[patient_code(name), *shape] for name in names], dtype=torch.int64)
        rows = rows.reshape(len(names), 1 + len(shape))  # also where there are none
        self._batches.append((_plain(images).flatten(1), _plain(codes).flatten(1), rows))

    def of_all_ranks(self) -> dict[str, Any] | None:
        """What `run_attack` takes as victims: ``images``, ``patients`` and, if there were any, ``codes``.

        Every rank must call this. The images of all ranks come to each.

        Returns:
            the mapping, or None if no rank has an image.

        Raises:
            ValueError: images of several shapes.
        """
        shapes = {tuple(part.shape[1] for part in batch) for batch in self._batches}
        # Where they differ, the first of each: enough to tell it on every rank.
        kept = self._batches if len(shapes) == 1 else self._batches[:1]
        local = [torch.cat(parts) for parts in zip(*kept, strict=True)]
        widths = torch.tensor([[part.shape[1] for part in local] or [0, 0, 0]])
        widest = evenly_divisible_all_gather(widths, concat=True).max(dim=0).values.tolist()
        if not widest[2]:
            return None
        if not local:
            dtypes = (torch.float32, torch.float32, torch.int64)
            local = [torch.zeros(0, width, dtype=dtype) for width, dtype in zip(widest, dtypes, strict=True)]
        alike = len(shapes) <= 1 and all(part.shape[1] == width for part, width in zip(local, widest, strict=True))
        if not all(evenly_divisible_all_gather(torch.tensor([[alike]], dtype=torch.int64), concat=True).flatten()):
            raise ValueError(_SHAPES)
        images, codes, rows = (evenly_divisible_all_gather(part, concat=True) for part in local)
        if bool((rows[:, 1:] != rows[0, 1:]).any()):
            raise ValueError(_SHAPES)
        shape = rows[0, 1:].tolist()
        victims = {"images": images.unflatten(1, shape[:-2]), "patients": [str(code) for code in rows[:, 0].tolist()]}
        return victims if not codes.shape[1] else {**victims, "codes": codes.unflatten(1, shape[-2:])}


class AttackHandler:
    """Attacks the codes that a MONAI evaluator runs over, at the end of the run; for the data holder's own evaluation.

    Every rank gathers; the first runs the attacks while the others wait for the figures (longer than the process
    group's timeout they do not wait). After the run `engine.state.metrics` on every rank holds
    ``<attack>_<metric>`` and ``<attack>_<metric>_baseline``; attach the handler before a MetricsSaver,
    TensorBoardStatsHandler or StatsHandler that is to write them. An attack that does not suit the codec is left out
    and named in the log and in the file. No image, no code, no patient's name and no path is written or logged.

    Args:
        attacks: the attacks to run.
        codec: what the codes were made with, or its configuration.
        auxiliary: other patients' images, for the attacks to learn from: a mapping of ``images`` [N, C, *S] and
            ``patients`` (N names), or a dataset whose items hold `image_key` and `patient_key`. Only the first rank
            reads it, at the end of the run.
        image_key: where `engine.state.batch` holds the originals ``[B, C, *S]``.
        code_key: where it holds the codes ``[B, C, D]``; None encodes the originals.
        patient_key: where it holds the patients.
        output_dir: folder for ``<kind>.json``, all results with intervals and baselines; None writes no file.
        undefended: also run each attack on undefended images (IdentityCodec), for the advantage.
        seed: of the attacks and the resamples.
        samples: bootstrap resamples of the victim patients; 0 for no intervals.
        device: where to run; the CPU if None.
        progress: show progress bars.

    Raises:
        ValueError: no attack, two of one name, or a negative number of samples; at the end of the run, no image on any
            rank, or what `run_attack` refuses.
    """

    kind: ClassVar[str] = "attacks"

    def __init__(
        self,
        attacks: Sequence[Attack],
        codec: Codec,
        auxiliary: Any,
        image_key: str = "original",
        code_key: str | None = "image",
        patient_key: str = "patient",
        output_dir: str | Path | None = None,
        undefended: bool = True,
        seed: int = 0,
        samples: int = 1000,
        device: torch.device | str | None = None,
        progress: bool = False,
    ) -> None:
        names = [attack.name for attack in attacks]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"attacks must be one or more, of different names; got {', '.join(names) or 'none'}.")
        check_bootstrap(samples)
        self.attacks, self.codec, self.auxiliary = list(attacks), codec, auxiliary
        self.image_key, self.code_key, self.patient_key = image_key, code_key, patient_key
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.undefended, self.seed, self.samples = undefended, seed, samples
        self.device, self.progress = device, progress
        self.victims = GatheredVictims()
        self.results: list[AttackResult] = []
        self.not_run: dict[str, str] = {}

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator, decollating or not."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        self.victims.reset()

    def _collect(self, engine: Engine) -> None:
        batch = engine.state.batch
        images = _stacked(column_of(batch, self.image_key, "image_key"))
        codes = None if self.code_key is None else _stacked(column_of(batch, self.code_key, "code_key"))
        self.victims.add(images, codes, column_of(batch, self.patient_key, "patient_key"))

    def _finish(self, engine: Engine) -> None:
        victims = self.victims.of_all_ranks()
        self.victims.reset()  # the originals need not stay in memory
        if victims is None:
            raise ValueError(f"{type(self).__name__} has seen no image on any rank: run it over victims' images.")
        failure: Exception | None = None
        message: Any = None
        if idist.get_rank() == 0:
            try:
                self._run(victims)
                message = json.dumps({"metrics": _scalars(self.results)})
            except Exception as error:  # the other ranks must not wait for ever
                failure = error
                message = json.dumps({"error": f"{type(error).__name__}: {error}"})
        if idist.get_world_size() > 1:
            message = idist.broadcast(message, src=0, safe_mode=True)
        if failure is not None:
            raise failure
        told = json.loads(str(message))
        if "error" in told:
            raise RuntimeError(f"{type(self).__name__} failed on the first rank: {told['error']}")
        engine.state.metrics.update(told["metrics"])
        if idist.get_rank() == 0:
            self._report(engine)

    def _run(self, victims: Mapping[str, Any]) -> None:
        auxiliary = self._read_auxiliary()
        options: dict[str, Any] = {"samples": self.samples, "device": self.device, "progress": self.progress}
        plain = {key: value for key, value in victims.items() if key != "codes"}
        identity = IdentityCodec(self.codec.spatial_dims)
        self.results, self.not_run = [], {}
        for attack in self.attacks:
            reason = attack.why_unsuited(self.codec)
            if reason:
                self.not_run[attack.name] = reason
                continue
            twin = None
            if self.undefended and attack.suits(identity):
                twin = run_attack(attack, identity, auxiliary, plain, self.seed, **options)
            result = run_attack(attack, self.codec, auxiliary, victims, self.seed, undefended=twin, **options)
            self.results.append(without_output(result))

    def _read_auxiliary(self) -> dict[str, Any]:
        if isinstance(self.auxiliary, Mapping):
            images, patients = self.auxiliary.get("images"), self.auxiliary.get("patients")
            if images is None or patients is None:
                raise ValueError("auxiliary must hold images [N, C, *S] and patients (N names); one is missing.")
        else:
            items = [self.auxiliary[index] for index in range(len(self.auxiliary))]
            images = column_of(items, self.image_key, "auxiliary, image_key")
            patients = column_of(items, self.patient_key, "auxiliary, patient_key")
        names = patients.tolist() if hasattr(patients, "tolist") else patients
        # Named as the victims are, so that a patient in both parts is found.
        return {"images": _stacked(images), "patients": [str(patient_code(name)) for name in names]}

    def _report(self, engine: Engine) -> None:
        for result in self.results:
            figures = ", ".join(f"{name} {estimate.value:.3f}" for name, estimate in result.metrics.items())
            engine.logger.info("%s: %s", result.attack, figures)
        for name, reason in self.not_run.items():
            engine.logger.info("%s was not run: %s", name, reason)
        if self.output_dir is not None:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            found = {"attacks": [result.as_dict() for result in self.results], "not_run": self.not_run}
            path = self.output_dir / f"{self.kind}.json"
            path.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n")


def _plain(values: Tensor) -> Tensor:
    """On the CPU, float32, without metadata."""
    return values.detach().cpu().as_subclass(Tensor).float()


def _stacked(values: Any) -> Tensor:
    """One tensor from a batch, or from a decollated list."""
    return values if isinstance(values, Tensor) else torch.stack([torch.as_tensor(value) for value in values])


def _scalars(results: Iterable[AttackResult]) -> dict[str, float]:
    found: dict[str, float] = {}
    for result in results:
        for name, estimate in result.metrics.items():
            found[f"{result.attack}_{name}"] = estimate.value
            if estimate.baseline is not None:
                found[f"{result.attack}_{name}_baseline"] = estimate.baseline
    return found

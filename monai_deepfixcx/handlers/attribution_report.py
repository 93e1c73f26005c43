"""Explain codes as they come, and write what was found: pictures, maps, biases and metrics, of all ranks."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from monai_deepfixcx.attribution import PrivatizedAttribution, attribute, subband_grid
from monai_deepfixcx.attribution.attribute import POOL_KERNEL
from monai_deepfixcx.attribution.layout import decoded_offset, patch_edges
from monai_deepfixcx.codecs import HEART, Codec, DeepFixCXCodec, HeartSpotCodec, IdentityCodec
from monai_deepfixcx.codecs.priors import polygon_mask
from monai_deepfixcx.handlers.attribution_measures import AttributionMeasures, AttributionSettings
from monai_deepfixcx.handlers.attribution_pictures import Shown, case_figure, cohort_figure, save_figure, write_map
from monai_deepfixcx.metrics.gathered_scores import GatheredScores

_BLOCKS = 16  # along an axis: pixels are too many to list one by one


class AttributionReport:
    """Explains codes, case by case and label by label, and writes a folder of what it found.

    It is given codes and has no way to their images. Below the folder: ``attributions.json`` (biases and metrics per
    case and over all cases), and, if any case is to be drawn, ``cohort_LABEL.png`` (mean biases) and for the first
    cases ``cases/case_NNNN_LABEL.png`` (pictures) and ``.nii.gz`` (the attribution drawn by the codec's decoder).
    Cases have numbers, no names.

    Args:
        network: takes codes, or is a `PrivatizedNetwork`.
        codec: that made the codes.
        spatial_shape: of the encoded images.
        label_names: of the network's L outputs.
        settings: what to explain, and how.
        regions_come: whether each case will bring a region of its own.
        fingerprint: of the codec that made the codes, where they say.
        on_picture: told each picture's name as it is drawn.

    Raises:
        ValueError: a label that is none of `label_names`, or a region that does not suit the images.
    """

    def __init__(
        self,
        network: nn.Module,
        codec: Codec,
        spatial_shape: Sequence[int],
        label_names: Sequence[str],
        settings: AttributionSettings | None = None,
        regions_come: bool = False,
        fingerprint: str | None = None,
        on_picture: Callable[[str, Figure], None] = lambda name, figure: None,
    ) -> None:
        self.network, self.codec, self.shape = network, codec, tuple(int(n) for n in spatial_shape)
        self.label_names, self.settings = list(label_names), settings or AttributionSettings()
        self.fingerprint, self.on_picture = fingerprint, on_picture
        chosen = self.label_names if self.settings.labels is None else list(self.settings.labels)
        if unknown := [name for name in chosen if name not in self.label_names]:
            raise ValueError(f"labels must be of {', '.join(self.label_names)}; got {unknown[0]!r}.")
        self.targets = {name: self.label_names.index(name) for name in chosen}
        self.region = _region_mask(self.settings.region, self.shape)
        placed = (regions_come or self.region is not None) and self._draws
        self.measures = {name: AttributionMeasures(self.settings, placed) for name in chosen}
        self._rows = {name: _Rows() for name in chosen}

    def start(self) -> None:
        """Forget what was explained."""
        for name in self.targets:
            self.measures[name].reset()
            self._rows[name].reset()

    def add(
        self,
        codes: Tensor,
        numbers: Sequence[int],
        folder: Path,
        truth: Tensor | None = None,
        regions: Tensor | None = None,
        patients: Sequence[Any] | None = None,
    ) -> dict[str, PrivatizedAttribution]:
        """Explain those of a batch whose number is below the limit; write pictures and maps of the first.

        Args:
            codes: ``[B, C, D]``.
            numbers: B numbers of the cases, over all ranks.
            folder: to write into; made if absent.
            truth: labels ``[B, L]`` of 0, 1, or 2 (uncertain), if known.
            regions: bool ``[B, 1, *S]``, in the encoded images, if each case has its own.
            patients: whose each code is, if known; only hashes are kept, for intervals over patients.

        Returns:
            Per label, the attributions of the cases that were explained; empty if there were none.

        Raises:
            ValueError: what `attribute` refuses, images in place of codes among it; regions of another kind.
        """
        limit = math.inf if self.settings.limit is None else self.settings.limit
        kept = [row for row, number in enumerate(numbers) if number < limit]
        if not kept:
            return {}
        like = next(self.network.parameters(), torch.zeros(()))
        codes = codes.detach().as_subclass(Tensor)[kept].to(like.device)
        numbers = [numbers[row] for row in kept]
        places = self._places(None if regions is None else regions[kept], len(kept))
        images = self._privatized(codes)
        owners = None if patients is None else [patients[row] for row in kept]
        explained = {}
        for name, target in self.targets.items():
            answers = torch.full((len(kept),), torch.nan) if truth is None else truth[kept, target]
            explained[name] = found = self._attribute(self.network, codes, target)
            self._rows[name](self._row_of(numbers, answers, found))
            self.measures[name].add(self.network, codes, found, self._attribute, places, images, owners)
            for row, number in enumerate(numbers):
                if number < self.settings.drawn:
                    self._draw(folder, number, name, found[row : row + 1], _pick(images, row), _pick(places, row))
        return explained

    def finish(self, folder: Path) -> dict[str, Any] | None:
        """Gather the cases of all ranks, and write ``attributions.json`` and the cohort's pictures on the first rank.

        To be called on every rank.

        Args:
            folder: to write into; made if absent.

        Returns:
            What was written; `None` if no rank has a case.
        """
        gathered = {name: rows.get_buffer() for name, rows in self._rows.items()}  # type: ignore[no-untyped-call]
        if any(rows is None for rows in gathered.values()):
            return None
        found: dict[str, Any] = {
            "method": self.settings.method,
            "options": dict(self.settings.options or {}),
            "baseline": self.settings.baseline
            or ("lowest_subband" if isinstance(self.codec, DeepFixCXCodec) else "zero"),
            "unit": self.settings.unit,
            "codec": self.codec.config(),
            "fingerprint": self.codec.fingerprint(),
            "spatial_shape": list(self.shape),
            "subbands": "laid out by frequency, low to high along every axis",
            "labels": {},
        }
        for name in self.targets:
            rows = gathered[name].double().cpu()
            rows = rows[rows[:, 0].argsort()]
            found["labels"][name] = {
                "cases": len(rows),
                "metrics": self.measures[name].aggregate(),
                "cohort": self._cohort(rows),
                "each": [self._case(row) for row in rows],
            }
        if idist.get_rank() == 0:
            folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(found, indent=1, allow_nan=False)
            (folder / "attributions.json").write_text(_one_line_lists(text) + "\n")
            for name in self.targets if self.settings.drawn else ():
                self._draw_cohort(folder, name, found["labels"][name]["cohort"])
        return found

    # ------------------------------------------------------------------------------------------------- explaining

    @property
    def _size(self) -> tuple[int, int]:
        """Height and width of what is drawn."""
        return (self.shape[0], self.shape[1]) if len(self.shape) == 2 else (self.shape[1], self.shape[0])

    @property
    def _units(self) -> tuple[str, str, str]:
        unit, grid = self.settings.unit, self._pixel_grid()
        pooled = f", quantile .9 of {POOL_KERNEL} x {POOL_KERNEL}" if isinstance(self.codec, HeartSpotCodec) else ""
        place = "patch" if grid is None else f"block of {_block(grid) * self.shape[0] // grid[0]} pixels"
        return (f"{unit} per pixel{pooled}", f"{unit} per {place}", f"{unit} per subband")

    @property
    def _draws(self) -> bool:
        """Whether the codec can draw a code: several pooled features cannot be decoded."""
        return len(getattr(self.codec, "features", [0])) == 1

    def _attribute(
        self, network: nn.Module, codes: Tensor, target: int, method: str | None = None
    ) -> PrivatizedAttribution:
        """By the method asked for, or by another one with its defaults."""
        options = {} if method else dict(self.settings.options or {})
        return attribute(
            network,
            codes,
            self.codec,
            self.shape,
            method or self.settings.method,
            target,
            baseline=self.settings.baseline,
            fingerprint=self.fingerprint,
            seed=self.settings.seed,
            **options,
        )

    def _privatized(self, codes: Tensor) -> Tensor | None:
        """What the codes still show, ``[B, C, *S]``."""
        if not self._draws or codes.ndim != 3:
            return None  # `attribute` says what is wrong with images
        with torch.no_grad():
            return self.codec.to(codes.device).decode(codes, self.shape).detach()

    def _places(self, regions: Tensor | None, count: int) -> Tensor | None:
        """Regions ``[B, 1, *S]`` as they lie in the decoded images."""
        if regions is None:
            if self.region is None:
                return None
            regions = self.region.expand(count, 1, *self.shape)
        if regions.dtype != torch.bool or tuple(regions.shape) != (count, 1, *self.shape):
            raise ValueError(
                f"regions must be bool of shape {[count, 1, *self.shape]}, masks and not images; got {regions.dtype} "
                f"of shape {list(regions.shape)}."
            )
        regions = regions.detach().cpu().as_subclass(Tensor)
        for axis, offset in enumerate(decoded_offset(self.codec, self.shape), start=2):
            before, after = max(0, -offset), max(0, offset)
            sides = [0, 0] * (regions.ndim - 1 - axis) + [before, after]
            regions = F.pad(regions, sides).narrow(axis, after, regions.shape[axis])
        return regions

    # ----------------------------------------------------------------------------------------------------- numbers

    def _row_of(self, numbers: Sequence[int], truth: Tensor, found: PrivatizedAttribution) -> Tensor:
        """One row a case: number, truth, output, the baseline's output, spatial bias, subband bias."""
        parts = [torch.tensor(numbers)[:, None], truth[:, None], found.output[:, None], found.baseline_output[:, None]]
        parts += [part.flatten(1) for part in (self._spatial(found), self._subbands(found)) if part is not None]
        return torch.cat([part.detach().double().cpu() for part in parts], dim=1)

    def _spatial(self, found: PrivatizedAttribution) -> Tensor | None:
        bias, grid = found.spatial_bias, self._pixel_grid()
        if bias is None or grid is None:
            return bias
        block = _block(grid)
        for axis in range(1, bias.ndim):
            sides = [0, 0] * (bias.ndim - 1 - axis) + [0, -bias.shape[axis] % block]
            bias = F.pad(bias, sides).unflatten(axis, (-1, block)).sum(axis + 1)
        return bias

    def _pixel_grid(self) -> tuple[int, ...] | None:
        """The grid of a codec that keeps pixels, too fine to be listed: added up to blocks."""
        if isinstance(self.codec, HeartSpotCodec):
            return tuple(self.codec.mask.shape)
        return self.shape if isinstance(self.codec, IdentityCodec) else None

    def _subbands(self, found: PrivatizedAttribution) -> Tensor | None:
        if found.subband_bias is None or not isinstance(self.codec, DeepFixCXCodec):
            return None
        return subband_grid(found.subband_bias, self.codec.levels_for(self.shape), self.codec.spatial_dims)

    def _bias_shapes(self) -> dict[str, tuple[int, ...]]:
        if isinstance(self.codec, DeepFixCXCodec):
            sides = (2 ** self.codec.levels_for(self.shape),) * self.codec.spatial_dims
            return {"spatial_bias": self.codec.patch_size, "subband_bias": sides}
        grid = self._pixel_grid()
        return {} if grid is None else {"spatial_bias": tuple(-(-side // _block(grid)) for side in grid)}

    def _biases(self, row: Tensor) -> dict[str, Tensor]:
        """The biases that a row of `_row_of` holds, in their shapes."""
        shapes = self._bias_shapes()
        parts = row[4:].split([math.prod(shape) for shape in shapes.values()])
        return {name: part.view(shape) for part, (name, shape) in zip(parts, shapes.items(), strict=True)}

    def _case(self, row: Tensor) -> dict[str, Any]:
        named = {name: _rounded(bias) for name, bias in self._biases(row).items()}
        return {"case": int(row[0]), "output": _rounded(row[2]), "baseline_output": _rounded(row[3]), **named}

    def _cohort(self, rows: Tensor) -> dict[str, Any]:
        """Mean biases of all cases, and of those with and without the finding, where that is known."""
        groups = {"all": rows, "positive": rows[rows[:, 1] == 1], "negative": rows[rows[:, 1] == 0]}
        means = {name: group.mean(0) for name, group in groups.items() if len(group)}
        return {
            name: {"cases": len(groups[name]), "output": _rounded(mean[2])}
            | {bias: _rounded(values) for bias, values in self._biases(mean).items()}
            for name, mean in means.items()
        }

    # ---------------------------------------------------------------------------------------------------- pictures

    def _draw(
        self, folder: Path, number: int, name: str, found: PrivatizedAttribution, image: Tensor | None, region: Any
    ) -> None:
        drawn = None if found.image is None else found.image[0].sum(0)
        output, before = float(found.output), float(found.baseline_output)
        title = f"case {number}, {name}: {self.settings.unit} {output:+.2f} (its baseline: {before:+.2f})"
        spatial, subbands = self._spatial(found), self._subbands(found)
        shown = Shown(
            title,
            None if image is None else image.mean(0).clamp(0, 1),
            drawn,
            None if spatial is None else spatial[0],
            self._edges(),
            None if subbands is None else subbands[0],
            None if region is None else region[0],
            self._size,
            self._units,
        )
        place = folder / "cases" / f"case_{number:04d}_{_file_name(name)}"
        place.parent.mkdir(parents=True, exist_ok=True)
        figure = case_figure(shown)
        save_figure(figure, place.with_suffix(".png"))
        self.on_picture(place.stem, figure)
        if drawn is not None:
            write_map(drawn, place.with_suffix(".nii.gz"))

    def _draw_cohort(self, folder: Path, name: str, cohort: Mapping[str, Any]) -> None:
        region = None if self.region is None else self._places(None, 1)
        rows = {}
        for group, means in cohort.items():
            spatial, subbands = (
                torch.tensor(means[bias]) if bias in means else None for bias in ("spatial_bias", "subband_bias")
            )
            place = None if region is None else region[0, 0]
            rows[f"{group} ({means['cases']})"] = Shown(
                "", None, None, spatial, self._edges(), subbands, place, self._size, self._units
            )
        if any(shown.spatial is not None or shown.subbands is not None for shown in rows.values()):
            figure = cohort_figure(rows, f"mean attribution, {name}")
            save_figure(figure, folder / f"cohort_{_file_name(name)}.png")
            self.on_picture(f"cohort_{_file_name(name)}", figure)

    def _edges(self) -> tuple[float, float, float, float]:
        """Where the outer patches end in the decoded image, as drawn: top, bottom, left, right."""
        if isinstance(self.codec, DeepFixCXCodec):
            first, second = ((float(edges[0]), float(edges[-1])) for edges in patch_edges(self.codec, self.shape)[:2])
        else:
            grid = self._pixel_grid() or self.shape
            block = _block(grid)
            first, second = (
                (0.0, -(-side // block) * block * whole / side)
                for side, whole in zip(grid[:2], self.shape[:2], strict=True)
            )
        if len(self.shape) == 2:
            return (*first, *second)
        return (self.shape[1] - second[1], self.shape[1] - second[0], *first)  # a volume: x to the right, y upwards


class _Rows(GatheredScores):
    """Rows of numbers, of all ranks."""

    dtypes = (torch.float64,)

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Any:
        return [y_pred]


def _region_mask(region: Any, shape: tuple[int, ...]) -> Tensor | None:
    """The region that all cases share, bool ``[*S]``."""
    if region is None:
        return None
    if isinstance(region, str):
        if region != "heart":
            raise ValueError(f'region must be "heart", a polygon or a mask; got {region!r}.')
        region = HEART
    mask = torch.as_tensor(np.asarray(region))
    if mask.dtype != torch.bool and len(shape) == 2 and mask.ndim == 2 and mask.shape[1] == 2:
        mask = torch.from_numpy(polygon_mask([tuple(point) for point in mask.tolist()], (shape[0], shape[1])))
    if mask.dtype != torch.bool or tuple(mask.shape) != shape:
        raise ValueError(
            f'region must be "heart", a polygon of (row, column) fractions (2-D only), or a bool mask {list(shape)}; '
            f"got {mask.dtype} of shape {list(mask.shape)}."
        )
    return mask


def _block(grid: Sequence[int]) -> int:
    return math.ceil(max(grid) / _BLOCKS)


def _pick(values: Tensor | None, row: int) -> Tensor | None:
    return None if values is None else values[row]


def _rounded(values: Tensor) -> Any:
    """Numbers of six digits, `None` for nan."""
    if values.ndim:
        return [_rounded(value) for value in values]
    return None if math.isnan(float(values)) else float(f"{float(values):.6g}")


def _one_line_lists(text: str) -> str:
    """Lists of numbers on one line each."""
    return re.sub(r"\[\s*([-0-9.e,\s+]+?)\s*\]", lambda found: f"[{' '.join(found[1].split())}]", text)


def _file_name(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", label).strip("_") or "label"

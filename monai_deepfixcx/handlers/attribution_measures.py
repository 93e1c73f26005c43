"""What to explain, and how the explanations of one label are measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_deepfixcx.attribution import METHODS, PrivatizedAttribution, feature_groups
from monai_deepfixcx.attribution.inputs import explaining
from monai_deepfixcx.attribution.layout import Over
from monai_deepfixcx.metrics.bootstrap import Estimate
from monai_deepfixcx.metrics.explanations import (
    ExplanationMetric,
    agreement,
    cascading_randomization,
    faithfulness,
    localization,
    max_sensitivity,
)
from monai_deepfixcx.metrics.explanations.cumulative import (
    AGREEMENT,
    AGREEMENT_BASELINES,
    FAITHFULNESS,
    FAITHFULNESS_BASELINES,
    LOCALIZATION,
    LOCALIZATION_BASELINES,
)

Measure = Literal["faithfulness", "agreement", "localization", "sensitivity", "randomization"]
Region = Literal["heart"] | Sequence[Sequence[float]] | Tensor
Explain = Callable[..., PrivatizedAttribution]
# Methods that give a gradient, which becomes a share of the output only times the distance from the baseline.
_GRADIENTS = ("saliency", "smoothgrad")
_RANDOMIZED = 8  # codes on which randomized networks are compared


@dataclass(frozen=True)
class AttributionSettings:
    """What to explain, and how.

    Attributes:
        method: a name of `monai_deepfixcx.attribution.METHODS`.
        options: of the method.
        baseline: as for `attribute`, by name.
        labels: the outputs to explain, by name; `None`: all.
        limit: how many cases to explain, the first ones; `None`: all.
        drawn: how many of these get a picture and a map; 0: no picture at all.
        measures: any of "faithfulness" (deletion, insertion, infidelity, completeness), "agreement" (with `compare`),
            "localization" (left out without a region), "sensitivity" and "randomization" (both slow).
        compare: the method to agree with.
        over: what deletion and insertion take together: "values", "patches" or "subbands".
        region: outlined, and where attributions are looked for: "heart" (HeartSpot's, an average one), a polygon of
            (row, column) fractions of the image, or a bool mask ``[*S]``.
        unit: of the network's outputs.
        samples: bootstrap resamples for the metrics' intervals.
        seed: of everything random.

    Raises:
        ValueError: an unknown method or measure, or a number out of range.
    """

    method: str = "integrated_gradients"
    options: Mapping[str, Any] | None = None
    baseline: str | None = None
    labels: Sequence[str] | None = None
    limit: int | None = 16
    drawn: int = 4
    measures: Sequence[Measure] = ("faithfulness", "agreement", "localization")
    compare: str = "input_x_gradient"
    over: Over = "values"
    region: Region | None = None
    unit: str = "logit"
    samples: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for argument, name in (("method", self.method), ("compare", self.compare)):
            if name not in METHODS:
                raise ValueError(f"{argument} must be one of {', '.join(METHODS)}; got {name!r}.")
        if unknown := [name for name in self.measures if name not in get_args(Measure)]:
            raise ValueError(f"measures must be any of {', '.join(get_args(Measure))}; got {unknown[0]!r}.")
        if (self.limit is not None and self.limit < 1) or self.drawn < 0:
            raise ValueError(
                f"limit must be at least 1 or none, drawn at least 0; got limit={self.limit}, drawn={self.drawn}."
            )


class AttributionMeasures:
    """The metrics of one label's attributions, over cases and ranks.

    Args:
        settings: which to compute.
        placed: whether there are regions, and maps to look for in them.
    """

    def __init__(self, settings: AttributionSettings, placed: bool) -> None:
        self.settings, self.placed = settings, placed and "localization" in settings.measures
        names: list[str] = []
        baselines: dict[str, str | float] = {}
        for asked, measured, without in (
            ("faithfulness" in settings.measures, FAITHFULNESS, FAITHFULNESS_BASELINES),
            ("agreement" in settings.measures, AGREEMENT, AGREEMENT_BASELINES),
            (self.placed, LOCALIZATION, LOCALIZATION_BASELINES),
            ("sensitivity" in settings.measures, ["max_sensitivity"], {}),
        ):
            if asked:
                names += measured
                baselines |= without
        self._metric = ExplanationMetric(names, baselines, settings.samples, settings.seed) if names else None
        self._randomized: list[dict[str, Any]] | None = None

    def reset(self) -> None:
        """Forget what was measured."""
        self._randomized = None
        if self._metric is not None:
            self._metric.reset()

    def add(
        self,
        network: nn.Module,
        codes: Tensor,
        found: PrivatizedAttribution,
        explain: Explain,
        regions: Tensor | None,
        images: Tensor | None,
        patients: Sequence[Any] | None = None,
    ) -> None:
        """Measure a batch.

        Args:
            network: that was explained.
            codes: ``[B, C, D]``.
            found: their attributions.
            explain: ``(network, codes, target, method=None)`` explains again, by another method on request.
            regions: bool ``[B, 1, *S]``.
            images: privatized, ``[B, C, *S]``; `None` if the codec cannot draw.
            patients: whose each code is, if known; only hashes are kept, for intervals over patients.
        """
        target, asked = int(found.target[0]), self.settings.measures
        values: dict[str, Tensor] = {}
        if "faithfulness" in asked:
            values |= self._faithfulness(network, codes, found, target)
        if "agreement" in asked:
            values |= agreement(found.code, explain(network, codes, target, self.settings.compare).code)
        if self.placed and regions is not None and images is not None:
            values |= localization(_map(found), regions, images, self.settings.seed)
        if "sensitivity" in asked:
            again = lambda changed: explain(network, changed, target).code  # noqa: E731
            values["max_sensitivity"] = max_sensitivity(again, codes, seed=self.settings.seed)
        if self._metric is not None:
            self._metric(values, patients)
        if "randomization" in asked and self._randomized is None and images is not None:
            self._randomized = self._randomize(network, codes[:_RANDOMIZED], explain, target)

    def aggregate(self) -> dict[str, Any]:
        """Each metric's estimate over all ranks, as a mapping; "randomization" is this rank's."""
        estimates = {} if self._metric is None else self._metric.aggregate()
        found: dict[str, Any] = {name: _rounded(estimate) for name, estimate in estimates.items()}
        return found if self._randomized is None else found | {"randomization": self._randomized}

    def _faithfulness(
        self, network: nn.Module, codes: Tensor, found: PrivatizedAttribution, target: int
    ) -> dict[str, Tensor]:
        shares = found.code * (codes - found.baseline) if found.method in _GRADIENTS else found.code
        groups = None
        if self.settings.over != "values":
            groups = feature_groups(found.codec, found.spatial_shape, self.settings.over)

        def score(changed: Tensor) -> Tensor:
            outputs = network(changed)
            return outputs if outputs.ndim == 1 else outputs[:, target]

        with explaining(network):
            return faithfulness(score, codes, found.baseline, shares, groups, seed=self.settings.seed)

    def _randomize(self, network: nn.Module, codes: Tensor, explain: Explain, target: int) -> list[dict[str, Any]]:
        def explained(randomized: nn.Module) -> tuple[Tensor, Tensor]:
            found = explain(randomized, codes, target)
            return found.code, _map(found)

        steps = cascading_randomization(network, explained, seed=self.settings.seed)
        return [{"layer": step.layer, "spearman": _mean(step.spearman), "ssim": _mean(step.ssim)} for step in steps]


def _map(found: PrivatizedAttribution) -> Tensor:
    """The attribution in the image ``[B, C, *S]``, linear in it: HeartSpot's pool, made for the eye, is not."""
    if found.scattered is not None:
        return F.interpolate(found.scattered, found.spatial_shape, mode="nearest")
    return torch.zeros_like(found.code) if found.image is None else found.image


def _rounded(estimate: Estimate) -> dict[str, float | None]:
    """Six digits: what is beyond depends on the machine."""
    return {end: None if value is None else float(f"{value:.6g}") for end, value in estimate.as_dict().items()}


def _mean(values: Tensor) -> float | None:
    defined = values[~values.isnan()]
    return float(f"{float(defined.mean()):.6g}") if len(defined) else None

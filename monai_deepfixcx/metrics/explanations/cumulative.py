"""The explanation metrics over an epoch, of all ranks, with intervals over patients."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_deepfixcx.metrics.bootstrap import (
    Estimate,
    check_bootstrap,
    number_patients,
    percentile_estimate,
    resample_patients,
)
from monai_deepfixcx.metrics.classification_report import patient_code
from monai_deepfixcx.metrics.explanations.faithfulness import Score, faithfulness
from monai_deepfixcx.metrics.explanations.maps import BASELINES, agreement, attribution_leak, localization
from monai_deepfixcx.metrics.gathered_scores import GatheredScores
from monai_deepfixcx.metrics.inputs import as_array
from monai_deepfixcx.metrics.weighted import Floats


class ExplanationMetric(GatheredScores):
    """Collects named numbers per image, and gives their means over the images of all ranks.

    The other metrics of this module are this one with their numbers already computed. A rank without an image takes
    part as `GatheredScores` says.

    Args:
        names: of the numbers.
        baselines: for a name, the name of the numbers whose mean is its baseline, or a number.
        samples: bootstrap resamples of patients; 0 for no intervals.
        seed: of the resamples.

    Raises:
        ValueError: names that are missing or repeated, or a negative number of samples.

    >>> metric = ExplanationMetric(["gap", "gap_zero"], {"gap": "gap_zero"}, samples=0)
    >>> _ = metric({"gap": torch.tensor([1.0, 3.0]), "gap_zero": torch.tensor([4.0, 6.0])})
    >>> metric.aggregate()["gap"].value, metric.aggregate()["gap"].baseline
    (2.0, 5.0)
    """

    dtypes = (torch.float64, torch.int64)

    def __init__(
        self,
        names: Sequence[str],
        baselines: Mapping[str, str | float] | None = None,
        samples: int = 1000,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.names = list(names)
        if isinstance(names, str) or not self.names or len(set(self.names)) != len(self.names):
            raise ValueError(f"names must be a list of different names; got {names!r}.")
        check_bootstrap(samples)
        self.baselines, self.samples, self.seed = dict(baselines or {}), samples, seed

    def __call__(self, values: Any, patients: Iterable[Any] | Tensor | None = None) -> Any:  # type: ignore[override]
        """Add the numbers of a batch of images.

        Args:
            values: name -> ``[B]``; nan is an undefined number, left out of the mean.
            patients: whose each image is, B names or whole numbers, of which only a hash is kept; default: each image
                its own.

        Raises:
            TypeError: a patient that is neither a name nor a whole number.
            ValueError: names or lengths that do not fit.
        """
        if set(values) != set(self.names):
            raise ValueError(f"values must have the names {', '.join(self.names)}; got {', '.join(values)}.")
        return super().__call__(torch.stack([values[name].double().cpu() for name in self.names], 1), patients=patients)

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, patients: Any = None, **kwargs: Any) -> Any:
        codes = [0] * len(y_pred) if patients is None else [patient_code(patient) for patient in patients]
        if len(codes) != len(y_pred):
            raise ValueError(f"patients must hold one name per image, {len(y_pred)} in this batch; got {len(codes)}.")
        known = float(patients is not None)
        return [y_pred, torch.tensor([[code, known] for code in codes], dtype=torch.int64)]

    def aggregate(self, *args: Any, **kwargs: Any) -> dict[str, Estimate]:
        """Mean of each number over the images for which it is defined, with its 95 % interval over patients.

        Raises:
            ValueError: no rank has an image.
        """
        rows, codes = (as_array(found) for found in self.gathered())
        owners = [str(code) if known else f"image {row}" for row, (code, known) in enumerate(codes.tolist())]
        patients = number_patients(owners, len(rows))
        statistics = [_mean_of(column) for column in rows.T]
        ones = np.ones((1, len(rows)))
        values = {name: float(mean(ones)[0]) for name, mean in zip(self.names, statistics, strict=True)}
        drawn = resample_patients(statistics, patients, self.samples, self.seed)
        estimates = {}
        for name, resampled in zip(self.names, drawn, strict=True):
            baseline = self.baselines.get(name)
            known = values[baseline] if isinstance(baseline, str) else baseline
            estimates[name] = percentile_estimate(values[name], resampled, baseline=known)
        return estimates


class FaithfulnessMetric(ExplanationMetric):
    """Deletion and insertion AUC, infidelity and completeness gap of attributions of codes; see `faithfulness`.

    Args:
        score: codes ``[N, C, D]`` to the explained output ``[N]``.
        groups: as for `deletion_curve`.
        steps: as for `deletion_curve`.
        perturbations: random sets of features a code, for `infidelity`.
        samples: bootstrap resamples.
        seed: of the resamples, of the random order and of the sets of features.

    >>> metric = FaithfulnessMetric(lambda codes: codes.sum((1, 2)), samples=0)
    >>> codes = torch.rand(3, 1, 8)
    >>> _ = metric(codes, codes, baselines=torch.zeros(1, 1, 8))
    >>> round(metric.aggregate()["completeness_gap"].value, 4)
    0.0
    """

    def __init__(
        self,
        score: Score,
        groups: Tensor | None = None,
        steps: int = 32,
        perturbations: int = 32,
        samples: int = 1000,
        seed: int = 0,
    ) -> None:
        super().__init__(FAITHFULNESS, FAITHFULNESS_BASELINES, samples, seed)
        self.score, self.groups, self.steps, self.perturbations = score, groups, steps, perturbations

    def __call__(  # type: ignore[override]
        self, attributions: Tensor, codes: Tensor, baselines: Tensor, patients: Iterable[Any] | None = None
    ) -> Any:
        """Add a batch.

        Args:
            attributions: ``[B, C, D]``.
            codes: ``[B, C, D]``.
            baselines: of a shape that broadcasts to the codes'.
            patients: as for `ExplanationMetric`.

        Raises:
            ValueError: as `faithfulness`.
        """
        options = {"steps": self.steps, "samples": self.perturbations, "seed": self.seed}
        found = faithfulness(self.score, codes, baselines, attributions, self.groups, **options)
        return super().__call__(found, patients)


class AgreementMetric(ExplanationMetric):
    """Agreement of two methods' attributions; see `agreement`.

    Args:
        share: of the values that count as highest.
        samples: bootstrap resamples.
        seed: of the resamples.

    >>> metric = AgreementMetric(samples=0)
    >>> _ = metric(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 2.0, 1.0]]))
    >>> metric.aggregate()["spearman"].value
    -1.0
    """

    def __init__(self, share: float = 0.1, samples: int = 1000, seed: int = 0) -> None:
        super().__init__(AGREEMENT, AGREEMENT_BASELINES, samples, seed)
        self.share = share

    def __call__(  # type: ignore[override]
        self, first: Tensor, second: Tensor, patients: Iterable[Any] | None = None
    ) -> Any:
        """Add a batch of attributions ``[B, ...]`` of one method and of another.

        Raises:
            ValueError: as `agreement`.
        """
        return super().__call__(agreement(first, second, self.share), patients)


class LocalizationMetric(ExplanationMetric):
    """Pointing game and mass inside a region, beside three baselines; see `localization`.

    The estimates' own `baseline` is that of the centre.

    Args:
        samples: bootstrap resamples.
        seed: of the resamples and of the random baseline.

    >>> metric, region = LocalizationMetric(samples=0), torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    >>> region[..., :4] = True
    >>> _ = metric(region.double(), region, torch.rand(1, 1, 8, 8))
    >>> metric.aggregate()["mass_inside"].value, round(metric.aggregate()["mass_inside"].baseline, 3)
    (1.0, 0.5)
    """

    def __init__(self, samples: int = 1000, seed: int = 0) -> None:
        super().__init__(LOCALIZATION, LOCALIZATION_BASELINES, samples, seed)

    def __call__(  # type: ignore[override]
        self, maps: Tensor, regions: Tensor, images: Tensor, patients: Iterable[Any] | None = None
    ) -> Any:
        """Add a batch: maps ``[B, C, *S]``, regions (bool, ``[B, 1, *S]``) and *privatized* images ``[B, C, *S]``.

        Raises:
            ValueError: as `localization`.
        """
        return super().__call__(localization(maps, regions, images, self.seed), patients)


class AttributionLeakMetric(ExplanationMetric):
    """How much attribution maps look like the originals; see `attribution_leak`. For the data holder only.

    Args:
        samples: bootstrap resamples.
        seed: of the resamples.

    >>> metric = AttributionLeakMetric(samples=0)
    >>> _ = metric(torch.rand(2, 1, 16, 16), torch.rand(2, 1, 16, 16), torch.rand(2, 1, 16, 16))
    >>> sorted(metric.aggregate())
    ['flat_ssim', 'map_ssim', 'privatized_ssim']
    """

    def __init__(self, samples: int = 1000, seed: int = 0) -> None:
        super().__init__(LEAK, LEAK_BASELINES, samples, seed)

    def __call__(  # type: ignore[override]
        self, maps: Tensor, originals: Tensor, privatized: Tensor, patients: Iterable[Any] | None = None
    ) -> Any:
        """Add a batch: maps, originals and privatized images, each ``[B, C, *S]``.

        Raises:
            ValueError: as `attribution_leak`.
        """
        return super().__call__(attribution_leak(maps, originals, privatized), patients)


# What the functions give, and what each number's baseline is.
FAITHFULNESS_BASELINES: dict[str, str | float] = {
    "deletion_auc": "deletion_auc_random",
    "insertion_auc": "insertion_auc_random",
    "infidelity": 1.0,
    "completeness_gap": "completeness_gap_zero",
}
AGREEMENT_BASELINES: dict[str, str | float] = {"spearman": 0.0, "top_k_overlap": "top_k_overlap_chance"}
LOCALIZATION_BASELINES: dict[str, str | float] = {
    "pointing_game": "pointing_game_centre",
    "mass_inside": "mass_inside_centre",
}
LEAK_BASELINES: dict[str, str | float] = {"map_ssim": "flat_ssim", "privatized_ssim": "flat_ssim"}


def _names(baselines: Mapping[str, str | float]) -> list[str]:
    found = [[name, *([other] if isinstance(other, str) else [])] for name, other in baselines.items()]
    return list(dict.fromkeys(name for names in found for name in names))


FAITHFULNESS, AGREEMENT, LEAK = map(_names, (FAITHFULNESS_BASELINES, AGREEMENT_BASELINES, LEAK_BASELINES))
LOCALIZATION = [f"{name}{end}" for name in LOCALIZATION_BASELINES for end in ("", *(f"_{kind}" for kind in BASELINES))]


def _mean_of(column: Floats) -> Any:
    """The weighted mean of the defined values: weights ``[s, N]`` to ``[s]``."""
    defined = ~np.isnan(column)
    values = np.where(defined, column, 0.0)

    def mean(weights: Floats) -> Floats:
        total = weights @ defined.astype(float)
        with np.errstate(invalid="ignore"):
            return np.where(total > 0, weights @ values / np.where(total > 0, total, 1), math.nan)

    return mean

"""The cumulative explanation metrics: what the functions give, over batches, patients and ranks."""

import numpy as np
import pytest
import torch
from torch import Tensor

from monai_deepfixcx.metrics.bootstrap import Estimate
from monai_deepfixcx.metrics.explanations import (
    AgreementMetric,
    AttributionLeakMetric,
    ExplanationMetric,
    FaithfulnessMetric,
    LocalizationMetric,
    agreement,
    attribution_leak,
    faithfulness,
    localization,
)


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def score(codes: Tensor) -> Tensor:
    return codes.flatten(1).sin().sum(1)


def means(estimates: dict[str, Estimate]) -> dict[str, float]:
    return {name: estimate.value for name, estimate in estimates.items()}


def check(metric: ExplanationMetric, expected: dict[str, Tensor], baselines: dict[str, str]) -> None:
    found = metric.aggregate()
    assert means(found) == pytest.approx({name: values.mean().item() for name, values in expected.items()})
    for name, baseline in baselines.items():
        assert found[name].baseline == pytest.approx(expected[baseline].mean().item())


def test_each_metric_collects_what_its_function_gives() -> None:
    first, second = rand(6, 1, 16, 16), rand(6, 1, 16, 16, seed=1)
    region = first > 0.4
    codes, attributions = rand(6, 1, 9), rand(6, 1, 9, seed=2)
    baselines = torch.zeros(1, 1, 9)
    together = AgreementMetric(samples=0)
    leak = AttributionLeakMetric(samples=0)
    place = LocalizationMetric(samples=0, seed=3)
    faith = FaithfulnessMetric(score, steps=4, perturbations=8, samples=0, seed=3)
    for part in (slice(0, 4), slice(4, 6)):
        together(first[part], second[part])
        leak(first[part], second[part], first[part])
        place(first[part], region[part], second[part])
        faith(attributions[part], codes[part], baselines)
    check(together, agreement(first, second), {"top_k_overlap": "top_k_overlap_chance"})
    check(leak, attribution_leak(first, second, first), {"map_ssim": "flat_ssim"})
    halves = [localization(first[part], region[part], second[part], seed=3) for part in (slice(0, 4), slice(4, 6))]
    joined = {name: torch.cat([half[name] for half in halves]) for name in halves[0]}
    check(place, joined, {"mass_inside": "mass_inside_centre"})
    parts = [
        faithfulness(score, codes[part], baselines, attributions[part], steps=4, samples=8, seed=3)
        for part in (slice(0, 4), slice(4, 6))
    ]
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    check(faith, joined, {"deletion_auc": "deletion_auc_random", "completeness_gap": "completeness_gap_zero"})
    assert faith.aggregate()["infidelity"].baseline == 1


def test_undefined_numbers_are_left_out() -> None:
    metric = ExplanationMetric(["a", "b"], samples=50)
    metric({"a": torch.tensor([1.0, torch.nan, 3.0]), "b": torch.full((3,), torch.nan)})
    found = metric.aggregate()
    assert found["a"].value == 2
    assert 1 <= found["a"].low <= found["a"].high <= 3
    assert found["b"].as_dict() == {"value": None, "low": None, "high": None, "baseline": None}


def test_intervals_are_over_patients() -> None:
    """Sixteen images of two patients say less than sixteen of as many."""
    values = torch.cat([torch.zeros(8), torch.ones(8)])
    own = ExplanationMetric(["a"], samples=400)
    own({"a": values})
    two = ExplanationMetric(["a"], samples=400)
    two({"a": values[:8]}, patients=["x"] * 8)
    two({"a": values[8:]}, patients=["y"] * 8)
    assert own.aggregate()["a"].value == two.aggregate()["a"].value == 0.5
    assert (two.aggregate()["a"].low, two.aggregate()["a"].high) == (0, 1)
    assert own.aggregate()["a"].low > 0.1
    rng = np.random.default_rng(0)
    slow = [values[rng.integers(0, 16, 16)].mean() for _ in range(4000)]
    assert own.aggregate()["a"].low == pytest.approx(np.quantile(slow, 0.025), abs=0.1)


def test_reset_forgets() -> None:
    metric = ExplanationMetric(["a"], samples=0)
    metric({"a": torch.ones(3)})
    metric.reset()
    metric({"a": torch.zeros(1)})
    assert metric.aggregate()["a"].value == 0
    assert len(metric) == 1


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="names must be a list of different names; got 'gap'"):
        ExplanationMetric("gap")
    with pytest.raises(ValueError, match="samples must be at least 0"):
        ExplanationMetric(["a"], samples=-1)
    metric = ExplanationMetric(["a", "b"])
    with pytest.raises(ValueError, match="values must have the names a, b; got a"):
        metric({"a": torch.ones(1)})
    with pytest.raises(ValueError, match="patients must hold one name per image, 2 in this batch; got 1"):
        metric({"a": torch.ones(2), "b": torch.ones(2)}, patients=["x"])
    with pytest.raises(ValueError, match="ExplanationMetric has seen no image on any rank"):
        metric.aggregate()

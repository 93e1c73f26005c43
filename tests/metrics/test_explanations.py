"""The explanation metrics against scikit-image, SciPy, Captum, slow loops and hand calculations, at both ends."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from scipy import stats
from skimage.metrics import structural_similarity as skimage_ssim
from torch import Tensor, nn

from monai_deepfixcx.codecs import ConstantCodec, DeepFixCXCodec, IdentityCodec
from monai_deepfixcx.data import PhantomRadiographs
from monai_deepfixcx.metrics import explanations
from monai_deepfixcx.metrics.explanations import (
    agreement,
    attribution_leak,
    baseline_maps,
    cascading_randomization,
    completeness_gap,
    deletion_auc,
    deletion_curve,
    faithfulness,
    infidelity,
    insertion_auc,
    localization,
    mass_inside,
    max_sensitivity,
    pointing_game,
    spearman,
    structural_similarity,
    top_k_overlap,
)

Score = Callable[[Tensor], Tensor]


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def linear(weights: Tensor) -> Score:
    return lambda codes: (codes * weights).flatten(1).sum(1)


def curved(codes: Tensor) -> Tensor:
    """No attribution explains it fully: features multiply each other."""
    return codes.flatten(1).prod(1) + codes.flatten(1).sum(1).sin()


@pytest.fixture
def case() -> dict[str, Any]:
    codes, weights = rand(5, 2, 7), rand(1, 2, 7, seed=1) - 0.3
    baselines = 0.2 * rand(1, 2, 7, seed=2)
    attributions = (codes - baselines) * weights
    return {"score": linear(weights), "codes": codes, "baselines": baselines, "attributions": attributions}


# ------------------------------------------------------------------------------------------- deletion and insertion


def slow_curve(score: Score, codes: Tensor, baselines: Tensor, attributions: Tensor, insert: bool) -> list[list[float]]:
    """One feature after the other, by loops."""
    curves = []
    for code, values in zip(codes, attributions, strict=True):
        now, goal = (baselines[0], code) if insert else (code, baselines[0])
        now = now.clone()
        curve = [score(now[None]).item()]
        for place in sorted(range(code.numel()), key=lambda place: -values.flatten()[place].item()):
            now.view(-1)[place] = goal.flatten()[place]
            curve.append(score(now[None]).item())
        curves.append(curve)
    return curves


@pytest.mark.parametrize("insert", [False, True])
def test_the_curve_is_that_of_a_loop(case: dict[str, Any], insert: bool) -> None:
    case["score"] = curved
    shares, scores = deletion_curve(**case, insert=insert)
    expected = torch.tensor(slow_curve(**case, insert=insert), dtype=torch.float64)
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(shares, torch.arange(15).double() / 14)
    area = (insertion_auc if insert else deletion_auc)(**case)
    np.testing.assert_allclose(area, np.trapezoid(expected.numpy(), np.arange(15) / 14), atol=1e-5)


def test_no_order_beats_the_right_one(case: dict[str, Any]) -> None:
    best_deletion, best_insertion = deletion_auc(**case), insertion_auc(**case)
    for seed in range(20):
        other = case | {"attributions": rand(5, 2, 7, seed=seed)}
        assert bool((deletion_auc(**other) >= best_deletion - 1e-9).all())
        assert bool((insertion_auc(**other) <= best_insertion + 1e-9).all())
    worst = case | {"attributions": -case["attributions"]}
    assert bool((deletion_auc(**worst) > best_deletion).all())


def test_deletion_from_one_end_is_insertion_from_the_other(case: dict[str, Any]) -> None:
    _, deleted = deletion_curve(**case)
    swapped = {"codes": case["baselines"].expand(5, 2, 7), "baselines": case["codes"]}
    _, inserted = deletion_curve(**case | swapped, insert=True)
    torch.testing.assert_close(deleted, inserted)


def test_features_of_a_group_go_together() -> None:
    score = linear(torch.tensor([1.0, 2.0, 4.0, 8.0]))
    given: dict[str, Any] = {"codes": torch.ones(1, 1, 4), "baselines": torch.zeros(1, 1, 4)}
    # Sums of the groups: 5 and 6, though the highest single value is in the first.
    attributions = torch.tensor([[[5.0, 0.0, 3.0, 3.0]]])
    shares, scores = deletion_curve(score, **given, attributions=attributions, groups=torch.tensor([0, 0, 1, 1]))
    assert shares.tolist() == [0, 0.5, 1]
    assert scores.tolist() == [[15, 3, 0]]
    both = torch.tensor([[0, 1, 1, 0]])
    assert deletion_curve(score, **given, attributions=attributions, groups=both)[1].tolist() == [[15, 6, 0]]


def test_fewer_steps_take_larger_parts(case: dict[str, Any]) -> None:
    shares, scores = deletion_curve(**case, steps=7)
    every_share, every_score = deletion_curve(**case)
    torch.testing.assert_close(shares, every_share[::2])
    torch.testing.assert_close(scores, every_score[:, ::2])


def test_a_batch_is_its_codes_one_by_one(case: dict[str, Any]) -> None:
    together = faithfulness(**case, samples=4)
    for row in range(5):
        parts = {name: case[name][row : row + 1] for name in ("codes", "attributions")}
        alone = faithfulness(**case | parts, samples=4)
        for name in ("deletion_auc", "insertion_auc", "completeness_gap", "completeness_gap_zero"):
            torch.testing.assert_close(alone[name][0], together[name][row])


# ----------------------------------------------------------------------------------------- infidelity, completeness


def slow_infidelity(score: Score, codes: Tensor, baselines: Tensor, attributions: Tensor, lost: Tensor) -> Tensor:
    """Yeh et al., definition 2.1, for the given sets of lost features [samples, *code]."""
    errors, changes = [], []
    for each in lost:
        change = score(codes) - score(torch.where(each, baselines, codes))
        errors.append((((attributions * each).flatten(1).sum(1)) - change) ** 2)
        changes.append(change**2)
    return torch.stack(errors).mean(0) / torch.stack(changes).mean(0)


def test_infidelity_is_that_of_a_loop(case: dict[str, Any]) -> None:
    case |= {"score": curved}
    case = {name: value[:1] if isinstance(value, Tensor) else value for name, value in case.items()}
    generator = torch.Generator().manual_seed(3)
    lost = torch.rand(16, 2, 7, generator=generator) < 0.5
    expected = slow_infidelity(**case, lost=lost)
    torch.testing.assert_close(infidelity(**case, samples=16, seed=3), expected.double(), atol=1e-5, rtol=1e-4)


def test_the_ends_of_infidelity_and_completeness(case: dict[str, Any]) -> None:
    """A linear network: weight x difference explains it fully, zeros not at all, twice too much as badly as zeros."""
    torch.testing.assert_close(infidelity(**case), torch.zeros(5).double(), atol=1e-9, rtol=0)
    zeros = case | {"attributions": torch.zeros(5, 2, 7)}
    torch.testing.assert_close(infidelity(**zeros), torch.ones(5).double())
    double = case | {"attributions": 2 * case["attributions"]}
    torch.testing.assert_close(infidelity(**double), torch.ones(5).double(), atol=1e-5, rtol=0)
    gap, change = completeness_gap(**case)
    torch.testing.assert_close(gap, torch.zeros(5).double(), atol=1e-6, rtol=0)
    gap, zero_gap = completeness_gap(**zeros)
    torch.testing.assert_close(gap, change)
    torch.testing.assert_close(zero_gap, change)


def test_infidelity_of_a_score_that_nothing_changes_is_undefined(case: dict[str, Any]) -> None:
    case["score"] = lambda codes: torch.ones(len(codes))
    assert bool(infidelity(**case).isnan().all())


def test_infidelity_does_not_depend_on_the_global_seed(case: dict[str, Any]) -> None:
    case["score"] = curved
    torch.manual_seed(1)
    first = infidelity(**case, seed=4)
    torch.manual_seed(2)
    assert torch.equal(infidelity(**case, seed=4), first)
    assert not torch.equal(infidelity(**case, seed=5), first)


# ---------------------------------------------------------------------------------------------------- sensitivity


def test_max_sensitivity_of_known_explanations() -> None:
    codes = rand(3, 1, 400) + 0.5
    constant = max_sensitivity(lambda inputs: torch.ones_like(inputs), codes)
    assert constant.tolist() == [0, 0, 0]
    # The explanation is the code: it moves as the code does, at most by the radius.
    moved = max_sensitivity(lambda inputs: inputs, codes, radius=0.1, samples=30)
    assert bool((moved < 0.1).all())
    assert bool((moved > 0.1 / 3**0.5 - 0.01).all())  # the spread of uniform noise
    twice = max_sensitivity(lambda inputs: inputs, codes, radius=0.2, samples=30)
    torch.testing.assert_close(twice, 2 * moved, rtol=1e-3, atol=0)


def test_max_sensitivity_lets_the_explanation_take_gradients() -> None:
    network = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1))

    def gradient(codes: Tensor) -> Tensor:
        codes = codes.detach().requires_grad_()
        return torch.autograd.grad(network(codes).sum(), codes)[0]

    assert bool((max_sensitivity(gradient, rand(2, 1, 6)) > 0).all())


# ------------------------------------------------------------------------------------------------------- agreement


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=3, max_size=12), st.randoms())
def test_spearman_is_scipys(values: list[int], random: Any) -> None:
    other = values.copy()
    random.shuffle(other)
    found = spearman(torch.tensor([values]).double(), torch.tensor([other]).double()).item()
    if len(set(values)) == 1:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(stats.spearmanr(values, other).statistic, abs=1e-12)


def test_agreement_knows_its_ends() -> None:
    maps = rand(4, 1, 40, 50)
    assert agreement(maps, maps.exp())["spearman"].tolist() == pytest.approx([1] * 4)
    assert agreement(maps, -maps)["spearman"].tolist() == pytest.approx([-1] * 4)
    same = agreement(maps, 3 * maps)
    assert same["top_k_overlap"].tolist() == [1] * 4
    unrelated = agreement(maps, rand(4, 1, 40, 50, seed=9))
    assert bool((unrelated["spearman"].abs() < 0.1).all())
    assert bool((unrelated["top_k_overlap"] - unrelated["top_k_overlap_chance"]).abs().max() < 0.05)
    assert unrelated["top_k_overlap_chance"].tolist() == [0.1] * 4
    assert top_k_overlap(maps, -maps, share=0.5).tolist() == [0] * 4


# ---------------------------------------------------------------------------------------------------- localization


def test_pointing_game_and_mass_by_hand() -> None:
    maps = torch.tensor([[[[1.0, 0.0], [-6.0, 3.0]]], [[[2.0, 2.0], [0.0, 0.0]]]])
    regions = torch.tensor([[[[False, False], [False, True]]], [[[True, False], [True, False]]]])
    assert pointing_game(maps, regions).tolist() == [1, 0.5]  # the second has two highest places
    assert mass_inside(maps, regions).tolist() == [0.3, 0.5]
    channels = torch.cat([maps, torch.tensor([[[[9.0, 0.0], [0.0, 0.0]]]]).expand(2, 1, 2, 2)], dim=1)
    assert pointing_game(channels, regions).tolist() == [0, 1]
    assert bool(mass_inside(torch.zeros(1, 1, 2, 2), regions[:1]).isnan().all())


def test_the_baselines_are_what_they_say() -> None:
    images = torch.zeros(1, 1, 21, 31)
    images[..., 15:] = 1
    maps = baseline_maps(images, seed=1)
    assert maps["centre"][0, 0].argmax().item() == 10 * 31 + 15
    assert maps["edges"][0, 0].amax(0).nonzero().flatten().tolist() == [14, 15]
    assert torch.equal(maps["random"], baseline_maps(images, seed=1)["random"])
    assert not torch.equal(maps["random"], baseline_maps(images, seed=2)["random"])
    slow = np.hypot(*np.gradient(images[0, 0].numpy()))
    np.testing.assert_allclose(maps["edges"][0, 0], slow)
    assert baseline_maps(rand(1, 2, 6, 7, 8))["edges"].shape == (1, 1, 6, 7, 8)


def test_a_map_of_the_phantoms_heart_beats_every_baseline() -> None:
    phantom = PhantomRadiographs(4, 1, 64, seed=3)
    hearts = torch.stack([phantom.region("heart", index) for index in range(4)])[:, None]
    images = torch.stack([phantom[index]["image"] for index in range(4)])
    shown = DeepFixCXCodec(2, 8)(images)
    found = localization(hearts.double(), hearts, shown)
    assert found["pointing_game"].tolist() == found["mass_inside"].tolist() == [1] * 4
    for kind in ("random", "edges", "centre"):
        assert bool((found[f"mass_inside_{kind}"] < 0.8).all())
    area = hearts.flatten(1).double().mean(1)
    torch.testing.assert_close(found["mass_inside_random"], area, atol=0.03, rtol=0)


# ------------------------------------------------------------------------------------------------------------ leak


def oracle_ssim(first: Tensor, second: Tensor) -> float:
    options: dict[str, Any] = {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "data_range": 1.0,
    }
    return float(skimage_ssim(first.double().numpy(), second.double().numpy(), **options))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("shape", [(20, 33), (14, 13, 15)])
def test_structural_similarity_is_scikit_images(shape: tuple[int, ...]) -> None:
    first, second = rand(3, 1, *shape), rand(3, 1, *shape, seed=1)
    second = 0.6 * first + 0.4 * second
    expected = [oracle_ssim(a[0], b[0]) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(structural_similarity(first, second), expected, atol=1e-5)


def test_the_leak_at_both_ends() -> None:
    """A map that is the original leaks all of it, in either polarity; noise, less than an even image."""
    originals = torch.stack([PhantomRadiographs(3, 1, 64, seed=5)[index]["image"] for index in range(3)])
    low, high = (reduce(dim=(1, 2, 3), keepdim=True) for reduce in (originals.amin, originals.amax))
    stretched = (originals - low) / (high - low)
    for maps in (7 * stretched - 2, 4 - stretched):
        found = attribution_leak(maps, stretched, IdentityCodec()(stretched))
        torch.testing.assert_close(found["map_ssim"], torch.ones(3).double(), atol=1e-5, rtol=0)
        torch.testing.assert_close(found["privatized_ssim"], torch.ones(3).double(), atol=1e-5, rtol=0)
    nothing = attribution_leak(rand(3, 1, 64, 64), originals, ConstantCodec()(originals))
    assert bool((nothing["map_ssim"] < 0.1).all())
    assert bool((nothing["privatized_ssim"] < nothing["flat_ssim"]).all())
    flat = oracle_ssim(originals[0, 0].mean().expand(64, 64), originals[0, 0])
    assert nothing["flat_ssim"][0].item() == pytest.approx(flat, abs=1e-4)


def test_an_even_map_leaks_no_nan() -> None:
    found = attribution_leak(torch.full((1, 1, 16, 16), 3.0), rand(1, 1, 16, 16), rand(1, 1, 16, 16))
    assert bool(found["map_ssim"].isfinite().all())


def test_metadata_stays_behind() -> None:
    image = MetaTensor(rand(1, 1, 16, 16), meta={"filename_or_obj": "SECRET.dcm"})
    region = MetaTensor(torch.ones(1, 1, 16, 16, dtype=torch.bool), meta={"filename_or_obj": "SECRET.dcm"})
    values = [*attribution_leak(image, image, image).values(), *localization(image, region, image).values()]
    values += [*baseline_maps(image).values(), *agreement(image, image).values()]
    assert not any(isinstance(value, MetaTensor) for value in values)


# --------------------------------------------------------------------------------------------------- randomization


class Head(nn.Module):
    """Two layers over a map of 12 x 12; `deaf` explanations do not depend on the upper one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lower, self.upper = nn.Linear(144, 16), nn.Linear(16, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.upper(torch.relu(self.lower(inputs.flatten(1))))


def gradient_map(network: nn.Module) -> tuple[Tensor, Tensor]:
    inputs = rand(2, 1, 12, 12).requires_grad_()
    (gradient,) = torch.autograd.grad(network(inputs).sum(), inputs)
    return gradient.flatten(2), gradient


def test_randomization_goes_down_from_the_top_and_spares_the_network() -> None:
    network = Head()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    steps = cascading_randomization(network, gradient_map)
    assert [step.layer for step in steps] == ["upper", "lower"]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert bool((steps[0].spearman < 0.95).all())
    assert bool((steps[1].spearman.abs() < 0.3).all())
    assert bool((steps[1].ssim < 0.5).all())
    again = cascading_randomization(network, gradient_map)
    assert torch.equal(steps[1].spearman, again[1].spearman)
    assert not torch.equal(steps[1].spearman, cascading_randomization(network, gradient_map, seed=1)[1].spearman)


def test_an_explanation_that_ignores_the_network_stays_the_same() -> None:
    """Edges of the image, the classic failure: correlation 1 whatever is randomized."""
    for step in cascading_randomization(Head(), lambda network: (rand(2, 1, 144), rand(2, 1, 12, 12))):
        assert step.spearman.tolist() == step.ssim.tolist() == [1, 1]


def test_the_layers_can_be_chosen() -> None:
    (step,) = cascading_randomization(Head(), gradient_map, layers=["lower"])
    assert step.layer == "lower"
    with pytest.raises(ValueError, match=r"layers must be modules with parameters, any of lower, upper; got middle"):
        cascading_randomization(Head(), gradient_map, layers=["middle"])


# --------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attributions": torch.zeros(5, 14)}, r"must both be \[B, C, D\]; got \[5, 2, 7\] and \[5, 14\]"),
        ({"attributions": torch.full((5, 2, 7), torch.nan)}, "attributions must be finite"),
        ({"baselines": torch.zeros(3, 2, 7)}, r"baselines must broadcast .* \[5, 2, 7\]; got \[3, 2, 7\]"),
        ({"score": lambda codes: codes}, r"score must give one number a code, \[5\]; got \[5, 2, 7\]"),
        ({"groups": torch.zeros(3, dtype=torch.int64)}, r"groups must be whole numbers from 0, \[7\] or \[2, 7\]"),
        ({"groups": torch.zeros(7)}, "groups must be whole numbers"),
        ({"steps": 0}, "steps must be at least 1; got 0"),
    ],
)
def test_a_wrong_curve_is_refused(case: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        deletion_curve(**case | change)


def test_other_wrong_arguments_are_refused(case: dict[str, Any]) -> None:
    maps = rand(2, 1, 16, 16)
    with pytest.raises(ValueError, match=r"samples must be at least 1 and share between 0 and 1; got 32 and 1\.0"):
        infidelity(**case, share=1.0)
    with pytest.raises(ValueError, match="radius must be above 0"):
        max_sensitivity(lambda codes: codes, case["codes"], radius=0)
    with pytest.raises(ValueError, match=r"one shape, \[B, ...\]; got \[2, 1, 16, 16\] and \[2, 1, 8, 8\]"):
        spearman(maps, maps[..., :8, :8])
    with pytest.raises(ValueError, match=r"share must be above 0 and at most 1; got 0"):
        top_k_overlap(maps, maps, share=0)
    with pytest.raises(ValueError, match=r"regions must be bool, \[2, 1, 16, 16\] .*; got torch.float32"):
        pointing_game(maps, maps)
    with pytest.raises(ValueError, match=r"at least 11 pixels on each side; got \[8, 16\]"):
        structural_similarity(maps[..., :8, :], maps[..., :8, :])
    with pytest.raises(ValueError, match="maps, originals and privatized must be"):
        attribution_leak(maps, maps, maps[..., :8, :])


def test_every_public_name_is_exported() -> None:
    assert all(hasattr(explanations, name) for name in explanations.__all__)

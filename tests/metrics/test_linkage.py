"""Linkage metrics against slow references and against scikit-learn and SciPy; ties, resamples and controls."""

import math
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from monai_deepfixcx.metrics import LinkageMetric, curves, linkage_metrics
from monai_deepfixcx.metrics.linkage import identity_advantage, retrieval, shuffled_identity, verification
from monai_deepfixcx.metrics.linkage.metric import cosine_similarity, euclidean_similarity
from monai_deepfixcx.metrics.linkage.pairs import PairCounts, ShuffledPairs

sklearn_metrics = pytest.importorskip("sklearn.metrics")
scipy_stats = pytest.importorskip("scipy.stats")


def similarities(
    seed: int, counts: list[int], skill: float = 1.0, ties: bool = False, symmetric: bool = True
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Similarities of images of patients who have `counts` images each; the diagonal would be a perfect match."""
    generator = np.random.default_rng(seed)
    owners = generator.permutation(np.repeat(np.arange(len(counts)), counts))
    table = generator.normal(size=(len(owners), len(owners))) + skill * (owners[:, None] == owners)
    table = (table + table.T) / 2 if symmetric else table
    np.fill_diagonal(table, 100)
    return (np.round(table) if ties else table), owners


def pairs(table: NDArray[Any], owners: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    off = ~np.eye(len(owners), dtype=bool)
    return table[off], (owners[:, None] == owners)[off]


def slow_verification(table: NDArray[Any], owners: NDArray[Any], rate: float = 1e-3) -> dict[str, float]:
    scores, same = pairs(table, owners)
    false, true, _ = sklearn_metrics.roc_curve(same, scores, drop_intermediate=False)
    grid = np.linspace(0, 1, 200_001)
    after = np.interp(grid, false, true)
    # On a vertical piece of the curve np.interp gives its top, which is what the best threshold reaches.
    return {
        "auc": float(sklearn_metrics.roc_auc_score(same, scores)),
        "eer": float(grid[np.argmax(grid + after >= 1)]),
        "tpr_at_fpr_1e-3": float(np.interp(rate, false, true)),
        "ks": float(scipy_stats.ks_2samp(scores[same], scores[~same]).statistic),
    }


def precision_scores(order: Any, relevant: NDArray[Any]) -> list[float]:
    hits = [bool(relevant[j]) for j in order]
    number = sum(hits)
    precisions = [sum(hits[:k]) / k for k in range(1, number + 1)]
    return [float(hits[0]), precisions[-1], sum(p * h for p, h in zip(precisions, hits, strict=False)) / number]


def slow_retrieval(table: NDArray[Any], owners: NDArray[Any]) -> NDArray[Any]:
    """Means over queries and over every order of the gallery that sorts it."""
    found = []
    for query, row in enumerate(table):
        gallery = [j for j in range(len(row)) if j != query]
        relevant = owners == owners[query]
        if not relevant[gallery].any():
            continue
        levels = sorted({row[j] for j in gallery}, reverse=True)
        groups = [list(permutations([j for j in gallery if row[j] == level])) for level in levels]
        orders = [[j for group in choice for j in group] for choice in product(*groups)]
        found.append(np.mean([precision_scores(order, relevant) for order in orders], axis=0))
    return np.asarray(np.mean(found, axis=0))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
def test_verification_agrees_with_scikit_learn_and_scipy(ties: bool, symmetric: bool) -> None:
    table, owners = similarities(3, [1, 2, 3, 4, 5, 6] * 4, ties=ties, symmetric=symmetric)
    found = verification(table, owners, samples=0)
    for name, expected in slow_verification(table, owners).items():
        assert found[name].value == pytest.approx(expected, abs=1e-5), name
    assert found["auc"].baseline == found["eer"].baseline == 0.5
    assert found["tpr_at_fpr_1e-3"].baseline == 1e-3
    other = verification(table, owners, samples=0, rate=0.2)
    assert other["tpr_at_fpr_2e-1"].value == pytest.approx(slow_verification(table, owners, 0.2)["tpr_at_fpr_1e-3"])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 3), min_size=2, max_size=3).filter(lambda c: max(c) > 1))
def test_retrieval_is_the_mean_over_all_orders_of_ties(seed: int, counts: list[int]) -> None:
    table, owners = similarities(seed, counts, ties=True, symmetric=False)
    found = retrieval(table, owners, samples=0)
    assert [estimate.value for estimate in found.values()] == pytest.approx(slow_retrieval(table, owners).tolist())
    blind = slow_retrieval(np.zeros_like(table), owners) if len(owners) < 8 else None
    if blind is not None:
        assert [estimate.baseline for estimate in found.values()] == pytest.approx(blind.tolist())


@pytest.mark.parametrize("ties", [False, True])
def test_all_resamples_at_once_equal_patients_copied_one_by_one(ties: bool) -> None:
    """A patient drawn k times stands k times in the data, under k names; copies are never compared with each other."""
    table, owners = similarities(5, [1, 2, 3, 2, 4], ties=ties)
    weights = np.array([[1, 1, 1, 1, 1], [0, 2, 1, 0, 3], [2, 0, 0, 1, 1], [5, 0, 0, 0, 0.0]])
    false, true = PairCounts.of(table, owners).curve(weights)
    areas, gaps = curves.area(false, true), curves.kolmogorov_smirnov(false, true)
    for row, times in enumerate(weights[:3]):
        copies = [(patient, copy) for patient in range(5) for copy in range(int(times[patient]))]
        members = [(copy, image) for copy in copies for image in np.flatnonzero(owners == copy[0])]
        scores, same = [], []
        for (one, i), (other, j) in permutations(members, 2):
            if one == other or one[0] != other[0]:
                scores.append(table[i, j])
                same.append(one == other)
        truth = np.array(same)
        assert areas[row] == pytest.approx(sklearn_metrics.roc_auc_score(truth, scores))
        expected = scipy_stats.ks_2samp(np.array(scores)[truth], np.array(scores)[~truth]).statistic
        assert gaps[row] == pytest.approx(expected)
    assert math.isnan(areas[3])


def test_the_diagonal_and_monotone_changes_do_not_count() -> None:
    table, owners = similarities(1, [2, 3, 2, 1, 4])
    expected = linkage_metrics(table, owners, samples=20)
    bent = np.exp(table / 3)
    np.fill_diagonal(bent, -5)
    found = linkage_metrics(torch.from_numpy(bent), [f"patient {owner}" for owner in owners], samples=20)
    assert {name: estimate.value for name, estimate in found.items()} == pytest.approx(
        {name: estimate.value for name, estimate in expected.items()}
    )
    assert found["auc"].low == pytest.approx(expected["auc"].low)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_the_order_of_images_does_not_count(seed: int) -> None:
    table, owners = similarities(seed, [2, 3, 2, 1, 4])
    order = np.random.default_rng(seed).permutation(len(owners))
    first = verification(table, owners, samples=30) | retrieval(table, owners, samples=30)
    second = verification(table[order][:, order], owners[order], samples=30)
    second |= retrieval(table[order][:, order], owners[order], samples=30)
    for name, estimate in first.items():
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx(
            (second[name].value, second[name].low, second[name].high)
        )
        assert estimate.low <= estimate.value <= estimate.high


def test_perfect_and_constant_similarities() -> None:
    _, owners = similarities(0, [2, 3, 2, 1, 4])
    perfect = linkage_metrics((owners[:, None] == owners).astype(float), owners, samples=50)
    assert perfect["auc"].value == perfect["precision_at_1"].value == perfect["map_at_r"].value == 1
    assert perfect["ks"].value == perfect["tpr_at_fpr_1e-3"].value == perfect["r_precision"].value == 1
    assert perfect["eer"].value == 0
    assert perfect["gallery_size"].value == 11
    constant = linkage_metrics(np.ones((12, 12)), owners, samples=50)
    for name in ("auc", "eer", "tpr_at_fpr_1e-3", "ks", "auc_shuffled"):
        estimate = constant[name]
        assert estimate.value == estimate.low == estimate.high == pytest.approx(estimate.baseline), name
    for name in ("precision_at_1", "r_precision", "map_at_r"):  # a patient with many images is easier to hit
        assert constant[name].value == constant[name].baseline, name
        assert constant[name].low <= constant[name].value <= constant[name].high, name
    share = np.mean([(np.sum(owners == owner) - 1) / 11 for owner in owners if np.sum(owners == owner) > 1])
    assert constant["precision_at_1"].value == pytest.approx(share)


def test_shuffled_identities_are_at_chance_and_agree_with_a_slow_shuffle() -> None:
    table, owners = similarities(2, [3] * 30, skill=3)
    found = shuffled_identity(table, owners, seed=4)
    assert found["auc_shuffled"].low < 0.5 < found["auc_shuffled"].high < 0.6
    assert verification(table, owners, samples=0)["auc"].value > 0.9
    assert found["ks_shuffled"].value < 0.25
    ties = np.round(table)
    auc, gap = ShuffledPairs.of(ties, owners).draw(3, seed=0)
    generator = np.random.default_rng(0)
    for row in range(3):
        order = generator.permutation(len(owners))
        scores, same = pairs(ties[order][:, order], owners)
        assert auc[row] == pytest.approx(sklearn_metrics.roc_auc_score(same, scores))
        assert gap[row] == pytest.approx(scipy_stats.ks_2samp(scores[same], scores[~same]).statistic)


def test_advantage_compares_with_the_undefended_attacker() -> None:
    raw, owners = similarities(0, [3] * 20, skill=3)
    weak = raw + np.random.default_rng(1).normal(size=raw.shape) * 4
    assert identity_advantage(raw, raw, owners, samples=50).low == pytest.approx(1)
    assert identity_advantage(np.zeros_like(raw), raw, owners, samples=50).high == 0
    found = identity_advantage(weak, raw, owners, samples=200)
    expected = [verification(table, owners, samples=0)["auc"].value - 0.5 for table in (weak, raw)]
    assert found.value == pytest.approx(expected[0] / expected[1])
    assert found.baseline == 0 < found.low < found.value < found.high < 1
    assert math.isnan(identity_advantage(raw, np.zeros_like(raw), owners, samples=5).value)
    assert linkage_metrics(weak, owners, raw, samples=200)["advantage"] == found


@pytest.mark.slow
def test_coverage_of_the_intervals() -> None:
    """Codes are patient + visit, both normal: the true AUC comes from a large sample."""
    weight = 1.0

    def draw(seed: int, patients: int) -> tuple[torch.Tensor, NDArray[Any]]:
        generator = np.random.default_rng(seed)
        owners = np.repeat(np.arange(patients), 3)
        codes = weight * generator.normal(size=(patients, 4))[owners] + generator.normal(size=(3 * patients, 4))
        return euclidean_similarity(torch.from_numpy(codes), torch.from_numpy(codes)), owners

    truth = verification(*draw(10**6, 800), samples=0)["auc"].value
    covered = 0
    for seed in range(150):
        estimate = verification(*draw(seed, 40), samples=200)["auc"]
        covered += estimate.low <= truth <= estimate.high
    assert 0.89 < covered / 150 < 0.99  # standard deviation .018


@pytest.mark.parametrize("decollated", [False, True])
def test_the_cumulative_metric_is_the_function(decollated: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    owners = torch.arange(6).repeat_interleave(3)
    codes = torch.randn(6, 1, 5, generator=generator)[owners] + torch.randn(18, 1, 5, generator=generator)
    metric = LinkageMetric("cosine", samples=30)
    for rows in torch.arange(18).split(5):
        metric(list(codes[rows]) if decollated else codes[rows], patients=owners[rows])
    expected = linkage_metrics(
        cosine_similarity(codes.flatten(1), codes.flatten(1)), [str(owner) for owner in owners.tolist()], samples=0
    )
    found = metric.aggregate()
    assert {name: e.value for name, e in found.items() if "shuffled" not in name and name != "ks"} == pytest.approx(
        {name: e.value for name, e in expected.items() if "shuffled" not in name and name != "ks"}
    )
    assert found["auc"].low < found["auc"].value < found["auc"].high
    metric.reset()
    with pytest.raises(ValueError, match="LinkageMetric has seen no image on any rank"):
        metric.aggregate()


def test_equal_codes_tie_whatever_their_size_and_place() -> None:
    codes = torch.full((300, 500), 0.1) * torch.linspace(1, 2, 500)
    for similar in (euclidean_similarity, cosine_similarity):
        for factor in (1e-6, 1.0, 1e6):
            assert len(similar(codes * factor, codes * factor).unique()) == 1
    assert (cosine_similarity(torch.zeros(3, 0), torch.zeros(3, 0)) == 0).all()
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 7, generator=generator), torch.randn(30, 7, generator=generator)
    expected = [[-math.dist(a, b) for b in y.tolist()] for a in x.tolist()]
    torch.testing.assert_close(euclidean_similarity(x, y), torch.tensor(expected).double(), atol=1e-5, rtol=0)


def test_errors_say_what_was_expected() -> None:
    table = np.eye(3)
    with pytest.raises(ValueError, match=r"no same-patient pair: each of the 3 images is of another patient.*Add a"):
        linkage_metrics(table, ["a", "b", "c"])
    with pytest.raises(ValueError, match="patients must be at least two, or there is nobody to confuse; got 1"):
        linkage_metrics(table, ["a", "a", "a"])
    with pytest.raises(ValueError, match=r"similarities must be \[N, N\], of each image with each; got \[2, 3\]"):
        verification(table[:2], ["a", "b"])
    with pytest.raises(ValueError, match="patients must hold one name per image, at least one; got 2 for 3 images"):
        retrieval(table, ["a", "b"])
    broken = table.copy()
    broken[0, 1] = np.nan
    with pytest.raises(ValueError, match="similarities must be numbers; 1 of 9 are nan"):
        verification(broken, ["a", "a", "b"])
    with pytest.raises(ValueError, match=r"rate must lie between 0 and 1, for example 0.001; got 1"):
        verification(table, ["a", "a", "b"], rate=1)
    with pytest.raises(ValueError, match="shuffles must be at least 1; got 0"):
        shuffled_identity(table, ["a", "a", "b"], shuffles=0)
    with pytest.raises(ValueError, match="samples must be at least 0"):
        verification(table, ["a", "a", "b"], samples=-1)
    with pytest.raises(ValueError, match='similarity must be "euclidean" or "cosine"; got \'l1\''):
        LinkageMetric("l1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="patients must hold one name per image, 3 in this batch; got 1"):
        LinkageMetric()(torch.zeros(3, 2), patients=["a"])

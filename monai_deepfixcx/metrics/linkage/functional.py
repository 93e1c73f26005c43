"""How well similarities tell whose image it is: verification, retrieval, controls; all with intervals over patients.

Similarities are ``[N, N]``: row i is what was released of image i, column j what it is compared with. The diagonal is
never read: an image compared with itself tells nothing of identity.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from functools import partial

import numpy as np

from monai_deepfixcx.metrics import curves
from monai_deepfixcx.metrics.bootstrap import (
    Estimate,
    check_bootstrap,
    number_patients,
    percentile_estimate,
    resample_patients,
)
from monai_deepfixcx.metrics.inputs import Values, as_array, shape_of
from monai_deepfixcx.metrics.linkage.pairs import PairCounts, ShuffledPairs
from monai_deepfixcx.metrics.linkage.retrieval import NAMES, retrieval_scores
from monai_deepfixcx.metrics.weighted import Floats, Ints, divide

Patients = Iterable[Hashable]
RATE = 1e-3  # of false positives, at which a system that links in the dark would be run
SHUFFLES = 100
_ROWS = 128  # resamples held at once


def linkage_metrics(
    similarities: Values,
    patients: Patients,
    undefended: Values | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """All that is reported of a linkage attack.

    Args:
        similarities: ``[N, N]``, higher meaning more alike.
        patients: N names: whose each image is.
        undefended: ``[N, N]`` of the same attacker on the undefended images.
        samples: resamples of patients for the intervals; 0 gives none.
        seed: of the resamples and of the shuffled identities.

    Returns:
        What `verification`, `retrieval` and `shuffled_identity` give; ``gallery_size``; and with `undefended`
        ``advantage``, see `identity_advantage`.

    Raises:
        ValueError: shapes that do not fit, a similarity that is nan, no two images of one patient, or one patient only.

    >>> metrics = linkage_metrics([[0, 3, 1], [3, 0, 2], [1, 2, 0]], ["a", "a", "b"], samples=0)
    >>> metrics["auc"].value, metrics["precision_at_1"].value, metrics["gallery_size"].value
    (1.0, 1.0, 2.0)
    """
    found = verification(similarities, patients := list(patients), samples, seed)
    found |= retrieval(similarities, patients, samples, seed)
    found |= shuffled_identity(similarities, patients, seed)
    found["ks"] = _with_baseline(found["ks"], found.pop("ks_shuffled").value)
    found["gallery_size"] = Estimate(float(len(patients) - 1), np.nan, np.nan)
    if undefended is not None:
        found["advantage"] = identity_advantage(similarities, undefended, patients, samples, seed)
    return found


def verification(
    similarities: Values, patients: Patients, samples: int = 1000, seed: int = 0, rate: float = RATE
) -> dict[str, Estimate]:
    """Is this the same patient? Over all pairs of two images.

    Args:
        similarities: ``[N, N]``, higher meaning more alike.
        patients: N names.
        samples: resamples of patients for the intervals; 0 gives none.
        seed: of the resamples.
        rate: the false positive rate of ``tpr_at_fpr``.

    Returns:
        ``auc``: P(a same-patient pair is more alike than a different-patient pair), ties half; .5 by chance.
        ``eer``: the equal error rate; .5 by chance, 0 is a perfect attack.
        ``tpr_at_fpr_1e-3``: share of the same-patient pairs found at that rate of false ones; the rate by chance.
        ``ks``: the two-sample Kolmogorov-Smirnov statistic between the two kinds of pairs, the papers' figure when
        the similarities are negative Euclidean distances of codes. 0 is no difference, but chance scores above 0.

    Raises:
        ValueError: see `linkage_metrics`; or a rate outside (0, 1).

    Sources: Hanley & McNeil, Radiology 143 (1982), for the area; Gaudio et al., WIREs DMKD 2023, for `ks`. Resampling
    of patients: Poh, Martin & Bengio, IEEE TPAMI 29 (2007); a patient drawn k times counts as k patients.

    >>> found = verification([[0, 3, 1], [3, 0, 2], [1, 2, 0]], ["a", "a", "b"], samples=0)
    >>> found["eer"].value, found["tpr_at_fpr_1e-3"].value
    (0.0, 1.0)
    """
    if not 0 < rate < 1:
        raise ValueError(f"rate must lie between 0 and 1, for example 0.001; got {rate}.")
    table, owners = _check(similarities, patients, samples)
    pairs = PairCounts.of(table, owners)

    def measured(weights: Floats) -> Floats:
        false, true = pairs.curve(weights)
        return np.stack(
            [
                curves.area(false, true),
                curves.equal_error_rate(false, true),
                curves.true_positive_rate(false, true, rate),
                curves.kolmogorov_smirnov(false, true),
            ],
            axis=1,
        )

    draws = _draws(owners, samples, seed)
    values = np.concatenate([measured(draws[start : start + _ROWS]) for start in range(0, len(draws), _ROWS)])
    names = {"auc": 0.5, "eer": 0.5, f"tpr_at_fpr_{_power(rate)}": rate, "ks": None}
    return {name: _estimate(column, baseline) for (name, baseline), column in zip(names.items(), values.T, strict=True)}


def retrieval(similarities: Values, patients: Patients, samples: int = 1000, seed: int = 0) -> dict[str, Estimate]:
    """Whose image is this? Each image is looked up among all others.

    The gallery belongs to the question, for every score falls as it grows: resamples draw queries, never the gallery.
    Images whose patient has no other are no queries, but stay in the gallery.

    Args:
        similarities: ``[N, N]``, row: the query.
        patients: N names.
        samples: resamples of patients for the intervals; 0 gives none.
        seed: of the resamples.

    Returns:
        Means over queries, expected over random orders of equal similarities, with chance (all equal) as baseline:
        ``precision_at_1``: the most alike is of the patient; ``r_precision``: share of the patient's images among the
        R most alike, R of which there are; ``map_at_r``: mean average precision at R.

    Raises:
        ValueError: see `linkage_metrics`.

    Source: Musgrave, Belongie & Lim, ECCV 2020.

    >>> retrieval([[0, 3, 1], [3, 0, 2], [1, 2, 0]], ["a", "a", "b"], samples=0)["r_precision"]
    Estimate(value=1.0, low=nan, high=nan, baseline=0.5)
    """
    table, owners = _check(similarities, patients, samples)
    queries, scores = retrieval_scores(table, owners)
    chance = retrieval_scores(np.zeros_like(table), owners)[1]
    weights = _draws(owners, samples, seed)[:, owners[queries]]

    def means(column: Floats) -> Floats:
        return divide((weights * column).sum(axis=1), weights.sum(axis=1))

    return {
        name: _estimate(means(column), float(means(blind)[0]))
        for name, column, blind in zip(NAMES, scores.T, chance.T, strict=True)
    }


def shuffled_identity(
    similarities: Values, patients: Patients, seed: int = 0, shuffles: int = SHUFFLES
) -> dict[str, Estimate]:
    """The control: the same similarities, with the images dealt to the patients at random.

    Args:
        similarities: ``[N, N]``, higher meaning more alike.
        patients: N names.
        seed: of the dealings.
        shuffles: number of dealings, at least 1.

    Returns:
        ``auc_shuffled`` and ``ks_shuffled``: the mean over dealings, and the range that holds 95 % of them. An attack
        whose AUC lies inside the range has not been shown to find anyone.

    Raises:
        ValueError: see `linkage_metrics`; or no dealing.

    >>> shuffled_identity([[0, 1, 1], [1, 0, 1], [1, 1, 0]], ["a", "a", "b"])["auc_shuffled"]
    Estimate(value=0.5, low=0.5, high=0.5, baseline=0.5)
    """
    if shuffles < 1:
        raise ValueError(f"shuffles must be at least 1; got {shuffles}.")
    auc, statistic = ShuffledPairs.of(*_check(similarities, patients)).draw(shuffles, seed)
    return {
        "auc_shuffled": percentile_estimate(float(auc.mean()), auc, baseline=0.5),
        "ks_shuffled": percentile_estimate(float(statistic.mean()), statistic),
    }


def identity_advantage(
    similarities: Values, undefended: Values, patients: Patients, samples: int = 1000, seed: int = 0
) -> Estimate:
    """What is left of the attacker's skill: (AUC - .5) / (AUC of the same attacker on undefended images - .5).

    Args:
        similarities: ``[N, N]`` of the attack on codes.
        undefended: ``[N, N]`` of the same attack on the undefended images of the same patients.
        patients: N names.
        samples: resamples of patients, the same in both attacks; 0 gives no interval.
        seed: of the resamples.

    Returns:
        0: no better than chance; 1: as good as without the codec. nan where the attacker fails on undefended images:
        its failure on codes then tells nothing.

    Raises:
        ValueError: see `linkage_metrics`.

    >>> raw, codes = [[0, 3, 1], [3, 0, 2], [1, 2, 0]], [[0, 2, 1], [2, 0, 2], [1, 2, 0]]
    >>> identity_advantage(codes, raw, ["a", "a", "b"], samples=0).value
    0.5
    """
    patients = list(patients)
    areas = []
    for table in (similarities, undefended):
        checked, owners = _check(table, patients, samples)
        pairs, draws = PairCounts.of(checked, owners), _draws(owners, samples, seed)
        rows = [pairs.curve(draws[start : start + _ROWS]) for start in range(0, len(draws), _ROWS)]
        areas.append(np.concatenate([curves.area(*row) for row in rows]) - 0.5)
    return _estimate(divide(areas[0], areas[1]), 0.0)


def _draws(owners: Ints, samples: int, seed: int) -> Floats:
    """How often each patient counts ``[1 + samples, P]``: once, then as drawn."""
    count = int(owners.max()) + 1
    drawn = resample_patients([partial(_column, at=at) for at in range(count)], np.arange(count), samples, seed)
    return np.concatenate([np.ones((1, count)), drawn.T])


def _column(weights: Floats, at: int) -> Floats:
    return weights[:, at]


def _estimate(values: Floats, baseline: float | None) -> Estimate:
    """The estimate of values ``[1 + S]``: of the data as they are, then of the resamples."""
    return percentile_estimate(float(values[0]), values[1:], baseline=baseline)


def _with_baseline(estimate: Estimate, baseline: float) -> Estimate:
    return Estimate(estimate.value, estimate.low, estimate.high, baseline)


def _power(rate: float) -> str:
    """1e-3 rather than 0.001."""
    mantissa, exponent = f"{rate:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _check(similarities: Values, patients: Patients, samples: int = 0) -> tuple[Floats, Ints]:
    check_bootstrap(samples)
    table = as_array(similarities)
    if table.ndim != 2 or table.shape[0] != table.shape[1]:
        raise ValueError(f"similarities must be [N, N], of each image with each; got {shape_of(table)}.")
    owners = number_patients(patients, len(table))
    check_same_patient_pair(owners)
    table = table.astype(np.float64)
    np.fill_diagonal(table, 0)
    if np.isnan(table).any():
        raise ValueError(f"similarities must be numbers; {int(np.isnan(table).sum())} of {table.size} are nan.")
    return table, owners


def check_same_patient_pair(patients: Patients) -> None:
    """Check that linkage can be measured.

    Raises:
        ValueError: no patient has two images, or there is one patient only.
    """
    names = [str(name) for name in (patients.tolist() if isinstance(patients, np.ndarray) else patients)]
    if len(set(names)) < 2:
        raise ValueError(f"patients must be at least two, or there is nobody to confuse; got {len(set(names))}.")
    if len(set(names)) == len(names):
        raise ValueError(
            f"no same-patient pair: each of the {len(names)} images is of another patient, so nobody can be found "
            "again. Add a second image of some patients."
        )

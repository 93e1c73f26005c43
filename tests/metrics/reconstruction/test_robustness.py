"""Clopper-Pearson against scipy, ReRo against counting."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from monai_deepfixcx.metrics.reconstruction import best_constant_guess, clopper_pearson, rero


@settings(max_examples=60, deadline=None)
@given(trials=st.integers(1, 400), share=st.floats(0, 1), confidence=st.sampled_from([0.9, 0.95, 0.99]))
def test_clopper_pearson_is_scipys(trials: int, share: float, confidence: float) -> None:
    successes = round(share * trials)
    expected = binomtest(successes, trials).proportion_ci(confidence, "exact")
    assert clopper_pearson(successes, trials, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_patients_are_the_trials() -> None:
    errors = [0.01, 0.30, 0.06, 0.20, 0.04]
    guesses = [0.30, 0.04, 0.30, 0.30, 0.30]
    patients = ["a", "a", "b", "b", "c"]
    found = rero(errors, guesses, patients, radius=0.05)
    assert found.value == 2 / 3  # a by its first image, c
    assert found.baseline == 1 / 3  # a by its second image
    expected = binomtest(2, 3).proportion_ci(0.95, "exact")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    order = [4, 2, 0, 3, 1]
    again = rero([errors[k] for k in order], [guesses[k] for k in order], [patients[k] for k in order], 0.05)
    assert again == found


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_the_success_curve_rises_from_none_to_all(errors: list[float]) -> None:
    patients = [k // 2 for k in range(len(errors))]
    curve = [rero(errors, errors, patients, radius).value for radius in (1e-9, 0.1, 0.5, 1.0)]
    assert curve == sorted(curve)
    assert curve[-1] == 1


def test_the_constant_guess_is_that_of_the_largest_group_of_other_patients() -> None:
    flat = torch.ones(1, 4, 4)
    # Five films of one patient count for nothing among themselves; three patients at .6 do.
    levels = [0.1] * 5 + [0.60, 0.61, 0.59, 0.95]
    patients = ["a"] * 5 + ["b", "c", "d", "e"]
    images = torch.stack([level * flat for level in levels])
    assert best_constant_guess(images, patients, 0.05).mean().item() == pytest.approx(0.6, abs=0.011)
    # Where no image does better, the mean.
    apart = torch.stack([level * flat for level in (0.0, 0.3, 1.0)])
    torch.testing.assert_close(best_constant_guess(apart, ["a", "b", "c"], 0.01), apart.mean(0))


def test_a_guess_from_many_images_is_one_of_them_or_their_mean() -> None:
    images = torch.rand(600, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    guess = best_constant_guess(images, range(600), radius=0.3)
    candidates = torch.cat([images, images.mean(0, keepdim=True)])
    assert (candidates - guess).abs().flatten(1).amax(1).min() < 1e-6


def test_errors_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="successes must lie between 0 and trials, at least one trial; got 3 of 2"):
        clopper_pearson(3, 2)
    with pytest.raises(ValueError, match="got 0 of 0"):
        clopper_pearson(0, 0)
    with pytest.raises(ValueError, match=r"confidence must lie between 0 and 1, for example 0.95; got 1"):
        clopper_pearson(1, 2, 1)
    for radius in (0, -1, math.nan):
        with pytest.raises(ValueError, match="radius must be above 0"):
            rero([0.1], [0.1], ["a"], radius)
    with pytest.raises(ValueError, match=r"errors and guess_errors must both be \[N\]; got \[2\], \[1\]"):
        rero([0.1, 0.1], [0.1], ["a", "b"], 0.1)
    with pytest.raises(ValueError, match="patients must hold one name per image"):
        best_constant_guess(torch.rand(2, 1, 4, 4), ["a"], 0.1)

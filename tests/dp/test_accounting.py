"""Epsilon is what Opacus and a second implementation say it is."""

import math
import re
import sys
from typing import Any

import pytest

from monai_deepfixcx.dp import PrivacyBudget, Steps, epsilon_of, noise_multiplier_for
from monai_deepfixcx.dp import accounting as module
from monai_deepfixcx.dp.accounting import Accountant, max_steps
from monai_deepfixcx.dp.opacus_gate import opacus_module

accountants = pytest.importorskip("opacus.accountants", reason="opacus comes with the extra 'dp'")
PAPER = 128 / 153_502  # METHODS.md: sampling rate of the third paper
CASES = [
    pytest.param(Steps(0.6, PAPER, 119_900), 6e-6, marks=pytest.mark.slow),
    (Steps(1.5, 64 / 1200, 570), 1e-4),
    (Steps(1.0, 0.2, 50), 1e-3),
    (Steps(4.0, 0.05, 600), 1e-4),
    (Steps(8.0, 0.05, 600), 1e-4),
    (Steps(1.0, 1.0, 10), 1e-5),
]


def by_opacus(mechanism: str, steps: Steps, delta: float) -> float:
    accountant = accountants.create_accountant(mechanism)
    accountant.history = [tuple(steps)]
    return float(accountant.get_epsilon(delta=delta))


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize(("steps", "delta"), CASES)
def test_epsilon_is_that_of_opacus_called_directly(steps: Steps, delta: float) -> None:
    assert epsilon_of([steps], delta, "rdp").epsilon == pytest.approx(by_opacus("rdp", steps, delta), rel=1e-9)
    # Opacus' default lets PRV's bound lie .01 above the truth, ours 1 % of epsilon.
    ours = epsilon_of([steps], delta, "prv")
    assert ours.accountant == "prv"
    assert abs(ours.epsilon - by_opacus("prv", steps, delta)) < 0.01 + 0.012 * ours.epsilon


@pytest.mark.parametrize(("steps", "delta"), CASES)
def test_epsilon_is_that_of_dp_accounting(steps: Steps, delta: float) -> None:
    pld = pytest.importorskip("dp_accounting.pld.privacy_loss_distribution", reason="a second implementation")
    noise, rate, number = steps
    loss = pld.from_gaussian_mechanism(noise, sampling_prob=rate, value_discretization_interval=2e-4)
    expected = loss.self_compose(number).get_epsilon_for_delta(delta)
    assert epsilon_of([steps], delta, "prv").epsilon == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(("epsilon", "low", "high"), [(7.89, 0.57, 0.60), (1.06, 1.33, 1.56), (0.29, 3.9, 4.8)])
def test_the_papers_epsilons_imply_the_papers_noise(epsilon: float, low: float, high: float) -> None:
    for epochs, end in ((100, low), (150, high)):
        steps = int(epochs / PAPER)
        noise = noise_multiplier_for(epsilon, 6e-6, PAPER, steps, "rdp")
        # Our RDP also tries orders above 63, which at small epsilons spares 2 % of the noise.
        assert noise == pytest.approx(end, rel=0.025)


def test_rdp_gives_the_published_figure_at_a_noise_of_six_tenths() -> None:
    assert round(epsilon_of([Steps(0.6, PAPER, int(100 / PAPER))], 6e-6, "rdp").epsilon, 2) == 6.41


@pytest.mark.slow
def test_prv_gives_the_published_figure_at_a_noise_of_six_tenths() -> None:
    steps = [Steps(0.6, PAPER, int(100 / PAPER))]
    assert epsilon_of(steps, 6e-6, "prv").epsilon == pytest.approx(5.69, rel=0.01)


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
@pytest.mark.parametrize("epsilon", [0.1, 8.0])
def test_the_noise_found_spends_the_epsilon_and_no_more(epsilon: float, accountant: Accountant) -> None:
    noise = noise_multiplier_for(epsilon, 1e-4, 0.05, 200, accountant)
    spent = epsilon_of([Steps(noise, 0.05, 200)], 1e-4, accountant).epsilon
    assert 0.995 * epsilon < spent <= epsilon


def test_epsilon_adds_up_over_different_steps() -> None:
    half, other = Steps(1.0, 0.05, 100), Steps(2.0, 0.1, 50)
    assert epsilon_of([half, half], 1e-4, "rdp") == epsilon_of([Steps(1.0, 0.05, 200)], 1e-4, "rdp")
    both = epsilon_of([half, other], 1e-4, "rdp").epsilon
    assert both > max(epsilon_of([steps], 1e-4, "rdp").epsilon for steps in (half, other))
    assert epsilon_of([], 1e-4).epsilon == epsilon_of([half._replace(number=0)], 1e-4).epsilon == 0


def test_max_steps_is_the_last_that_fits() -> None:
    step, done = Steps(2.0, 0.1, 0), [Steps(2.0, 0.1, 20)]
    most = max_steps(done, step, 3.0, 1e-4, planned=1000, accountant="rdp")
    assert most > 0
    assert epsilon_of([Steps(2.0, 0.1, 20 + most)], 1e-4, "rdp").epsilon <= 3.0
    assert epsilon_of([Steps(2.0, 0.1, 21 + most)], 1e-4, "rdp").epsilon > 3.0
    assert max_steps(done, step, 3.0, 1e-4, planned=2, accountant="rdp") == 2
    assert max_steps(done, step, 0.5, 1e-4, planned=9, accountant="rdp") == 0


@pytest.mark.parametrize("failure", [RuntimeError("no convergence"), math.nan])
def test_rdp_answers_with_a_warning_where_prv_fails(failure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: Any, delta: float, **options: Any) -> float:
        if isinstance(failure, Exception):
            raise failure
        return float(failure)

    monkeypatch.setattr(accountants.PRVAccountant, "get_epsilon", failing)
    steps = [Steps(1.07, 0.05, 100)]
    with pytest.warns(UserWarning, match="PRV accountant failed"):
        spent = epsilon_of(steps, 1e-4, "prv")
    assert spent == epsilon_of(steps, 1e-4, "rdp")


def test_prv_really_fails_somewhere() -> None:
    with pytest.warns(UserWarning, match="PRV accountant failed"):
        spent = epsilon_of([Steps(1.0, 0.01, 1000)], 1e-18, "prv")
    assert spent.accountant == "rdp"
    assert math.isfinite(spent.epsilon)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": 0.0}, "epsilon must be above 0"),
        ({"epsilon": -1.0}, "epsilon must be above 0"),
        ({"epsilon": math.inf}, "epsilon must be above 0 and finite"),
        ({}, "epsilon must be given, or else noise_multiplier"),
        ({"epsilon": 1.0, "delta": 0.0}, "delta must lie between 0 and 1"),
        ({"epsilon": 1.0, "delta": 1.0}, "delta must lie between 0 and 1"),
        ({"epsilon": 1.0, "max_grad_norm": 0.0}, "max_grad_norm must be above 0"),
        ({"epsilon": 1.0, "epochs": 0}, "epochs must be at least 1"),
        ({"noise_multiplier": 0.0}, "Without noise there is no privacy"),
        ({"epsilon": 1.0, "accountant": "gdp"}, "it is no guarantee"),
        ({"epsilon": 1.0, "accountant": "moments"}, 'accountant must be "prv" or "rdp"'),
    ],
)
def test_bad_budgets_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        PrivacyBudget(**arguments)


def test_epsilons_that_no_noise_can_keep_and_bad_deltas_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be met with a noise multiplier below 10000"):
        noise_multiplier_for(1e-6, 1e-9, 1.0, 10_000, "rdp")
    with pytest.raises(ValueError, match="delta must lie between 0 and 1"):
        epsilon_of([], 1.5)


def test_a_given_noise_multiplier_is_kept() -> None:
    assert PrivacyBudget(epsilon=1.0, noise_multiplier=3.0).noise_for(0.1, 10) == 3.0


def test_a_delta_above_one_over_the_units_warns_and_says_why() -> None:
    budget = PrivacyBudget(epsilon=1.0, delta=0.01)
    with pytest.warns(UserWarning, match="publishes one patient in full"):
        budget.check_delta(100, "patient")
    budget.check_delta(99, "patient")


def test_without_opacus_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus.accountants", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'monai-deepfixcx[dp]'")):
        opacus_module("opacus.accountants")
    assert module.epsilon_of([], 1e-5).epsilon == 0

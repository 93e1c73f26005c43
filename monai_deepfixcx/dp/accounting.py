"""How much privacy steps of DP-SGD cost, by Opacus' accountants.

Source: PRV, Gopi et al. 2021 (arXiv:2106.02848); RDP, Mironov et al. 2019 (arXiv:1908.10530).
"""

import math
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

import numpy as np

from monai_deepfixcx.dp.opacus_gate import opacus_module

Accountant = Literal["prv", "rdp"]
# The PRV accountant's bound lies this far above the truth, as a share of epsilon, and takes longer the closer it is.
_PRV_ERROR = 0.01
# Opacus' orders, and larger ones without which small epsilons cannot be told.
_ORDERS = [1 + x / 10 for x in range(1, 100)] + list(range(12, 64)) + [64, 96, 128, 256, 512]
_SEARCH = 0.004  # how much of epsilon the search for the noise may leave unspent
_MOST_NOISE = 1e4


class Steps(NamedTuple):
    """So many steps of one noise multiplier and one sampling rate."""

    noise_multiplier: float
    sample_rate: float
    number: int


class Spent(NamedTuple):
    """An epsilon, and the accountant that vouches for it."""

    epsilon: float
    accountant: Accountant


def epsilon_of(steps: Sequence[Steps], delta: float, accountant: Accountant = "prv") -> Spent:
    """The epsilon at `delta` of Poisson-sampled Gaussian steps, for adding or removing one unit.

    Args:
        steps: what was done, in any order.
        delta: of (epsilon, delta), in (0, 1).
        accountant: "prv", tight, or "rdp", quick and up to some 15 % higher. Where PRV fails (its numbers do not
            converge for extreme noise, rates or deltas), RDP answers, with a warning.

    Returns:
        An upper bound of epsilon; 0 for no steps.

    Raises:
        ValueError: another accountant, or delta out of range.
        ImportError: Opacus is not installed.

    >>> round(epsilon_of([Steps(0.6, 128 / 153_502, 119_900)], delta=6e-6, accountant="rdp").epsilon, 2)
    6.41
    """
    check_accountant(accountant)
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie between 0 and 1; got {delta!r}.")
    done = [step for step in steps if step.number > 0]
    if not done:
        return Spent(0.0, accountant)
    rdp = _ask("rdp", tuple(done), delta)
    if accountant == "rdp":
        return Spent(rdp, "rdp")
    try:
        # q = 1 and far tails make Opacus take the logarithm of 0, which it discards.
        with np.errstate(all="ignore"):
            prv = _ask("prv", tuple(done), delta, max(_PRV_ERROR * min(rdp, 1e3), 1e-4))
    except (RuntimeError, ValueError, ArithmeticError, IndexError, MemoryError) as error:
        return _fall_back(rdp, repr(error))
    if not math.isfinite(prv) or prv < 0:
        return _fall_back(rdp, f"it gave {prv}")
    # Both are upper bounds, so that the smaller one holds.
    return Spent(prv, "prv") if prv <= rdp else Spent(rdp, "rdp")


def noise_multiplier_for(
    epsilon: float, delta: float, sample_rate: float, steps: int, accountant: Accountant = "prv"
) -> float:
    """The noise multiplier with which `steps` steps just stay within (epsilon, delta), and leave at most 0.4 % unspent.

    Args:
        epsilon: to stay within.
        delta: of (epsilon, delta).
        sample_rate: probability with which each unit takes part in a step.
        steps: how many.
        accountant: see `epsilon_of`.

    Raises:
        ValueError: no noise below 10,000 is enough, or an argument out of range.

    >>> sigma = noise_multiplier_for(7.89, 6e-6, 128 / 153_502, steps=119_900, accountant="rdp")
    >>> 0.55 < sigma < 0.57
    True
    """

    def spent(noise: float, by: Accountant) -> float:
        return epsilon_of([Steps(noise, sample_rate, steps)], delta, by).epsilon

    # RDP is quick and never far above PRV: its answer is where the search by PRV begins.
    noise = _least_noise(lambda noise: spent(noise, "rdp"), epsilon, 1.0)
    return noise if accountant == "rdp" else _least_noise(lambda noise: spent(noise, "prv"), epsilon, noise)


def max_steps(
    done: Sequence[Steps], next_step: Steps, epsilon: float, delta: float, planned: int, accountant: Accountant = "prv"
) -> int:
    """How many more steps, up to `planned`, fit into (epsilon, delta).

    Args:
        done: the steps already taken.
        next_step: noise multiplier and sampling rate of those to come.
        epsilon: not to be passed.
        delta: of (epsilon, delta).
        planned: the most that will be asked for.
        accountant: see `epsilon_of`.
    """

    def fits(count: int) -> bool:
        return epsilon_of([*done, next_step._replace(number=count)], delta, accountant).epsilon <= epsilon

    if fits(planned):
        return planned
    fit, excess = (0, planned) if fits(0) else (-1, 0)
    while excess - fit > 1:
        middle = (fit + excess) // 2
        fit, excess = (middle, excess) if fits(middle) else (fit, middle)
    return max(fit, 0)


def check_accountant(accountant: str) -> None:
    """Refuse what is not one of ours.

    Raises:
        ValueError: another accountant; for GDP the text says why.
    """
    if accountant == "gdp":
        raise ValueError(
            'accountant must be "prv" or "rdp"; got "gdp", whose central-limit approximation lies below the true '
            "epsilon: it is no guarantee."
        )
    if accountant not in get_args(Accountant):
        raise ValueError(f'accountant must be "prv" or "rdp"; got {accountant!r}.')


@lru_cache(maxsize=256)  # a handler, a report and the check before each run ask the same
def _ask(mechanism: Accountant, steps: tuple[Steps, ...], delta: float, error: float | None = None) -> float:
    accountant = opacus_module("opacus.accountants").create_accountant(mechanism)
    accountant.history = [tuple(step) for step in steps]
    with warnings.catch_warnings():
        # "Optimal order is the smallest/largest alpha": the bound holds, it is only looser than it could be.
        warnings.filterwarnings("ignore", "Optimal order is")
        options = {"alphas": _ORDERS} if error is None else {"eps_error": error}
        return float(accountant.get_epsilon(delta=delta, **options))


def _fall_back(rdp: float, reason: str) -> Spent:
    warnings.warn(
        f"the PRV accountant failed ({reason}); the RDP accountant, whose bound is looser, answers instead.",
        stacklevel=3,
    )
    return Spent(rdp, "rdp")


def _least_noise(spent: Callable[[float], float], epsilon: float, noise: float) -> float:
    """Noise that spends epsilon less at most `_SEARCH`: the secant method in logarithms, nearly straight here."""

    def excess(log_noise: float) -> float:
        return math.log(max(spent(math.exp(log_noise)), 1e-12) / epsilon)

    last, x = math.log(noise), math.log(noise)
    miss = miss_before = excess(x)
    for _ in range(40):
        if -_SEARCH < miss <= 0:
            return math.exp(x)
        slope = (miss - miss_before) / (x - last) if x != last else -1.0
        # Aims at the middle of the window; where a plateau makes the secant useless, it walks.
        step = -(miss + _SEARCH / 2) / (slope if slope < -0.1 else -1.0)
        last, x = x, x + min(max(step, -2.0), 2.0)
        if x > math.log(_MOST_NOISE):
            break
        miss_before, miss = miss, excess(x)
    raise ValueError(
        f"epsilon={epsilon} cannot be met with a noise multiplier below {_MOST_NOISE:g}. Take fewer epochs, a smaller "
        "batch_size or a larger epsilon."
    )

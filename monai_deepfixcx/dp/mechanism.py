"""The analytic Gaussian mechanism: exactly as much noise as (epsilon, delta) asks for.

Source: Balle & Wang 2018 (arXiv:1805.06530), theorem 8 and algorithm 1.
"""

from collections.abc import Callable
from math import isfinite, log, sqrt

import torch

# Gaussian noise of standard deviation s on a value of sensitivity D is told apart as N(0, 1) from N(D / s, 1).
_LARGEST = 1e4


def gaussian_delta(epsilon: float, mu: float) -> float:
    """The least delta for which Gaussian noise is (epsilon, delta)-private.

    Args:
        epsilon: at least 0.
        mu: sensitivity divided by the noise's standard deviation, above 0.

    >>> round(gaussian_delta(epsilon=1.0, mu=1.0), 4)
    0.1269
    """
    above, below = torch.tensor([mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu], dtype=torch.float64)
    # By logarithms: exp(epsilon) alone overflows long before the product does.
    return float(torch.special.ndtr(above) - torch.exp(epsilon + torch.special.log_ndtr(below)))


def gaussian_epsilon(delta: float, mu: float) -> float:
    """The least epsilon for which Gaussian noise is (epsilon, delta)-private.

    Several releases compose exactly: their mu is the root of the sum of squares.

    Args:
        delta: in (0, 1).
        mu: sensitivity divided by the noise's standard deviation, at least 0.

    Raises:
        ValueError: delta out of range, or so much signal that no epsilon is worth telling.

    >>> round(gaussian_epsilon(delta=1e-5, mu=1.0), 3)
    4.377
    """
    _check_delta(delta)
    if mu == 0:
        return 0.0
    if not mu < _LARGEST:
        raise ValueError(f"mu must be below {_LARGEST:g}; got {mu!r}. There is next to no noise.")
    return _smallest(lambda epsilon: gaussian_delta(epsilon, mu) <= delta, mu * (mu / 2 + 40))


def noise_scale(epsilon: float, delta: float, sensitivity: float) -> float:
    """The least standard deviation of Gaussian noise that is (epsilon, delta)-private, for any epsilon.

    Args:
        epsilon: above 0.
        delta: in (0, 1).
        sensitivity: the largest l2 distance between the values of two neighbours, above 0.

    Raises:
        ValueError: an argument out of range.

    >>> round(noise_scale(epsilon=1.0, delta=1e-5, sensitivity=1.0), 3)
    3.731
    """
    _check_delta(delta)
    if not (epsilon > 0 and isfinite(epsilon)):
        raise ValueError(f"epsilon must be above 0 and finite; got {epsilon!r}.")
    if not (sensitivity > 0 and isfinite(sensitivity)):
        raise ValueError(f"sensitivity must be above 0 and finite; got {sensitivity!r}.")
    classical = sensitivity * sqrt(2 * log(2 / delta)) * (1 / epsilon + 1)
    return _smallest(lambda noise: gaussian_delta(epsilon, sensitivity / noise) <= delta, classical)


def _smallest(holds: Callable[[float], bool], high: float) -> float:
    """The smallest number, to 12 digits and rounded up, from which on something holds."""
    while not holds(high):
        high *= 2
    low = 0.0
    while high - low > 1e-12 * max(high, 1e-6):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie between 0 and 1; got {delta!r}.")

"""What training may cost."""

import math
import warnings
from dataclasses import dataclass

from monai_deepfixcx.dp.accounting import Accountant, check_accountant, noise_multiplier_for


@dataclass(frozen=True)
class PrivacyBudget:
    """How much privacy training may cost, and how it is counted.

    Give `epsilon`, and the noise is chosen so that `epochs` epochs cost just that; or give `noise_multiplier`, and
    epsilon is what it comes to. With both, the noise is that given and training stops before epsilon is passed.

    Args:
        epsilon: not to be passed, above 0; None with a `noise_multiplier` sets no limit.
        delta: the probability with which the bound may fail, below 1 / (number of units).
        max_grad_norm: the l2 norm to which the gradient of each unit is clipped.
        epochs: that the noise must last for.
        accountant: "prv", tight, or "rdp". GDP's approximation is no guarantee and is refused.
        noise_multiplier: standard deviation of the noise as a multiple of `max_grad_norm`.

    Raises:
        ValueError: an argument out of range, or neither epsilon nor noise multiplier.

    Source: DP-SGD, Abadi et al. 2016 (arXiv:1607.00133).

    >>> budget = PrivacyBudget(epsilon=8, delta=1e-4, epochs=30, accountant="rdp")
    >>> 0.7 < budget.noise_for(sample_rate=0.02, steps=1500) < 0.9
    True
    """

    epsilon: float | None = None
    delta: float = 1e-5
    max_grad_norm: float = 1.0
    epochs: int = 1
    accountant: Accountant = "prv"
    noise_multiplier: float | None = None

    def __post_init__(self) -> None:
        if self.epsilon is None and self.noise_multiplier is None:
            raise ValueError("epsilon must be given, or else noise_multiplier; got neither.")
        if self.epsilon is not None and not (self.epsilon > 0 and math.isfinite(self.epsilon)):
            raise ValueError(
                f"epsilon must be above 0 and finite; got {self.epsilon!r}. Epsilon 0 allows no dependence on the "
                "data at all; to train without privacy use monai.engines.SupervisedTrainer."
            )
        if not 0 < self.delta < 1:
            raise ValueError(f"delta must lie between 0 and 1; got {self.delta!r}.")
        if not (self.max_grad_norm > 0 and math.isfinite(self.max_grad_norm)):
            raise ValueError(f"max_grad_norm must be above 0 and finite; got {self.max_grad_norm!r}.")
        if self.noise_multiplier is not None and not (
            self.noise_multiplier > 0 and math.isfinite(self.noise_multiplier)
        ):
            raise ValueError(
                f"noise_multiplier must be above 0 and finite; got {self.noise_multiplier!r}. Without noise there is "
                "no privacy."
            )
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1; got {self.epochs!r}.")
        check_accountant(self.accountant)

    def noise_for(self, sample_rate: float, steps: int) -> float:
        """The noise multiplier: that given, or the least that keeps `steps` steps within epsilon.

        Args:
            sample_rate: probability with which each unit takes part in a step.
            steps: in all epochs together.

        Raises:
            ValueError: epsilon is too small for any sensible noise.
        """
        if self.noise_multiplier is not None:
            return self.noise_multiplier
        # __post_init__ saw to it that one of the two is there.
        epsilon = math.nan if self.epsilon is None else self.epsilon
        return noise_multiplier_for(epsilon, self.delta, sample_rate, steps, self.accountant)

    def check_delta(self, units: int, unit: str) -> None:
        """Warn where delta promises nothing.

        Args:
            units: how many there are in the data.
            unit: what they are called.
        """
        if self.delta >= 1 / units:
            warnings.warn(
                f"delta={self.delta:g} is not below 1/{units}, one over the number of {unit}s. A mechanism that "
                f"publishes one {unit} in full, picked at random, has such a delta: choose a delta well below "
                f"{1 / units:.1e}.",
                stacklevel=2,
            )

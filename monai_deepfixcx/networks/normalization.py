"""What is done to codes before a head sees them, and the data set statistics this takes.

Source: Gaudio et al., WIREs DMKD 2023, doi:10.1002/widm.1495, the MLP's input normalization.
"""

from collections.abc import Iterable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

Normalization = Literal["none", "batchnorm", "whiten", "0mean"]
# A spread this small beside the mean is float32 rounding, not a difference between codes.
_ROUNDING = 1e-6


class CodeStatistics:
    """Mean and variance of every code value over a data set, in one pass that never holds more than a batch.

    Welford's algorithm, batch by batch (Chan et al. 1983), in float64: unlike a sum of squares it keeps its accuracy
    where the spread is small beside the mean.

    Attributes:
        count: codes seen so far.
        mean: float64 ``[C, D]``.

    >>> statistics = CodeStatistics()
    >>> for batch in torch.tensor([1.0, 2.0, 6.0]).reshape(3, 1, 1).split(2):
    ...     statistics.update(batch)
    >>> statistics.count, statistics.mean.item(), round(statistics.variance.item(), 6)
    (3, 3.0, 4.666667)
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros((), dtype=torch.float64)
        self._squares = torch.zeros((), dtype=torch.float64)

    @property
    def variance(self) -> Tensor:
        """Float64 ``[C, D]``, the mean squared deviation (the population's, as published).

        Raises:
            ValueError: no code was seen yet.
        """
        if self.count == 0:
            raise ValueError("batches must hold at least one code; got none. Was the data loader already used up?")
        return self._squares / self.count

    def update(self, codes: Tensor) -> None:
        """Take in a batch of codes.

        Args:
            codes: ``[B, C, D]``. Metadata that a MetaTensor brings along is not kept.

        Raises:
            ValueError: not three axes, other C or D than before, or values that are not finite.
        """
        values = codes.detach().as_subclass(Tensor).to(torch.float64)
        if values.ndim != 3 or (self.count and values.shape[1:] != self.mean.shape):
            expected = f"[B, {', '.join(map(str, self.mean.shape))}], as before" if self.count else "[B, C, D]"
            raise ValueError(f"codes must have shape {expected}; got {list(values.shape)}. Encode the images first.")
        if not values.isfinite().all():
            raise ValueError("codes must be finite; got NaN or infinity. Check the images that were encoded.")
        if len(values) == 0:
            return
        total = self.count + len(values)
        mean = values.mean(0)
        step = mean - self.mean
        self._squares = self._squares + (values - mean).square().sum(0) + step**2 * (self.count * len(values) / total)
        self.mean = self.mean + step * (len(values) / total)
        self.count = total


class CodeNormalization(nn.Module):
    """Normalize each value of a code over the data set.

    - "none": leave codes as they are.
    - "batchnorm": `torch.nn.BatchNorm1d` over batch and channels.
    - "whiten": subtract each value's data set mean, divide by its standard deviation. A value that never varies is only
      centred.
    - "0mean": subtract each value's data set mean.

    The last two take their statistics from `fit` and keep them in the checkpoint. They are computed from the
    training data: under differential privacy, fit them on public data or use "none".

    Args:
        in_channels: C of the codes.
        code_length: D of the codes.
        method: one of the four.

    Attributes:
        mean: float64 buffer ``[C, D]``, with "whiten" and "0mean".
        scale: float64 buffer ``[C, D]``: the standard deviation, or 1 where a value never varies.
        samples: int64 buffer, the codes that were fitted; 0 before.

    Raises:
        ValueError: an unknown method.

    >>> normalization = CodeNormalization(1, 2, "whiten")
    >>> normalization.fit([torch.tensor([[[1.0, 5.0]], [[3.0, 5.0]]])])
    >>> normalization(torch.tensor([[[3.0, 6.0]]]))
    tensor([[[1., 1.]]])
    """

    mean: Tensor
    scale: Tensor
    samples: Tensor

    def __init__(self, in_channels: int, code_length: int, method: Normalization = "none") -> None:
        super().__init__()
        if method not in get_args(Normalization):
            raise ValueError(f"normalization must be one of {', '.join(get_args(Normalization))}; got {method!r}.")
        self.method = method
        self._fitted = False
        if method == "batchnorm":
            self.batchnorm = nn.BatchNorm1d(code_length)
        elif self.needs_statistics:
            shape = (in_channels, code_length)
            self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
            self.register_buffer("scale", torch.ones(shape, dtype=torch.float64))
            self.register_buffer("samples", torch.zeros((), dtype=torch.int64))

    @property
    def needs_statistics(self) -> bool:
        """Whether `fit`, or a checkpoint, must come before the first use."""
        return self.method in ("whiten", "0mean")

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Compute the data set statistics in one pass. Does nothing for "none" and "batchnorm".

        Args:
            batches: codes ``[B, C, D]`` of the training data, batch by batch.

        Raises:
            ValueError: no codes, codes of another shape, or values that are not finite.
        """
        if not self.needs_statistics:
            return
        statistics = CodeStatistics()
        for codes in batches:
            statistics.update(codes)
        std = statistics.variance.sqrt()
        if std.shape != self.mean.shape:
            raise ValueError(
                f"codes must have shape [B, {', '.join(map(str, self.mean.shape))}]; got [B, "
                f"{', '.join(map(str, std.shape))}]. Build the head for the codec that made them."
            )
        constant = std <= _ROUNDING * statistics.mean.abs()
        self.mean.copy_(statistics.mean)
        self.scale.copy_(std.masked_fill(constant, 1))
        self.samples.fill_(statistics.count)
        self._fitted = True

    def forward(self, codes: Tensor) -> Tensor:
        """Normalize codes ``[B, C, D]``.

        Raises:
            RuntimeError: "whiten" or "0mean" without statistics.
        """
        if self.method == "none":
            return codes
        if self.method == "batchnorm":
            return self.batchnorm(codes.mT).mT
        if not self._fitted:
            raise RuntimeError(
                f"normalization={self.method!r} needs the data set's statistics and has none yet. Call "
                "fit_normalization(batches of training data), or load a checkpoint that holds them."
            )
        centred = codes - self.mean.to(codes.dtype)
        return centred if self.method == "0mean" else centred / self.scale.to(codes.dtype)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        # A plain bool, because reading a buffer in forward would stop export and make every step wait for the GPU.
        self._fitted = self.needs_statistics and bool(self.samples > 0)

    def extra_repr(self) -> str:
        """The method."""
        return f"method={self.method!r}"

"""DeepFixCX's MLP on codes.

Source: Gaudio et al., WIREs DMKD 2023, doi:10.1002/widm.1495, section on the MLP classifier.
"""

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from monai_deepfixcx.networks.normalization import CodeNormalization, Normalization

WeightVariant = Literal["plain", "softmax", "log_softmax"]


class FeatureWeights(nn.Module):
    """Multiply every code value by a learned weight, the same for all channels.

    Args:
        code_length: D of the codes.
        variant: multiply by the weights ("plain"), by their softmax, or by their log-softmax over D.

    Attributes:
        weight: parameter ``[D]``, initially uniform in [0, 1).

    Raises:
        ValueError: an unknown variant.

    >>> round(FeatureWeights(3, "softmax").factors().sum().item(), 4)
    1.0
    """

    def __init__(self, code_length: int, variant: WeightVariant = "plain") -> None:
        super().__init__()
        if variant not in get_args(WeightVariant):
            raise ValueError(f"feature_weights must be one of {', '.join(get_args(WeightVariant))}; got {variant!r}.")
        self.variant = variant
        self.weight = nn.Parameter(torch.rand(code_length))

    def factors(self) -> Tensor:
        """What the code values are multiplied by, ``[D]``."""
        if self.variant == "softmax":
            return self.weight.softmax(0)
        return self.weight.log_softmax(0) if self.variant == "log_softmax" else self.weight

    def penalty(self) -> Tensor:
        """Mean |weight|, a scalar to add to the loss so that few code values are used."""
        return self.weight.abs().mean()

    def forward(self, codes: Tensor) -> Tensor:
        """Weight codes ``[B, C, D]``."""
        return codes * self.factors()

    def extra_repr(self) -> str:
        """The variant and the number of weights."""
        return f"{len(self.weight)}, variant={self.variant!r}"


class CodeMLP(nn.Module):
    """Normalize a code, weight its values, and classify it by a small MLP with CELU.

    Weights are Kaiming-normal with gain 1, biases normal with a standard deviation of sqrt(2 / outputs) / 10. The
    paper uses codes of J=5, P=5, a width of 300 and 1 to 3 hidden layers. Fit for per-sample gradients, but with
    "batchnorm".

    Args:
        code_length: D of the codes, `Codec.code_length`.
        in_channels: C of the codes.
        out_channels: number of logits.
        width: of each hidden layer.
        depth: number of hidden layers; 0 is logistic regression.
        feature_weights: see `FeatureWeights`.
        normalization: see `CodeNormalization`; "whiten" and "0mean" need `fit_normalization`.

    Raises:
        ValueError: an argument out of range.

    >>> codes = torch.rand(8, 3, 100)
    >>> head = CodeMLP(code_length=100, in_channels=3, out_channels=5, normalization="whiten")
    >>> head.fit_normalization(codes.split(4))
    >>> head(codes).shape
    torch.Size([8, 5])
    """

    def __init__(
        self,
        code_length: int,
        in_channels: int = 1,
        out_channels: int = 1,
        width: int = 300,
        depth: int = 1,
        feature_weights: WeightVariant = "plain",
        normalization: Normalization = "none",
    ) -> None:
        super().__init__()
        smallest = {"code_length": 1, "in_channels": 1, "out_channels": 1, "width": 1, "depth": 0}
        for (name, least), value in zip(
            smallest.items(), (code_length, in_channels, out_channels, width, depth), strict=True
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}; got {value!r}.")
        self.code_length, self.in_channels = code_length, in_channels
        self.normalization = CodeNormalization(in_channels, code_length, normalization)
        self.feature_weights = FeatureWeights(code_length, feature_weights)
        sizes = [in_channels * code_length, *[width] * depth]
        hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.CELU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(sizes[-1], out_channels))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
                nn.init.normal_(layer.bias, std=math.sqrt(2 / layer.out_features) / 10)

    def fit_normalization(self, batches: Iterable[Tensor]) -> None:
        """Compute the data set statistics that the normalization needs, in one pass; see `CodeNormalization.fit`.

        Args:
            batches: codes ``[B, C, D]`` of the training data, batch by batch.

        Raises:
            ValueError: no codes, codes of another shape, or values that are not finite.
        """
        self.normalization.fit(batches)

    def weight_penalty(self) -> Tensor:
        """Mean |feature weight|, a scalar to add to the loss."""
        return self.feature_weights.penalty()

    def forward(self, codes: Tensor) -> Tensor:
        """Logits ``[B, out_channels]`` of codes ``[B, C, D]``.

        Raises:
            ValueError: codes of another shape.
            RuntimeError: the normalization has no statistics yet.
        """
        check_codes(codes, self.in_channels, self.code_length)
        return self.layers(self.feature_weights(self.normalization(codes)).flatten(1))


def check_codes(codes: Tensor, in_channels: int, code_length: int) -> None:
    """Refuse codes that are not ``[B, in_channels, code_length]``.

    Raises:
        ValueError: codes of another shape.
    """
    if codes.ndim != 3 or codes.shape[1:] != (in_channels, code_length):
        raise ValueError(
            f"codes must have shape [B, {in_channels}, {code_length}]; got {list(codes.shape)}. "
            "Encode the images with the codec that this head was built for."
        )

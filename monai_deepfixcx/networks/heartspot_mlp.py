"""HeartSpot's MLP on codes, and its twin without batch normalization.

Source: Johnson et al., IEEE BHI 2022, arXiv:2210.02241.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from monai_deepfixcx.networks.code_mlp import check_codes
from monai_deepfixcx.networks.resnet import group_count


class HeartSpotMLP(nn.Module):
    """Linear(K, 3200) - norm - SELU - Linear(3200, 300) - norm - SELU - Linear(300, 1).

    Args:
        code_length: K of the codes, `Codec.code_length`.
        in_channels: C of the codes; 1 in the paper.
        out_channels: number of logits; 1 in the paper.
        norm: "batch" as published, or "group" (up to 32 groups), which mixes no two samples: the twin to train
            under differential privacy.
        widths: of the hidden layers; (3200, 300) in the paper, for codes of some 10,000 values.

    Raises:
        ValueError: an argument out of range.

    >>> import torch
    >>> HeartSpotMLP(code_length=50, norm="group")(torch.rand(4, 1, 50)).shape
    torch.Size([4, 1])
    """

    def __init__(
        self,
        code_length: int,
        in_channels: int = 1,
        out_channels: int = 1,
        norm: Literal["batch", "group"] = "batch",
        widths: Sequence[int] = (3200, 300),
    ) -> None:
        super().__init__()
        if norm not in ("batch", "group"):
            raise ValueError(f'norm must be "batch" or "group"; got {norm!r}.')
        if min(code_length, in_channels, out_channels) < 1:
            raise ValueError(
                "code_length, in_channels and out_channels must be at least 1; got "
                f"{code_length}, {in_channels} and {out_channels}."
            )
        if min(widths, default=0) < 1:
            raise ValueError(
                f"widths must name at least one hidden layer, each of width 1 or more; got {list(widths)}."
            )
        self.code_length, self.in_channels = code_length, in_channels
        layers: list[nn.Module] = []
        before = in_channels * code_length
        for width in widths:
            layers += [nn.Linear(before, width), _norm(width, norm), nn.SELU()]
            before = width
        self.layers = nn.Sequential(*layers, nn.Linear(before, out_channels))

    def forward(self, codes: Tensor) -> Tensor:
        """Logits ``[B, out_channels]`` of codes ``[B, C, K]``.

        Raises:
            ValueError: codes of another shape.
        """
        check_codes(codes, self.in_channels, self.code_length)
        return self.layers(codes.flatten(1))


def _norm(width: int, norm: Literal["batch", "group"]) -> nn.Module:
    return nn.BatchNorm1d(width) if norm == "batch" else nn.GroupNorm(group_count(width, least=2), width)

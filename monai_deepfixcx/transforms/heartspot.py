"""HeartSpot as a MONAI transform.

Source: Johnson et al., IEEE BHI 2022, arXiv:2210.02241.
"""

from collections.abc import Sequence
from typing import Literal

from monai.config import KeysCollection

from monai_deepfixcx.codecs import HeartSpotCodec
from monai_deepfixcx.codecs.heartspot import Region
from monai_deepfixcx.codecs.prefilters import Criterion
from monai_deepfixcx.transforms.privatize import PrivatizingMapTransform, PrivatizingTransform

Output = Literal["code", "image"]


class HeartSpot(PrivatizingTransform):
    """Keep the pixels of an image ``[C, H, W]`` that a prior names, or what they still show.

    Args:
        prior: any of hline, rline, rhline, heart, median and quadtree, joined by "+".
        spatial_shape: (H, W) of the images.
        seed: of the random lines.
        line_count: random lines drawn.
        zero_top_fraction: drop the random lines from this top part of the image, in [0, 1).
        aggregate: "pixels" keeps the masked pixels, "sum" only their column and row sums.
        region: instead of the heart, a polygon of (row, column) fractions of the image, or a boolean mask ``[H, W]``.
        quadtree_threshold: as in `monai_deepfixcx.codecs.quadtree`.
        quadtree_criterion: "entropy" or "std".
        output: "code" gives ``[C, D]``; "image" the masked image ``[C, H, W]``.

    Raises:
        ValueError: an argument out of range.

    Source: `HeartSpotCodec`, which documents the parameters in full.

    >>> import torch
    >>> HeartSpot("rhline")(torch.rand(1, 320, 320)).shape
    torch.Size([1, 32797])
    """

    codec: HeartSpotCodec

    def __init__(
        self,
        prior: str = "rhline+heart",
        spatial_shape: Sequence[int] = (320, 320),
        seed: int = 1,
        line_count: int = 200,
        zero_top_fraction: float = 0.0,
        aggregate: Literal["pixels", "sum"] = "pixels",
        region: Region | None = None,
        quadtree_threshold: float = 30.0,
        quadtree_criterion: Criterion = "entropy",
        output: Output = "code",
    ) -> None:
        codec = HeartSpotCodec(
            prior=prior,
            spatial_shape=spatial_shape,
            seed=seed,
            line_count=line_count,
            zero_top_fraction=zero_top_fraction,
            aggregate=aggregate,
            region=region,
            quadtree_threshold=quadtree_threshold,
            quadtree_criterion=quadtree_criterion,
        )
        super().__init__(codec, output)


class HeartSpotd(PrivatizingMapTransform):
    """`HeartSpot` for the images in a dictionary; see `StrippingMapTransform` for the metadata that goes with them.

    Args:
        keys: of the images.
        prior: as in `HeartSpot`, and so are all the following.
        spatial_shape: (H, W) of the images.
        seed: of the random lines.
        line_count: random lines drawn.
        zero_top_fraction: drop the random lines from this top part of the image.
        aggregate: "pixels" or "sum".
        region: instead of the heart, a polygon or a mask.
        quadtree_threshold: of the quadtree.
        quadtree_criterion: "entropy" or "std".
        output: "code" or "image".
        allow_missing_keys: pass over images that are not there.

    Raises:
        ValueError: an argument out of range.

    >>> import torch
    >>> item = {"image": torch.rand(1, 320, 320), "label": 1}
    >>> HeartSpotd("image", prior="rhline", output="image")(item)["image"].shape
    torch.Size([1, 320, 320])
    """

    def __init__(
        self,
        keys: KeysCollection,
        prior: str = "rhline+heart",
        spatial_shape: Sequence[int] = (320, 320),
        seed: int = 1,
        line_count: int = 200,
        zero_top_fraction: float = 0.0,
        aggregate: Literal["pixels", "sum"] = "pixels",
        region: Region | None = None,
        quadtree_threshold: float = 30.0,
        quadtree_criterion: Criterion = "entropy",
        output: Output = "code",
        allow_missing_keys: bool = False,
    ) -> None:
        transform = HeartSpot(
            prior=prior,
            spatial_shape=spatial_shape,
            seed=seed,
            line_count=line_count,
            zero_top_fraction=zero_top_fraction,
            aggregate=aggregate,
            region=region,
            quadtree_threshold=quadtree_threshold,
            quadtree_criterion=quadtree_criterion,
            output=output,
        )
        super().__init__(keys, transform, allow_missing_keys)


HeartSpotD = HeartSpotDict = HeartSpotd

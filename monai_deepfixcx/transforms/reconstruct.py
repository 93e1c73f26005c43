"""From a code back to what it still shows."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from monai.config import KeysCollection
from torch import Tensor

from monai_deepfixcx.codecs import Codec, codec_from_config
from monai_deepfixcx.transforms.metadata import Image, strip
from monai_deepfixcx.transforms.privatize import CodecTransform, PrivatizingMapTransform


class Reconstruct(CodecTransform):
    """Draw what a code ``[C, D]`` still shows. Nothing that was lost comes back.

    Args:
        codec: the codec that made the codes (it is copied), or its `Codec.config`.
        spatial_shape: S, the spatial shape of the encoded images, in pixels.
        restore_size: give images of `spatial_shape`; otherwise the small image the codec works on.

    Raises:
        ValueError: an unknown codec, or one that cannot encode images of `spatial_shape`.

    >>> code = torch.rand(1, 6400)
    >>> Reconstruct({"codec": "deepfixcx", "levels": 4, "patch_size": 5}, (320, 320))(code).shape
    torch.Size([1, 320, 320])
    """

    def __init__(
        self, codec: Codec | Mapping[str, Any], spatial_shape: Sequence[int], restore_size: bool = True
    ) -> None:
        super().__init__(deepcopy(codec) if isinstance(codec, Codec) else codec_from_config(codec))
        self.spatial_shape = tuple(int(size) for size in spatial_shape)
        self.restore_size = restore_size
        self.code_length = self.codec.code_length(self.spatial_shape)

    def __call__(self, code: Image) -> Tensor:
        """Decode one code.

        Args:
            code: ``[C, D]``, without a batch axis; numpy, Tensor or MetaTensor.

        Returns:
            A plain tensor ``[C, *S]`` (``[C, *S']`` without `restore_size`): a code does not know where it lay in the
            world, so there is no affine. Values may leave [0, 1].

        Raises:
            TypeError: not a numeric array or tensor.
            ValueError: not a code of this codec for `spatial_shape`.
        """
        values = strip(code)
        if values.ndim != 2 or values.shape[1] != self.code_length:
            size = "x".join(map(str, self.spatial_shape))
            raise ValueError(
                f"code must have shape [C, {self.code_length}] for {size} images; got {list(values.shape)}. "
                "Was it made by another codec, or from an image of another size?"
            )
        codec = self.codec.to(values.device)
        with torch.no_grad():
            return strip(codec.decode(values[None], self.spatial_shape, self.restore_size)[0])


class Reconstructd(PrivatizingMapTransform):
    """`Reconstruct` for the codes in a dictionary.

    Args:
        keys: of the codes.
        codec: the codec that made the codes, or its `Codec.config`.
        spatial_shape: S, the spatial shape of the encoded images, in pixels.
        restore_size: give images of `spatial_shape`; otherwise the small image the codec works on.
        allow_missing_keys: pass over codes that are not there.

    Raises:
        ValueError: an unknown codec, or one that cannot encode images of `spatial_shape`.

    >>> item = {"code": torch.rand(1, 6400), "label": 1}
    >>> Reconstructd("code", {"codec": "deepfixcx", "levels": 4, "patch_size": 5}, (320, 320))(item)["code"].shape
    torch.Size([1, 320, 320])
    """

    def __init__(
        self,
        keys: KeysCollection,
        codec: Codec | Mapping[str, Any],
        spatial_shape: Sequence[int],
        restore_size: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, Reconstruct(codec, spatial_shape, restore_size), allow_missing_keys)


ReconstructD = ReconstructDict = Reconstructd

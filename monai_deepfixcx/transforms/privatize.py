"""A codec as a MONAI transform."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from monai.transforms import Transform
from torch import Tensor

from monai_deepfixcx.codecs import Codec
from monai_deepfixcx.transforms.metadata import Image, StrippingMapTransform, rebuild, strip


class CodecTransform(Transform):
    """A transform that owns a codec.

    It is pickled as the codec's configuration and weights, not as its tensors: small, and the same bytes in every
    process, so that ``PersistentDataset(hash_transform=pickle_hashing)`` finds its cache again.

    Attributes:
        codec: the codec; it moves to the device of the data.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec

    def __getstate__(self) -> dict[str, Any]:
        weights = {name: value.numpy(force=True) for name, value in self.codec.state_dict().items()}
        return self.__dict__ | {"codec": (type(self.codec), self.codec.parameters_config(), weights)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        cls, config, weights = state["codec"]
        codec = cls(**config)
        codec.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()}, assign=True)
        self.__dict__ |= state | {"codec": codec}


class PrivatizingTransform(CodecTransform):
    """Encode an image, and decode it again unless the code itself is asked for.

    Not invertible: nothing that undoes it exists.

    Args:
        codec: what to encode with.
        output: one of `outputs`.

    Raises:
        ValueError: an unknown `output`.
    """

    outputs: ClassVar[tuple[str, ...]] = ("code", "image")

    def __init__(self, codec: Codec, output: str) -> None:
        if output not in self.outputs:
            raise ValueError(f"output must be one of {', '.join(self.outputs)}; got {output!r}.")
        super().__init__(codec)
        self.output = output

    def __call__(self, image: Image) -> Tensor:
        """Privatize one image.

        Args:
            image: ``[C, *S]``, channel first and without a batch axis; numpy, Tensor or MetaTensor. Integers are read
                as float32 with their values kept.

        Returns:
            ``output="code"``: a plain tensor ``[C, D]``. Otherwise ``[C, *S']``: a MetaTensor with nothing but the
            affine if `image` is a MetaTensor and MONAI tracks metadata, else a plain tensor. Neither holds a gradient
            or shares storage with `image`.

        Raises:
            TypeError: not a numeric array or tensor.
            ValueError: the number of axes or the spatial shape does not suit the codec.
        """
        pixels = strip(image)
        expected = self.codec.spatial_dims + 1
        if pixels.ndim != expected:
            axes = ", ".join("DHW"[-self.codec.spatial_dims :])
            raise ValueError(
                f"image must have {expected} axes, [C, {axes}]: channel first and no batch axis; got shape "
                f"{list(pixels.shape)}. Use EnsureChannelFirst; a DICOM that MONAI loads as [1, H, W, 1] needs "
                "SqueezeDim(dim=-1)."
            )
        shape = tuple(pixels.shape[1:])
        codec = self.codec.to(pixels.device)
        with torch.no_grad():
            codes = codec.encode(pixels[None])
            if self.output == "code":
                return strip(codes[0])
            decoded = codec.decode(codes, shape, restore_size=self.output == "image")
        return rebuild(decoded[0], like=image, index_map=self.index_map(shape))

    def index_map(self, spatial_shape: Sequence[int]) -> npt.NDArray[np.float64] | None:
        """Homogeneous matrix from the output image's spatial indices to the input's; None where they are the same."""
        return None


class PrivatizingMapTransform(StrippingMapTransform):
    """The dictionary version of a codec transform; see `StrippingMapTransform` for what it removes."""

    transform: CodecTransform

    @property
    def codec(self) -> Codec:
        """The codec; it moves to the device of the data."""
        return self.transform.codec

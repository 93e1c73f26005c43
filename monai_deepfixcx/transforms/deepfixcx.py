"""DeepFixCX as a MONAI transform.

Source: Gaudio et al., WIREs DMKD 2023, doi:10.1002/widm.1495.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from monai.config import KeysCollection
from monai.transforms.utils import scale_affine

from monai_deepfixcx.codecs import DeepFixCXCodec
from monai_deepfixcx.codecs.deepfixcx import Feature
from monai_deepfixcx.codecs.wavelet_packet import Adaptive, subband_shape
from monai_deepfixcx.transforms.privatize import PrivatizingMapTransform, PrivatizingTransform

Output = Literal["code", "image", "small_image"]


class DeepFixCX(PrivatizingTransform):
    """Compress an image ``[C, *S]`` to a DeepFixCX code, or to what that code still shows.

    Args:
        levels: J, how often each axis is halved, or "max".
        patch_size: P, patches along each axis, or one number per axis.
        wavelet: a discrete PyWavelets wavelet.
        features: what is pooled from each patch; an image output needs exactly one.
        zero_mean: subtract each channel's spatial mean first.
        spatial_dims: 2 or 3.
        in_channels: fix the number of channels C; needed with a `channel_multiplier`.
        channel_multiplier: m > 1 first mixes the C channels into m C.
        adaptive: kind of learnable filters; the transform uses them as they are and does not train them.
        seed: of the random channel mix.
        output: "code" gives ``[C, D]``; "image" the decoded image ``[C, *S]``; "small_image" the decoded image
            ``[C, P * 2^J, ...]`` before it is blown up again.

    Raises:
        ValueError: an argument out of range.

    Source: `DeepFixCXCodec`, which documents the parameters in full.

    >>> import torch
    >>> image = torch.rand(1, 320, 320)
    >>> DeepFixCX(levels=4, patch_size=5)(image).shape
    torch.Size([1, 6400])
    >>> DeepFixCX(levels=4, patch_size=5, output="small_image")(image).shape
    torch.Size([1, 80, 80])
    """

    outputs = ("code", "image", "small_image")
    codec: DeepFixCXCodec

    def __init__(
        self,
        levels: int | Literal["max"],
        patch_size: int | Sequence[int],
        wavelet: str = "db1",
        features: Sequence[Feature] = ("l1",),
        zero_mean: bool = False,
        spatial_dims: int = 2,
        in_channels: int | None = None,
        channel_multiplier: int = 1,
        adaptive: Adaptive = "none",
        seed: int = 0,
        output: Output = "code",
    ) -> None:
        codec = DeepFixCXCodec(
            levels=levels,
            patch_size=patch_size,
            wavelet=wavelet,
            features=features,
            zero_mean=zero_mean,
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            channel_multiplier=channel_multiplier,
            adaptive=adaptive,
            seed=seed,
        )
        super().__init__(codec, output)

    def index_map(self, spatial_shape: Sequence[int]) -> npt.NDArray[np.float64]:
        """Where the decoded pixels lie in the image: scaled if small, shifted where the codec padded and cropped.

        The encoder pads every axis to r P 2^J pixels, the halvings at the end and the patch grid on both sides; the
        decoder crops the centre. Where P 2^J does not divide the size, the two differ by some pixels, which the affine
        must say.
        """
        levels = self.codec.levels_for(spatial_shape)
        grid = np.array(self.codec.patch_size)
        subband = np.array(subband_shape(spatial_shape, levels))
        repeats = -(-subband // grid)
        padded = repeats * grid * 2**levels
        start = -((repeats * grid - subband) // 2) * 2**levels
        if self.output == "small_image":
            matrix: npt.NDArray[np.float64] = scale_affine(tuple(padded), tuple(grid * 2**levels))
        else:
            matrix = np.eye(len(grid) + 1)
            start += np.round((padded - spatial_shape) / 2).astype(int)
        matrix[:-1, -1] += start
        return matrix


class DeepFixCXd(PrivatizingMapTransform):
    """`DeepFixCX` for the images in a dictionary; see `StrippingMapTransform` for the metadata that goes with them.

    Args:
        keys: of the images.
        levels: as in `DeepFixCX`, and so are all the following.
        patch_size: P.
        wavelet: a discrete PyWavelets wavelet.
        features: what is pooled from each patch.
        zero_mean: subtract each channel's spatial mean first.
        spatial_dims: 2 or 3.
        in_channels: fix the number of channels.
        channel_multiplier: mix the channels first.
        adaptive: kind of learnable filters.
        seed: of the random channel mix.
        output: "code", "image" or "small_image".
        allow_missing_keys: pass over images that are not there.

    Raises:
        ValueError: an argument out of range.

    >>> import torch
    >>> item = {"image": torch.rand(1, 320, 320), "label": 1}
    >>> DeepFixCXd("image", levels=4, patch_size=5)(item)["image"].shape
    torch.Size([1, 6400])
    """

    def __init__(
        self,
        keys: KeysCollection,
        levels: int | Literal["max"],
        patch_size: int | Sequence[int],
        wavelet: str = "db1",
        features: Sequence[Feature] = ("l1",),
        zero_mean: bool = False,
        spatial_dims: int = 2,
        in_channels: int | None = None,
        channel_multiplier: int = 1,
        adaptive: Adaptive = "none",
        seed: int = 0,
        output: Output = "code",
        allow_missing_keys: bool = False,
    ) -> None:
        transform = DeepFixCX(
            levels=levels,
            patch_size=patch_size,
            wavelet=wavelet,
            features=features,
            zero_mean=zero_mean,
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            channel_multiplier=channel_multiplier,
            adaptive=adaptive,
            seed=seed,
            output=output,
        )
        super().__init__(keys, transform, allow_missing_keys)


DeepFixCXD = DeepFixCXDict = DeepFixCXd

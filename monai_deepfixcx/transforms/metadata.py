"""What may leave a transform besides pixels: the affine, and nothing else."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, get_track_meta
from monai.data.utils import orientation_ras_lps, to_affine_nd
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_tensor
from monai.utils.enums import MetaKeys, PostFix, SpaceKeys
from torch import Tensor

Image = npt.NDArray[Any] | Tensor


def strip(x: Image) -> Tensor:
    """The values of an array or tensor in a plain tensor with storage of its own.

    Its own storage, because a tensor that was cut out of a larger one still carries, and pickles, all of it.

    Args:
        x: numeric, of any shape.

    Returns:
        Same shape, same values, on the same device, without gradient. Types that torch knows stay as they are; NumPy's
        uint16, uint32 and uint64 become int32 and int64.

    Raises:
        TypeError: not a numeric array or tensor.
        ValueError: a MetaTensor whose lazy operations are still pending.

    >>> crop = torch.rand(1, 512, 512)[:, :2, :2]
    >>> crop.untyped_storage().nbytes(), strip(crop).untyped_storage().nbytes()
    (1048576, 16)
    """
    if isinstance(x, MetaTensor) and x.has_pending_operations:
        raise ValueError(
            "data must have no pending lazy operations: its pixels are not yet what they should be. Run the transforms "
            "in Compose, or call monai.transforms.ApplyPending() first."
        )
    if isinstance(x, np.ndarray) and x.dtype.kind in "buif":
        x = convert_to_tensor(x.astype(x.dtype.newbyteorder("="), copy=False))
    if not isinstance(x, Tensor):
        kind = f"an array of {x.dtype}" if isinstance(x, np.ndarray) else type(x).__name__
        raise TypeError(f"data must be a numeric numpy array or a torch.Tensor; got {kind}. Load files with LoadImage.")
    return x.as_subclass(torch.Tensor).detach().clone(memory_format=torch.contiguous_format)


def rebuild(x: Image, like: Image, index_map: npt.NDArray[np.float64] | None = None) -> Tensor:
    """The values of `x` with the affine of `like`, and nothing else of either.

    Args:
        x: the pixels, ``[C, *S]``.
        like: the image whose world coordinates `x` shares.
        index_map: homogeneous matrix from the spatial indices of `x` to those of `like`, where their grids differ.

    Returns:
        A MetaTensor whose ``meta`` holds the affine in RAS world coordinates (and MONAI's constant saying RAS), where
        `like` is a MetaTensor and MONAI tracks metadata; otherwise a plain tensor.

    Raises:
        TypeError: not a numeric array or tensor.
        ValueError: a MetaTensor whose lazy operations are still pending.

    >>> named = MetaTensor(torch.rand(1, 8, 8), meta={"patient": "Jane Doe"}, affine=torch.eye(4))
    >>> sorted(map(str, rebuild(named, like=named).meta))
    ['affine', 'space']
    """
    pixels = strip(x)
    if not (isinstance(like, MetaTensor) and get_track_meta()):
        return pixels
    affine = strip(like.affine).double()
    if like.meta.get(MetaKeys.SPACE) == SpaceKeys.LPS:
        affine = orientation_ras_lps(affine)
    if index_map is not None:
        affine = affine @ torch.from_numpy(to_affine_nd(len(affine) - 1, index_map))
    return MetaTensor(pixels, affine=affine)


class StripMetadata(Transform):
    """Keep the pixels and the affine; drop the path, every tag, the trace of applied operations and hidden storage.

    The pixels are the original ones: this alone privatizes nothing. Use it after `EnsureChannelFirst`, which needs the
    metadata, where images must stay images; the codec transforms strip on their own.

    >>> image = MetaTensor(torch.rand(1, 8, 8), meta={"filename_or_obj": "/data/jane_doe.dcm"})
    >>> "filename_or_obj" in StripMetadata()(image).meta
    False
    """

    def __call__(self, image: Image) -> Tensor:
        """Strip one image.

        Args:
            image: any shape; numpy becomes torch.

        Returns:
            The same values in new storage: a MetaTensor with nothing but the affine if `image` is a MetaTensor and
            MONAI tracks metadata, else a plain tensor.

        Raises:
            TypeError: not a numeric array or tensor.
            ValueError: a MetaTensor whose lazy operations are still pending.
        """
        return rebuild(image, like=image)


class StrippingMapTransform(MapTransform):
    """The dictionary version of a transform that keeps no metadata.

    It also removes what MONAI's readers and tracing leave beside each key: ``{key}_meta_dict``,
    ``{key}_orig_meta_dict`` and ``{key}_transforms``. All other items are the user's own and stay, a path among them.

    Args:
        keys: of the images.
        transform: what to do with each.
        allow_missing_keys: pass over images that are not there.
    """

    def __init__(
        self, keys: KeysCollection, transform: Callable[[Image], Tensor], allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = transform

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """Transform the images of one item; `data` itself is left alone.

        Raises:
            KeyError: an image is missing and `allow_missing_keys` is off.
            TypeError: an image is not a numeric array or tensor; the text names its key.
            ValueError: an image does not suit the transform; the text names its key.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            try:
                result[key] = self.transform(result[key])
            except (TypeError, ValueError) as error:
                error.args = (f"key {key!r}: {error}",)
                raise
        for key in self.keys:
            for beside in (PostFix.meta, PostFix.orig_meta, PostFix.transforms):
                result.pop(beside(str(key)), None)
        return result


class StripMetadatad(StrippingMapTransform):
    """`StripMetadata` for the images in a dictionary; see `StrippingMapTransform` for what else goes.

    Args:
        keys: of the images.
        allow_missing_keys: pass over images that are not there.

    >>> item = {"image": torch.rand(1, 8, 8), "image_meta_dict": {"patient": "Jane Doe"}, "label": 1}
    >>> sorted(StripMetadatad("image")(item))
    ['image', 'label']
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, StripMetadata(), allow_missing_keys)


StripMetadataD = StripMetadataDict = StripMetadatad

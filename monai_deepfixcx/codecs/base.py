"""What every codec is: images in, codes out, and back to what the code still shows."""

import abc
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

_REGISTRY: dict[str, type["Codec"]] = {}


class Codec(nn.Module, abc.ABC):
    """A lossy map from images ``[B, C, *S]`` to codes ``[B, C, D]``, and a decoder for what the code still shows.

    A subclass names itself (``name``), counts its ``version`` up whenever the same configuration would give
    other codes, and writes ``_encode``, ``_decode``, ``code_length`` and ``parameters_config``.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    spatial_dims: int

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            _REGISTRY[cls.name] = cls

    @abc.abstractmethod
    def code_length(self, spatial_shape: Sequence[int]) -> int:
        """Number of values D a channel's code has, for images of ``spatial_shape``.

        Raises:
            ValueError: the codec cannot encode images of this shape.
        """

    @abc.abstractmethod
    def parameters_config(self) -> dict[str, Any]:
        """The constructor's arguments as JSON values, in canonical form."""

    @abc.abstractmethod
    def _encode(self, images: Tensor) -> Tensor: ...

    @abc.abstractmethod
    def _decode(self, codes: Tensor, spatial_shape: tuple[int, ...], restore_size: bool) -> Tensor: ...

    def encode(self, images: Tensor, white: float = 1) -> Tensor:
        """Compress images into codes.

        Args:
            images: ``[B, C, *S]``, usually in [0, `white`]. Integer images are read as float32 with their values kept.
            white: what to divide the images by: 255 for 8-bit pixels. It saves writing them down as numbers in [0, 1];
                but for rounding, the codes are those of ``images / white``.

        Returns:
            Codes ``[B, C, D]`` with ``D = code_length(S)``, of the images' floating dtype and on their device.

        Raises:
            ValueError: the number of axes or the spatial shape does not suit the codec, or the images are complex.

        >>> import torch
        >>> from monai_deepfixcx.codecs import DeepFixCXCodec
        >>> pixels = torch.tensor([[[[255, 255], [0, 0]]]], dtype=torch.uint8)
        >>> DeepFixCXCodec(levels=1, patch_size=1).encode(pixels, white=255)
        tensor([[[1., 0., 1., 0.]]])
        """
        if images.ndim != self.spatial_dims + 2:
            raise ValueError(
                f"images must have {self.spatial_dims + 2} axes, [B, C, {_axes(self.spatial_dims)}]; got shape "
                f"{list(images.shape)}. Add the missing batch or channel axis, or set spatial_dims."
            )
        if images.is_complex():
            raise ValueError(f"images must be real; got {images.dtype}. Encode the magnitude.")
        codes = self._encode_fused(images, white)
        if codes is None:
            self.code_length(images.shape[2:])
            floating = images if images.is_floating_point() else images.float()
            codes = self._encode(floating) if white == 1 else self.encode(floating / white)
        return codes

    def _encode_fused(self, images: Tensor, white: float) -> Tensor | None:
        """The codes, where a compiled encoder can make them straight from these images, whose shape it checks."""
        return None

    def decode(self, codes: Tensor, spatial_shape: Sequence[int], restore_size: bool = True) -> Tensor:
        """Draw what a code still shows. Nothing that was lost comes back.

        Args:
            codes: ``[B, C, D]``.
            spatial_shape: the spatial shape S of the encoded images, in pixels.
            restore_size: give images of ``spatial_shape``; otherwise the small image the codec works on.

        Returns:
            Images ``[B, C, *S]``; values may leave [0, 1].

        Raises:
            ValueError: the code's length is not that of a code of this codec for ``spatial_shape``.
        """
        shape = tuple(int(n) for n in spatial_shape)
        expected = self.code_length(shape)
        if codes.ndim != 3 or codes.shape[-1] != expected:
            raise ValueError(
                f"codes must have shape [B, C, {expected}] for {_sizes(shape)} images; got {list(codes.shape)}. "
                "Was the code made by another codec, or from images of another size?"
            )
        return self._decode(codes if codes.is_floating_point() else codes.float(), shape, restore_size)

    def forward(self, images: Tensor) -> Tensor:
        """The privatized images: ``decode(encode(images), images.shape[2:])``."""
        return self.decode(self.encode(images), images.shape[2:])

    def config(self) -> dict[str, Any]:
        """Everything `codec_from_config` needs to build this codec again, as JSON values."""
        return {"codec": self.name, "version": self.version, **self.parameters_config()}

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the configuration, the codec's version and any learned parameters.

        Two codecs with one fingerprint give the same codes.
        """
        digest = hashlib.sha256(json.dumps(self.config(), sort_keys=True).encode())
        for name, value in sorted(self.named_parameters()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().double().numpy().tobytes())
        return digest.hexdigest()

    def extra_repr(self) -> str:
        """The configuration, as keyword arguments."""
        return ", ".join(f"{key}={value!r}" for key, value in self.parameters_config().items())


def codec_from_config(config: Mapping[str, Any]) -> Codec:
    """Build the codec that `Codec.config` describes.

    Args:
        config: ``{"codec": name, ...arguments}``; ``version`` is optional and checked when given.

    Raises:
        ValueError: the codec is unknown, or the configuration was written by another version of it.

    >>> codec = codec_from_config({"codec": "deepfixcx", "levels": 2, "patch_size": 3})
    >>> codec_from_config(codec.config()).fingerprint() == codec.fingerprint()
    True
    """
    arguments = dict(config)
    name = arguments.pop("codec", None)
    if name not in _REGISTRY:
        raise ValueError(f"codec must be one of {sorted(_REGISTRY)}; got {name!r}.")
    cls = _REGISTRY[name]
    version = arguments.pop("version", cls.version)
    if version != cls.version:
        raise ValueError(
            f"codec {name!r} is at version {cls.version}, the configuration at version {version}: its codes differ. "
            "Install the release that wrote it, or encode the images again."
        )
    return cls(**arguments)


def per_axis(value: int | Sequence[int], spatial_dims: int, argument: str) -> tuple[int, ...]:
    """One positive integer per spatial axis, from one for all axes or one each.

    Raises:
        ValueError: a wrong number of values, or one below 1.
    """
    values = (value,) * spatial_dims if isinstance(value, int) else tuple(int(v) for v in value)
    if len(values) != spatial_dims or min(values) < 1:
        raise ValueError(
            f"{argument} must be a positive integer, or {spatial_dims} of them (one per axis); got {value!r}."
        )
    return values


def _axes(spatial_dims: int) -> str:
    return ", ".join("DHW"[-spatial_dims:])


def _sizes(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


class _End(Codec):
    """What the two ends share: the number of spatial axes is all there is to choose."""

    def __init__(self, spatial_dims: int = 2) -> None:
        super().__init__()
        self.spatial_dims = spatial_dims

    def parameters_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"spatial_dims": self.spatial_dims}


class IdentityCodec(_End):
    """Keeps every pixel: the end at which every attack must succeed.

    >>> import torch
    >>> images = torch.rand(2, 1, 4, 5)
    >>> bool((IdentityCodec()(images) == images).all())
    True
    """

    name = "identity"

    def code_length(self, spatial_shape: Sequence[int]) -> int:
        """The number of pixels."""
        return math.prod(spatial_shape)

    def _encode(self, images: Tensor) -> Tensor:
        return images.flatten(2)

    def _decode(self, codes: Tensor, spatial_shape: tuple[int, ...], restore_size: bool) -> Tensor:
        return codes.unflatten(2, spatial_shape)


class ConstantCodec(_End):
    """Keeps nothing, a single zero a channel: the end at which every attack must be at chance.

    >>> import torch
    >>> ConstantCodec().encode(torch.rand(2, 1, 4, 5)).shape
    torch.Size([2, 1, 1])
    """

    name = "constant"

    def code_length(self, spatial_shape: Sequence[int]) -> int:
        """Always 1."""
        return 1

    def _encode(self, images: Tensor) -> Tensor:
        return images.new_zeros((*images.shape[:2], 1))

    def _decode(self, codes: Tensor, spatial_shape: tuple[int, ...], restore_size: bool) -> Tensor:
        return codes.new_zeros((*codes.shape[:2], *spatial_shape))

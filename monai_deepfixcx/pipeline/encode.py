"""One file to one code, and one shard of files to one shard of the store."""

import json
import stat
import warnings
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_deepfixcx.codecs import Codec, codec_from_config
from monai_deepfixcx.data.code_store import CodeStore, Row
from monai_deepfixcx.data.reading import Color, Radiograph, Scale, UnreadableImage, read_image
from monai_deepfixcx.pipeline.workspace import Entry, Workspace, shard_name


@dataclass(frozen=True)
class Settings:
    """How a run encodes.

    Attributes:
        codec: `Codec.config()` as JSON.
        size: side of the square that 2-D images are scaled and centre-cropped to, in pixels; `None` leaves them.
        color: make colour images grey, or keep three channels.
        scale: how pixel values come to [0, 1]; see `read_image`.
        images: write the privatized images, too: PNG in 2-D, NIfTI in 3-D.
    """

    codec: str
    size: int | None = None
    color: Color = "grey"
    scale: Scale = "auto"
    images: bool = False


@dataclass(frozen=True)
class Shard:
    """Files to encode together: pseudonym -> path below the source folder."""

    files: dict[str, str]

    @property
    def name(self) -> str:
        """Follows from the pseudonyms."""
        return shard_name(self.files)


def encode_shard(
    shard: Shard,
    workspace: Workspace,
    settings: Settings,
    progress: Callable[[int], None] = lambda count: None,
    writing: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> list[Entry]:
    """Encode the files of a shard and append the codes to the store; files that cannot be encoded are quarantined.

    Args:
        shard: the files.
        workspace: where they are and where the codes go.
        settings: how to encode.
        progress: told after each file how many are through.
        writing: entered to write what was encoded; may refuse by raising.

    Returns:
        What became of each file.

    Raises:
        OSError: the output cannot be written.
    """
    codec = _codec(settings.codec)
    entries: list[Entry] = []
    encoded: dict[tuple[int, ...], list[tuple[Tensor, Row]]] = defaultdict(list)
    for count, (identifier, source) in enumerate(shard.files.items(), start=1):
        path = workspace.source / source
        try:
            image = read_quietly(path, settings.color, settings.scale)
            code, spatial_shape = encode_pixels(torch.from_numpy(image.pixels), codec, settings.size)
        except Exception as error:
            entries.append(Entry(identifier, source, reason=_reason(error)))
        else:
            if settings.images:
                _write_image(workspace.output / "images" / identifier, codec, code, spatial_shape, image.affine)
            row: Row = {"id": identifier, "spatial_shape": list(spatial_shape)}
            encoded[tuple(code.shape)].append((code, row))
            size, pixels = image.source_bytes, image.pixels.size
            entries.append(Entry(identifier, source, "", size, pixels, code.numel()))
        progress(count)
    with writing():
        workspace.record(shard.name, entries)
        store = CodeStore.open(workspace.output, codec)
        for shape, items in encoded.items():
            codes = torch.stack([code for code, _ in items])
            store.append(f"{shard.name}-{'x'.join(map(str, shape))}", codes, [row for _, row in items])
    return entries


def read_quietly(path: Path, color: Color = "grey", scale: Scale = "auto") -> Radiograph:
    """`read_image` without warnings: a decoder's may quote the header, ours (on spacing) do not matter to a code."""
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
        raise UnreadableImage("not a file but a folder, a pipe or a device")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_image(path, color=color, scale=scale)


def encode_pixels(pixels: Tensor, codec: Codec, size: int | None = None) -> tuple[Tensor, tuple[int, ...]]:
    """Encode one image ``[C, *S]`` in [0, 1].

    Returns:
        The code ``[C, D]`` and the spatial shape that was encoded.

    Raises:
        ValueError: the image has the wrong number of axes, holds NaN or infinite values or one value only, or is too
            small for the codec.
    """
    spatial = "x".join(map(str, pixels.shape[1:]))
    if pixels.ndim != codec.spatial_dims + 1:
        raise ValueError(
            f"a {pixels.ndim - 1}-D image ({spatial}), and this run encodes {codec.spatial_dims}-D ones: run again "
            f"with --spatial-dims {pixels.ndim - 1} into another folder"
        )
    if not bool(torch.isfinite(pixels).all()):
        raise ValueError("has NaN or infinite pixels")
    if bool((pixels == pixels.flatten()[0]).all()):
        raise ValueError("all pixels have one value: an empty image or a failed export")
    if size is not None:
        pixels = crop_to_square(pixels, size)
    spatial_shape = tuple(pixels.shape[1:])
    with torch.no_grad():
        return codec.encode(pixels[None])[0], spatial_shape


def crop_to_square(pixels: Tensor, size: int) -> Tensor:
    """Scale the shorter side of ``[C, H, W]`` to `size` pixels (antialiased) and crop the centre square."""
    height, width = pixels.shape[1:]
    factor = size / min(height, width)
    scaled = (max(size, round(height * factor)), max(size, round(width * factor)))
    pixels = F.interpolate(pixels[None], scaled, mode="bilinear", antialias=True)[0]
    top, left = ((side - size) // 2 for side in scaled)
    return pixels[:, top : top + size, left : left + size]


def _reason(error: Exception) -> str:
    """One line a person understands. Texts of unforeseen errors may quote the file, so only their type is told."""
    if isinstance(error, UnreadableImage | ValueError):
        return " ".join(str(error).split())
    if isinstance(error, OSError):
        return f"cannot be opened: {error.strerror or type(error).__name__}"
    if isinstance(error, MemoryError):
        return "too large for this machine's memory"
    return f"cannot be read (unforeseen {type(error).__name__})"


def _write_image(path: Path, codec: Codec, code: Tensor, spatial_shape: tuple[int, ...], affine: Any) -> None:
    image = codec.decode(code[None], spatial_shape)[0].detach()
    path.parent.mkdir(exist_ok=True)
    if len(spatial_shape) == 3:
        import nibabel

        volume = image[0] if len(image) == 1 else image.movedim(0, -1)
        nibabel.save(nibabel.Nifti1Image(volume.numpy(), affine), path.with_name(f"{path.name}.nii.gz"))
        return
    from PIL import Image

    levels = (image.clamp(0, 1) * 255).round().byte().numpy()
    picture = Image.fromarray(levels.transpose(1, 2, 0) if len(levels) == 3 else levels[0])
    picture.save(path.with_name(f"{path.name}.png"))


@lru_cache(maxsize=1)
def _codec(config: str) -> Codec:
    return codec_from_config(json.loads(config))

"""One file to one code, and one shard of files to one shard of the store."""

import json
import math
import os
import stat
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_deepfixcx.codecs import Codec, codec_from_config
from monai_deepfixcx.data.code_store import CodeStore, ShardWriter
from monai_deepfixcx.data.reading import SMALL, Color, Radiograph, Scale, UnreadableImage, read_contents, read_image
from monai_deepfixcx.pipeline.workspace import Entry, Workspace, shard_name

# How many files the system is asked to fetch ahead of the one being read, and how much of each at most.
_AHEAD, _AHEAD_BYTES = 8, 2**24
_NO_FILE = "not a file but a folder, a pipe or a device"
_TOGETHER = 2**19  # bytes of small images that are read one after the other, then encoded while they are in fast memory


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

    @cached_property
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

    Of several threads, one encodes at a time, while others bring to the disk what they have encoded.

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
    store = _open_store(workspace.output, settings.codec)
    images = workspace.output / "images"
    entries: list[Entry] = []
    # Codes go to disk as they are made: a shard of images of whatever size holds one of them in memory.
    parts: dict[tuple[int, ...], ShardWriter] = {}
    unfinished = ExitStack()

    def encode(identifier: str, source: str, image: Radiograph | str) -> Entry:
        if isinstance(image, str):
            return Entry(identifier, source, reason=image)
        try:
            values = torch.from_numpy(image.values)
            code, spatial_shape = encode_pixels(values, store.codec, settings.size, image.white)
        except Exception as error:
            return Entry(identifier, source, reason=_reason(error))
        if settings.images:
            _write_image(images / identifier, store.codec, code, spatial_shape, image.affine)
        shape = tuple(code.shape)
        if shape not in parts:
            part = store.begin_shard(f"{shard.name}-{'x'.join(map(str, shape))}", len(shard.files))
            parts[shape] = unfinished.enter_context(part)
        parts[shape].add(code, {"id": identifier, "spatial_shape": list(spatial_shape)})
        return Entry(identifier, source, "", image.source_bytes, image.values.size, code.numel())

    with unfinished:
        with _alone_without_warnings():
            for item in chain.from_iterable(_read(shard, workspace.source, settings)):
                entries.append(encode(*item))
                progress(len(entries))
        with writing():
            workspace.record(shard.name, entries)
            for part in parts.values():
                part.commit()
    return entries


def _read(shard: Shard, folder: Path, settings: Settings) -> Iterator[list[tuple[str, str, Radiograph | str]]]:
    """Pseudonym, path, and image or why there is none, of small images several at a time.

    A processor that does one thing a few times in a row has its code and tables at hand.
    """
    images: list[tuple[str, str, Radiograph | str]] = []
    size = 0
    paths = [folder / source for source in shard.files.values()]
    for path, file, (identifier, source) in zip(paths, _opened_ahead(paths), shard.files.items(), strict=True):
        try:
            image = _read_opened(path, file, settings.color, settings.scale)
        except Exception as error:
            images.append((identifier, source, _reason(error)))  # not the error, which would keep the file's bytes
        else:
            images.append((identifier, source, image))
            size += image.values.nbytes
        if size >= _TOGETHER or len(images) == _AHEAD:
            yield images
            images, size = [], 0
    yield images


def _opened_ahead(paths: Sequence[Path]) -> Iterator[int | OSError]:
    """Each file's descriptor, or why there is none, while the system fetches the next few from disk or network."""
    opened: deque[int | OSError] = deque()
    to_open = iter(paths)
    try:
        for _ in paths:
            opened.extend(map(_open_to_fetch, islice(to_open, _AHEAD + 1 - len(opened))))
            yield opened[0]
            _close(opened.popleft())
    finally:
        for file in opened:
            _close(file)


def _open_to_fetch(path: Path) -> int | OSError:
    """Begin to read a file into the system's cache, without a thread or memory of ours."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe would wait for ever
    except OSError as error:
        return error
    with suppress(OSError, AttributeError):  # a pipe; macOS
        os.posix_fadvise(file, 0, _AHEAD_BYTES, os.POSIX_FADV_WILLNEED)
    return file


def _close(file: int | OSError) -> None:
    if isinstance(file, int):
        os.close(file)


def _read_opened(path: Path, file: int | OSError, color: Color, scale: Scale) -> Radiograph:
    if isinstance(file, OSError):
        raise file
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImage(_NO_FILE)
    if status.st_size > SMALL:
        return read_image(path, color=color, scale=scale)
    data = b"".join(iter(partial(os.read, file, status.st_size + 1), b""))  # until there is no more
    return read_contents(data, path.suffix, color=color, scale=scale)


def read_quietly(path: Path, color: Color = "grey", scale: Scale = "auto") -> Radiograph:
    """`read_image` of a file, without warnings.

    Raises:
        UnreadableImage: it is no file, or no image.
        OSError: it is not there.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
        raise UnreadableImage(_NO_FILE)
    with _alone_without_warnings():
        return read_image(path, color=color, scale=scale)


_one_at_a_time = threading.Lock()


@contextmanager
def _alone_without_warnings() -> Iterator[None]:
    """A decoder's may quote the header, ours (on spacing) do not matter to a code.

    They can only be silenced for all threads at once, hence for one after the other.
    """
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def encode_pixels(
    pixels: Tensor, codec: Codec, size: int | None = None, white: float = 1
) -> tuple[Tensor, tuple[int, ...]]:
    """Encode one image ``[C, *S]`` in [0, `white`].

    Returns:
        The code ``[C, D]`` and the spatial shape that was encoded.

    Raises:
        ValueError: the image has the wrong number of axes, holds NaN or infinite values or one value only, or is too
            small for the codec.
    """
    if pixels.ndim != codec.spatial_dims + 1:
        spatial = "x".join(map(str, pixels.shape[1:]))
        raise ValueError(
            f"a {pixels.ndim - 1}-D image ({spatial}), and this run encodes {codec.spatial_dims}-D ones: run again "
            f"with --spatial-dims {pixels.ndim - 1} into another folder"
        )
    comparable = pixels.float() if pixels.dtype == torch.uint16 else pixels  # as torch has it
    least, greatest = map(float, comparable.aminmax())  # NaN if there is one
    if not (math.isfinite(least) and math.isfinite(greatest)):
        raise ValueError("has NaN or infinite pixels")
    if least == greatest:
        raise ValueError("all pixels have one value: an empty image or a failed export")
    if size is not None:
        pixels, white = crop_to_square(pixels / white, size), 1
    spatial_shape = tuple(pixels.shape[1:])
    with torch.no_grad():
        return codec.encode(pixels[None], white)[0], spatial_shape


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
def _open_store(output: Path, config: str) -> CodeStore:
    return CodeStore.open(output, codec_from_config(json.loads(config)))

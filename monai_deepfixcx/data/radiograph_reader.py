"""The image reader for MONAI's ``LoadImage``; `monai_deepfixcx.data.reading` does the reading."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys
from numpy.typing import NDArray

from monai_deepfixcx.data.reading import Color, Scale, UnreadableImage, read_image, read_series, recognize
from monai_deepfixcx.data.reading.image_files import PathLike
from monai_deepfixcx.data.reading.stored_image import check_options


class RadiographReader(ImageReader):  # type: ignore[misc,unused-ignore]
    """Read DICOM, NIfTI, PNG, JPEG and TIFF in one polarity, on one scale, and without what identifies anyone.

    Arrays are channel first, and ``[rows, columns]`` as displayed; `read_image` documents formats, colour and
    scale. A list of files, or a folder, is one DICOM series and becomes a volume [rows, columns, slices].

    The metadata are the affine and the shape, and nothing else of the header. ``LoadImage`` itself adds the
    path as ``filename_or_obj``.

    Args:
        color: "grey" or "keep", see `read_image`.
        scale: "auto", "range", "minmax", "window" or "none", see `read_image`.

    Raises:
        ValueError: If `color` or `scale` is unknown.

    Example:
        >>> import tempfile
        >>> from monai.transforms import LoadImage
        >>> from PIL import Image
        >>> load = LoadImage(reader=RadiographReader(), ensure_channel_first=True)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (3, 2), 51).save(folder + "/three_columns_two_rows.png")
        ...     image = load(folder + "/three_columns_two_rows.png")
        >>> image.shape
        torch.Size([1, 2, 3])
        >>> round(image.max().item(), 3)
        0.2
    """

    def __init__(self, color: Color = "grey", scale: Scale = "auto") -> None:
        check_options(color, scale)
        super().__init__()
        self.color: Color = color
        self.scale: Scale = scale

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Whether every file is of a supported format, by content; of a folder, this is only known when read.

        Args:
            filename: A path or several.
        """
        try:
            for path in _paths(filename):
                if not path.is_dir():
                    recognize(path)
        except UnreadableImage:
            return False
        return True

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> list[Path]:
        """Only remember the paths; `get_data` reads.

        If this method failed, ``LoadImage`` would try MONAI's own readers on the same file: those read what we
        refuse for a reason, in another polarity, and put the patient's name into the metadata.

        Args:
            data: A path or several.
            kwargs: None are known.

        Raises:
            ValueError: If there are keyword arguments.
        """
        if kwargs:
            raise ValueError(f"read takes no options but those of RadiographReader(...); got {', '.join(kwargs)}")
        return _paths(data)

    def get_data(self, img: Sequence[PathLike] | PathLike) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Read what `read` remembered.

        Args:
            img: The value of `read`.

        Returns:
            Pixels ``[C, *spatial]`` and metadata for a MetaTensor.

        Raises:
            UnreadableImage: As for `read_image` and `read_series`.
        """
        paths = _paths(img)
        read = read_image if len(paths) == 1 else read_series
        source: Any = paths[0] if len(paths) == 1 else paths
        image = read(source, color=self.color, scale=self.scale)
        return image.pixels, {
            MetaKeys.AFFINE: image.affine,
            MetaKeys.ORIGINAL_AFFINE: image.affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.asarray(image.pixels.shape[1:]),
            MetaKeys.ORIGINAL_CHANNEL_DIM: 0,
            MetaKeys.SPACE: SpaceKeys.RAS,
        }


def _paths(data: Sequence[PathLike] | PathLike) -> list[Path]:
    return [Path(data)] if isinstance(data, str | Path) or not isinstance(data, Sequence) else [Path(p) for p in data]

"""Images in, codes on disk, and data lists.

Names load on first use: a worker that only encodes files need not wait for MONAI.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_deepfixcx.data.code_store import CodeItem, CodeStore, Row, ShardProblem
    from monai_deepfixcx.data.datalist import make_datalist
    from monai_deepfixcx.data.load_code import LoadCode, LoadCodeD, LoadCoded, LoadCodeDict

_HOMES = {
    "code_store": ("CodeItem", "CodeStore", "Row", "ShardProblem"),
    "datalist": ("make_datalist",),
    "load_code": ("LoadCode", "LoadCodeD", "LoadCodeDict", "LoadCoded"),
    "phantom": ("PhantomRadiographs",),
    "radiograph_reader": ("RadiographReader",),
    "reading": ("Radiograph", "UnreadableImage", "read_image", "read_series"),
}

__all__ = [
    "CodeItem",
    "CodeStore",
    "LoadCode",
    "LoadCodeD",
    "LoadCodeDict",
    "LoadCoded",
    "PhantomRadiographs",
    "Radiograph",
    "RadiographReader",
    "Row",
    "ShardProblem",
    "UnreadableImage",
    "make_datalist",
    "read_image",
    "read_series",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

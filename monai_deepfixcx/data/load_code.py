"""Read codes back from a store, inside a MONAI pipeline."""

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from torch import Tensor

from monai_deepfixcx.data.code_store import CodeStore


class LoadCode(Transform):
    """Load the code that ``"FOLDER#ID"`` names, as `CodeStore.datalist` and ``deepfixcx index`` write it.

    >>> import tempfile, torch
    >>> from monai_deepfixcx.codecs import DeepFixCXCodec
    >>> codec = DeepFixCXCodec(levels=2, patch_size=3)
    >>> store = CodeStore.open(tempfile.mkdtemp(), codec)
    >>> store.append("first", codec.encode(torch.rand(1, 1, 32, 32)), [{"id": "a", "spatial_shape": [32, 32]}])
    >>> LoadCode()(store.datalist()[0]["code"]).shape
    torch.Size([1, 144])
    """

    def __init__(self) -> None:
        self._stores: dict[str, CodeStore] = {}

    def __call__(self, reference: str) -> Tensor:
        """Load one code, ``[C, D]``.

        Raises:
            ValueError: the reference is not ``"FOLDER#ID"``.
            KeyError: the store has no code of that id.
        """
        folder, separator, identifier = str(reference).rpartition("#")
        if not separator:
            raise ValueError(
                f"a code is referred to as 'FOLDER#ID', as `deepfixcx index` writes it; got {reference!r}."
            )
        if folder not in self._stores:
            self._stores[folder] = CodeStore(folder)
        return self._stores[folder].code_of(identifier)


class LoadCoded(MapTransform):
    """Dictionary version of `LoadCode`.

    Args:
        keys: that hold references to codes.
        allow_missing_keys: pass over keys an item does not have.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.load = LoadCode()

    def __call__(self, data: Mapping[Any, Any]) -> dict[Hashable, Any]:
        """Replace each reference by its code ``[C, D]``."""
        return {**data, **{key: self.load(data[key]) for key in self.key_iterator(dict(data))}}


LoadCodeD = LoadCodeDict = LoadCoded

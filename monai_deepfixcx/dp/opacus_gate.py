"""The one place that imports Opacus, an optional package."""

import importlib
from typing import Any


def opacus_module(name: str) -> Any:
    """Import ``opacus`` or one of its modules.

    Args:
        name: such as ``"opacus.optimizers"``.

    Raises:
        ImportError: Opacus is not installed; the text names the extra to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            "differentially private training needs Opacus, which is not installed. "
            "Install the extra: pip install 'monai-deepfixcx[dp]'."
        ) from error

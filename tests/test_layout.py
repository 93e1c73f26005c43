"""Imports point one way, and importing the package does no work."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "monai_deepfixcx"
LAYERS = [
    {"codecs"},
    {"transforms", "data", "networks", "attribution", "attacks", "metrics"},
    {"handlers", "dp", "pipeline", "report"},
    {"cli", "terminal", "label"},
]
CODEC_PACKAGES = {"torch", "numpy", "pywt", "numba", "llvmlite", "triton", "monai_deepfixcx"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imported_names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module or ""


def layer_of(part: str) -> int:
    (layer,) = (number for number, parts in enumerate(LAYERS) if part in parts)
    return layer


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES])
def test_imports_point_to_lower_layers(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        assert not list(imported_names(path))
        return
    for name in imported_names(path):
        parts = name.split(".")
        if parts[0] == "monai_deepfixcx" and len(parts) > 1:
            assert layer_of(parts[1]) <= layer_of(own), f"{path} imports {name}"
        if own == "codecs" and parts[0] not in sys.stdlib_module_names:
            assert parts[0] in CODEC_PACKAGES, f"{path} imports {name}"


def test_there_is_no_utils_module() -> None:
    assert not [path for path in MODULES if path.stem in {"utils", "util", "helpers", "common"}]


def test_help_and_package_import_nothing_heavy() -> None:
    script = "import sys, monai_deepfixcx.cli; print([m for m in ('torch', 'monai', 'matplotlib') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"

"""How the loops are compiled and kept."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from monai_deepfixcx.codecs.kernels.jit import scale_run

_CALLS = (
    "from called import number\nfrom monai_deepfixcx.codecs.kernels.jit import jit\n\n@jit\ndef caller(): return {}\n"
)
_CALLED = "from monai_deepfixcx.codecs.kernels.jit import jit\n\n@jit\ndef number(): return {}\n"
_TYPED = "from monai_deepfixcx.codecs.kernels.jit import jit\n\n@jit\ndef first(array): return float(array[0])\n"
_RUN_TYPED = """
import sys, numpy, typed
print(typed.first(numpy.ones(1, sys.argv[1])), sum(typed.first.stats.cache_hits.values()))
"""
_RUN = "import calls; print(calls.caller(), sum(calls.caller.stats.cache_hits.values()))"


def test_what_was_compiled_is_kept_until_a_file_beside_it_changes(tmp_path: Path) -> None:
    """An update of the package changes some of its files; what the others call must not run as it was."""

    def run() -> str:
        command = [sys.executable, "-c", _RUN]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    (tmp_path / "calls.py").write_text(_CALLS.format("number()"))
    (tmp_path / "called.py").write_text(_CALLED.format(1))
    assert [run(), run()] == ["1 0", "1 1"]
    (tmp_path / "called.py").write_text(_CALLED.format(2))
    assert [run(), run()] == ["2 0", "2 1"]


def test_machine_code_of_two_types_that_are_saved_at_once_is_not_mixed_up(tmp_path: Path) -> None:
    """Every process writes its files where both others have looked already, as workers on a new machine do."""
    (tmp_path / "typed.py").write_text(_TYPED)

    def run(dtype: str) -> str:
        command = [sys.executable, "-c", _RUN_TYPED, dtype]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    def kept() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (tmp_path / "__pycache__").glob("typed.*.nb?")}

    saved = []
    for dtype in ("uint8", "float64"):
        assert run(dtype) == "1.0 0"
        saved.append(kept())
        for path in kept():
            path.unlink()
    for files in saved:
        for path, data in files.items():
            path.write_bytes(data)
    assert [run("float64"), run("uint8")] == ["1.0 1", "1.0 1"]


def test_a_damaged_file_of_machine_code_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text(_TYPED)
    command = [sys.executable, "-c", "import numpy, typed; print(typed.first(numpy.ones(1)))"]
    for _ in range(2):
        assert subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout == "1.0\n"
        (kept,) = (tmp_path / "__pycache__").glob("typed.*.nbc")
        kept.write_bytes(kept.read_bytes()[:100])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", range(21))
def test_runs_of_every_length_are_scaled(count: int, dtype: type[np.floating]) -> None:
    source, target = np.arange(30, dtype=dtype), np.full(30, -1, dtype=dtype)
    scale_run(source, np.uint64(3), np.uint64(count), dtype(0.5), target, np.uint64(5))
    np.testing.assert_array_equal(target[5 : 5 + count], source[3 : 3 + count] / 2)
    np.testing.assert_array_equal(np.delete(target, np.arange(5, 5 + count)), -1)

"""The GPU encoder against the torch path and the slow reference.

The same tests run on a CUDA device, where there is one, and on the CPU through Triton's interpreter, which
`test_all_of_this_in_the_interpreter` starts in a process of its own. What only a compiler can show is shown by
compiling for a GPU that need not be there.
"""

import importlib.util
import math
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from monai_deepfixcx.codecs import FEATURES, DeepFixCXCodec, kernels
from monai_deepfixcx.codecs.kernels import gpu
from tests import reference
from tests.codecs.kernels.test_haar import by_torch, images_of

ALL: Any = tuple(feature for feature in FEATURES if feature != "median")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
not_interpreted = pytest.mark.skipif(INTERPRETED, reason="Triton's interpreter compiles nothing")
once_per_session = settings(
    deadline=None, max_examples=100 if torch.cuda.is_available() else 40, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def device() -> torch.device:
    if INTERPRETED:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device; test_all_of_this_in_the_interpreter runs it on the CPU")
    return torch.device("cuda", 0)


def on_gpu(codec: DeepFixCXCodec, images: Tensor) -> Tensor:
    levels = codec.levels_for(images.shape[2:])
    return kernels.encode_haar_gpu(images, levels, codec.patch_size, codec.features)


@needs_triton
@once_per_session
@given(
    levels=st.integers(1, 5),
    grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    features=st.sets(st.sampled_from(ALL), min_size=1, max_size=3),
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    seed=st.integers(0, 999),
)
def test_equals_the_torch_path(
    device: torch.device, levels: int, grid: tuple[int, int], features: set[Any], shape: tuple[int, int], seed: int
) -> None:
    assume(all(-(-n // 2**levels) >= p for n, p in zip(shape, grid, strict=True)))
    codec = DeepFixCXCodec(levels, grid, features=sorted(features))
    images = images_of((1, 1, *shape), seed).double().to(device) - 0.2
    # sum_pos and sum_neg drop what lies within 1e-6 of zero: rounding decides on which side a coefficient falls.
    torch.testing.assert_close(on_gpu(codec, images), by_torch(codec, images), rtol=1e-9, atol=2e-5)


@needs_triton
@pytest.mark.parametrize(
    ("levels", "grid", "shape"),
    [
        (3, (2, 3), (41, 50)),  # patches padded with zeros on both sides
        (1, (5, 9), (10, 18)),  # patches of one block, several in a tile
        (6, (2, 1), (70, 100)),  # the largest block that registers hold
        (7, (1, 1), (130, 20)),  # a level taken while loading
        (1, (1, 1), (100, 190)),  # a patch shared by several programs
    ],
)
def test_equals_the_reference(device: torch.device, levels: int, grid: tuple[int, int], shape: tuple[int, int]) -> None:
    image = images_of((1, 1, *shape), seed=5).double() - 0.3
    images = torch.cat([image, -image])  # maxima below zero and minima above it
    expected = reference.over_channels(lambda x: reference.encode(x, levels, grid, "db1", ALL), images.numpy())
    codes = on_gpu(DeepFixCXCodec(levels, grid, features=ALL), images.to(device))
    torch.testing.assert_close(codes.cpu(), torch.from_numpy(expected), rtol=1e-9, atol=2e-5)


@needs_triton
@pytest.mark.parametrize(
    "dtype",
    [torch.uint8, torch.uint16, torch.int16, torch.float16, torch.bfloat16, torch.float32, torch.float64],
)
def test_reads_every_type_of_pixel(device: torch.device, dtype: torch.dtype) -> None:
    images = (images_of((1, 2, 33, 48)) * (1 if dtype.is_floating_point else 200)).to(dtype).to(device)
    codec = DeepFixCXCodec(2, 3, features=["l1", "max", "l2"])
    codes = on_gpu(codec, images)
    assert codes.dtype == (dtype if dtype.is_floating_point else torch.float32)
    digits = torch.finfo(codes.dtype).eps
    expected = by_torch(codec, images.double()).to(codes.dtype)
    torch.testing.assert_close(codes, expected, rtol=8 * digits, atol=8 * digits * float(expected.max()))


@needs_triton
@pytest.mark.parametrize(("levels", "grid", "shape"), [(2, (3, 2), (31, 45)), (1, (1, 1), (100, 190))])
def test_bits_depend_on_neither_batch_nor_run_nor_memory_layout(
    device: torch.device, levels: int, grid: tuple[int, int], shape: tuple[int, int]
) -> None:
    codec, images = DeepFixCXCodec(levels, grid, features=["l1", "l2"]), images_of((2, 2, *shape)).to(device)
    codes = on_gpu(codec, images)
    assert torch.equal(on_gpu(codec, images), codes)
    assert torch.equal(torch.cat([on_gpu(codec, image[None]) for image in images]), codes)
    assert torch.equal(on_gpu(codec, images.permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2)), codes)
    assert torch.equal(on_gpu(codec, images * 8)[..., ::2], codes[..., ::2] * 8)


@needs_triton
def test_the_codec_takes_it_unless_gradients_are_recorded(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = images_of((2, 2, 30, 45)).to(device)
    if INTERPRETED:  # there, images lie on the CPU, where the codec takes it for no GPU
        monkeypatch.setattr(kernels, "gpu_takes", lambda images, features: not images.requires_grad)
    codec = DeepFixCXCodec(2, 3)
    assert torch.equal(codec.encode(images), on_gpu(codec, images))
    assert torch.equal(codec.encode((images * 255).byte()), on_gpu(codec, (images * 255).byte()))
    centred = images - images.mean(dim=(2, 3), keepdim=True)
    assert torch.equal(DeepFixCXCodec(2, 3, zero_mean=True).encode(images), on_gpu(codec, centred))
    assert codec.encode(images.clone().requires_grad_()).requires_grad
    if not INTERPRETED:
        assert kernels.gpu_takes(images, ALL)
        assert not kernels.gpu_takes(images, FEATURES)
        assert not kernels.gpu_takes(images[:0], ALL)
        assert not kernels.gpu_takes(images > 0, ALL)
        everything = DeepFixCXCodec(2, 3, features=FEATURES)
        torch.testing.assert_close(everything.encode(images), by_torch(everything, images))
        per_image = torch.func.vmap(lambda image: codec.encode(image[None])[0])(images)
        torch.testing.assert_close(per_image, codec.encode(images))


@needs_triton
@not_interpreted
@pytest.mark.skipif(torch.cuda.is_available(), reason="tests above run on the CUDA device")
def test_all_of_this_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    place = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[3]
    child = subprocess.run(command, env=place, cwd=root, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stdout
    passed = re.search(r"(\d+) passed", child.stdout)
    assert passed is not None, child.stdout
    assert int(passed[1]) >= 16, child.stdout


class _AbsentGpu:
    """As much of a Triton driver as compiling needs."""

    def __init__(self, backend: str, architecture: int | str, threads: int) -> None:
        from triton.backends.compiler import GPUTarget

        self.target = GPUTarget(backend, architecture, threads)

    def get_current_device(self) -> str:
        return str(self.target)  # a device's compiled kernels are kept under this name

    def get_current_stream(self, device: str) -> int:
        return 0

    def get_current_target(self) -> Any:
        return self.target


@needs_triton
@not_interpreted
@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize(
    ("levels", "features", "dtype", "shape"),
    [
        (1, ("l1",), torch.uint16, (320, 320)),
        (4, ("l1",), torch.float32, (320, 320)),
        (6, ALL, torch.bfloat16, (320, 320)),
        (8, ("l1", "max"), torch.float64, (256, 300)),
    ],
)
def test_compiles_to_machine_code(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    architecture: int,
    levels: int,
    features: tuple[str, ...],
    dtype: torch.dtype,
    shape: tuple[int, int],
) -> None:
    """For a GPU that need not be there, by the very calls that launch the kernels where it is."""
    import triton
    from triton.runtime.jit import JITFunction

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(triton.runtime.driver, "_active", _AbsentGpu("cuda", architecture, 32))
    compiled, run = [], JITFunction.run

    def compile_only(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        compiled.append(run(self, *arguments, grid=grid, warmup=True, **options))

    monkeypatch.setattr(JITFunction, "run", compile_only)
    images = torch.zeros(1 + math.prod(shape), dtype=dtype)
    kernels.encode_haar_gpu(images[:-1].reshape(1, 1, *shape), levels, (1, 1), features)
    at_even_address = compiled.copy()
    compiled.clear()
    kernels.encode_haar_gpu(images[1:].reshape(1, 1, *shape), levels, (1, 1), features)
    assert compiled == at_even_address  # and hence, whatever the batch an image lies in, the order of sums is one
    parts = gpu._plan(levels, *shape, 1, 1).parts
    assert len(compiled) == (1 if parts == 1 else 2)
    for kernel in compiled:
        assert f".target sm_{architecture}" in kernel.asm["ptx"]
        assert kernel.asm["cubin"].startswith(b"\x7fELF")
        # No sum whose order is left to chance, no product in reduced precision, none contracted with a sum.
        assert not re.search(r"\b(atom|red|mma|wgmma|fma)\.", kernel.asm["ptx"])
        assert "tf32" not in kernel.asm["ptx"]


@not_interpreted
def test_where_triton_cannot_compile_the_torch_path_is_taken_with_a_warning() -> None:
    gpu.gpu_works.cache_clear()
    try:
        if importlib.util.find_spec("triton") is None:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert not gpu.gpu_works(torch.device("cpu"))
        else:
            with pytest.warns(
                RuntimeWarning, match=r"Triton cannot compile for cpu \(\w+: .*Triton needs a C compiler"
            ):
                assert not gpu.gpu_works(torch.device("cpu"))
    finally:
        gpu.gpu_works.cache_clear()


@not_interpreted
def test_triton_is_not_imported_before_it_is_needed() -> None:
    script = (
        "import sys, torch; from monai_deepfixcx.codecs import DeepFixCXCodec;"
        "DeepFixCXCodec(1, 1).encode(torch.zeros(1, 1, 4, 4).half()); print('triton' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


@settings(deadline=None)
@given(levels=st.integers(1, 9), shape=st.tuples(st.integers(1, 4096), st.integers(1, 4096)), data=st.data())
def test_programs_cover_every_block_of_every_patch(levels: int, shape: tuple[int, int], data: st.DataObject) -> None:
    grid = tuple(data.draw(st.integers(1, min(160, -(-n // 2**levels)))) for n in shape)
    plan = gpu._plan(levels, *shape, *grid)
    block = 2**plan.inner
    down, across = plan.tile[0] // block, plan.tile[1] // (block * plan.patches)
    assert plan.outer + plan.inner == levels
    assert all(p * n >= size for p, n, size in zip(grid, plan.patch, plan.bands, strict=True))
    assert plan.tiles[0] * down >= plan.patch[0]
    assert plan.tiles[1] * across >= plan.patch[1]
    assert plan.patches == 1 or plan.tiles[1] == 1
    assert plan.groups * plan.patches >= grid[1]
    assert (plan.parts - 1) * plan.tiles_a_part < plan.tiles[0] * plan.tiles[1] <= plan.parts * plan.tiles_a_part
    assert plan.parts <= 64
    for power in (*plan.tile, plan.patches):
        assert math.log2(power).is_integer()
    assert plan.tile[0] * plan.tile[1] <= 64 * 64

"""A folder as hospitals have them, and the command run in this process."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from monai_deepfixcx import cli
from monai_deepfixcx.data.code_store import CodeStore
from monai_deepfixcx.pipeline.engines.local import ThisProcess
from tests import reference
from tests.pipeline.engine_runs import FILES, ROOT, SHARDS, Cluster, cluster_in, encode_all

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``deepfixcx`` with these arguments; its exit status, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["deepfixcx", *map(str, arguments)])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return status, captured.out, captured.err

    return run


def write_picture(path: Path, seed: int, size: tuple[int, int] = (64, 72)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((reference.golden_image(seed, (1, 1, *size))[0, 0] * 255).astype(np.uint8)).save(path)


GOOD = ["ward-a/scan.png", "ward-b/scan.png", "ward-b/scan.jpg", "ward-c/deep.tif"]
BAD = {
    "cut.png": "truncated",
    "empty.dcm": "empty file",
    "letter.dcm": "not an image",
    "nan.tif": "has NaN or infinite pixels",
    "black.png": "all pixels have one value",
    "tiny.png": "patch_size must be at most the subbands' size, 2x2 for a 8x8 image at levels=2; got 3x3",
    "volume.nii.gz": "a 3-D image (12x14x10), and this run encodes 2-D ones: run again with --spatial-dims 3",
}


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Four good images, two of them of one name, and one of every kind of bad file; and a hidden one."""
    folder = tmp_path / "in"
    for seed, name in enumerate(GOOD[:3]):
        write_picture(folder / name, seed)
    (folder / "ward-c").mkdir()
    tifffile.imwrite(folder / GOOD[3], (reference.golden_image(9, (1, 1, 80, 64))[0, 0] * 65535).astype(np.uint16))
    write_picture(folder / "cut.png", 4, (200, 200))
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:9000])
    (folder / "empty.dcm").touch()
    (folder / "letter.dcm").write_text("Dear colleague, the images are on the disc.")
    tifffile.imwrite(folder / "nan.tif", np.full((64, 64), np.nan, dtype=np.float32))
    Image.fromarray(np.zeros((64, 64), dtype=np.uint8)).save(folder / "black.png")
    write_picture(folder / "tiny.png", 5, (8, 8))
    volume = reference.golden_image(6, (1, 1, 12, 14, 10))[0, 0]
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([-2.0, -2, 3, 1])), folder / "volume.nii.gz")
    (folder / ".DS_Store").write_bytes(b"x")
    return folder


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in a folder, for engines to encode."""
    folder = tmp_path_factory.mktemp("engines") / "in"
    for number in range(FILES):
        write_picture(folder / f"Mustermann-{number}.png", number, (48, 48))
    return folder


@pytest.fixture(scope="session", name="reference")
def reference_output(source: Path) -> Path:
    """What one process makes of it."""
    output = source.with_name("reference")
    assert encode_all(source, output, ThisProcess()).encoded == FILES
    assert len(CodeStore(output).shards) == SHARDS
    return output


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Dask cluster of two workers."""
    with cluster_in(tmp_path_factory.mktemp("cluster") / "dask", workers=2) as cluster:
        yield cluster


STAND_IN = {
    "sbatch": 'script=$(cat "$1"); setsid bash -c "$script" > "$0.log" 2>&1 &\n'
    'echo $! > "$0.pid"; echo "Submitted batch job $!"',
    "scancel": 'echo "$1" > "$0.done"; kill -- "-$1"',
}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with what stands in for SLURM: it runs each job script at once, on this machine."""
    pytest.importorskip("dask_jobqueue", reason="the extra slurm is not installed")
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, script in STAND_IN.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with dask.config.set({"jobqueue.slurm.interface": "lo", "jobqueue.slurm.queue": "long"}):
        yield folder

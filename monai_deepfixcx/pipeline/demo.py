"""The main job on real images that come with Python packages; nothing is fetched at run time."""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from monai_deepfixcx.codecs import Codec, DeepFixCXCodec, HeartSpotCodec
from monai_deepfixcx.data.code_store import CodeStore
from monai_deepfixcx.pipeline.attack import AttackSettings, attack_population, headlines
from monai_deepfixcx.pipeline.attack_data import phantom_population
from monai_deepfixcx.pipeline.inspect import draw
from monai_deepfixcx.pipeline.privatize import Summary, privatize, settings_for
from monai_deepfixcx.pipeline.workspace import Workspace, WorkspaceError
from monai_deepfixcx.report import render_page, write_card

_SIZE = 320
_CHEST = "RG1_UNCR.dcm"
_BRAIN = "brain.nii.gz"
_PYDICOM_FILES = (_CHEST, "RG1_J2KR.dcm", "RG3_UNCR.dcm")
# Those that need no long training.
_QUICK_ATTACKS = (
    *("MeanImage", "NearestNeighbor", "DecoderAttack", "LowPassThumbnail", "MeanFill", "LinearInverse", "LinearMMSE"),
    *("EuclideanLinkage", "FeatureLinkage", "LearnedLinkage", "EuclideanLinkage after reconstruction"),
)


@dataclass(frozen=True)
class Step:
    """One part of the demo that is done.

    Attributes:
        title: what it was.
        codec: it encoded with.
        summary: of the run.
        damaged: shards that did not verify.
        pictures: to look at.
    """

    title: str
    codec: Codec
    summary: Summary
    damaged: int
    pictures: list[Path]


def run_demo(data: Path | None, output: Path) -> Iterator[Step]:
    """Privatize the demo images, and the folder `data` if given; leave stores and pictures in `output`.

    The radiographs are joined by a truncated copy and a text file named .dcm, to show what becomes of them.

    Raises:
        WorkspaceError: the packages with the images are missing, or `data` or `output` cannot be used.
    """
    images = output / "images"
    _clear(output)
    _gather(images / "radiographs", images / "volumes")
    deepfixcx, heartspot = DeepFixCXCodec(4, 5), HeartSpotCodec("rhline+heart", (_SIZE, _SIZE))
    chest = images / "radiographs" / _CHEST
    brain = images / "volumes" / _BRAIN
    yield _run("radiographs with DeepFixCX", images / "radiographs", output / "deepfixcx", deepfixcx, _SIZE, chest)
    yield _run("radiographs with HeartSpot", images / "radiographs", output / "heartspot", heartspot, _SIZE, chest)
    volumes = DeepFixCXCodec(2, 4, spatial_dims=3)
    yield _run("a brain volume with DeepFixCX in 3-D", images / "volumes", output / "volumes", volumes, None, brain)
    if data is not None:
        yield _run(f"{data} with DeepFixCX", data, output / "yours", DeepFixCXCodec(2, 5), None, None)


@dataclass(frozen=True)
class TrainedBundle:
    """A bundle trained on the synthetic phantom.

    Attributes:
        name: of the bundle.
        images: synthetic test images.
        patients: synthetic test patients, none of them trained on.
        auroc: label -> (value, low, high) of the AUROC's 95 % interval over patients.
        report: everything evaluate.yaml measured, as Markdown.
    """

    name: str
    images: int
    patients: int
    auroc: dict[str, tuple[float, float, float]]
    report: Path


def train_bundles(repository: Path, output: Path) -> Iterator[TrainedBundle]:
    """Train and evaluate both bundles of the repository with configs/demo.yaml, in processes of their own.

    Raises:
        WorkspaceError: a run failed; the message names its log.
    """
    for name in ("deepfixcx_classification", "heartspot_cardiomegaly"):
        folder = (output / "bundles" / name).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        for config in ("train", "evaluate"):
            _run_bundle(repository, name, config, folder, output)
        report = json.loads((folder / "eval" / "metrics.json").read_text())
        labels = report["labels"].items()
        auroc = {label: tuple(found["auroc"][end] for end in ("value", "low", "high")) for label, found in labels}
        yield TrainedBundle(name, report["images"], report["patients"], auroc, folder / "eval" / "metrics.md")


def train_privately(output: Path) -> tuple[str, Path] | None:
    """Train a head on codes of a small synthetic phantom, without privacy and at epsilon 8.

    Returns:
        A line that says what came, and the whole table; None where Opacus is not installed.
    """
    if importlib.util.find_spec("opacus") is None:
        return None
    from monai_deepfixcx.pipeline.private_sweep import Contender, film_parts, publicly_normalized_mlp, run_sweep

    codec, labels, delta = DeepFixCXCodec(2, 8), ["Cardiomegaly", "Effusion"], 1e-4
    build = partial(publicly_normalized_mlp, codec, (64, 64), out_channels=len(labels), inputs="codes")
    contender = Contender("DeepFixCX codes", build, codec, public_statistics=["normalization"])
    folder = output / "private"
    parts = film_parts((800, 100, 300))
    result = run_sweep(parts, [contender], labels, folder, (None, 8.0), delta, figures=False, data="SYNTHETIC films")
    plain, private = result["contenders"][contender.name]["runs"]
    aurocs = [run["report"]["mean"]["auroc"] for run in (plain, private)]
    without, within = (f"{a['value']:.3f} ({a['low']:.3f}-{a['high']:.3f})" for a in aurocs)
    line = (
        f"mean AUROC {without} without privacy, {within} at epsilon {private['privacy']['epsilon']:.1f} "
        f"(delta {delta:g}, protecting one {result['unit']}), on {len(parts['testing'])} synthetic films"
    )
    return line, folder / "sweep.md"


def attack_phantom(output: Path) -> tuple[list[str], Path]:
    """Attack codes of a small synthetic phantom with the quick attacks, and write the privacy card.

    Returns:
        The card's headlines, and the page.
    """
    population = phantom_population({"patients": 40, "visits": 3}, side=64, seed=0)
    codecs = [DeepFixCXCodec(2, 8), DeepFixCXCodec(3, 4), HeartSpotCodec("rhline+heart", (64, 64))]
    settings = AttackSettings(_QUICK_ATTACKS, samples=300, title="Privacy card of the demo")
    card = attack_population(population, codecs, settings)
    output.mkdir(parents=True, exist_ok=True)
    write_card(card, output / "privacy_card.json")
    page = output / "privacy_card.html"
    page.write_text(render_page(card), encoding="utf-8")
    return headlines(card), page


def _run_bundle(repository: Path, name: str, config: str, folder: Path, output: Path) -> None:
    overlays = [repository / "bundles" / name / "configs" / f"{config}.yaml", repository / "configs" / "demo.yaml"]
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str([str(path) for path in overlays])]
    places = {"dataset_dir": output.resolve() / "bundles" / "data", "ckpt_dir": folder / "models"}
    for key, value in {**places, "output_dir": folder / "eval"}.items():
        command += [f"--{key}", str(value)]
    log = folder / f"{config}.log"
    with log.open("w") as file:
        if subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode:
            raise WorkspaceError(f"the bundle {name} failed in {config}.yaml: see {log}.")


def _clear(output: Path) -> None:
    """Remove what an earlier demo left, and never anything else."""
    marker = output / ".deepfixcx-demo"
    if output.exists() and any(output.iterdir()) and not marker.exists():
        raise WorkspaceError(f"{output} holds files that no demo wrote: choose another folder with --output.")
    try:
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir(parents=True)
        marker.touch()
    except OSError as error:
        raise WorkspaceError(f"cannot write to {output}: {error.strerror}.") from None


def _gather(radiographs: Path, volumes: Path) -> None:
    """Copy the real images that the packages bring, and put two bad files beside them."""
    import nibabel
    from pydicom.data import get_testdata_file

    radiographs.mkdir(parents=True)
    volumes.mkdir()
    photograph = _package_folder("deid_data") / "data" / "animals" / "cat.dcm"
    sources = [get_testdata_file(name, download=False) for name in _PYDICOM_FILES]
    brain = _package_folder("nibabel") / "tests" / "data" / "example4d.nii.gz"
    for path in (*sources, photograph, brain):
        if path is None or not Path(str(path)).exists():
            raise WorkspaceError('the demo images are missing: pip install "monai-deepfixcx[demo]".')
    for path in (*sources, photograph):
        shutil.copy(str(path), radiographs)
    content = (radiographs / _CHEST).read_bytes()
    (radiographs / "truncated.dcm").write_bytes(content[: len(content) // 3])
    (radiographs / "not-an-image.dcm").write_text("A text file that somebody named .dcm.\n")
    image = nibabel.Nifti1Image.from_filename(brain)
    nibabel.save(image.slicer[..., 0], volumes / _BRAIN)


def _package_folder(name: str) -> Path:
    specification = importlib.util.find_spec(name)
    if specification is None or specification.origin is None:
        raise WorkspaceError('the demo images are missing: pip install "monai-deepfixcx[demo]".')
    return Path(specification.origin).parent


def _run(title: str, source: Path, output: Path, codec: Codec, size: int | None, shown: Path | None) -> Step:
    workspace = Workspace.open(source, output)
    summary = privatize(workspace, codec, settings_for(codec, size=size, images=True))
    pictures = []
    if shown is not None:
        pictures.append(output.with_name(f"{output.name}.png"))
        draw(shown, pictures[0], codec, size)
    return Step(title, codec, summary, len(CodeStore.open(output).verify()), pictures)

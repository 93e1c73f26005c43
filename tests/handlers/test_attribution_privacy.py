"""The attribution handler never reads an original, and writes nothing that names one."""

import shutil
from pathlib import Path
from typing import Any, NoReturn

import nibabel
import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose, LoadImaged
from PIL import Image

from monai_deepfixcx.codecs import DeepFixCXCodec
from monai_deepfixcx.data import CodeStore, LoadCoded, RadiographReader
from monai_deepfixcx.handlers import PrivatizedAttributionHandler
from monai_deepfixcx.pipeline.privatize import privatize, settings_for
from monai_deepfixcx.pipeline.workspace import Workspace
from monai_deepfixcx.transforms import DeepFixCXd
from tests.handlers.attribution_ranks import NAMES, batch, explain, small_network
from tests.handlers.attribution_runs import read, run
from tests.transforms import leaks


class Tripwire:
    """Stands where an original would, and goes off at whatever is done with it."""

    def __getattribute__(self, name: str) -> NoReturn:
        raise AssertionError(f"somebody read the original: {name}")


def test_nothing_but_its_own_keys_is_read(tmp_path: Path) -> None:
    network = small_network()
    data: dict[str, Any] = {**batch(network), "image": Tripwire(), "original": Tripwire(), "path": Tripwire()}
    engine = Engine(lambda _, given: {"image": Tripwire(), "pred": Tripwire()})
    PrivatizedAttributionHandler(network, tmp_path, NAMES, drawn=1, samples=5, labels=["Effusion"]).attach(engine)
    engine.run([data])
    assert read(tmp_path)["labels"]["Effusion"]["cases"] == 6


@pytest.mark.parametrize("key", ["image", "volume"])
def test_images_in_place_of_codes_are_refused(tmp_path: Path, key: str) -> None:
    data = {"image": torch.rand(2, 1, 32, 32), "volume": torch.rand(2, 1, 32, 32, 5)}
    with pytest.raises(ValueError, match=r"codes must have shape \[B, C, 256\]"):
        run(small_network(), data, tmp_path, code_key=key)
    assert not list(tmp_path.rglob("*.*"))


def test_an_image_in_place_of_a_region_is_refused(tmp_path: Path) -> None:
    network = small_network()
    data = {**batch(network), "image": torch.rand(6, 1, 32, 32)}
    with pytest.raises(ValueError, match=r"regions must be bool .* masks and not images; got torch.float32"):
        run(network, data, tmp_path, region_key="image")


def test_it_works_when_the_originals_are_deleted(tmp_path: Path) -> None:
    """Codes from a store: no original is left, and no identifier or pixel of one in what is written."""
    originals, codec = tmp_path / "originals", DeepFixCXCodec(2, 4)
    identified = leaks.write_dicom(originals)
    workspace = Workspace.open(originals, tmp_path / "store")
    privatize(workspace, codec, settings_for(codec))
    shutil.rmtree(originals)
    shutil.rmtree(workspace.private)
    store = CodeStore.open(tmp_path / "store")
    assert len(store) == 1
    items = Dataset(store.datalist(), LoadCoded("code"))
    engine = Engine(lambda _, given: None)
    settings: dict[str, Any] = {"drawn": 1, "samples": 5, "region": "heart", "fingerprint": store.fingerprint}
    PrivatizedAttributionHandler(small_network(), tmp_path / "out", NAMES, **settings).attach(engine)
    engine.run(DataLoader(items, batch_size=1))
    written = leaks.files_below(tmp_path / "out")
    assert len(written) == 7
    assert leaks.found(written, identified) == set()


def test_no_metadata_of_a_file_that_is_read_gets_through(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """The evaluate configuration's way: read, encode, explain in one run."""
    identified = leaks.write_dicom(tmp_path / "in")
    network = small_network(inputs="codes")
    steps = [LoadImaged("image", reader=RadiographReader(), ensure_channel_first=True), DeepFixCXd("image", 2, 4)]
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset([{"image": str(identified.path)}], Compose(steps)), batch_size=1),
        network=network,
        val_handlers=[PrivatizedAttributionHandler(network, tmp_path / "out", NAMES, code_key="image", samples=5)],
    )
    capfd.readouterr()
    with caplog.at_level("DEBUG"):
        evaluator.run()
    said = capfd.readouterr()
    everything = [*leaks.files_below(tmp_path / "out"), caplog.text, said.out, said.err]
    assert leaks.found(everything, identified) == set()


def test_pictures_and_maps_carry_no_metadata(tmp_path: Path) -> None:
    network = small_network()
    data = batch(network)
    data["code"] = MetaTensor(data["code"], meta={"filename_or_obj": "SECRET.dcm"})
    run(network, data, tmp_path, drawn=1, labels=["Effusion"])
    (first, *_) = sorted((tmp_path / "cases").glob("*.png"))
    with Image.open(first) as picture:
        assert set(picture.info) <= {"dpi"}
    volume = nibabel.load(first.with_suffix(".nii.gz"))
    header: Any = volume.header
    assert not header.extensions
    assert [header[field].item() for field in ("descrip", "db_name", "aux_file", "intent_name")] == [b""] * 4
    assert "SECRET" not in (tmp_path / "attributions.json").read_text()


def test_the_same_run_writes_the_same_bytes(tmp_path: Path) -> None:
    options: dict[str, Any] = {"measures": ("sensitivity", "randomization"), "labels": ["Effusion"], "drawn": 1}
    for name in ("first", "second"):
        torch.manual_seed(len(name))
        explain(tmp_path / name, slice(0, 6), **options)
    first, second = (leaks.files_below(tmp_path / name) for name in ("first", "second"))
    assert len(first) == 4
    assert first == second
    metrics = read(tmp_path / "first")["labels"]["Effusion"]["metrics"]
    assert 0 < metrics["max_sensitivity"]["value"] < 1
    assert [step["layer"] for step in metrics["randomization"]][:2] == ["network.layers.2", "network.layers.0"]
    assert metrics["randomization"][-1]["spearman"] < 0.9

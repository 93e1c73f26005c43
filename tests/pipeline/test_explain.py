"""`deepfixcx explain`: a folder or a store, a bundle's network; pictures, maps and metrics, never an original."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from monai_deepfixcx.attribution import attribute
from monai_deepfixcx.codecs import DeepFixCXCodec
from monai_deepfixcx.data import CodeStore, PhantomRadiographs
from monai_deepfixcx.handlers.attribution_measures import AttributionSettings
from monai_deepfixcx.pipeline.explain import explain, load_model
from tests.bundles.test_inference import planted
from tests.pipeline.conftest import Run

BUNDLES = Path(__file__).parents[2] / "bundles"
DEEPFIXCX, HEARTSPOT = BUNDLES / "deepfixcx_classification", BUNDLES / "heartspot_cardiomegaly"
QUICK = AttributionSettings(drawn=0, measures=(), samples=0)

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three synthetic films, a table and a damaged file."""
    folder = tmp_path_factory.mktemp("films")
    PhantomRadiographs(3, 1, 128, seed=9).write_dicom(folder)
    (folder / "a_cut.dcm").write_bytes((folder / "phantom_000000_00.dcm").read_bytes()[:900])
    return folder


def store_of(folder: Path, codec: DeepFixCXCodec, size: int = 128) -> CodeStore:
    images = torch.stack([item["image"] for item in PhantomRadiographs(3, 1, size, seed=9)])
    store = CodeStore.open(folder, codec)
    rows: Any = [{"id": f"id{row}", "spatial_shape": [size, size]} for row in range(3)]
    store.append("films", codec.encode(images), rows)
    return store


def each(output: Path, label: str = "Cardiomegaly") -> Any:
    return json.loads((output / "attributions.json").read_text())["labels"][label]["each"]


def test_a_folder_with_the_shipped_weights(films: Path, tmp_path: Path, run: Run) -> None:
    before = {path: path.read_bytes() for path in films.iterdir()}
    options = ("--heart", "--leak", "--labels", "Cardiomegaly", "--drawn", 3, "--measures", "localization")
    status, out, err = run("explain", films, tmp_path, "--bundle", DEEPFIXCX, *options)
    assert status == 3, err
    assert "left out  a_cut.dcm: " in out
    assert "left out  labels.csv: not an image" in out
    assert "explained 3:" in out
    assert "likeness to the originals, Cardiomegaly: map_ssim 0." in out
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    # Number 0 is the damaged file's, and 1 the table's.
    kinds = {f"cases/case_0002_Cardiomegaly.{kind}" for kind in ("png", "nii.gz")}
    assert names == {"attributions.json", "leak.json", "cohort_Cardiomegaly.png", *kinds}
    assert [case["case"] for case in each(tmp_path)] == [2, 3, 4]
    leak = json.loads((tmp_path / "leak.json").read_text())["Cardiomegaly"]
    assert leak["map_ssim"]["value"] < 0.5
    assert leak["map_ssim"]["baseline"] == leak["flat_ssim"]["value"]
    assert {path: path.read_bytes() for path in films.iterdir()} == before
    written = b"".join(path.read_bytes() + path.name.encode() for path in tmp_path.rglob("*.*"))
    secrets = planted(films)
    assert len(secrets) > 20
    assert [secret for secret in secrets if secret in written + (out + err).replace(str(films), "").encode()] == []


def test_the_attributions_are_those_of_the_network(films: Path, tmp_path: Path) -> None:
    model = load_model(DEEPFIXCX)
    explain(films, tmp_path, model, QUICK)
    (film,) = [item["image"] for item in PhantomRadiographs(1, 1, 128, seed=9)]
    network = model.network
    expected = attribute(network, network.encode(film[None]), network.codec, (128, 128), target=1)
    assert expected.spatial_bias is not None
    case = next(case for case in each(tmp_path, "Effusion") if case["case"] == 2)
    np.testing.assert_allclose(case["spatial_bias"], expected.spatial_bias[0], rtol=0.02, atol=0.02)


def test_a_store_needs_no_original(films: Path, tmp_path: Path, run: Run) -> None:
    shutil.copytree(films, tmp_path / "in")
    settings = ("--levels", 2, "--patch-size", 8, "--size", 128, "--workers", 0)
    run("privatize", tmp_path / "in", tmp_path / "store", *settings)
    shutil.rmtree(tmp_path / "in")
    shutil.rmtree(tmp_path / "store-private")
    options = ("--drawn", 1, "--measures", "", "--limit", 2, "--labels", "Effusion", "--method", "saliency")
    status, out, _ = run("explain", tmp_path / "store", tmp_path / "out", "--bundle", DEEPFIXCX, *options)
    assert status == 0
    assert "explained 2:" in out
    assert (tmp_path / "out" / "cases" / "case_0000_Effusion.png").is_file()
    assert [case["case"] for case in each(tmp_path / "out", "Effusion")] == [0, 1]


def test_both_bundles_can_explain_any_number_in_small_batches(films: Path, tmp_path: Path) -> None:
    told: list[int] = []
    settings = AttributionSettings(drawn=0, measures=(), limit=None)
    found = explain(
        films, tmp_path, load_model(HEARTSPOT), settings, batch_size=2, plan=told.append, advance=told.append
    )
    assert found.cases == 3
    assert len(found.unread) == 2
    assert told == [5, 2, 4, 5]


def test_another_codecs_store_is_refused(tmp_path: Path, run: Run) -> None:
    store_of(tmp_path / "other", DeepFixCXCodec(3, 8))
    status, _, err = run("explain", tmp_path / "other", tmp_path / "out", "--bundle", DEEPFIXCX)
    assert status == 2
    assert (
        "holds codes of another codec than the bundle's network was built for (levels: 3 there, 2 in the bundle)" in err
    )
    status, _, err = run("explain", tmp_path / "other", tmp_path / "out", "--bundle", HEARTSPOT)
    assert status == 2
    assert "(codec: 'deepfixcx' there, 'heartspot' in the bundle)" in err
    assert not (tmp_path / "out").exists()


def test_codes_of_other_sizes_are_left_out(tmp_path: Path) -> None:
    store_of(tmp_path / "store", DeepFixCXCodec(2, 8), size=96)
    found = explain(tmp_path / "store", tmp_path / "out", load_model(DEEPFIXCX), QUICK)
    assert found.cases == 0
    assert found.found is None
    assert found.unread[0] == ("id0", "the code of a 96x96 image; the network was built for 128x128")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--bundle", "absent"), "bundle must be a bundle's folder or a configuration file"),
        (("--bundle", DEEPFIXCX, "--checkpoint", "absent.pt"), "checkpoint must be a file of weights; absent.pt"),
        (("--bundle", DEEPFIXCX, "--method", "magic"), "method must be one of integrated_gradients"),
        (("--bundle", DEEPFIXCX, "--labels", "Mass"), "labels must be of Cardiomegaly, Effusion; got 'Mass'"),
        (("--bundle", DEEPFIXCX, "--measures", "truth"), "measures must be any of"),
    ],
)
def test_wrong_use_is_one_line(films: Path, tmp_path: Path, run: Run, options: tuple[Any, ...], message: str) -> None:
    status, _, err = run("explain", films, tmp_path, *options)
    assert status == 2
    assert message in err


def test_sources_are_checked(tmp_path: Path) -> None:
    model = load_model(DEEPFIXCX)
    with pytest.raises(FileNotFoundError, match="is not a folder of images, nor a store of codes"):
        explain(tmp_path / "absent", tmp_path / "out", model)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="dataset_dir must hold at least one file"):
        explain(tmp_path / "empty", tmp_path / "out", model)
    store_of(tmp_path / "store", DeepFixCXCodec(2, 8))
    with pytest.raises(ValueError, match="leak needs the original images"):
        explain(tmp_path / "store", tmp_path / "out", model, leak=True)


def write_config(path: Path, **keys: Any) -> Path:
    ConfigParser.export_config_file(keys, str(path), fmt="json")
    return path


def test_configurations_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must define network_def, label_names; it lacks network_def"):
        load_model(write_config(tmp_path / "a.json", label_names=["Mass"]))
    linear = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 1}
    with pytest.raises(ValueError, match=r"network_def of .* must be a PrivatizedNetwork; got Linear"):
        load_model(write_config(tmp_path / "b.json", label_names=["Mass"], network_def=linear))
    weights = HEARTSPOT / "models" / "model.pt"
    with pytest.raises(ValueError, match="does not hold the weights of the bundle's network"):
        load_model(DEEPFIXCX, weights)


def test_a_configuration_file_of_ones_own_explains_stores_only(films: Path, tmp_path: Path) -> None:
    codec = DeepFixCXCodec(2, 4)
    definition: Any = {
        "_target_": "monai_deepfixcx.networks.privatized_mlp",
        "codec": codec.config(),
        "spatial_shape": [64, 64],
        "width": 8,
    }
    file = write_config(tmp_path / "own.json", network_def=definition, label_names=["Mass"])
    network = ConfigParser({"network_def": definition}).get_parsed_content("network_def")
    torch.save({"network": network.state_dict()}, tmp_path / "own.pt")
    model = load_model(file, tmp_path / "own.pt")
    store_of(tmp_path / "store", codec, size=64)
    assert explain(tmp_path / "store", tmp_path / "out", model, QUICK).cases == 3
    with pytest.raises(ValueError, match="its configuration must define dataset, to read images"):
        explain(films, tmp_path / "out", model, QUICK)

"""What MONAI and its model zoo ask of a bundle."""

import json
import os
import shutil
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import torch
from monai.bundle import ConfigParser, ckpt_export, verify_metadata, verify_net_in_out

from tests.bundles.conftest import BUNDLES, ROOT, config, overlay, workflow

CONFIGS = ("train.yaml", "evaluate.yaml", "inference.yaml")
FILES = [
    *("LICENSE", "configs/metadata.json", "configs/logging.conf", "docs/README.md", "docs/data_license.txt"),
    *(f"configs/{name}" for name in (*CONFIGS, "multi_gpu_train.yaml")),
    *("models/model.pt", "models/thresholds.json"),
]


def read(path: str) -> Any:
    return ConfigParser.load_config_file(path)


def strings(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [text for value in node.values() for text in strings(value)]
    return [text for value in node for text in strings(value)] if isinstance(node, list) else [str(node)]


def targets(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["_target_"]] if "_target_" in node else []
        return own + [target for value in node.values() for target in targets(value)]
    return [target for value in node for target in targets(value)] if isinstance(node, list) else []


@pytest.mark.parametrize("bundle", BUNDLES)
def test_every_file_of_a_bundle_is_there(bundle: str) -> None:
    folder = ROOT / "bundles" / bundle
    assert [name for name in FILES if not (folder / name).is_file()] == []
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert (folder / "models" / "model.pt").stat().st_size < 5_000_000


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("name", CONFIGS)
def test_required_properties(bundle: str, name: str, data_dir: str, tmp_path: Path) -> None:
    places = (
        {"dataset_dir": data_dir, "ckpt_dir": str(tmp_path), "output_dir": str(tmp_path)}
        if name != "inference.yaml"
        else {}
    )
    if name == "inference.yaml":
        (tmp_path / "a.png").write_bytes(b"")
        places = {"dataset_dir": str(tmp_path)}
    assert workflow(bundle, name, overlay("smoke.yaml"), **places).check_properties() == []


@pytest.mark.parametrize("bundle", BUNDLES)
def test_metadata_is_valid(bundle: str, tmp_path: Path) -> None:
    schema = shutil.copy(Path(__file__).with_name("meta_schema.json"), tmp_path / "schema.json")
    verify_metadata(meta_file=config(bundle, "metadata.json"), filepath=schema)
    metadata = read(config(bundle, "metadata.json"))
    assert metadata["version"] in metadata["changelog"]
    assert "synthetic" in metadata["data_source"].lower()
    assert "SYNTHETIC" in metadata["description"]


@pytest.mark.slow
@pytest.mark.parametrize("bundle", BUNDLES)
def test_metadata_is_valid_against_the_published_schema(bundle: str, tmp_path: Path) -> None:
    """Needs the network, or the schema's path in MONAI_META_SCHEMA."""
    address = os.environ.get("MONAI_META_SCHEMA") or read(config(bundle, "metadata.json"))["schema"]
    try:
        with urlopen(address if "://" in address else Path(address).absolute().as_uri(), timeout=10) as answer:
            (tmp_path / "schema.json").write_bytes(answer.read())
    except URLError as error:
        pytest.skip(f"the model zoo's schema cannot be had here: {error.reason}")
    verify_metadata(meta_file=config(bundle, "metadata.json"), filepath=tmp_path / "schema.json")


def test_a_wrong_metadata_file_is_refused(tmp_path: Path) -> None:
    schema = shutil.copy(Path(__file__).with_name("meta_schema.json"), tmp_path / "schema.json")
    metadata = read(config(BUNDLES[0], "metadata.json"))
    del metadata["network_data_format"]["outputs"]["pred"]["dtype"]
    wrong = tmp_path / "metadata.json"
    wrong.write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="'dtype' is a required property"):
        verify_metadata(meta_file=str(wrong), filepath=schema)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_network_takes_and_gives_what_the_metadata_say(bundle: str) -> None:
    metadata, inference = config(bundle, "metadata.json"), config(bundle, "inference.yaml")
    verify_net_in_out("network_def", meta_file=metadata, config_file=inference, device="cpu")
    pred = read(metadata)["network_data_format"]["outputs"]["pred"]
    assert len(pred["channel_def"]) == pred["num_channels"]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("bundle", BUNDLES)
def test_export_with_the_codec_inside(bundle: str, tmp_path: Path) -> None:
    exported = tmp_path / "model.ts"
    ckpt_export(
        "network_def",
        filepath=str(exported),
        ckpt_file=str(ROOT / "bundles" / bundle / "models" / "model.pt"),
        meta_file=config(bundle, "metadata.json"),
        config_file=config(bundle, "inference.yaml"),
        use_trace=True,
    )
    parser = ConfigParser()
    parser.read_config(config(bundle, "inference.yaml"))
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(ROOT / "bundles" / bundle / "models" / "model.pt", weights_only=True))
    images = torch.rand(5, 1, 128, 128)
    torch.testing.assert_close(torch.jit.load(exported)(images), network.eval()(images))


@pytest.mark.parametrize("bundle", BUNDLES)
def test_targets_are_dotted(bundle: str) -> None:
    found = [target for name in (*CONFIGS, "multi_gpu_train.yaml") for target in targets(read(config(bundle, name)))]
    found += [target for path in (ROOT / "configs").glob("*.yaml") for target in targets(read(str(path)))]
    assert found
    assert [target for target in found if "." not in target] == []


@pytest.mark.parametrize("bundle", BUNDLES)
def test_the_three_configurations_agree(bundle: str) -> None:
    """MONAI wants each to stand alone, so they repeat what they share; a difference would be a silent error."""
    train, evaluate, inference = (read(config(bundle, name)) for name in CONFIGS)
    data = ("source", "fractions", "seed", "phantom", "datalist", "prepare")
    for key in (*data, "label_names", "size", "codec", "network_def", "activate"):
        assert train[key] == evaluate[key], key
    for key in ("label_names", "size", "spatial_shape", "in_channels", "color", "codec", "activate"):
        assert train[key] == inference[key], key
    assert train["network_def"] == {**inference["network_def"], "inputs": "codes"}
    reading = [step for step in train["prepare"]["transforms"] if not step["_target_"].startswith("monai_deepfixcx.tr")]
    assert [step for step in reading if "EnsureTyped" not in step["_target_"]] == inference["prepare"]["transforms"][
        :-1
    ]


def test_the_two_bundles_differ_in_method_only() -> None:
    keys = {"imports", "bundle_root", "label_names", "codec", "network_def", "prepare"}
    method = {"levels", "patch_size", "wavelet", "prior", "widths"}
    for name in ("train.yaml", "evaluate.yaml", "multi_gpu_train.yaml"):
        deepfixcx, heartspot = (read(config(bundle, name)) for bundle in BUNDLES)
        differing = {key for key in deepfixcx | heartspot if deepfixcx.get(key) != heartspot.get(key)}
        assert differing <= keys | method, name


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("name", CONFIGS)
def test_images_are_privatized_before_anything_keeps_them(bundle: str, name: str) -> None:
    """The last step before the dataset's cache and the network leaves no image, or at inference no header."""
    steps = targets(read(config(bundle, name))["prepare"]["transforms"])
    last = "StripMetadatad" if name == "inference.yaml" else {"d": "DeepFixCXd", "h": "HeartSpotd"}[bundle[0]]
    images = [step for step in steps if "EnsureTyped" not in step]
    assert images[-1] == f"monai_deepfixcx.transforms.{last}"

"""The bundle that trains under differential privacy, its sweeps, and the overlay that brings the others there."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, ckpt_export, verify_metadata, verify_net_in_out
from monai.bundle.workflows import ConfigWorkflow

from monai_deepfixcx.dp import DPTrainer
from tests.bundles.conftest import BUNDLES, ROOT, config, overlay, workflow
from tests.bundles.test_contract import CONFIGS, FILES, read, targets

BUNDLE = "private_fair_classification"
ALL = (*CONFIGS, "multi_gpu_train.yaml", "nonprivate.yaml", "sweep.yaml", "volumes.yaml")
TINY: dict[str, Any] = {"public_patients": 6, "max_epochs": 2, "accountant": "rdp", "delta": 0.001}


def places(folder: Path, data_dir: str) -> dict[str, str]:
    return {"dataset_dir": data_dir, "ckpt_dir": str(folder), "output_dir": str(folder / "out")}


def train(folder: Path, data_dir: str, *overlays: str, **override: Any) -> ConfigWorkflow:
    options = {**TINY, **places(folder, data_dir), **override}
    made = workflow(BUNDLE, "train.yaml", overlay("smoke.yaml"), *overlays, **options)
    made.run()
    made.finalize()
    return made


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data_dir: str) -> tuple[Path, ConfigWorkflow]:
    folder = tmp_path_factory.mktemp(BUNDLE)
    return folder, train(folder, data_dir)


def test_every_file_is_there() -> None:
    folder = ROOT / "bundles" / BUNDLE
    wanted = [*FILES, *(f"configs/{name}" for name in ALL)]
    assert [name for name in wanted if not (folder / name).is_file()] == []
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert (folder / "models" / "model.pt").stat().st_size < 5_000_000


@pytest.mark.parametrize("name", CONFIGS)
def test_required_properties(name: str, data_dir: str, tmp_path: Path) -> None:
    options: dict[str, Any] = places(tmp_path, data_dir)
    if name == "inference.yaml":
        (tmp_path / "a.png").write_bytes(b"")
        options = {"dataset_dir": str(tmp_path)}
    made = workflow(BUNDLE, name, overlay("smoke.yaml"), public_patients=6, **options)
    assert made.check_properties() == []


def test_metadata_is_valid_and_told_by_the_card(tmp_path: Path) -> None:
    schema = shutil.copy(Path(__file__).with_name("meta_schema.json"), tmp_path / "schema.json")
    verify_metadata(meta_file=config(BUNDLE, "metadata.json"), filepath=schema)
    metadata = read(config(BUNDLE, "metadata.json"))
    assert metadata["version"] in metadata["changelog"]
    assert "SYNTHETIC" in metadata["description"]
    assert {"auroc_cardiomegaly_synthetic", "auroc_effusion_synthetic", "epsilon"} <= set(metadata["eval_metrics"])
    card = (ROOT / "bundles" / BUNDLE / "docs" / "README.md").read_text()
    for value in metadata["eval_metrics"].values():
        assert f"{value:.3f}".removeprefix("0") in card or f"{value:g}" in card


def test_network_takes_and_gives_what_the_metadata_say() -> None:
    metadata, inference = config(BUNDLE, "metadata.json"), config(BUNDLE, "inference.yaml")
    verify_net_in_out("network_def", meta_file=metadata, config_file=inference, device="cpu")


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_export_with_the_codec_inside(tmp_path: Path) -> None:
    shipped = ROOT / "bundles" / BUNDLE / "models" / "model.pt"
    ckpt_export(
        "network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(shipped),
        meta_file=config(BUNDLE, "metadata.json"),
        config_file=config(BUNDLE, "inference.yaml"),
        use_trace=True,
    )
    parser = ConfigParser()
    parser.read_config(config(BUNDLE, "inference.yaml"))
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(shipped, weights_only=True))
    images = torch.rand(5, 1, 64, 64)
    torch.testing.assert_close(torch.jit.load(tmp_path / "model.ts")(images), network.eval()(images))


def test_targets_are_dotted_and_configurations_agree() -> None:
    found = [target for name in ALL for target in targets(read(config(BUNDLE, name)))]
    assert [target for target in found if "." not in target] == []
    first, evaluate, inference = (read(config(BUNDLE, name)) for name in CONFIGS)
    for key in ("source", "fractions", "seed", "phantom", "datalist", "read", "prepare", "codec", "activate", "size"):
        assert first[key] == evaluate[key], key
    for key in ("label_names", "size", "spatial_shape", "in_channels", "color", "codec", "activate"):
        assert first[key] == inference[key], key
    assert first["network_def"] == evaluate["network_def"] == {**inference["network_def"], "inputs": "codes"}
    # The last step before the cache and the network leaves no image, or at inference no header.
    assert targets(first["prepare"])[-1] == "monai_deepfixcx.transforms.DeepFixCXd"
    assert targets(inference["prepare"])[-1] == "monai_deepfixcx.transforms.StripMetadatad"


def test_training_stays_within_its_budget(trained: tuple[Path, ConfigWorkflow]) -> None:
    folder, made = trained
    trainer = made.trainer
    assert isinstance(trainer, DPTrainer)
    assert trainer.unit == "patient"
    assert trainer.budget.accountant == "rdp"
    assert 7.5 < trainer.spent().epsilon <= 8
    assert trainer.state.metrics["epsilon"] == trainer.spent().epsilon
    assert trainer.privacy_report()["secret_randomness"] is True
    for item in made.train_dataset:
        assert type(item["image"]) is torch.Tensor
        assert item["image"].shape == (1, made.network_def.codec.code_length((64, 64)))
    saved = torch.load(folder / "model.pt", weights_only=True)
    assert saved.keys() == made.network_def.state_dict().keys()
    assert not [line for line in targets(read(config(BUNDLE, "train.yaml"))["train"]) if "Stats" in line]


def test_resuming_counts_what_was_spent(data_dir: str, tmp_path: Path) -> None:
    """A run that stopped after one of two epochs goes on; one that has spent its budget does not."""
    half = train(tmp_path / "half", data_dir, **{"train#trainer#max_epochs": 1})
    (checkpoint,) = (tmp_path / "half" / "out").glob("checkpoint_final_*.pt")
    whole = train(tmp_path / "whole", data_dir, resume_from=str(checkpoint))
    (first,), (both,) = half.trainer.history, whole.trainer.history
    assert both == first._replace(number=2 * first.number)
    assert half.trainer.spent().epsilon < whole.trainer.spent().epsilon <= 8
    (checkpoint,) = (tmp_path / "whole" / "out").glob("checkpoint_final_*.pt")
    more = train(tmp_path / "more", data_dir, resume_from=str(checkpoint), max_epochs=3)
    assert more.trainer.spent().epsilon <= 8


def test_without_privacy(data_dir: str, tmp_path: Path) -> None:
    made = train(tmp_path, data_dir, config(BUNDLE, "nonprivate.yaml"), max_epochs=3)
    assert not isinstance(made.trainer, DPTrainer)
    assert made.trainer.state.epoch == 3
    assert (tmp_path / "model.pt").is_file()
    default = read(config(BUNDLE, "nonprivate.yaml"))
    assert "nonprivate" in default["ckpt_dir"]


def test_evaluation_reports_subgroups(trained: tuple[Path, ConfigWorkflow], data_dir: str, tmp_path: Path) -> None:
    folder, _ = trained
    made = workflow(
        BUNDLE,
        "evaluate.yaml",
        overlay("smoke.yaml"),
        dataset_dir=data_dir,
        ckpt_dir=str(folder),
        output_dir=str(tmp_path),
        public_patients=6,
        min_patients=2,
        attributes=["sex", "comorbidity", ["sex", "view"]],
    )
    made.run()
    report = json.loads((tmp_path / "fairness.json").read_text())
    whole = json.loads((tmp_path / "metrics.json").read_text())
    assert report["mean"] == whole["mean"]
    assert set(report["attributes"]) == {"sex", "comorbidity", "sex & view"}
    assert set(report["attributes"]["sex"]["labels"]["Effusion"]["groups"]) == {"F", "M"}
    assert "demographic_parity_difference" in report["attributes"]["sex"]["mean"]["gaps"]
    assert "sex_auroc_gap" in made.evaluator.state.metrics
    assert "PHANTOM-" not in (tmp_path / "fairness.json").read_text() + (tmp_path / "fairness.md").read_text()


def test_a_sweep_writes_one_table_and_figures(data_dir: str, tmp_path: Path) -> None:
    train_file = config(BUNDLE, "sweep.yaml")
    options: dict[str, Any] = {**TINY, "dataset_dir": data_dir, "output_dir": str(tmp_path), "epsilons": [None, 8.0]}
    options |= {"min_patients": 1, "attributes": ["sex"], "unit": "record", "noise_seed": 0}
    made = workflow(BUNDLE, "train.yaml", overlay("smoke.yaml"), train_file, **options)
    made.run()
    result = json.loads((tmp_path / "sweep.json").read_text())
    assert list(result["contenders"]) == ["full image, ResNet9", "DeepFixCX code, MLP", "HeartSpot code, MLP"]
    for contender in result["contenders"].values():
        assert [run["epsilon"] for run in contender["runs"]] == [None, 8.0]
    assert (tmp_path / "sweep.md").read_text().startswith("SYNTHETIC films ")
    assert len(list(tmp_path.glob("*.png"))) == 4


def test_a_sweep_of_volumes(tmp_path: Path) -> None:
    overlays = [overlay("smoke.yaml"), *(config(BUNDLE, name) for name in ("sweep.yaml", "volumes.yaml"))]
    options: dict[str, Any] = {**TINY, "output_dir": str(tmp_path), "epsilons": [None, 8.0], "size": 16}
    options |= {"min_patients": 1, "attributes": ["sex"], "volume_patients": 40, "batch_size": 12}
    options |= {"code_recipe#epochs": 1, "image_recipe#epochs": 1, "codec#patch_size": 4, "noise_seed": 0}
    options |= {"contenders#0#build#width": 32, "phantom": {"patients": 2}}
    workflow(BUNDLE, "train.yaml", *overlays, **options).run()
    result = json.loads((tmp_path / "sweep.json").read_text())
    assert list(result["contenders"]) == ["full volume, ResNet18-3D", "DeepFixCX code, MLP"]
    assert result["contenders"]["full volume, ResNet18-3D"]["values"] == 16**3
    assert result["delta"] == pytest.approx(0.001)
    assert "SYNTHETIC" in result["data"]


@pytest.mark.parametrize("bundle", BUNDLES)
def test_the_overlay_trains_the_other_bundles_privately(bundle: str, data_dir: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {**places(tmp_path, data_dir), "max_epochs": 2, "batch_size": 16}
    options |= {"train#trainer#budget#accountant": "rdp", "train#trainer#budget#delta": 0.001}
    made = workflow(bundle, "train.yaml", overlay("smoke.yaml"), overlay("dp.yaml"), **options)
    assert made.check_properties() == []
    made.run()
    assert isinstance(made.trainer, DPTrainer)
    assert 7.5 < made.trainer.spent().epsilon <= 8
    names = {type(module).__name__ for module in made.network_def.modules()}
    assert "GroupNorm" in names
    assert not [name for name in names if "BatchNorm" in name]
    head = {"network_def#_target_": "monai_deepfixcx.pipeline.private_sweep.dp_head"}
    evaluated = workflow(bundle, "evaluate.yaml", overlay("smoke.yaml"), **places(tmp_path, data_dir), **head)
    evaluated.run()
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert not math.isnan(report["labels"]["Cardiomegaly"]["auroc"]["value"])


def test_two_processes_spend_the_same_epsilon(
    trained: tuple[Path, ConfigWorkflow], data_dir: str, tmp_path: Path
) -> None:
    files = [config(BUNDLE, "train.yaml"), config(BUNDLE, "multi_gpu_train.yaml"), overlay("smoke.yaml")]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "monai.bundle", "run", "--config_file", str(files)]
    for key, value in {**TINY, **places(tmp_path, data_dir)}.items():
        command += [f"--{key}", str(value)]
    quiet = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (checkpoint,) = (tmp_path / "out").glob("checkpoint_final_*.pt")
    state = torch.load(checkpoint, weights_only=True)["trainer"]
    assert state["privacy"]["history"] == [list(steps) for steps in trained[1].trainer.history]
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    assert saved.keys() == trained[1].network_def.state_dict().keys()


@pytest.mark.slow
def test_shipped_weights_are_as_good_as_their_card_says(data_dir: str, tmp_path: Path) -> None:
    options = {"dataset_dir": data_dir, "thresholds": str(tmp_path / "thresholds.json"), "output_dir": str(tmp_path)}
    workflow(BUNDLE, "evaluate.yaml", bootstrap_samples=0, progress=False, **options).run()
    report = json.loads((tmp_path / "metrics.json").read_text())
    told = read(config(BUNDLE, "metadata.json"))["eval_metrics"]
    for name, label in report["labels"].items():
        assert label["auroc"]["value"] == pytest.approx(told[f"auroc_{name.lower()}_synthetic"], abs=0.002)

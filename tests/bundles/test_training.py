"""Training, going on with it, several processes, and evaluation, on a small phantom."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser

from tests.bundles.conftest import BUNDLES, ROOT, Train, config, overlay, workflow


@pytest.mark.parametrize("bundle", BUNDLES)
def test_training_learns(bundle: str, train: Train) -> None:
    folder, made = train(bundle)
    evaluator = made.parser.get_parsed_content("validate#evaluator")
    assert made.trainer.state.epoch == 4
    assert evaluator.state.best_metric > 0.65
    assert (folder / "model.pt").stat().st_size < 5_000_000
    assert sorted(path.name for path in (folder / "logs").glob("checkpoint_*")) == ["checkpoint_final_iteration=16.pt"]
    assert len(list((folder / "logs").glob("events.*"))) == 2


@pytest.mark.parametrize("bundle", BUNDLES)
def test_training_caches_codes_not_images(bundle: str, train: Train) -> None:
    _, made = train(bundle)
    network = made.network_def
    for item in made.train_dataset:
        assert type(item["image"]) is torch.Tensor
        assert item["image"].shape == (1, network.codec.code_length((64, 64)))
        assert not [value for value in item.values() if isinstance(value, str) and "/" in value]


def test_training_is_reproducible(train: Train, data_dir: str, tmp_path: Path) -> None:
    folder, _ = train(BUNDLES[0])
    places = {"dataset_dir": data_dir, "ckpt_dir": str(tmp_path), "output_dir": str(tmp_path)}
    workflow(BUNDLES[0], "train.yaml", overlay("smoke.yaml"), **places).run()
    first, second = (torch.load(path / "model.pt", weights_only=True) for path in (folder, tmp_path))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_resuming_goes_on_where_training_stopped(bundle: str, train: Train, data_dir: str, tmp_path: Path) -> None:
    folder, before = train(bundle)
    (checkpoint,) = (folder / "logs").glob("checkpoint_final_*.pt")
    places = {"dataset_dir": data_dir, "ckpt_dir": str(tmp_path), "output_dir": str(tmp_path)}
    smoke = overlay("smoke.yaml")
    made = workflow(bundle, "train.yaml", smoke, resume_from=str(checkpoint), max_epochs=6, **places)
    rates: dict[int, float] = {}

    def note(engine: Engine) -> None:
        rates[engine.state.epoch] = made.parser.get_parsed_content("optimizer").param_groups[0]["lr"]

    made.trainer.add_event_handler(Events.EPOCH_STARTED, note)
    made.run()
    assert rates == pytest.approx({5: 0.001 * 0.85**4, 6: 0.001 * 0.85**5})
    assert made.trainer.state.iteration == before.trainer.state.iteration // 4 * 6


@pytest.mark.parametrize("bundle", BUNDLES)
def test_evaluation_reports_on_test_patients(bundle: str, train: Train, data_dir: str, tmp_path: Path) -> None:
    folder, _ = train(bundle)
    made = workflow(
        bundle,
        "evaluate.yaml",
        overlay("smoke.yaml"),
        dataset_dir=data_dir,
        ckpt_dir=str(folder),
        output_dir=str(tmp_path),
    )
    made.run()
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert report["labels"]["Cardiomegaly"]["auroc"]["value"] > 0.6
    assert made.evaluator.state.metrics["test_mean_auroc"] == pytest.approx(report["mean"]["auroc"]["value"])
    chosen = json.loads((folder / "thresholds.json").read_text())
    names = made.parser.get_parsed_content("label_names")
    assert list(chosen) == names
    # The thresholds that judge the test patients are those that the validation patients chose.
    assert {name: report["labels"][name]["threshold"] for name in names} == pytest.approx(chosen)
    assert (tmp_path / "validation" / "metrics.json").is_file()
    assert "| Cardiomegaly |" in (tmp_path / "metrics.md").read_text()
    parts = made.parser.get_parsed_content("datalist")
    patients = [{item["patient"] for item in part} for part in parts.values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 48


def test_mlflow_is_needed_only_on_request(data_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)  # as if it were not installed
    places = {"dataset_dir": data_dir, "ckpt_dir": str(tmp_path), "output_dir": str(tmp_path)}
    made = workflow(BUNDLES[0], "train.yaml", overlay("smoke.yaml"), max_epochs=1, **places)
    assert made.parser.get_parsed_content("mlflow_uri") is None
    made.run()
    assert made.trainer.state.epoch == 1


@pytest.mark.slow
@pytest.mark.parametrize("bundle", BUNDLES)
def test_shipped_weights_are_as_good_as_their_card_says(bundle: str, data_dir: str, tmp_path: Path) -> None:
    """On the whole phantom. A change of the phantom or the codecs asks for new weights, a new card, or both."""
    places = {"dataset_dir": data_dir, "thresholds": str(tmp_path / "thresholds.json"), "output_dir": str(tmp_path)}
    workflow(bundle, "evaluate.yaml", bootstrap_samples=0, progress=False, **places).run()
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert report["labels"]["Cardiomegaly"]["auroc"]["value"] >= 0.95
    told = ConfigParser.load_config_file(config(bundle, "metadata.json"))["eval_metrics"]
    found = {f"auroc_{name.lower()}_synthetic": label["auroc"]["value"] for name, label in report["labels"].items()}
    assert found == pytest.approx(told, abs=0.002)
    shipped = json.loads((ROOT / "bundles" / bundle / "models" / "thresholds.json").read_text())
    assert json.loads((tmp_path / "thresholds.json").read_text()) == pytest.approx(shipped, abs=0.01)


# A thread of the group that gathers results may abort the process if it is there when Python ends.
TELL_THREADS = """
+initialize:
- {_target_: tests.bundles.threads.tell_threads, folder: "@ckpt_dir", when: begin}
+finalize:
- {_target_: tests.bundles.threads.tell_threads, folder: "@ckpt_dir", when: end}
"""


@pytest.mark.parametrize("bundle", BUNDLES)
def test_two_processes(bundle: str, data_dir: str, tmp_path: Path) -> None:
    tell_threads = tmp_path / "threads.yaml"
    tell_threads.write_text(TELL_THREADS)
    files = [config(bundle, "train.yaml"), config(bundle, "multi_gpu_train.yaml"), overlay("smoke.yaml")]
    files.append(str(tell_threads))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "monai.bundle", "run", "--config_file", str(files), "--dataset_dir", data_dir]
    command += ["--ckpt_dir", str(tmp_path), "--output_dir", str(tmp_path / "logs"), "--batch_size", "8"]
    quiet = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=quiet, timeout=240, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    for rank in range(2):
        groups = [(tmp_path / f"threads-{when}-{rank}").read_text().count("gloo_tcp_loop") for when in ("begin", "end")]
        assert groups == [2, 1]  # DistributedDataParallel keeps its own
    weights = torch.load(tmp_path / "model.pt", weights_only=True)
    assert not [name for name in weights if name.startswith("module.")]
    assert len(list((tmp_path / "logs").glob("events.*"))) == 2  # of the first process: train and validation
    metrics = [line for line in result.stdout.splitlines() if "Metrics -- val_mean_auroc" in line]
    assert len(metrics) == 4
    assert max(float(line.rsplit(" ", 2)[-2]) for line in metrics) > 0.6

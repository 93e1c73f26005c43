"""One smoke run of each bundle, shared by all tests of the folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigWorkflow, create_workflow

ROOT = Path(__file__).parents[2]
BUNDLES = ("deepfixcx_classification", "heartspot_cardiomegaly")


def config(bundle: str, name: str) -> str:
    return str(ROOT / "bundles" / bundle / "configs" / name)


def overlay(name: str) -> str:
    return str(ROOT / "configs" / name)


def workflow(bundle: str, name: str, *overlays: str, **override: Any) -> ConfigWorkflow:
    """A workflow of one configuration and overlays, made as ``python -m monai.bundle run`` makes it."""
    kind = "train" if name.startswith("train") else "infer"
    files = [config(bundle, name), *overlays]
    made = create_workflow(config_file=files, workflow_type=kind, logging_file=False, **override)
    assert isinstance(made, ConfigWorkflow)
    return made


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the smoke phantom is written once."""
    return str(tmp_path_factory.mktemp("data"))


Train = Callable[[str], tuple[Path, ConfigWorkflow]]


@pytest.fixture(scope="session")
def train(tmp_path_factory: pytest.TempPathFactory, data_dir: str) -> Train:
    """Train a bundle on the smoke phantom, once in a session; the folder of its weights and logs, and the workflow."""
    done: dict[str, tuple[Path, ConfigWorkflow]] = {}

    def run(bundle: str) -> tuple[Path, ConfigWorkflow]:
        if bundle not in done:
            folder = tmp_path_factory.mktemp(bundle)
            places = {"dataset_dir": data_dir, "ckpt_dir": str(folder), "output_dir": str(folder / "logs")}
            made = workflow(bundle, "train.yaml", overlay("smoke.yaml"), **places)
            made.run()
            made.finalize()
            done[bundle] = folder, made
        return done[bundle]

    return run

"""What holds for every network: built from JSON by its dotted name, and the same wherever and whenever it is built."""

import ast
import copy
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.bundle.config_item import ComponentLocator
from torch import Tensor, nn

from monai_deepfixcx import networks

HERE = "monai_deepfixcx.networks."
DEEPFIXCX = {"codec": "deepfixcx", "levels": 2, "patch_size": 3}
VOLUMES = {"codec": "deepfixcx", "levels": 1, "patch_size": 2, "spatial_dims": 3}
HEARTSPOT = {"codec": "heartspot", "prior": "rhline+heart", "spatial_shape": [48, 40]}
COLOUR = {"spatial_shape": [33, 30], "in_channels": 3, "out_channels": 2}
GREY = {"spatial_shape": [48, 40], "out_channels": 2}

# Each as a bundle would write it, with the shape of what it takes.
CONFIGS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "code_mlp": ({"_target_": "CodeMLP", "code_length": 9, "in_channels": 3, "out_channels": 2}, (3, 9)),
    "heartspot_mlp": ({"_target_": "HeartSpotMLP", "code_length": 9, "out_channels": 2, "norm": "group"}, (1, 9)),
    "code_cnn": ({"_target_": "CodeCNN", "codec": DEEPFIXCX, **COLOUR}, (3, 144)),
    "resnet9": ({"_target_": "ResNet9", "in_channels": 3, "out_channels": 2, "width": 32}, (3, 40, 48)),
    "resnet18": ({"_target_": "VolumetricResNet18", "in_channels": 1, "out_channels": 2, "width": 32}, (1, 24, 32, 24)),
    "privatized_mlp": ({"_target_": "privatized_mlp", "codec": DEEPFIXCX, **COLOUR, "depth": 2}, (3, 33, 30)),
    "privatized_mlp_batchnorm": (
        {"_target_": "privatized_mlp", "codec": HEARTSPOT, **GREY, "normalization": "batchnorm"},
        (1, 48, 40),
    ),
    "privatized_mlp_3d": (
        {
            "_target_": "privatized_mlp",
            "codec": VOLUMES,
            "spatial_shape": [8, 9, 7],
            "in_channels": 2,
            "out_channels": 2,
        },
        (2, 8, 9, 7),
    ),
    "privatized_heartspot_mlp": ({"_target_": "privatized_heartspot_mlp", "codec": HEARTSPOT, **GREY}, (1, 48, 40)),
    "privatized_code_cnn": ({"_target_": "privatized_code_cnn", "codec": DEEPFIXCX, **COLOUR}, (3, 33, 30)),
    "privatized_densenet121": ({"_target_": "privatized_cnn", "codec": DEEPFIXCX, **COLOUR}, (3, 33, 30)),
    "privatized_resnet18": (
        {"_target_": "privatized_cnn", "codec": HEARTSPOT, **GREY, "backbone": "resnet18", "feed": "image"},
        (1, 48, 40),
    ),
    "privatized_efficientnet_b0": (
        {"_target_": "privatized_cnn", "codec": DEEPFIXCX, **COLOUR, "backbone": "efficientnet_b0", "feed": "image"},
        (3, 33, 30),
    ),
    "nested": (
        {
            "_target_": "PrivatizedNetwork",
            "codec": DEEPFIXCX,
            "network": {"_target_": HERE + "ResNet9", "in_channels": 1, "out_channels": 2, "width": 32},
            "spatial_shape": [33, 30],
            "feed": "small_image",
        },
        (1, 33, 30),
    ),
}
each_network = pytest.mark.parametrize(("config", "shape"), CONFIGS.values(), ids=CONFIGS.keys())


def build(config: dict[str, Any], seed: int = 0) -> nn.Module:
    """The network of a bundle's JSON, for evaluation."""
    torch.manual_seed(seed)
    written = json.loads(json.dumps({"network": {**config, "_target_": HERE + config["_target_"]}}))
    network = ConfigParser(written).get_parsed_content("network")
    assert isinstance(network, nn.Module)
    return network.eval()


def inputs(shape: tuple[int, ...], batch: int = 3) -> Tensor:
    return torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0))


@each_network
def test_inputs_to_logits(config: dict[str, Any], shape: tuple[int, ...]) -> None:
    network = build(config)
    logits = network(inputs(shape))
    assert logits.shape == (3, 2)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(network(inputs(shape)[1:2]), logits[1:2], rtol=1e-4, atol=1e-5)


@each_network
def test_float64(config: dict[str, Any], shape: tuple[int, ...]) -> None:
    network = build(config)
    single = network(inputs(shape))
    double = network.double()(inputs(shape).double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=1e-3, atol=1e-3)


@each_network
def test_the_seed_decides_the_weights(config: dict[str, Any], shape: tuple[int, ...]) -> None:
    first, again, other = build(config).state_dict(), build(config).state_dict(), build(config, seed=1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@each_network
def test_state_dict_round_trip(config: dict[str, Any], shape: tuple[int, ...]) -> None:
    network, other = build(config), build(config, seed=1)
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(inputs(shape)), network(inputs(shape)))
    assert torch.equal(copy.deepcopy(network)(inputs(shape)), network(inputs(shape)))


@each_network
def test_a_training_step_reaches_every_parameter(config: dict[str, Any], shape: tuple[int, ...]) -> None:
    network = build(config).train()
    network(inputs(shape)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_no_name_is_one_of_monais() -> None:
    """MONAI's bundles find classes and functions by bare name in every module whose name starts with "monai"."""
    modules = [name for name in sys.modules if name.startswith(HERE[:-1])]
    ours = {
        name
        for module in modules
        for name, value in inspect.getmembers(
            sys.modules[module], lambda v: inspect.isclass(v) or inspect.isfunction(v)
        )
        if value.__module__ == module
    }
    assert ours >= set(networks.__all__)
    locator = ComponentLocator(excludes=["monai_deepfixcx"])
    assert locator.get_component_module_name("DenseNet121") == "monai.networks.nets.densenet"
    assert [name for name in sorted(ours) if locator.get_component_module_name(name)] == []


def test_networks_import_codecs_only() -> None:
    for file in Path(networks.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("monai_deepfixcx"):
                assert node.module.split(".")[1] in ("codecs", "networks"), file.name

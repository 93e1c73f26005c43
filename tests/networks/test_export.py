"""Networks leave Python with the codec inside, by torch.export or traced to TorchScript, and give the same logits."""

import io
from collections.abc import Callable

import pytest
import torch
from monai.networks.utils import convert_to_torchscript

from monai_deepfixcx.networks import (
    PrivatizedNetwork,
    ResNet9,
    privatized_cnn,
    privatized_code_cnn,
    privatized_heartspot_mlp,
    privatized_mlp,
)

DEEPFIXCX = {"codec": "deepfixcx", "levels": 2, "patch_size": 3, "wavelet": "coif1"}
HEARTSPOT = {"codec": "heartspot", "prior": "rhline+heart", "spatial_shape": [48, 40]}
SHAPE = (48, 40)


def whitening_mlp() -> PrivatizedNetwork:
    network = privatized_mlp(DEEPFIXCX, SHAPE, feature_weights="log_softmax", normalization="whiten")
    network.fit_normalization([torch.rand(6, 1, *SHAPE)])
    return network


NETWORKS: dict[str, Callable[[], PrivatizedNetwork]] = {
    "deepfixcx+mlp": whitening_mlp,
    "deepfixcx+mlp-batchnorm": lambda: privatized_mlp(DEEPFIXCX, SHAPE, normalization="batchnorm"),
    "deepfixcx+code_cnn": lambda: privatized_code_cnn(DEEPFIXCX, SHAPE),
    "deepfixcx+resnet18": lambda: privatized_cnn(DEEPFIXCX, SHAPE, backbone="resnet18"),
    "deepfixcx+efficientnet_b0": lambda: privatized_cnn(DEEPFIXCX, SHAPE, backbone="efficientnet_b0"),
    "heartspot+mlp": lambda: privatized_heartspot_mlp(HEARTSPOT, SHAPE),
    "heartspot+twin": lambda: privatized_heartspot_mlp(HEARTSPOT, SHAPE, norm="group"),
    "heartspot+densenet121": lambda: privatized_cnn(HEARTSPOT, SHAPE, feed="image"),
    "heartspot+resnet9": lambda: PrivatizedNetwork(HEARTSPOT, ResNet9(1, 2, width=32), SHAPE, feed="image"),
}


def by_torch(network: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The logits on the path that was exported: the fused encoders, which are not, round otherwise."""
    return network(images.clone().requires_grad_()).detach()


each_network = pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS.keys())


@each_network
def test_torch_export(build: Callable[[], PrivatizedNetwork]) -> None:
    """Saved, loaded, and run on another batch size than it was exported with."""
    network, images = build().eval(), torch.rand(3, 1, *SHAPE)
    exported = torch.export.export(network, (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    torch.testing.assert_close(
        torch.export.load(file).module()(images), by_torch(network, images), rtol=1e-6, atol=1e-6
    )


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@each_network
def test_torchscript_by_tracing(build: Callable[[], PrivatizedNetwork]) -> None:
    """As `monai.bundle ckpt_export --use_trace True` does it."""
    network, images = build().eval(), torch.rand(3, 1, *SHAPE)
    file = io.BytesIO()
    convert_to_torchscript(network, file, inputs=[images[:2]], use_trace=True)
    file.seek(0)
    torch.testing.assert_close(torch.jit.load(file)(images), by_torch(network, images), rtol=1e-6, atol=1e-6)


def test_torch_export_of_the_full_size_decoder() -> None:
    network, images = (
        privatized_cnn(DEEPFIXCX, SHAPE, backbone="resnet18", feed="image").eval(),
        torch.rand(3, 1, *SHAPE),
    )
    exported = torch.export.export(network, (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.testing.assert_close(exported.module()(images), by_torch(network, images), rtol=1e-6, atol=1e-6)


def test_torch_export_in_3d() -> None:
    codec = {"codec": "deepfixcx", "levels": 1, "patch_size": 2, "spatial_dims": 3}
    network, volumes = privatized_mlp(codec, (8, 9, 7), in_channels=2).eval(), torch.rand(3, 2, 8, 9, 7)
    exported = torch.export.export(network, (volumes[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.testing.assert_close(exported.module()(volumes), by_torch(network, volumes), rtol=1e-6, atol=1e-6)

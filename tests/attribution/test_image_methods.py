"""Networks on privatized images, through MONAI's visualization."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from monai.data.meta_tensor import MetaTensor
from torch import Tensor, nn

from monai_deepfixcx.attribution import IMAGE_METHODS, attribute_image
from monai_deepfixcx.codecs import DeepFixCXCodec
from monai_deepfixcx.networks import PrivatizedNetwork, privatized_cnn, privatized_mlp

CODEC = DeepFixCXCodec(1, 4)


class Pooled(nn.Module):
    """One convolution, averaged: Grad-CAM of it is known."""

    def __init__(self, spatial_dims: int = 2, outputs: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = (nn.Conv2d if spatial_dims == 2 else nn.Conv3d)(1, 4, 3, padding=1)
        self.activation = nn.ReLU(inplace=True)
        self.classifier = nn.Linear(4, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B, outputs]``."""
        return self.classifier(self.activation(self.convolution(images)).flatten(2).mean(2))


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(12, 10), (6, 7, 5)])
def test_gradcam_of_one_convolution(shape: tuple[int, ...]) -> None:
    """The activations, weighted by the classifier's weights over the number of pixels, where positive."""
    network, given = Pooled(len(shape)), images(3, 1, *shape)
    found = attribute_image(network, given, "gradcam", target=[2, 0, 1])
    activations = network.convolution(given).relu().detach()
    weights = network.classifier.weight[[2, 0, 1]].detach() / given[0].numel()
    expected = torch.einsum("bc,bc...->b...", weights, activations).relu().unsqueeze(1)
    torch.testing.assert_close(found, expected)


def test_occlusion_of_a_brightness_detector() -> None:
    """Only where it looks does the output fall, by as much as the light that is taken."""

    class Corner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, values: Tensor) -> Tensor:
            return self.scale * values[:, 0, :8, :8].sum((1, 2)).unsqueeze(1)

    given = torch.ones(2, 1, 32, 32)
    found = attribute_image(Corner(), given, "occlusion", mask_size=8, overlap=0.0, mode=0.0)
    expected = torch.zeros(2, 1, 32, 32)
    expected[:, :, :8, :8] = 64
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("method", IMAGE_METHODS)
@pytest.mark.parametrize("feed", ["image", "small_image"])
def test_the_network_behind_a_codec(method: str, feed: Any) -> None:
    """Maps lie on the privatized image that the network is fed, enlarged or not; nothing is left behind."""
    network = privatized_cnn(CODEC, (24, 20), out_channels=2, backbone="resnet18", feed=feed).train()
    given = network.codec.decode(network.codec.encode(images(2, 1, 24, 20)), (24, 20), feed == "image")
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    states = copy.deepcopy(network.state_dict())
    with torch.no_grad():
        found = attribute_image(
            network, MetaTensor(given, meta={"filename_or_obj": "Jane.dcm"}), method, 1, **quick(method)
        )
    assert type(found) is Tensor
    assert found.shape == given.shape
    assert found.isfinite().all()
    assert not found.requires_grad
    assert network.training
    assert network.inputs == "images"
    assert all(torch.equal(value, states[key]) for key, value in network.state_dict().items())
    assert all(parameter.grad is not None and (parameter.grad == 1).all() for parameter in network.parameters())
    for module in network.modules():
        assert not module._forward_hooks
        assert not module._backward_hooks
    alone = attribute_image(network, given[1:], method, 1, **quick(method))
    torch.testing.assert_close(alone, found[1:], rtol=1e-2, atol=1e-3)


def quick(method: str) -> dict[str, Any]:
    return {"mask_size": 8, "overlap": 0.0} if method == "occlusion" else {}


def test_inplace_activations_stay_in_place() -> None:
    network = Pooled()
    attribute_image(network, images(1, 1, 8, 8), "gradcam++", target=0)
    assert network.activation.inplace


def test_a_layer_by_name() -> None:
    network, given = privatized_cnn(CODEC, (32, 32), backbone="resnet18", feed="image"), images(1, 1, 32, 32)
    last, named, early = (attribute_image(network, given, layer=name) for name in (None, "layer3", "layer1"))
    assert torch.equal(
        attribute_image(network.network, F.interpolate(given, (64, 64))).isfinite(), torch.ones(1, 1, 64, 64).bool()
    )
    assert named.shape == early.shape == last.shape
    assert not torch.equal(named, early)
    with pytest.raises(ValueError, match=r"layer must be the name of a module of the network, such as .*fc; got 'x'"):
        attribute_image(network, given, layer="x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "lrp"}, r"method must be one of gradcam, gradcam\+\+, occlusion; got 'lrp'"),
        ({"mask_size": 3}, r"method='gradcam' has no option 'mask_size'; it has only layer"),
        (
            {"method": "occlusion", "size": 3},
            r'method="occlusion" has other options, those of OcclusionSensitivity: .*size',
        ),
        ({"images": torch.full((1, 1, 8, 8), torch.nan)}, r"images must be finite, .*got \[1, 1, 8, 8\] with NaN"),
        ({"images": torch.rand(0, 1, 8, 8)}, r"images must be finite, \[B, C, \*S\] with B of at least 1; got \[0, 1"),
        ({"target": 3}, r"target must be from 0 to 2, one of the network's outputs; got 3"),
        ({"target": None}, r"target must name one of the network's 3 outputs"),
        ({"network": nn.Conv2d(1, 1, 1)}, r"network must give outputs \[B, L\] for images"),
        ({"network": nn.Sequential(nn.Flatten(), nn.Linear(64, 3))}, r"no module that gives a map of more than one"),
        ({"network": privatized_mlp(CODEC, (8, 8))}, r"network takes codes, not images; explain it with attribute"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    given = {"network": Pooled(), "images": images(1, 1, 8, 8), "target": 0, **arguments}
    with pytest.raises(ValueError, match=message):
        attribute_image(**given)


def test_maps_that_are_not_finite() -> None:
    network = Pooled()
    with torch.no_grad():
        network.convolution.bias.fill_(float("inf"))  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"method='occlusion' gave NaN or infinity for 1 of 1"):
        attribute_image(network, images(1, 1, 8, 8), "occlusion", target=0)


def test_a_privatized_network_is_not_asked_for_its_codec() -> None:
    """The map of a small image is that of its inner network on the enlarged one, at the small image's size."""
    network = PrivatizedNetwork(CODEC, Pooled(), (24, 20), feed="small_image", min_size=16)
    small = images(1, 1, 8, 8)
    enlarged = F.interpolate(small, (16, 16), mode="bilinear", align_corners=False)
    inner = attribute_image(network.network, enlarged, target=1)
    found = attribute_image(network, small, target=1)
    assert found.shape == small.shape
    torch.testing.assert_close(
        F.interpolate(found, (16, 16), mode="bilinear").mean(), inner.mean(), rtol=0.1, atol=1e-3
    )

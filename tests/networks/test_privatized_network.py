"""A codec inside a network: what goes in, what the network is given, and nothing that names a patient comes out."""

import pytest
import torch
import torch.nn.functional as F
from monai.data.meta_tensor import MetaTensor
from torch import Tensor, nn

from monai_deepfixcx.codecs import DeepFixCXCodec, HeartSpotCodec
from monai_deepfixcx.networks import (
    CodeMLP,
    PrivatizedNetwork,
    privatized_cnn,
    privatized_code_cnn,
    privatized_heartspot_mlp,
    privatized_mlp,
)
from monai_deepfixcx.networks.privatized_network import Feed

DEEPFIXCX = {"codec": "deepfixcx", "levels": 2, "patch_size": 3}


class Recorder(nn.Module):
    """Keeps what it is given."""

    given: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.given = x
        return x.flatten(1).sum(1, keepdim=True)


def test_the_network_is_given_the_code() -> None:
    codec, images = DeepFixCXCodec(2, 3), torch.rand(4, 2, 33, 30)
    recorder = Recorder()
    PrivatizedNetwork(codec, recorder, (33, 30))(images)
    assert torch.equal(recorder.given, codec.encode(images))


@pytest.mark.parametrize(("feed", "restore_size"), [("image", True), ("small_image", False)])
def test_the_network_is_given_the_privatized_image(feed: Feed, restore_size: bool) -> None:
    codec, images = DeepFixCXCodec(2, (3, 2)), torch.rand(4, 2, 33, 30)
    recorder = Recorder()
    PrivatizedNetwork(codec, recorder, (33, 30), feed, min_size=1)(images)
    decoded = codec.decode(codec.encode(images), (33, 30), restore_size)
    assert decoded.shape[2:] == ((33, 30) if restore_size else (12, 8))
    assert torch.equal(recorder.given, decoded)
    PrivatizedNetwork(codec, recorder, (33, 30), feed, min_size=31)(images)
    enlarged = (33, 31) if restore_size else (31, 31)
    assert torch.equal(recorder.given, F.interpolate(decoded, enlarged, mode="bilinear"))
    PrivatizedNetwork(codec, recorder, (33, 30), feed)(images)
    assert recorder.given.shape == (4, 2, 64, 64)


def test_volumes_are_enlarged_on_three_axes() -> None:
    recorder = Recorder()
    codec = DeepFixCXCodec(1, 2, spatial_dims=3)
    PrivatizedNetwork(codec, recorder, (9, 8, 10), "small_image", min_size=6)(torch.rand(1, 1, 9, 8, 10))
    assert recorder.given.shape == (1, 1, 6, 6, 6)


@pytest.mark.parametrize("feed", ["code", "image", "small_image"])
def test_codes_give_what_their_images_give(feed: Feed) -> None:
    codec, images = HeartSpotCodec("median+rhline", (40, 36)), torch.rand(4, 1, 40, 36)
    network = PrivatizedNetwork(codec, Recorder(), (40, 36), feed)
    expected = network(images)
    network.inputs = "codes"
    assert torch.equal(network(codec.encode(images)), expected)


def test_trained_on_codes_exported_for_images() -> None:
    """The weights and statistics of one load into the other; the fixed codec adds nothing to them."""
    codec, images = DeepFixCXCodec(2, 3), torch.rand(6, 1, 32, 32)
    on_codes = privatized_mlp(codec, (32, 32), inputs="codes", normalization="whiten")
    on_codes.fit_normalization(codec.encode(images).split(4))
    on_images = privatized_mlp(codec.config(), (32, 32), normalization="whiten")
    on_images.load_state_dict(on_codes.state_dict())
    assert torch.equal(on_images(images), on_codes(codec.encode(images)))
    assert all(name.startswith("network.") for name in on_codes.state_dict())


def test_normalization_is_fitted_on_the_codes_of_images() -> None:
    images = torch.rand(6, 1, 32, 32)
    network = privatized_mlp(DEEPFIXCX, (32, 32), normalization="0mean")
    network.fit_normalization(batch["image"] for batch in [{"image": images[:4]}, {"image": images[4:]}])
    assert isinstance(network.network, CodeMLP)
    torch.testing.assert_close(
        network.network.normalization.mean, network.codec.encode(images).double().mean(0), rtol=1e-6, atol=0
    )


def test_a_learnable_codec_learns_and_is_in_the_checkpoint() -> None:
    network = privatized_mlp({**DEEPFIXCX, "adaptive": "filters_1d"}, (32, 32))
    network(torch.rand(2, 1, 32, 32)).sum().backward()
    gradient = dict(network.named_parameters())["codec.analysis.filters"].grad
    assert gradient is not None
    assert gradient.abs().sum() > 0
    assert "codec.analysis.filters" in network.state_dict()


def test_no_metadata_passes() -> None:
    images = MetaTensor(torch.rand(2, 1, 32, 32), meta={"filename_or_obj": "patient_7.dcm"})
    for network in (privatized_mlp(DEEPFIXCX, (32, 32)), PrivatizedNetwork(DEEPFIXCX, Recorder(), (32, 32), "image")):
        assert type(network(images)) is Tensor
        network.inputs = "codes"
        assert type(network(MetaTensor(network.codec.encode(images)))) is Tensor


def test_channels_colour_and_multiplied() -> None:
    images = torch.rand(2, 3, 32, 32)
    codec = DeepFixCXCodec(2, 3, in_channels=3, channel_multiplier=2)
    for config in (codec, {**DEEPFIXCX, "zero_mean": True}):
        for network in (
            privatized_mlp(config, (32, 32), 3, 5),
            privatized_heartspot_mlp(config, (32, 32), 3, 5),
            privatized_code_cnn(config, (32, 32), 3, 5),
            privatized_cnn(config, (32, 32), 3, 5, backbone="resnet18"),
        ):
            assert network.eval()(images).shape == (2, 5)


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match="feed must be one of code, image, small_image; got 'big'"):
        PrivatizedNetwork(DEEPFIXCX, Recorder(), (32, 32), "big")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="inputs must be one of images, codes; got 'files'"):
        PrivatizedNetwork(DEEPFIXCX, Recorder(), (32, 32), inputs="files")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"spatial_shape must have 2 values for this codec; got \(8, 8, 8\)"):
        PrivatizedNetwork(DEEPFIXCX, Recorder(), (8, 8, 8))
    with pytest.raises(ValueError, match="patch_size must be at most the subbands' size"):
        PrivatizedNetwork(DEEPFIXCX, Recorder(), (8, 8))
    with pytest.raises(ValueError, match=r"images must have shape \[B, C, 32, 32\]; got \[2, 1, 40, 32\]. Resize"):
        privatized_mlp(DEEPFIXCX, (32, 32))(torch.rand(2, 1, 40, 32))
    with pytest.raises(TypeError, match="network must be a CodeMLP to have its normalization fitted"):
        privatized_heartspot_mlp(DEEPFIXCX, (32, 32)).fit_normalization([torch.rand(2, 1, 32, 32)])
    with pytest.raises(ValueError, match="backbone must be one of densenet121, resnet18, efficientnet_b0; got 'vgg'"):
        privatized_cnn(DEEPFIXCX, (32, 32), backbone="vgg")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='feed must be "image" or "small_image"; got "code"'):
        privatized_cnn(DEEPFIXCX, (32, 32), feed="code")
    with pytest.raises(ValueError, match="codec must be one of"):
        privatized_mlp({"codec": "jpeg"}, (32, 32))

"""Bad input: one clear error each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from torch import Tensor, nn

from monai_deepfixcx.attribution import METHODS, attribute
from monai_deepfixcx.codecs import DeepFixCXCodec, HeartSpotCodec
from monai_deepfixcx.data import CodeStore
from monai_deepfixcx.networks import CodeMLP, privatized_mlp

CODEC, SHAPE = DeepFixCXCodec(2, 3), (32, 32)
GRADIENT = [name for name, method in METHODS.items() if method.gradient]


def codes() -> Tensor:
    return CODEC.encode(torch.rand(4, 1, *SHAPE, generator=torch.Generator().manual_seed(0)))


def explain(network: nn.Module | None = None, given: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
    network = CodeMLP(144, out_channels=3, width=10) if network is None else network
    return attribute(network, codes() if given is None else given, CODEC, SHAPE, *args, **{"target": 0, **kwargs})


class Head(nn.Module):
    """A network made of one function."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, values: Tensor) -> Any:
        """What the function gives."""
        return self.function(values)


def test_a_code_from_another_codec(tmp_path: Any) -> None:
    store = CodeStore.open(tmp_path, DeepFixCXCodec(2, 3, wavelet="coif1"))
    with pytest.raises(ValueError, match=r"codes were made by another codec: their fingerprint is .*Use the codec of"):
        explain(fingerprint=store.fingerprint)
    assert explain(fingerprint=CODEC.fingerprint()).code.shape == (4, 1, 144)


@pytest.mark.parametrize("shape", [(4, 1, 100), (4, 144), (0, 1, 144)])
def test_a_code_of_another_length(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"codes must have shape \[B, C, 144\].*32x32 images; got \[.*another codec"):
        explain(None, torch.rand(shape))


def test_a_network_for_another_codec() -> None:
    other = DeepFixCXCodec(2, 3, features=["max"])
    with pytest.raises(ValueError, match=r"network was built for codes of \{.*max.*Give network.codec"):
        explain(privatized_mlp(other, SHAPE))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_codes_that_are_not_finite(value: float) -> None:
    given = codes()
    given[2, 0, 5] = value
    with pytest.raises(ValueError, match=r"codes must be finite; got NaN or infinity in 1 of 4, first in code 2"):
        explain(None, given)


@pytest.mark.parametrize("method", METHODS)
def test_attributions_that_are_not_finite(method: str) -> None:
    network = CodeMLP(144, width=10)
    with torch.no_grad():
        network.layers[0].weight.fill_(float("nan"))  # type: ignore[operator]
    with pytest.raises(
        ValueError, match=rf"method='{method}' gave NaN or infinity for 4 of 4 codes. Check the network"
    ):
        explain(network, None, method)


@pytest.mark.parametrize("target", [3, -1, [0, 1, 2, 3]])
def test_a_target_out_of_range(target: Any) -> None:
    with pytest.raises(ValueError, match=r"target must be from 0 to 2, one of the network's outputs; got (3|-1)"):
        explain(target=target)


def test_no_target_for_several_outputs() -> None:
    with pytest.raises(ValueError, match=r"target must name one of the network's 3 outputs, 0 to 2; got None"):
        explain(target=None)


@pytest.mark.parametrize("target", [0.5, [0, 1], True])
def test_a_target_that_is_no_index(target: Any) -> None:
    with pytest.raises(ValueError, match=r"target must be an integer, or one for each of the 4 codes; got torch"):
        explain(target=target)


@pytest.mark.parametrize("function", [lambda x: x.flatten(1).sum(1), lambda x: x.flatten(1).sum(1, keepdim=True)])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", [None, 0])
def test_a_single_output_needs_no_target(function: Any, method: str, target: int | None) -> None:
    found = explain(Head(function), None, method, target=target)
    assert found.target.tolist() == [0] * 4
    assert found.output.shape == (4,)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.detach().flatten(1)[:, :3],
        lambda x: torch.from_numpy(x.numpy()).flatten(1)[:, :3],
        lambda x: (x.flatten(1)[:, :3] > 0.5).long(),
    ],
    ids=["detached", "numpy", "thresholded"],
)
@pytest.mark.parametrize("method", METHODS)
def test_a_head_without_gradient(function: Any, method: str) -> None:
    if method in GRADIENT:
        message = (
            rf"method='{method}' needs a network whose output has a gradient .*Use occlusion, feature_ablation, sha"
        )
        with pytest.raises(ValueError, match=message):
            explain(Head(function), None, method)
    else:
        assert explain(Head(function), None, method).code.shape == (4, 1, 144)


@pytest.mark.parametrize("function", [lambda x: x, lambda x: {"logits": x}, lambda x: x.sum()])
def test_outputs_of_another_shape(function: Any) -> None:
    with pytest.raises(ValueError, match=r"network must give outputs \[B\] or \[B, L\]; got .* for one code"):
        explain(Head(function))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "lime"}, r"method must be one of integrated_gradients, .*shapley_sampling; got 'lime'"),
        ({"batch_size": 0}, r"batch_size must be at least 1; got 0"),
        ({"samples": 3}, r"method='integrated_gradients' has no option 'samples'; it has steps"),
        ({"method": "deeplift", "steps": 3}, r"method='deeplift' has no option 'steps'; it has none"),
        ({"steps": 0}, r"steps must be an integer of at least 1; got 0"),
        ({"method": "noise_tunnel", "around": "lime"}, r"around must be saliency, .*integrated_gradients; got 'lime'"),
        (
            {"method": "occlusion", "window": 0},
            r"window must be at least 1 and stride from 1 to window; got 0 and None",
        ),
        ({"method": "feature_ablation", "over": "x"}, r'over must be "patches", "subbands" or "values"; got \'x\''),
        ({"baseline": "blur"}, r"baseline must be one of lowest_subband, zero, mean, or a code \[C, D\]; got 'blur'"),
        (
            {"baseline": torch.rand(7)},
            r"baseline must be a code \[1, 144\], or one for each .*\[4, 1, 144\]; got \[7\]",
        ),
        ({"baseline": torch.full((1, 144), torch.nan)}, r"baseline must be finite; got NaN or infinity"),
        ({"baseline": "mean"}, r'baseline="mean" needs a network that stores .*For any other give the mean itself'),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explain(**arguments)


def test_a_baseline_of_subbands_where_there_are_none() -> None:
    codec = HeartSpotCodec("heart", (32, 32))
    given = codec.encode(torch.rand(2, 1, 32, 32))
    with pytest.raises(ValueError, match=r'baseline="lowest_subband" needs a DeepFixCX code; got one of heartspot'):
        attribute(CodeMLP(given.shape[-1]), given, codec, (32, 32), baseline="lowest_subband")


def test_a_network_is_restored_after_an_error() -> None:
    network = privatized_mlp(CODEC, SHAPE, out_channels=3).train()
    with pytest.raises(ValueError, match=r"target must be from 0 to 2"):
        explain(network, target=9)
    assert network.training
    assert network.inputs == "images"


@pytest.mark.parametrize("method", METHODS)
def test_no_metadata_comes_out(method: str) -> None:
    """Neither of codes nor of baselines that are MetaTensors, nor a gradient."""
    given = MetaTensor(codes(), meta={"filename_or_obj": "/data/Jane_Doe.dcm"})
    baseline = MetaTensor(torch.rand(1, 144), meta={"filename_or_obj": "/data/Jane_Doe.dcm"})
    found = explain(
        None, given.requires_grad_(), method, baseline=baseline, target=MetaTensor(torch.tensor([0, 1, 2, 0]))
    )
    for value in (*vars(found).values(), found.image, found.spatial_bias, found.subband_bias):
        if isinstance(value, Tensor):
            assert type(value) is Tensor
            assert not value.requires_grad
    assert "Jane" not in repr(vars(found))
    assert given.grad is None


@pytest.mark.parametrize("method", METHODS)
def test_under_inference_mode(method: str) -> None:
    """Where MONAI's evaluators may call it, with codes made there."""
    network = CodeMLP(144, out_channels=3, width=10)
    with torch.inference_mode():
        found = explain(network, codes(), method, baseline="zero")
    torch.testing.assert_close(found.code, explain(network, None, method, baseline="zero").code)


def test_codes_of_other_kinds_of_numbers() -> None:
    network = CodeMLP(144, width=10)
    exact = explain(network)
    torch.testing.assert_close(explain(network, codes().double()).code, exact.code)
    torch.testing.assert_close(explain(network, codes().half()).code, exact.code, rtol=0.1, atol=0.1)
    assert explain(network, codes().int()).code.dtype == torch.float32


def test_progress_is_drawn_only_when_asked(capfd: pytest.CaptureFixture[str]) -> None:
    for method in METHODS:
        explain(None, None, method)
    assert capfd.readouterr().err == ""
    for method in METHODS:
        explain(None, None, method, progress=True)
        assert "%" in capfd.readouterr().err, method

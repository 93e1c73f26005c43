"""What holds for every method on every head."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import pytest
import torch

from monai_deepfixcx.attribution import METHODS, PrivatizedAttribution, attribute
from monai_deepfixcx.attribution.layout import has_grid
from monai_deepfixcx.codecs import ConstantCodec, DeepFixCXCodec, HeartSpotCodec
from tests.attribution.heads import HEADS, Head

# Small counts: what is tested here does not depend on them.
FEW: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": 4},
    "noise_tunnel": {"steps": 2, "samples": 2},
    "smoothgrad": {"samples": 2},
    "gradient_shap": {"samples": 2},
    "shapley_sampling": {"samples": 2},
}
CONVOLUTIONAL = ("code_cnn", "image_cnn")
head = cache(lambda name: HEADS[name]())
every_pair = pytest.mark.parametrize(("name", "method"), [(name, method) for name in HEADS for method in METHODS])


def options_of(made: Head, method: str) -> dict[str, Any]:
    by_value = method in ("feature_ablation", "shapley_sampling") and not has_grid(made.codec)
    return {**FEW.get(method, {}), **({"over": "values"} if by_value else {})}


def explain(name: str, method: str, **arguments: Any) -> PrivatizedAttribution:
    made = head(name)
    given = {"target": [2, 0, 1], **options_of(made, method), **arguments}
    return attribute(made.network, made.codes, made.codec, made.spatial_shape, method, **given)


def is_refused(name: str, method: str) -> bool:
    """Says whether a method cannot explain a head, after checking that it says so clearly."""
    if method == "occlusion" and not has_grid(head(name).codec):
        with pytest.raises(ValueError, match=r'belong to no one place. Use over="values"'):
            explain(name, method)
        return True
    if method == "deeplift" and name in CONVOLUTIONAL:  # MONAI's ResNet calls its activations twice
        with pytest.raises(ValueError, match=r"calls every activation once; 'network.*act' is called 2 times"):
            explain(name, method)
        return True
    return False


@every_pair
def test_plain_finite_tensors_of_the_promised_shapes(name: str, method: str) -> None:
    if is_refused(name, method):
        return
    made, found = head(name), explain(name, method)
    batch, channels, _ = made.codes.shape
    assert found.code.shape == found.baseline.shape == made.codes.shape
    assert found.output.shape == found.baseline_output.shape == found.target.shape == (batch,)
    assert (found.delta is not None) == METHODS[method].complete
    if isinstance(made.codec, DeepFixCXCodec):
        assert found.spatial_bias is not None
        assert found.subband_bias is not None
        assert found.spatial_bias.shape == (batch, *made.codec.patch_size)
        subbands = 2 ** (made.codec.spatial_dims * made.codec.levels_for(made.spatial_shape))
        assert found.subband_bias.shape == (batch, subbands)
        torch.testing.assert_close(found.subband_bias.sum(1), found.code.sum((1, 2)), rtol=1e-4, atol=1e-4)
    else:
        assert found.subband_bias is None
    if found.spatial_bias is not None:
        placed = found.code
        if isinstance(made.codec, HeartSpotCodec) and made.codec.aggregate == "sum":
            # A column or row without a kept pixel has no place for its share.
            placed = placed * torch.cat([made.codec.mask.any(0), made.codec.mask.any(1)])
        torch.testing.assert_close(found.spatial_bias.flatten(1).sum(1), placed.sum((1, 2)), rtol=1e-4, atol=1e-4)
    else:
        assert isinstance(made.codec, ConstantCodec)
    if found.image is None:
        assert isinstance(made.codec, DeepFixCXCodec)
        assert len(made.codec.features) > 1
    else:
        assert found.image.shape == (batch, channels, *made.spatial_shape)
    for value in (*vars(found).values(), found.image, found.spatial_bias, found.subband_bias, found.scattered):
        if isinstance(value, torch.Tensor):
            assert type(value) is torch.Tensor
            assert not value.requires_grad
            assert value.isfinite().all()
            assert value.device == made.codes.device


@every_pair
def test_nothing_is_left_behind(name: str, method: str) -> None:
    """Modes, gradients, hooks, inputs, codes and random states are as they were, inside a trainer as well."""
    if is_refused(name, method):
        return
    made = head(name)
    network, codes = made.network.train(), made.codes.clone()
    next(network.children()).eval()
    modes = [module.training for module in network.modules()]
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    states = {key: value.clone() for key, value in network.state_dict().items()}
    before = torch.random.get_rng_state()
    with torch.no_grad():
        explain(name, method)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert [module.training for module in network.modules()] == modes
    assert all(parameter.grad is not None and (parameter.grad == 1).all() for parameter in network.parameters())
    assert all(torch.equal(value, states[key]) for key, value in network.state_dict().items())
    for module in network.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
        assert not {"input", "output", "input_ref"} & vars(module).keys()
    assert torch.equal(made.codes, codes)
    assert not made.codes.requires_grad
    assert getattr(network, "inputs", "images") == "images"


@every_pair
def test_a_batch_gives_what_its_codes_give_one_by_one(name: str, method: str) -> None:
    if is_refused(name, method):
        return
    made, whole = head(name), explain(name, method, seed=7)
    for index, target in enumerate([2, 0, 1]):
        alone = attribute(
            made.network,
            made.codes[index : index + 1],
            made.codec,
            made.spatial_shape,
            method,
            target,
            seed=7,
            **options_of(made, method),
        )
        torch.testing.assert_close(alone.code, whole.code[index : index + 1], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(whole[[index]].code, whole.code[[index]])


@pytest.mark.parametrize("method", [name for name, entry in METHODS.items() if not entry.random])
def test_the_batch_size_changes_nothing(method: str) -> None:
    expected = explain("mlp", method).code
    for batch_size in (1, 5, 1000):
        torch.testing.assert_close(explain("mlp", method, batch_size=batch_size).code, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["smoothgrad", "noise_tunnel", "gradient_shap", "shapley_sampling"])
def test_the_seed_decides_what_is_drawn(method: str) -> None:
    first, again, other = (explain("mlp", method, seed=seed).code for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("method", METHODS)
def test_each_target_is_explained_by_itself(method: str) -> None:
    """Of a network with several labels: one target a code is what each target alone gives."""
    mixed = explain("mlp", method)
    for index, target in enumerate([2, 0, 1]):
        alone = explain("mlp", method, target=target)
        torch.testing.assert_close(alone.code[index], mixed.code[index], rtol=1e-3, atol=1e-5)
        assert mixed.target[index] == target


@pytest.mark.parametrize("name", HEADS)
def test_the_decoded_attribution_is_linear(name: str) -> None:
    """All but HeartSpot's pool of quantiles; what goes into that pool is."""
    made = head(name)
    one, two = (explain(name, "input_x_gradient", target=target) for target in (0, 1))
    mixed = PrivatizedAttribution(
        **{
            **{field.name: getattr(one, field.name) for field in dataclasses.fields(one)},
            "code": 2 * one.code - 3 * two.code,
        }
    )
    for view in ("scattered", "image", "spatial_bias", "subband_bias"):
        values = [getattr(found, view) for found in (one, two, mixed)]
        if values[0] is not None and not (view == "image" and isinstance(made.codec, HeartSpotCodec)):
            torch.testing.assert_close(values[2], 2 * values[0] - 3 * values[1], rtol=1e-3, atol=1e-4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["mlp", "mlp_3d", "heartspot"])
def test_cuda(name: str, method: str) -> None:
    """The network's device is used, the codes' is given back; noise differs between devices."""
    made = HEADS[name]()
    on_cpu = explain(name, method)
    made.network.cuda()
    for codes in (made.codes, made.codes.cuda()):
        found = attribute(
            made.network, codes, made.codec, made.spatial_shape, method, [2, 0, 1], **options_of(made, method)
        )
        assert found.code.device == codes.device
        assert found.spatial_bias is not None
        assert found.spatial_bias.device == codes.device
        assert found.image is None or found.image.device == codes.device
        if not METHODS[method].random:
            torch.testing.assert_close(found.code.cpu(), on_cpu.code, rtol=1e-3, atol=1e-4)

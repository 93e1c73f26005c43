"""DeepFixCXCodec against the published values, the golden arrays, the slow reference and its invariants."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from monai_deepfixcx.codecs import FEATURES, DeepFixCXCodec
from tests import reference

OWN = Path(__file__).parents[1] / "golden" / "deepfixcx.npz"
PUBLISHED = Path(__file__).parents[3] / "shared" / "golden" / "deepfixcx.npz"


def images_of(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.from_numpy(reference.golden_image(seed, shape))


@pytest.mark.parametrize("golden", [OWN, PUBLISHED], ids=["own", "published"])
def test_codes_and_images_equal_the_golden_arrays(golden: Path) -> None:
    if not golden.exists():
        pytest.skip("the published values are not on this machine")
    arrays = np.load(golden)
    cases: list[dict[str, Any]] = json.loads(bytes(arrays["cases.json"]))
    assert len(cases) >= 11
    for case in cases:
        shape = case["shape"]
        codec = DeepFixCXCodec(
            case["J"],
            case["P"],
            case["wavelet"],
            case["features"],
            case.get("zero_mean", False),
            spatial_dims=len(shape) - 2,
        )
        codes = codec.encode(images_of(shape, case["seed"]))
        name = case["name"]
        np.testing.assert_allclose(codes, arrays[f"{name}/z"], rtol=1e-4, atol=1e-4, err_msg=name)
        for key, restore_size in (("rec_full", True), ("rec_small", False)):
            assert (f"{name}/{key}" in arrays) == (len(codec.features) == 1)
            if len(codec.features) == 1:
                decoded = codec.decode(codes, shape[2:], restore_size)
                np.testing.assert_allclose(decoded, arrays[f"{name}/{key}"], rtol=1e-4, atol=1e-4, err_msg=name)


@settings(deadline=None, max_examples=50)
@given(
    levels=st.integers(1, 3),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    wavelet=st.sampled_from(["db1", "db2", "coif1", "bior2.2"]),
    feature=st.sampled_from(FEATURES),
    shape=st.tuples(st.integers(26, 41), st.integers(26, 41)),
    zero_mean=st.booleans(),
    seed=st.integers(0, 999),
)
def test_any_configuration_equals_the_reference(
    levels: int,
    grid: tuple[int, int],
    wavelet: str,
    feature: Any,
    shape: tuple[int, int],
    zero_mean: bool,
    seed: int,
) -> None:
    images = images_of((1, 1, *shape), seed).double()
    codec = DeepFixCXCodec(levels, grid, wavelet, [feature], zero_mean)
    codes = codec.encode(images)
    expected = reference.encode(images[0, 0].numpy(), levels, grid, wavelet, [feature], zero_mean)
    np.testing.assert_allclose(codes[0, 0], expected, rtol=1e-9, atol=1e-9)
    for restore_size in (True, False):
        decoded = codec.decode(codes, shape, restore_size)[0, 0]
        again = reference.decode(expected, shape, levels, grid, wavelet, restore_size)
        np.testing.assert_allclose(decoded, again, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(levels=st.integers(1, 3), patch=st.integers(1, 3), n=st.integers(1, 5), seed=st.integers(0, 999))
def test_a_batch_of_n_is_n_batches_of_one(levels: int, patch: int, n: int, seed: int) -> None:
    codec = DeepFixCXCodec(levels, patch, features=FEATURES)
    images = images_of((n, 2, 25, 31), seed)
    torch.testing.assert_close(codec.encode(images), torch.cat([codec.encode(image[None]) for image in images]))


@settings(deadline=None, max_examples=30)
@given(scale=st.floats(0.01, 300), seed=st.integers(0, 999))
def test_scaling_the_image_scales_the_code(scale: float, seed: int) -> None:
    images = images_of((1, 1, 32, 40), seed).double()
    for feature in FEATURES:
        codec = DeepFixCXCodec(2, 3, features=[feature])
        power = 2 if feature == "l2" else 1
        # sum_pos and sum_neg leave out what is within 1e-6 of zero, whatever the scale: at most that per pixel.
        slack = 1e-6 * (1 + scale) * 12 if feature in ("sum_pos", "sum_neg") else 1e-9
        scaled, expected = codec.encode(scale * images), scale**power * codec.encode(images)
        torch.testing.assert_close(scaled, expected, rtol=1e-9, atol=slack)


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(0, 3), cols=st.integers(0, 3), levels=st.integers(1, 3), seed=st.integers(0, 999))
def test_patch_aligned_shifts_of_the_image_shift_the_patches(rows: int, cols: int, levels: int, seed: int) -> None:
    patch_pixels = 3 * 2**levels
    images = images_of((1, 1, 4 * patch_pixels, 4 * patch_pixels), seed).double()
    codec = DeepFixCXCodec(levels, 4, features=FEATURES)
    moved = codec.encode(images.roll((rows * patch_pixels, cols * patch_pixels), dims=(2, 3)))
    grid = (-1, 4, 4, len(FEATURES))
    torch.testing.assert_close(
        moved.unflatten(2, grid), codec.encode(images).unflatten(2, grid).roll((rows, cols), dims=(3, 4))
    )


def test_nothing_pooled_and_db1_gives_the_image_back() -> None:
    codec = DeepFixCXCodec(2, 8, features=["sum"])
    images = images_of((2, 3, 32, 32)).double()
    torch.testing.assert_close(codec(images), images)


def test_the_lowest_l1_band_is_a_box_averaged_thumbnail() -> None:
    # Why the paper's decoder understates an attacker (METHODS.md, privacy figures).
    images = images_of((1, 1, 40, 40)).double()
    lowest = DeepFixCXCodec(2, 5).encode(images).unflatten(2, (16, 5, 5))[:, :, 0]
    torch.testing.assert_close(lowest / 4 / 2**2, torch.nn.functional.avg_pool2d(images, 8))


def test_max_levels_follow_pywavelets_and_the_grid() -> None:
    assert DeepFixCXCodec("max", 1).levels_for((320, 320)) == 8
    assert DeepFixCXCodec("max", 5).levels_for((320, 320)) == 6
    assert DeepFixCXCodec("max", 1, "coif1").levels_for((320, 400)) == 6
    codec = DeepFixCXCodec("max", 5)
    images = images_of((1, 1, 64, 80))
    codes = codec.encode(images)
    assert codes.shape == (1, 1, 4 ** codec.levels_for((64, 80)) * 25)
    assert codec.decode(codes, (64, 80)).shape == images.shape


def test_channel_mix_is_fixed_by_its_seed_and_enlarges_the_code() -> None:
    images = images_of((2, 3, 32, 32))
    codec = DeepFixCXCodec(2, 3, in_channels=3, channel_multiplier=4, seed=1)
    codes = codec.encode(images)
    assert codes.shape == (2, 12, codec.code_length((32, 32)))
    assert codec.decode(codes, (32, 32)).shape == (2, 12, 32, 32)
    torch.testing.assert_close(
        codes, DeepFixCXCodec(2, 3, in_channels=3, channel_multiplier=4, seed=1).encode(images), rtol=0, atol=0
    )
    assert not torch.equal(codes, DeepFixCXCodec(2, 3, in_channels=3, channel_multiplier=4, seed=2).encode(images))
    mix = codec.channel_mix.float()
    by_hand = torch.nn.functional.celu(torch.nn.functional.conv2d(images, mix[:, :, None, None]))
    torch.testing.assert_close(codes, DeepFixCXCodec(2, 3).encode(by_hand))


@pytest.mark.parametrize("adaptive", ["filters_1d", "filters_2d"])
def test_adaptive_filters_learn_through_encode_and_decode(adaptive: Any) -> None:
    codec = DeepFixCXCodec(2, 4, "db2", ["sum"], adaptive=adaptive)
    images = images_of((4, 1, 32, 32))
    torch.testing.assert_close(codec(images), DeepFixCXCodec(2, 4, "db2", ["sum"])(images), rtol=1e-4, atol=1e-4)
    before, optimizer = codec.fingerprint(), torch.optim.Adam(codec.parameters(), lr=1e-3)
    losses = []
    for _ in range(20):
        loss = (codec(images) - images).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert codec.fingerprint() != before


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r'levels must be an integer of at least 1, or "max"; got 0'):
        DeepFixCXCodec(0, 5)
    with pytest.raises(ValueError, match=r"patch_size must be a positive integer, or 2 of them .*; got \(1, 2, 3\)"):
        DeepFixCXCodec(1, (1, 2, 3))
    with pytest.raises(ValueError, match=r"features must be a non-empty list from l1, sum, .*; got \['mean'\]"):
        DeepFixCXCodec(1, 5, features=["mean"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"features must be a non-empty list .*; got 'l1'"):
        DeepFixCXCodec(1, 5, features="l1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"channel_multiplier must be at least 1, and above 1 needs in_channels"):
        DeepFixCXCodec(1, 5, channel_multiplier=2)
    with pytest.raises(ValueError, match=r"images must have in_channels=3 channels; got 1"):
        DeepFixCXCodec(1, 5, in_channels=3).encode(torch.zeros(1, 1, 32, 32))
    with pytest.raises(
        ValueError,
        match=r"patch_size must be at most the subbands' size, 8x8 for a 256x256 image at levels=5; got 12x12\. Lower",
    ):
        DeepFixCXCodec(5, 12).encode(torch.zeros(1, 1, 256, 256))
    with pytest.raises(ValueError, match=r"decode needs a code of one pooled feature; this codec has 2 \(l1, max\)"):
        DeepFixCXCodec(1, 5, features=["max", "l1"]).decode(torch.zeros(1, 1, 200), (32, 32))

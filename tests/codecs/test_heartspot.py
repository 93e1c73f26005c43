"""HeartSpotCodec against the published masks and values, the golden arrays and the slow reference."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from monai_deepfixcx.codecs import HEART, HeartSpotCodec, median_pool, quadtree, quantile_pool
from monai_deepfixcx.codecs.priors import Mask, polygon_mask
from tests import make_golden, reference

OWN = Path(__file__).parents[1] / "golden" / "heartspot.npz"
PUBLISHED = Path(__file__).parents[3] / "shared" / "golden"
PRIORS = ("quadtree", "median", "hline", "rline", "rhline", "heart")
published = pytest.mark.skipif(not PUBLISHED.exists(), reason="the published values are not on this machine")


def image_of(shape: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.from_numpy(reference.golden_image(seed, (1, 1, *shape)))


def overlap(a: Mask, b: Mask) -> float:
    return float((a & b).sum() / (a | b).sum())


def published_mask(name: str) -> Mask:
    masks = np.load(PUBLISHED / "heartspot_masks.npz")
    shape = tuple(masks[f"{name}.shape"])
    mask: Mask = np.unpackbits(masks[name], count=shape[0] * shape[1]).reshape(shape).astype(bool)
    return mask


@published
@pytest.mark.parametrize(
    "prior",
    ["hline", "rline", "heart", "rhline", "rline+heart", "rhline+heart", "median+rhline+heart", "median+hline"],
)
def test_published_masks(prior: str) -> None:
    expected = published_mask(prior)
    assert overlap(HeartSpotCodec(prior).mask.numpy(), expected) >= (0.98 if "heart" in prior else 1)
    region = published_mask("heart") if "heart" in prior else None
    np.testing.assert_array_equal(HeartSpotCodec(prior, region=region).mask, expected)


@published
def test_published_mask_without_its_top_third() -> None:
    expected = published_mask("rline_zero_top")
    np.testing.assert_array_equal(HeartSpotCodec("rline", zero_top_fraction=1 / 3).mask, expected)


@published
def test_published_values() -> None:
    values = np.load(PUBLISHED / "heartspot_values.npz")
    codec = HeartSpotCodec("rhline+heart", region=published_mask("heart"))
    np.testing.assert_array_equal(codec.encode(image_of((320, 320), 50)), values["code_rhline_heart"])
    sums = HeartSpotCodec("", aggregate="sum").encode(image_of((320, 320), 50))
    np.testing.assert_allclose(sums, values["sum_aggregate"], rtol=1e-5)
    np.testing.assert_allclose(median_pool(image_of((64, 64), 51)), values["median_pool"], rtol=1e-6)
    blocky = image_of((60, 64), 52)
    blocky[:, :, :30, :30] = (4 * blocky[:, :, :30, :30]).round() / 4
    for threshold in (6, 12):
        np.testing.assert_allclose(quadtree(blocky, threshold), values[f"quadtree_{threshold}"], rtol=1e-5)
    sparse = torch.zeros(1, 1, 64, 64)
    sparse[:, :, ::7] = image_of((64, 64), 53)[:, :, ::7]
    np.testing.assert_allclose(quantile_pool(sparse, 24, 1, 0.9), values["quantile_pool_90"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("prior", "kept"),
    [("hline", 6400), ("rline", 28246), ("rhline", 32797), ("median+hline", 3200), ("", 320 * 320)],
)
def test_kept_pixels_at_320(prior: str, kept: int) -> None:
    assert HeartSpotCodec(prior).code_length((320, 320)) == kept


def golden_cases() -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads(bytes(np.load(OWN)["cases.json"]))
    return cases


@pytest.mark.parametrize("case", golden_cases(), ids=lambda case: case["name"])
def test_golden_arrays(case: dict[str, Any]) -> None:
    arrays, kind = np.load(OWN), case["kind"]
    if kind == "mask":
        grid = tuple(case["grid"])
        expected = np.unpackbits(arrays[f"{case['name']}/mask"], count=grid[0] * grid[1]).reshape(grid).astype(bool)
        options = {key: case[key] for key in ("seed", "line_count", "zero_top_fraction") if key in case}
        mask = HeartSpotCodec(case["prior"], case["shape"], **options).mask.numpy()
        # The reference draws its region with scikit-image, which may decide otherwise on a pixel the edge runs through.
        assert (mask != expected).sum() <= (2 if "heart" in case["prior"] else 0)
        return
    image = torch.from_numpy(make_golden.heartspot_input(case))[None, None]
    expected = arrays[f"{case['name']}/value"]
    if kind == "median_pool":
        value = median_pool(image)
    elif kind == "quantile_pool":
        value = quantile_pool(image, case["kernel"], case["stride"], case["q"])
    elif kind == "quadtree":
        value = quadtree(image, case["threshold"], case["criterion"])
    else:
        aggregate: Any = "sum" if kind == "sum_aggregate" else "pixels"
        value = HeartSpotCodec(case["prior"], case["shape"], aggregate=aggregate).encode(image)
    np.testing.assert_allclose(value[0, 0].reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


def test_every_combination_of_priors_equals_the_reference() -> None:
    image = image_of((45, 61))
    for count in range(len(PRIORS) + 1):
        for names in itertools.combinations(PRIORS, count):
            prior = "+".join(names)
            codec = HeartSpotCodec(prior, (45, 61))
            expected = reference.heartspot_mask(prior, (45, 61))
            assert overlap(codec.mask.numpy(), expected) > 0.995, prior
            before = quadtree(image, 30) if "quadtree" in names else image
            before = median_pool(before) if "median" in names else before
            np.testing.assert_array_equal(codec.encode(image)[0, 0], before[0, 0][codec.mask])
            assert codec(image).shape == image.shape


@settings(deadline=None, max_examples=25)
@given(shape=st.tuples(st.integers(8, 90), st.integers(8, 90)), seed=st.integers(0, 999), lines=st.integers(1, 60))
def test_lines_equal_the_reference_at_any_size(shape: tuple[int, int], seed: int, lines: int) -> None:
    codec = HeartSpotCodec("rhline", shape, seed, lines, zero_top_fraction=0.2)
    expected = reference.rline_mask(shape, seed, lines, 0.2) | reference.hline_mask(shape)
    np.testing.assert_array_equal(codec.mask, expected)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=8))
def test_polygons_equal_scikit_image_but_for_their_edges(polygon: list[tuple[float, float]]) -> None:
    ours, theirs = polygon_mask(polygon, (40, 50)), reference.heart_mask((40, 50), polygon)
    perimeter = sum(
        np.hypot(*((np.array(a) - b) * (40, 50))) for a, b in zip(polygon, polygon[1:] + polygon[:1], strict=True)
    )
    assert (ours != theirs).sum() <= perimeter + 2


@pytest.mark.parametrize("criterion", ["entropy", "std"])
def test_quadtree_equals_the_reference_and_carries_gradients(criterion: Any) -> None:
    threshold = 12.0 if criterion == "entropy" else 0.2
    image = image_of((47, 33), 3)
    expected = reference.quadtree(image[0, 0].double().numpy(), threshold, criterion)
    np.testing.assert_allclose(quadtree(image, threshold, criterion)[0, 0], expected, rtol=1e-5)
    image = image.double().requires_grad_()
    quadtree(image, threshold, criterion).sum().backward()
    assert image.grad is not None
    torch.testing.assert_close(image.grad, torch.ones_like(image))  # means keep the sum


def test_quadtree_bins_eight_bit_values_alike_in_float32_and_float64() -> None:
    eight_bit = (image_of((64, 64), 5) * 255).round()
    for threshold in (6.0, 12.0, 30.0):
        torch.testing.assert_close(
            quadtree(eight_bit / 255, threshold), quadtree(eight_bit.double() / 255, threshold).float()
        )


def test_a_polygon_and_its_mask_are_the_same_region() -> None:
    triangle = [(0.1, 0.1), (0.9, 0.2), (0.4, 0.8)]
    polygon = HeartSpotCodec("rline+heart", (64, 80), region=triangle)
    mask = HeartSpotCodec("rline+heart", (64, 80), region=polygon_mask(triangle, (64, 80)))
    tensor = HeartSpotCodec("rline+heart", (64, 80), region=torch.from_numpy(polygon_mask(triangle, (64, 80))))
    assert torch.equal(polygon.mask, mask.mask)
    assert torch.equal(mask.mask, tensor.mask)
    assert torch.equal(HeartSpotCodec("heart", region=HEART).mask, HeartSpotCodec("heart").mask)


def test_decoding_shows_the_kept_pixels_and_zeros() -> None:
    image = image_of((64, 64)).double()
    codec = HeartSpotCodec("rhline+heart", (64, 64))
    assert torch.equal(codec(image), image * codec.mask)
    halved = HeartSpotCodec("median+rhline", (65, 63))
    image = image_of((65, 63))
    small = halved.decode(halved.encode(image), (65, 63), restore_size=False)
    assert torch.equal(small, median_pool(image) * halved.mask)
    assert torch.equal(halved(image)[:, :, :64:2, :62:2], small)


def test_sums_decode_to_an_image_with_those_sums() -> None:
    image = image_of((40, 48)).double()
    codec = HeartSpotCodec("", (40, 48), aggregate="sum")
    torch.testing.assert_close(codec.encode(codec(image)), codec.encode(image))


def test_equal_priors_have_equal_fingerprints() -> None:
    assert HeartSpotCodec("heart+hline+rline").fingerprint() == HeartSpotCodec("rhline+heart").fingerprint()
    assert HeartSpotCodec("hline").fingerprint() != HeartSpotCodec("rline").fingerprint()


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"prior must join any of .*; got 'lungs\+hline', of which lungs is unknown"):
        HeartSpotCodec("lungs+hline")
    with pytest.raises(ValueError, match=r"spatial_shape must be a positive integer, or 2 of them"):
        HeartSpotCodec("hline", (0, 3))
    with pytest.raises(ValueError, match=r"zero_top_fraction must be in \[0, 1\); got 1"):
        HeartSpotCodec("rline", zero_top_fraction=1)
    with pytest.raises(ValueError, match=r"line_count must be at least 1; got 0"):
        HeartSpotCodec("rline", line_count=0)
    with pytest.raises(ValueError, match=r'aggregate must be "pixels" or "sum"; got \'mean\''):
        HeartSpotCodec("rline", aggregate="mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r'quadtree_criterion must be "entropy" or "std"; got \'var\''):
        HeartSpotCodec("quadtree", quadtree_criterion="var")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"region stands in for the heart, which prior='hline' does not have"):
        HeartSpotCodec("hline", region=HEART)
    with pytest.raises(ValueError, match=r"region must be a boolean mask, or at least 3 \(row, column\) vertices"):
        HeartSpotCodec("heart", region=[(0.1, 0.2), (0.3, 2.0), (0.2, 0.2)])
    with pytest.raises(ValueError, match=r"region, as a mask, must be \[320, 320\] as spatial_shape; got \[4, 4\]"):
        HeartSpotCodec("heart", region=np.ones((4, 4), dtype=bool))
    with pytest.raises(ValueError, match=r"prior='hline\+heart' keeps no pixel of a 32x32 image"):
        HeartSpotCodec("hline+heart", (32, 32), region=[(0, 0), (0, 0.01), (0.01, 0)])
    with pytest.raises(ValueError, match=r"images must be 320x320, as the codec's spatial_shape; got 64x64\. Resize"):
        HeartSpotCodec("hline").encode(torch.zeros(1, 1, 64, 64))
    with pytest.raises(ValueError, match=r"images must be in \[0, 1\] for a quadtree by entropy; some"):
        quadtree(torch.tensor([[[[0.0, 255.0]]]]), 30)
    with pytest.raises(ValueError, match=r"images must be larger than half the 12-pixel window"):
        median_pool(torch.zeros(1, 1, 4, 64))
    with pytest.raises(ValueError, match=r"kernel must be at most the image size; got 24"):
        quantile_pool(torch.zeros(1, 1, 8, 8), 24, 1, 0.9)


@pytest.mark.parametrize("prior", ["median+rhline+heart", "median"])
def test_medians_where_they_are_kept_equal_the_torch_path(prior: str) -> None:
    images = torch.rand(2, 2, 64, 50, generator=torch.Generator().manual_seed(3))
    codec = HeartSpotCodec(prior, (64, 50))
    assert torch.equal(codec.encode(images), codec.encode(images.clone().requires_grad_()).detach())


def test_eight_bits_are_converted_where_they_are_kept() -> None:
    images = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    codec = HeartSpotCodec("rhline", (64, 64))
    assert torch.equal(codec.encode(images), codec.encode(images.float()))

"""The reference is held against the published outputs, PyWavelets and cases worked by hand.

The rest of the tests trust tests/reference.py, so it is tested first, and against nothing of ours.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pywt
import torch
from numpy.typing import NDArray

from tests import make_golden
from tests import reference as ref

SHARED = Path(__file__).parents[2] / "shared" / "golden"
TOLERANCE = 1e-4  # relative and absolute, as golden/README.md has it: the published outputs are float32

ORTHOGONAL = ["db1", "haar", "db2", "db3", "db4", "sym4", "sym5", "coif1", "coif2"]
BIORTHOGONAL = ["bior1.3", "bior2.2", "bior4.4", "rbio1.5", "rbio3.1"]


def shared(name: str) -> Any:
    if not (SHARED / name).exists():
        pytest.skip(f"{name} is not beside the repository")
    return np.load(SHARED / name)


def image(seed: int, height: int, width: int) -> ref.Array:
    pixels: ref.Array = ref.golden_image(seed, (1, 1, height, width))[0, 0].astype(np.float64)
    return pixels


def assert_published(found: NDArray[Any], published: NDArray[Any], name: str) -> None:
    np.testing.assert_allclose(found, published, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)


def published_mask(masks: Any, name: str) -> ref.Mask:
    shape = masks[f"{name}.shape"]
    mask: ref.Mask = np.unpackbits(masks[name], count=math.prod(shape)).reshape(shape).astype(bool)
    return mask


def overlap(a: ref.Mask, b: ref.Mask) -> float:
    return float((a & b).sum() / (a | b).sum())


def interior(x: NDArray[Any], margin: int, spatial_dims: int) -> NDArray[Any]:
    cut = x[(..., *[slice(margin, -margin or None)] * spatial_dims)]
    assert cut.size
    return cut


# --- published outputs ---


@pytest.mark.parametrize("index", range(11))
def test_deepfixcx_agrees_with_published_outputs(index: int) -> None:
    golden = shared("deepfixcx.npz")
    cases = json.loads(golden["cases.json"].tobytes())
    assert len(cases) == 11
    case = cases[index]
    name, size = case["name"], case["shape"][2:]
    options = (case["J"], case["P"], case["wavelet"])
    x = ref.golden_image(case["seed"], case["shape"])

    def encode(channel: ref.Array) -> ref.Array:
        return ref.encode(channel, *options, case["features"], case.get("zero_mean", False))

    codes = ref.over_channels(encode, x)
    assert_published(codes, golden[f"{name}/z"], name)
    if len(case["features"]) == 1:
        full = ref.over_channels(lambda z: ref.decode(z, size, *options), codes)
        small = ref.over_channels(lambda z: ref.decode(z, size, *options, restore_size=False), codes)
        assert_published(full, golden[f"{name}/rec_full"], name)
        assert_published(small, golden[f"{name}/rec_small"], name)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("hline", 6_400),
        ("rline", 28_246),
        ("heart", 48_577),
        ("rhline", 32_797),
        ("rline+heart", 14_702),
        ("rhline+heart", 17_520),
        ("hline+heart", 4_057),
        ("median+rhline+heart", 7_209),
        ("median+hline", 3_200),
        ("rline_zero_top", None),
    ],
)
def test_masks_are_the_published_ones(name: str, pixels: int | None) -> None:
    masks = shared("heartspot_masks.npz")
    heart = published_mask(masks, "heart")
    prior, fraction = ("rline", 1 / 3) if name == "rline_zero_top" else (name, 0.0)
    exact = ref.heartspot_mask(prior, (320, 320), zero_top_fraction=fraction, region=heart)
    ours = ref.heartspot_mask(prior, (320, 320), zero_top_fraction=fraction)
    if name in masks:  # hline+heart is published as a count only
        np.testing.assert_array_equal(exact, published_mask(masks, name))
    if pixels is not None:
        assert exact.sum() == pixels
    assert overlap(ours, exact) >= (0.98 if "heart" in name else 1.0)


def test_finer_heart_polygon_agrees_better() -> None:
    heart = published_mask(shared("heartspot_masks.npz"), "heart")
    fine = [(row, column) for row, column in json.loads((SHARED / "heart_polygon.json").read_text())]
    assert overlap(ref.heart_mask((320, 320)), heart) == pytest.approx(0.988, abs=5e-4)
    assert overlap(ref.heart_mask((320, 320), fine), heart) == pytest.approx(0.991, abs=5e-4)


@pytest.mark.parametrize(("prior", "pixels"), [("hline", 6_400), ("rline", 28_246), ("rhline", 32_797)])
def test_line_counts_need_no_shared_data(prior: str, pixels: int) -> None:
    assert ref.heartspot_mask(prior, (320, 320)).sum() == pixels


def test_heartspot_values_are_the_published_ones() -> None:
    golden = shared("heartspot_values.npz")
    heart = published_mask(shared("heartspot_masks.npz"), "heart")
    x = image(50, 320, 320)
    blocks = image(52, 60, 64)
    blocks[:30, :30] = np.round(4 * blocks[:30, :30]) / 4
    rows = np.zeros((64, 64))
    rows[::7] = image(53, 64, 64)[::7]
    found = {
        "code_rhline_heart": x[ref.heartspot_mask("rhline+heart", x.shape, region=heart)],
        "median_pool": ref.median_pool(image(51, 64, 64)),
        "quadtree_6": ref.quadtree(blocks, 6),
        "quadtree_12": ref.quadtree(blocks, 12),
        "sum_aggregate": ref.sum_aggregate(x),
        "quantile_pool_90": ref.quantile_pool(rows),
    }
    assert set(found) == set(golden)
    for name, value in found.items():
        assert_published(value, golden[name][0, 0], name)


# --- PyWavelets and the wavelet theory ---


def pywt_packet(x: ref.Array, wavelet: str, levels: int) -> ref.Array:
    """Our subbands as PyWavelets computes them, exact but for the outermost L/2 - 1 coefficients on each side.

    pywt convolves where we correlate, so it gets the filters reversed: y[i] = sum_m h[m] x[2i + m - (L - 2)],
    where ours starts at 2i + m - p with p = (L - 1) // 2 = L/2 - 1. With s zeros before x, pywt's coefficient i
    is ours at i - (p + s)/2; that is again a shift by s at the next level if s = p. So p leading zeros once, and p
    leading coefficients dropped at the end, whatever the depth. The borders differ from level 2 on because pywt
    keeps the coefficients outside the image and we do not. Node names spell (axis 0, axis 1): pywt's 'h' is
    high along the rows' axis ('da'), hence our index 2, and 'v' is 'ad', our 1. Odd sizes need no care: mode
    'zero' reads the zero that we append.
    """
    basis = pywt.Wavelet(wavelet)
    taps = [filter_[::-1] for filter_ in basis.filter_bank]
    reversed_basis = pywt.Wavelet("reversed", filter_bank=taps)
    shift = basis.dec_len // 2 - 1
    padded = np.pad(x, [(shift, 0)] * x.ndim)
    letters = ["a", "v", "h", "d"]
    tree: Any
    if x.ndim == 2:
        tree = pywt.WaveletPacket2D(padded, reversed_basis, mode="zero", maxlevel=levels)
    else:
        tree = pywt.WaveletPacketND(padded, reversed_basis, mode="zero", maxlevel=levels)
        letters = [f"{d:0{x.ndim}b}".replace("0", "a").replace("1", "d") for d in range(2**x.ndim)]
    base = len(letters)
    sides = [math.ceil(size / 2**levels) for size in x.shape]
    window = tuple(slice(shift, shift + side) for side in sides)
    bands = []
    for d in range(base**levels):
        path = "".join(letters[d // base**k % base] for k in reversed(range(levels)))
        bands.append(tree[path].data[window])
    return np.stack(bands)


@pytest.mark.parametrize("shape", [(96, 112), (91, 101)])
@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("wavelet", [*ORTHOGONAL, *BIORTHOGONAL])
def test_packet_agrees_with_pywavelets(wavelet: str, levels: int, shape: tuple[int, int]) -> None:
    if wavelet == "coif2" and levels == 3:
        shape = (shape[0] * 2, shape[1] * 2)  # twelve taps leave too little interior
    x = np.random.default_rng(levels).normal(size=shape)
    ours, theirs = ref.packet(x, wavelet, levels), pywt_packet(x, wavelet, levels)
    # At one level, or with two taps, there is no border effect.
    margin = 0 if levels == 1 else pywt.Wavelet(wavelet).dec_len // 2 - 1
    np.testing.assert_allclose(interior(ours, margin, 2), interior(theirs, margin, 2), atol=1e-12)


def test_packet_agrees_with_pywavelets_on_the_longest_filters() -> None:
    x = np.random.default_rng(0).normal(size=(80, 75))
    np.testing.assert_allclose(ref.packet(x, "dmey", 1), pywt_packet(x, "dmey", 1), atol=1e-12)


@pytest.mark.parametrize(("wavelet", "levels"), [("db1", 2), ("db2", 2), ("bior2.2", 1)])
def test_packet_of_a_volume_agrees_with_pywavelets(wavelet: str, levels: int) -> None:
    x = np.random.default_rng(0).normal(size=(24, 20, 27))
    margin = 0 if levels == 1 else pywt.Wavelet(wavelet).dec_len // 2 - 1
    ours, theirs = ref.packet(x, wavelet, levels), pywt_packet(x, wavelet, levels)
    assert len(ours) == 8**levels
    np.testing.assert_allclose(interior(ours, margin, 3), interior(theirs, margin, 3), atol=1e-12)


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("wavelet", [*ORTHOGONAL, *BIORTHOGONAL])
def test_round_trip_is_exact_inside_the_margin(wavelet: str, levels: int) -> None:
    margin = (pywt.Wavelet(wavelet).dec_len // 2 - 1) * (2**levels - 1)
    x = np.random.default_rng(levels).normal(size=(96, 96))
    back = ref.inverse_packet(ref.packet(x, wavelet, levels), wavelet, levels)
    np.testing.assert_allclose(interior(back, margin, 2), interior(x, margin, 2), atol=1e-10)


def test_margin_is_the_least_one() -> None:
    x = np.random.default_rng(0).normal(size=(64, 64))
    error = np.abs(ref.inverse_packet(ref.packet(x, "db2", 3), "db2", 3) - x)
    assert interior(error, 7, 2).max() < 1e-12
    assert interior(error, 6, 2).max() > 1e-2


@pytest.mark.parametrize("shape", [(8, 8), (16, 40), (8, 16, 24)])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_db1_round_trip_is_exact_and_keeps_the_energy(shape: tuple[int, ...], levels: int) -> None:
    x = np.random.default_rng(levels).normal(size=shape)
    bands = ref.packet(x, "db1", levels)
    assert bands.shape == (2 ** (len(shape) * levels), *(n // 2**levels for n in shape))
    np.testing.assert_allclose(ref.inverse_packet(bands, "db1", levels), x, atol=1e-13)
    assert (bands**2).sum() == pytest.approx((x**2).sum())


# --- DeepFixCX by hand ---


def test_subbands_of_one_step_along_each_axis() -> None:
    rows = np.array([[1.0, 1.0], [0.0, 0.0]])
    # db1: dec_lo = [r, r], dec_hi = [-r, r]; correlated, so high is (second - first) r; r = sqrt(1/2).
    np.testing.assert_allclose(ref.packet(rows, "db1", 1).ravel(), [1, 0, -1, 0], atol=1e-15)
    np.testing.assert_allclose(ref.packet(rows.T, "db1", 1).ravel(), [1, -1, 0, 0], atol=1e-15)


def test_odd_axes_get_a_zero_at_the_end_at_every_level() -> None:
    x = np.ones((5, 3))
    padded = np.zeros((8, 4))
    padded[:5, :3] = 1.0
    np.testing.assert_allclose(ref.packet(x, "db1", 2), ref.packet(padded, "db1", 2), atol=1e-15)


def test_pool_pads_orders_and_measures() -> None:
    band = np.array([[[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]]])
    # Three columns for two patches: total pad 1, its smaller half, none, before.
    code = ref.pool(band, (1, 2), ["sum_neg", *reversed(ref.FEATURES)])
    first = [12, 8, 5, -2, 1, 1 + 4 + 16 + 25, 10, -2]
    second = [9, -3, 3, -6, -6 + 6, 9 + 36, 3, -6]
    np.testing.assert_allclose(code, [*first, *second])
    # Four patches of one, total pad 3: one zero above, two below.
    np.testing.assert_allclose(
        ref.pool(np.array([[[1.0], [2.0], [4.0], [8.0], [3.0]]]), (4, 1), ["sum"]), [1, 6, 11, 0]
    )


def test_decode_spreads_a_patch_over_its_pixels() -> None:
    code = np.zeros(4 * 4)
    code[:4] = [1, 2, 3, 4]
    # Lowest band only: 6/2/2 -> repeat 2 of each value / 4; db1 then halves each over 2 x 2 pixels.
    image_ = ref.decode(code, (6, 6), 1, 2)
    assert image_.shape == (6, 6)
    np.testing.assert_allclose(image_[0], [1 / 8] * 3 + [2 / 8] * 3)
    np.testing.assert_allclose(ref.decode(code, (6, 6), 1, 2, restore_size=False)[:, 0], [1 / 8, 1 / 8, 3 / 8, 3 / 8])


def test_one_coefficient_a_patch_decodes_to_the_image() -> None:
    x = image(3, 32, 24)
    code = ref.encode(x, 2, (8, 6), features=["sum"])
    np.testing.assert_allclose(ref.decode(code, x.shape, 2, (8, 6)), x, atol=1e-12)


# --- HeartSpot by hand ---


def test_hline_rows_scale_with_the_height() -> None:
    assert np.flatnonzero(ref.hline_mask((160, 3))[:, 0]).tolist() == list(range(50, 150, 5))
    # 160 * 97 / 320 = 48.5 rounds to even.
    assert np.flatnonzero(ref.hline_mask((97, 3)).all(axis=1)).tolist()[5:8] == [45, 48, 52]
    assert ref.hline_mask((1, 4)).sum() == 4


def test_clip_moves_ends_in_the_published_order() -> None:
    assert ref.clip_segment([1, 5], [2, 3], 9, 9) == ((1, 5), (2, 3))
    assert ref.clip_segment([-4, -1], [0, 9], 9, 9) is None
    assert ref.clip_segment([-9, 3], [5, -20], 9, 9) is None  # found only once y is clipped
    # End 0: y -3 -> 0 moves x by trunc(3 * 10 / 7) = 4; end 1 is then inside.
    assert ref.clip_segment([-3, 7], [-3, 4], 9, 9) == ((1, 7), (0, 4))


def test_zero_top_spares_the_horizontal_lines() -> None:
    mask = ref.heartspot_mask("rhline", (320, 320), zero_top_fraction=0.5)
    assert (mask[:160] == ref.hline_mask((320, 320))[:160]).all()


@pytest.mark.parametrize(("prior", "shape"), [("", (9, 7)), ("quadtree", (9, 7)), ("median", (4, 3))])
def test_no_prior_keeps_everything(prior: str, shape: tuple[int, int]) -> None:
    mask = ref.heartspot_mask(prior, (9, 7))
    assert mask.shape == shape
    assert mask.all()


@pytest.mark.parametrize("shape", [(320, 320), (64, 50), (97, 131)])
def test_median_pool_fits_the_median_mask(shape: tuple[int, int]) -> None:
    grid = ref.heartspot_mask("median+hline", shape).shape
    assert ref.median_pool(image(0, *shape)).shape == grid == (shape[0] // 2, shape[1] // 2)


def test_quadtree_splits_what_the_criterion_names() -> None:
    x = np.zeros((5, 4))
    x[:3, :2] = 1.0
    # First halves are the larger: three rows and two columns, so each quarter is constant.
    np.testing.assert_array_equal(ref.quadtree(x, 0.1, "std"), x)
    np.testing.assert_allclose(ref.quadtree(x, 0.5, "std"), np.full((5, 4), 0.3))
    # A uniform block smooths to three bins of 1/3: n/3 * log2(3) = 6.3 bits for n = 12, so it splits at 6.
    ramp = np.arange(12.0).reshape(3, 4) / 1e4
    assert len(np.unique(ref.quadtree(ramp, 6.0))) == 4
    assert len(np.unique(ref.quadtree(ramp, 7.0))) == 1
    assert len(np.unique(ref.quadtree(ramp, 0.0, max_depth=1))) == 4


def test_sum_aggregate_gives_columns_then_rows() -> None:
    assert ref.sum_aggregate(np.array([[1.0, 2.0], [3.0, 4.0], [0.0, 1.0]])).tolist() == [4, 7, 3, 7, 1]


# --- our own golden arrays ---


@pytest.mark.parametrize("name", ["deepfixcx", "heartspot"])
def test_stored_golden_arrays_are_the_references(name: str) -> None:
    fresh = make_golden.deepfixcx_arrays() if name == "deepfixcx" else make_golden.heartspot_arrays()
    with np.load(make_golden.FOLDER / f"{name}.npz") as stored:
        assert set(stored) == set(fresh)
        for key in stored:
            # Bits and JSON agree exactly; sin and cos of float32 may differ in the last digit between machines.
            slack = 0.0 if stored[key].dtype == np.uint8 else 1e-5
            np.testing.assert_allclose(stored[key], fresh[key], rtol=slack, atol=slack, err_msg=key)


def test_stored_golden_arrays_stay_small() -> None:
    sizes = [path.stat().st_size for path in make_golden.FOLDER.glob("*.npz")]
    assert len(sizes) == 2
    assert sum(sizes) < 300_000


@pytest.mark.parametrize(
    ("wavelet", "grid", "shape"), [("db1", 3, (33, 40)), ("coif1", (2, 5), (40, 41)), ("db2", 2, (9, 12, 11))]
)
def test_the_published_way_gives_the_same_codes(wavelet: str, grid: ref.Grid, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(3).random(shape)
    codes = ref.published_encode(torch.from_numpy(image)[None, None], 2, grid, wavelet)[0].numpy()
    np.testing.assert_allclose(codes, ref.encode(image, 2, grid, wavelet), rtol=1e-6, atol=1e-6)

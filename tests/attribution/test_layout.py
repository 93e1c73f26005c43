"""Where a code's values belong, against PyWavelets, single pixels and loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_deepfixcx.attribution import (
    decoded_offset,
    feature_groups,
    from_grid,
    patch_edges,
    patch_pixels,
    subband_grid,
    to_grid,
)
from monai_deepfixcx.codecs import Codec, DeepFixCXCodec, HeartSpotCodec, IdentityCodec, WaveletPacket
from monai_deepfixcx.transforms import DeepFixCX

SIDES = st.integers(12, 40)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_subbands_by_frequency_as_pywavelets_orders_them(levels: int) -> None:
    image = np.random.default_rng(0).standard_normal((16, 32))
    nodes = pywt.WaveletPacket2D(image, "db1", maxlevel=levels).get_level(levels, order="freq")
    expected = [[float((node.data**2).sum()) for node in row] for row in nodes]
    subbands = WaveletPacket("db1")(torch.from_numpy(image)[None, None], levels)
    energy = subbands.square().sum((3, 4))
    assert subband_grid(energy, levels).shape == (1, 1, 2**levels, 2**levels)
    np.testing.assert_allclose(subband_grid(energy, levels)[0, 0], expected, rtol=1e-12)


@pytest.mark.parametrize("levels", [1, 2])
def test_subbands_of_volumes_by_frequency(levels: int) -> None:
    """A volume that is an outer product has the outer product of its axes' energies."""
    generator = np.random.default_rng(0)
    axes = [generator.standard_normal(size) for size in (16, 8, 32)]
    volume = np.einsum("i,j,k->ijk", *axes)
    energies = [
        [float((node.data**2).sum()) for node in pywt.WaveletPacket(axis, "db1").get_level(levels, order="freq")]
        for axis in axes
    ]
    energy = WaveletPacket("db1", 3)(torch.from_numpy(volume)[None, None], levels).square().sum((3, 4, 5))
    expected = np.einsum("i,j,k->ijk", *energies)
    np.testing.assert_allclose(subband_grid(energy, levels, spatial_dims=3)[0, 0], expected, rtol=1e-12)


def test_a_wave_is_found_at_its_frequency() -> None:
    row_wave, column_wave = 11, 3  # of 16 steps
    rows, columns = (np.cos(2 * np.pi * (step + 0.5) / 32 * np.arange(256)) for step in (row_wave, column_wave))
    image = torch.from_numpy(np.outer(rows, columns))[None, None]
    energy = WaveletPacket("db20")(image, 4).square().sum((3, 4))
    grid = subband_grid(energy, 4)[0, 0]
    assert divmod(int(grid.argmax()), 16) == (row_wave, column_wave)


def test_subband_grid_wants_all_subbands() -> None:
    with pytest.raises(ValueError, match=r"bias must have 16 subbands on its last axis at levels=2 in 2-D; got 12"):
        subband_grid(torch.rand(3, 12), 2)


@settings(max_examples=25, deadline=None)
@given(levels=st.integers(1, 2), rows=st.integers(1, 3), columns=st.integers(1, 3), height=SIDES, width=SIDES)
def test_a_pixel_falls_into_its_patch(levels: int, rows: int, columns: int, height: int, width: int) -> None:
    """An image with one white pixel has a code only where `patch_edges` says, and is decoded only there."""
    codec, shape = DeepFixCXCodec(levels, (rows, columns)), (height, width)
    edges, drawn = patch_edges(codec, shape, decoded=False), patch_edges(codec, shape)
    for row, column in [(0, 0), (height // 2, width // 3), (height - 1, width - 1)]:
        image = torch.zeros(1, 1, *shape)
        image[0, 0, row, column] = 1
        code = codec.encode(image)
        patches = to_grid(code, codec, shape).abs().sum((0, 1, 2, -1)).nonzero().tolist()
        index = [int(np.searchsorted(e, p, side="right")) - 1 for e, p in zip(edges, (row, column), strict=True)]
        assert patches == [index]
        lit = codec.decode(code, shape)[0, 0].abs() > 1e-6
        for axis in (0, 1):
            places = lit.any(1 - axis).nonzero().flatten().tolist()
            first, after = drawn[axis][index[axis]], drawn[axis][index[axis] + 1]
            assert all(first <= place < after for place in places)


@settings(max_examples=25, deadline=None)
@given(levels=st.integers(1, 3), patches=st.integers(1, 4), height=st.integers(32, 60), width=st.integers(32, 60))
def test_the_offset_is_that_of_the_transforms_affine(levels: int, patches: int, height: int, width: int) -> None:
    transform = DeepFixCX(levels, patches, output="image")
    offset = decoded_offset(transform.codec, (height, width))
    assert list(offset) == transform.index_map((height, width))[:2, 2].tolist()
    sides = patch_pixels(transform.codec, (height, width))
    for edges, side in zip(patch_edges(transform.codec, (height, width)), sides, strict=True):
        assert set(np.diff(edges).tolist()) == {side}


def test_codecs_of_pixels_have_no_offset() -> None:
    assert decoded_offset(HeartSpotCodec("heart", (32, 30)), (32, 30)) == (0, 0)


@pytest.mark.parametrize(
    ("codec", "shape"),
    [
        (DeepFixCXCodec(2, (2, 3), features=["sum", "max"]), (24, 24)),
        (DeepFixCXCodec(1, (2, 3, 1), spatial_dims=3), (8, 8, 8)),
        (HeartSpotCodec("rhline+heart", (32, 30)), (32, 30)),
        (IdentityCodec(3), (4, 5, 6)),
    ],
)
def test_the_grid_and_back(codec: Codec, shape: tuple[int, ...]) -> None:
    codes = torch.rand(2, 3, codec.code_length(shape))
    assert torch.equal(from_grid(to_grid(codes, codec, shape), codec), codes)


def test_the_grid_follows_the_codes_index() -> None:
    codec, shape = DeepFixCXCodec(1, (2, 3), features=["sum", "max"]), (12, 12)
    grid = to_grid(torch.arange(48).reshape(1, 1, 48), codec, shape)
    for d, i, j, f in itertools.product(range(4), range(2), range(3), range(2)):
        assert grid[0, 0, d, i, j, f] == ((d * 2 + i) * 3 + j) * 2 + f


def test_groups() -> None:
    codec, shape = DeepFixCXCodec(1, (2, 3), features=["sum", "max"]), (12, 12)
    index = torch.arange(48)
    assert torch.equal(feature_groups(codec, shape, "patches"), index // 2 % 6)
    assert torch.equal(feature_groups(codec, shape, "subbands"), index // 12)
    assert torch.equal(feature_groups(codec, shape, "values"), index)


def test_pixels_are_grouped_in_blocks_without_gaps() -> None:
    codec = HeartSpotCodec("heart", (40, 60))
    groups = feature_groups(codec, (40, 60), "patches")
    rows, columns = codec.mask.nonzero().T
    blocks = (rows // 6 * 100 + columns // 6).tolist()
    assert len(set(zip(blocks, groups.tolist(), strict=True))) == len(set(blocks)) == int(groups.max()) + 1


def test_groups_that_a_code_does_not_have() -> None:
    with pytest.raises(ValueError, match=r"""over must be "patches", "subbands" or "values"; got 'rows'"""):
        feature_groups(IdentityCodec(), (8, 8), "rows")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r'over="subbands" needs a DeepFixCX code; a identity code has no subbands'):
        feature_groups(IdentityCodec(), (8, 8), "subbands")
    summed = HeartSpotCodec("heart", (32, 32), aggregate="sum")
    with pytest.raises(ValueError, match=r'belong to no one place. Use over="values"'):
        feature_groups(summed, (32, 32), "patches")

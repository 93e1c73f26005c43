"""The kernels of `encode_haar_gpu`, in Triton. Importing this module imports Triton.

A program pools the blocks of some patches that stand side by side in one image. It walks over them in tiles,
``rows x columns`` values that lie in registers: a tile is loaded, transformed in place by butterflies, and added to
what was pooled before it. Triton wants `rows`, `columns` and `patches` to be powers of two.
"""

from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl

# The numbers by which the kernels know the pooled features.
L1, SUM, MAX, MIN, L2, SUM_POS, SUM_NEG = (tl.constexpr(number) for number in range(7))


def _jit(function: Callable[..., Any]) -> Any:
    """Compile `function` for a GPU on its first call for each type of argument; Triton keeps that on disk."""
    # One image of a batch may lie anywhere in memory: a variant of its own for that could add in another order.
    return triton.jit(function, do_not_specialize_on_alignment=["images"])


@_jit
def encode_images(
    images: tl.tensor,  # [N, H, W]
    codes: tl.tensor,  # [N, parts, K, P_h, P_w, F]
    height: tl.tensor,
    width: tl.tensor,
    band_height: tl.tensor,  # of a subband
    band_width: tl.tensor,
    grid_rows: tl.tensor,
    grid_columns: tl.tensor,
    patch_height: tl.tensor,  # in blocks
    patch_width: tl.tensor,
    above: tl.tensor,  # blocks of zeros before the first
    before: tl.tensor,
    groups: tl.tensor,  # of patches side by side
    tiles_across: tl.tensor,
    tiles: tl.tensor,
    tiles_a_part: tl.tensor,
    parts: tl.tensor,
    features: tl.constexpr,  # their numbers, in the code's order
    kind: tl.constexpr,  # what is computed with
    outer: tl.constexpr,  # levels taken while loading; a program then makes one of their bands
    inner: tl.constexpr,  # levels taken in registers
    rows: tl.constexpr,  # of a tile
    columns: tl.constexpr,
    patches: tl.constexpr,  # side by side in a tile
) -> None:
    """Fill the codes of every part of every patch."""
    block: tl.constexpr = 1 << inner
    down: tl.constexpr = rows // block  # blocks of a patch in a tile
    across: tl.constexpr = columns // (block * patches)
    bands: tl.constexpr = 1 << (2 * outer)
    program = tl.program_id(0)
    band = program % bands
    part = program // bands % parts
    group = program // (bands * parts) % groups
    i = program // (bands * parts * groups) % grid_rows
    n = (program // (bands * parts * groups * grid_rows)).to(tl.int64)
    image = images + n * height * width

    row, column = tl.arange(0, rows)[:, None], tl.arange(0, columns)[None, :]
    j = group * patches + column // (block * across)
    first_row, first_column = i * patch_height - above, j * patch_width - before
    whole = (first_row >= 0) & (first_row + patch_height <= band_height)
    whole = whole & (first_column >= 0) & (first_column + patch_width <= band_width)
    pooled: tl.tuple = ()
    for f in tl.static_range(len(features)):
        pooled = pooled + (_start(whole, features[f], kind, rows, columns),)  # noqa: RUF005 - Triton unpacks nothing

    for tile in range(part * tiles_a_part, min(tiles, (part + 1) * tiles_a_part)):
        inside_row = tile // tiles_across * down + row // block
        inside_column = tile % tiles_across * across + column // block % across
        band_row, band_column = first_row + inside_row, first_column + inside_column
        valid = (inside_row < patch_height) & (band_row >= 0) & (band_row < band_height)
        valid = valid & (inside_column < patch_width) & (band_column >= 0) & (band_column < band_width)
        y = (band_row * block + row % block) << outer
        x = (band_column * block + column % block) << outer
        values = tl.zeros([rows, columns], kind)
        for k in range(bands):
            pixel_y, pixel_x = y + (k >> outer), x + k % (1 << outer)
            there = valid & (pixel_y < height) & (pixel_x < width) & (j < grid_columns)
            pixels = tl.load(image + pixel_y * width + pixel_x, mask=there, other=0)
            values += pixels.to(kind) * _sign(band, k, outer)
        # Columns first: neighbours along them are held by one thread or its neighbour.
        for level in tl.static_range(inner):
            values = _butterfly(values, 1 << level)
        for level in tl.static_range(inner):
            values = _butterfly(values, columns << level)
        values = values * (0.5 ** (outer + inner))
        joined: tl.tuple = ()
        for f in tl.static_range(len(features)):
            joined = joined + (_join(pooled[f], _value(values, valid, features[f]), features[f]),)  # noqa: RUF005
        pooled = joined

    band_y, band_x = tl.arange(0, block)[:, None, None], tl.arange(0, block)[None, None, :]
    j = group * patches + tl.arange(0, patches)[None, :, None]
    subband = band * (block * block)
    for level in tl.static_range(inner):
        bits = 2 * (band_y >> level & 1) + (band_x >> level & 1)
        subband = subband + (bits << (2 * (inner - 1 - level)))
    place = ((subband * grid_rows + i) * grid_columns + j) * len(features)
    length = bands * block * block * grid_rows * grid_columns * len(features)
    code = codes + (n * parts + part) * length
    for f in tl.static_range(len(features)):
        totals = _reduce(tl.reshape(pooled[f], [down, block, patches, across, block]), features[f])
        tl.store(code + place + f, totals, mask=j < grid_columns)


@_jit
def join_parts(
    partial: tl.tensor,
    codes: tl.tensor,
    parts: tl.tensor,
    length: tl.tensor,
    features: tl.constexpr,
    size: tl.constexpr,
) -> None:
    """Fill ``codes [N, length, F]`` from ``partial [N, parts, length, F]``, part after part."""
    programs = tl.cdiv(length, size)
    n = (tl.program_id(0) // programs).to(tl.int64)
    value = tl.program_id(0) % programs * size + tl.arange(0, size)
    there = value < length
    stride = length * len(features)
    for f in tl.static_range(len(features)):
        place = value * len(features) + f
        total = tl.load(partial + n * parts * stride + place, mask=there)
        for part in range(1, parts):
            further = tl.load(partial + (n * parts + part) * stride + place, mask=there)
            total = _join(total, further, features[f])
        tl.store(codes + n * stride + place, total, mask=there)


@_jit
def _butterfly(tile: tl.tensor, apart: tl.constexpr) -> tl.tensor:
    """Replace values that stand `apart` places from each other by their sum and their difference."""
    pairs = tl.reshape(tile, [tile.numel // (2 * apart), 2, apart])
    first, second = tl.split(tl.permute(pairs, 0, 2, 1))
    pairs = tl.permute(tl.join(first + second, second - first), 0, 2, 1)
    return tl.reshape(pairs, tile.shape)


@_jit
def _sign(band: tl.tensor, pixel: tl.tensor, outer: tl.constexpr) -> tl.tensor:
    """The sign, 1 or -1, of a block's pixel in a band: minus for every high-pass whose first half it is in."""
    odd = 0
    for level in tl.static_range(outer):
        bits = band >> (2 * (outer - 1 - level))
        row, column = pixel >> (outer + level), pixel >> level
        odd ^= (bits >> 1 & ~row & 1) ^ (bits & ~column & 1)
    return 1 - 2 * odd


@_jit
def _start(
    whole: tl.tensor, feature: tl.constexpr, kind: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr
) -> tl.tensor:
    """What pooling starts from; where zeros pad the patch (it is not `whole`), they take part."""
    zeros = tl.zeros([rows, columns], kind)
    if feature == MAX:
        return tl.where(whole, zeros - float("inf"), zeros)
    elif feature == MIN:
        return tl.where(whole, zeros + float("inf"), zeros)
    else:
        return zeros


@_jit
def _value(values: tl.tensor, valid: tl.tensor, feature: tl.constexpr) -> tl.tensor:
    """What a feature takes from a coefficient; those that are not `valid` are 0."""
    if feature == L1:
        return tl.abs(values)
    elif feature == L2:
        return values * values
    elif feature == MAX:
        return tl.where(valid, values, -float("inf"))
    elif feature == MIN:
        return tl.where(valid, values, float("inf"))
    elif feature == SUM_POS:
        return tl.where(values > 1e-6, values, 0.0)
    elif feature == SUM_NEG:
        return tl.where(values < -1e-6, values, 0.0)
    else:
        return values


@_jit
def _join(first: tl.tensor, second: tl.tensor, feature: tl.constexpr) -> tl.tensor:
    if feature == MAX:
        return tl.maximum(first, second)
    elif feature == MIN:
        return tl.minimum(first, second)
    else:
        return first + second


@_jit
def _reduce(pooled: tl.tensor, feature: tl.constexpr) -> tl.tensor:
    """Pool ``[down, block, patches, across, block]`` over the blocks of each patch."""
    if feature == MAX:
        return tl.max(tl.max(pooled, 3), 0)
    elif feature == MIN:
        return tl.min(tl.min(pooled, 3), 0)
    else:
        return tl.sum(tl.sum(pooled, 3), 0)

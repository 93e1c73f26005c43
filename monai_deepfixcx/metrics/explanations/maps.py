"""What attribution maps show: agreement with each other, place within a region, likeness to the original.

Maps are ``[B, C, *S]``, signed, in any unit; channels are added up. Results are float64 on the CPU, one per map.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from monai_deepfixcx.metrics.weighted import Floats

BASELINES = ("random", "edges", "centre")
_WINDOW, _SIGMA = 11, 1.5


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """Rank correlation of each pair of attributions, equal values sharing their ranks.

    Args:
        first: ``[B, ...]``.
        second: of the same shape.

    Returns:
        ``[B]``, -1 to 1; 0 for unrelated attributions; nan if one is constant.

    Raises:
        ValueError: shapes that differ.

    Source: Spearman, American Journal of Psychology 15 (1904); for attributions, Adebayo et al., NeurIPS 2018.

    >>> spearman(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.1, 0.9, 0.5]]))
    tensor([0.5000], dtype=torch.float64)
    """
    _check_pair(first, second)
    pairs = zip(_flat(first), _flat(second), strict=True)
    return torch.tensor([_correlation(_ranks(a), _ranks(b)) for a, b in pairs], dtype=torch.float64)


def top_k_overlap(first: Tensor, second: Tensor, share: float = 0.1) -> Tensor:
    """How many of one attribution's highest values are also among the other's.

    Args:
        first: ``[B, ...]``.
        second: of the same shape.
        share: of the values that count as highest, above 0 and at most 1; at least one value.

    Returns:
        ``[B]``, 0 to 1; `share` for unrelated attributions.

    Raises:
        ValueError: shapes that differ, or a share out of range.

    Source: Ghorbani et al., AAAI 2019, "top-k intersection".

    >>> top_k_overlap(torch.tensor([[4.0, 3.0, 2.0, 1.0]]), torch.tensor([[4.0, 1.0, 3.0, 2.0]]), share=0.5)
    tensor([0.5000], dtype=torch.float64)
    """
    _check_pair(first, second)
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1; got {share}.")
    sets = [
        [set(np.argsort(-row, kind="stable")[: max(1, round(share * row.size))]) for row in _flat(maps)]
        for maps in (first, second)
    ]
    return torch.tensor([len(a & b) / len(a) for a, b in zip(*sets, strict=True)], dtype=torch.float64)


def agreement(first: Tensor, second: Tensor, share: float = 0.1) -> dict[str, Tensor]:
    """Do two methods say the same? Rank correlation, and overlap of the highest values.

    Args:
        first: attributions ``[B, ...]`` of one method.
        second: of the same shape, of another.
        share: as for `top_k_overlap`.

    Returns:
        ``[B]`` each: "spearman" (0 for unrelated attributions), "top_k_overlap" and "top_k_overlap_chance".

    Raises:
        ValueError: as `top_k_overlap`.

    >>> found = agreement(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 2.0, 3.0]]))
    >>> {name: round(value.item(), 2) for name, value in found.items()}
    {'spearman': 1.0, 'top_k_overlap': 1.0, 'top_k_overlap_chance': 0.33}
    """
    size = first[0].numel() if len(first) else 1
    chance = torch.full((len(first),), max(1, round(share * size)) / size, dtype=torch.float64)
    return {
        "spearman": spearman(first, second),
        "top_k_overlap": top_k_overlap(first, second, share),
        "top_k_overlap_chance": chance,
    }


def pointing_game(maps: Tensor, regions: Tensor) -> Tensor:
    """Is the highest attribution inside the region? Of several equal ones, the share that is.

    Args:
        maps: ``[B, C, *S]``; channels are added up.
        regions: bool, ``[B, 1, *S]``.

    Returns:
        ``[B]``, 0 or 1, between them only for ties; by chance the region's share of the image.

    Raises:
        ValueError: shapes that do not fit, or a region that is not bool.

    Source: Zhang et al., IJCV 126 (2018), section 4.2, without its tolerance of 15 pixels.

    >>> pointing_game(torch.tensor([[[[0.1, 0.9]]]]), torch.tensor([[[[False, True]]]]))
    tensor([1.], dtype=torch.float64)
    """
    flat, inside = _with_regions(maps, regions)
    highest = flat == flat.amax(1, keepdim=True)
    return (highest & inside).sum(1).double() / highest.sum(1)


def mass_inside(maps: Tensor, regions: Tensor) -> Tensor:
    """The share of the attributions' magnitude that lies inside the region.

    Args:
        maps: ``[B, C, *S]``; channels are added up.
        regions: bool, ``[B, 1, *S]``.

    Returns:
        ``[B]``, 0 to 1; the region's share of the image for an even map; nan for a map of zeros.

    Raises:
        ValueError: shapes that do not fit, or a region that is not bool.

    Source: Arras et al., Information Fusion 81 (2022), "relevance mass accuracy", on magnitudes.

    >>> mass_inside(torch.tensor([[[[1.0, -3.0]]]]), torch.tensor([[[[False, True]]]]))
    tensor([0.7500], dtype=torch.float64)
    """
    flat, inside = _with_regions(maps, regions)
    return (flat.abs() * inside).sum(1) / flat.abs().sum(1)


def baseline_maps(images: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Maps that know nothing of the network: what an explanation must beat.

    Args:
        images: *privatized* images ``[B, C, *S]``.
        seed: of the random map.

    Returns:
        ``[B, 1, *S]`` each: "random" (uniform in [0, 1)), "edges" (size of the image's gradient) and "centre" (a
        Gaussian around the middle, its standard deviation a quarter of each side).

    Source: edges: Adebayo et al., NeurIPS 2018, section 5; centre: Judd et al., ICCV 2009.

    >>> {name: maps.shape for name, maps in baseline_maps(torch.rand(2, 3, 8, 8)).items()}["edges"]
    torch.Size([2, 1, 8, 8])
    """
    total = _plain(images).double().sum(1, keepdim=True)
    axes = range(2, total.ndim)
    slopes = [slope.square() for slope in torch.gradient(total, dim=list(axes))]
    away = torch.meshgrid(*(4 * (torch.arange(n).double() - (n - 1) / 2) / n for n in total.shape[2:]), indexing="ij")
    centre = (-torch.stack(away).square().sum(0) / 2).exp()
    random = torch.rand(total.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return {"random": random, "edges": torch.stack(slopes).sum(0).sqrt(), "centre": centre.expand_as(total)}


def localization(maps: Tensor, regions: Tensor, images: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Pointing game and mass inside a region, of the maps and of the three baselines.

    Args:
        maps: ``[B, C, *S]``.
        regions: bool, ``[B, 1, *S]``.
        images: *privatized* images ``[B, C, *S]``, whose edges are a baseline.
        seed: of the random baseline.

    Returns:
        ``[B]`` each: "pointing_game" and "mass_inside", and each with "_random", "_edges" and "_centre".

    Raises:
        ValueError: shapes that do not fit, or a region that is not bool.

    >>> region = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    >>> region[..., 4:, 4:] = True
    >>> found = localization(region.double(), region, torch.rand(1, 1, 8, 8))
    >>> found["mass_inside"].item(), found["mass_inside_centre"].item() < 0.3
    (1.0, True)
    """
    found = {}
    for suffix, shown in {
        "": maps,
        **{f"_{name}": found for name, found in baseline_maps(images, seed).items()},
    }.items():
        found[f"pointing_game{suffix}"] = pointing_game(shown, regions)
        found[f"mass_inside{suffix}"] = mass_inside(shown, regions)
    return found


def structural_similarity(images: Tensor, originals: Tensor) -> Tensor:
    """SSIM with a Gaussian window of 11 pixels, sigma 1.5, and a data range of 1, averaged where the window fits.

    Args:
        images: ``[B, C, *S]`` in [0, 1], at least 11 pixels on each side.
        originals: of the same shape.

    Returns:
        ``[B]``, at most 1 (equal images).

    Raises:
        ValueError: shapes that differ, or images below 11 pixels.

    Source: Wang et al., IEEE TIP 13 (2004), equation 13.

    >>> image = torch.rand(1, 1, 16, 16)
    >>> structural_similarity(image, image)
    tensor([1.], dtype=torch.float64)
    """
    from monai.metrics.regression import compute_ssim_and_cs

    _check_pair(images, originals)
    axes = images.ndim - 2
    if min(images.shape[2:]) < _WINDOW:
        raise ValueError(f"images must be at least {_WINDOW} pixels on each side; got {list(images.shape[2:])}.")
    ssim, _ = compute_ssim_and_cs(
        _plain(images).float(), _plain(originals).float(), axes, [_WINDOW] * axes, [_SIGMA] * axes, data_range=1.0
    )
    return ssim.flatten(1).double().mean(1)


def attribution_leak(maps: Tensor, originals: Tensor, privatized: Tensor) -> dict[str, Tensor]:
    """How much the map itself looks like the original, beside the privatized image. For the data holder only.

    The map is scaled to [0, 1], in both polarities, of which the more similar counts. Channels are added up (maps) or
    averaged (images).

    Args:
        maps: ``[B, C, *S]``.
        originals: ``[B, C, *S]`` in [0, 1].
        privatized: ``[B, C, *S]``, clipped to [0, 1] here.

    Returns:
        ``[B]`` each, SSIM as `structural_similarity`: "map_ssim"; "privatized_ssim"; and "flat_ssim", of an even image
        with the original's mean, which knows next to nothing.

    Raises:
        ValueError: shapes that do not fit, or images below 11 pixels.

    >>> original = torch.rand(1, 1, 16, 16)
    >>> found = attribution_leak(5 - 2 * original, original, original)
    >>> round(found["map_ssim"].item(), 2) > 0.9, found["privatized_ssim"].item()
    (True, 1.0)
    """
    if originals.shape != privatized.shape or originals.shape[2:] != maps.shape[2:] or len(originals) != len(maps):
        raise ValueError(
            "maps, originals and privatized must be [B, C, *S] of one size; got "
            f"{list(maps.shape)}, {list(originals.shape)} and {list(privatized.shape)}."
        )
    truth, shown = (_plain(images).double().mean(1, keepdim=True) for images in (originals, privatized.clamp(0, 1)))
    scaled = scale_to_unit(maps)
    flat = truth.flatten(1).mean(1).view(-1, *[1] * (truth.ndim - 1)).expand_as(truth)
    return {
        "map_ssim": torch.maximum(structural_similarity(scaled, truth), structural_similarity(1 - scaled, truth)),
        "privatized_ssim": structural_similarity(shown, truth),
        "flat_ssim": structural_similarity(flat, truth),
    }


def scale_to_unit(maps: Tensor) -> Tensor:
    """Maps ``[B, C, *S]`` as ``[B, 1, *S]``, from 0 (the lowest value) to 1 (the highest); an even map is 0."""
    total = _plain(maps).double().sum(1, keepdim=True)
    axes = tuple(range(1, total.ndim))
    low, high = total.amin(axes, keepdim=True), total.amax(axes, keepdim=True)
    return (total - low) / torch.where(high > low, high - low, 1.0)


def _ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _correlation(first: Floats, second: Floats) -> float:
    first, second = first - first.mean(), second - second.mean()
    norm = math.sqrt(float((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / norm if norm else math.nan


def _with_regions(maps: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
    if regions.dtype != torch.bool or regions.shape != (len(maps), 1, *maps.shape[2:]):
        raise ValueError(
            f"regions must be bool, [{len(maps)}, 1, {', '.join(map(str, maps.shape[2:]))}] for maps of shape "
            f"{list(maps.shape)}; got {regions.dtype} of shape {list(regions.shape)}."
        )
    return _plain(maps).double().sum(1).flatten(1), _plain(regions).flatten(1)


def _check_pair(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape or first.ndim < 2:
        raise ValueError(f"both must have one shape, [B, ...]; got {list(first.shape)} and {list(second.shape)}.")


def _flat(maps: Tensor) -> Floats:
    return _plain(maps).double().flatten(1).numpy()


def _plain(maps: Tensor) -> Tensor:
    return maps.detach().cpu().as_subclass(Tensor)

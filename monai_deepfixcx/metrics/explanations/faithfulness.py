"""Does an attribution say what the network does? Measured on codes; the images are never needed.

A `score` maps codes ``[N, C, D]`` to the explained output ``[N]``: a probability or a logit of one label. The
`attributions` are in its units, as integrated gradients or input x gradient give them: multiply a bare gradient by
``codes - baselines`` first. Results are float64 on the CPU, one per code.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Score = Callable[[Tensor], Tensor]
_HELD = 1024  # changed codes that are scored at once


def deletion_curve(
    score: Score,
    codes: Tensor,
    baselines: Tensor,
    attributions: Tensor,
    groups: Tensor | None = None,
    steps: int = 32,
    insert: bool = False,
) -> tuple[Tensor, Tensor]:
    """The score while the features with the highest attribution are taken away first, or put in first.

    Args:
        score: codes ``[N, C, D]`` to outputs ``[N]``.
        codes: ``[B, C, D]``.
        baselines: what an absent feature holds, of a shape that broadcasts to the codes'.
        attributions: ``[B, C, D]``.
        groups: whole numbers from 0, ``[D]`` or ``[C, D]``: features of one group go together, in the order of the
            sum of their attributions. The index of its patch gives each patch as a group. Default: each its own.
        steps: about how many equal parts the features are taken in.
        insert: begin with the baseline, and put the features in.

    Returns:
        Shares ``[S + 1]`` of the groups that are changed, 0 to 1, and scores ``[B, S + 1]``.

    Raises:
        ValueError: shapes that do not fit, a step below 1, or attributions that are nan.

    Source: Petsiuk et al., RISE, BMVC 2018, section 4.3; here on codes.

    >>> score = lambda codes: codes[:, 0] @ torch.tensor([3.0, 2.0, 1.0])
    >>> codes = torch.ones(1, 1, 3)
    >>> deletion_curve(score, codes, torch.zeros(1, 1, 3), torch.tensor([[[3.0, 2.0, 1.0]]]))[1]
    tensor([[6., 3., 1., 0.]], dtype=torch.float64)
    """
    baselines = _checked(codes, baselines, attributions)
    if steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps}.")
    members = _members(codes, groups)
    count = int(members.max()) + 1
    importance = attributions.new_zeros(len(codes), count).index_add_(1, members, attributions.flatten(1))
    # The place of each feature's group in the order of removal.
    place = importance.argsort(dim=1, descending=True, stable=True).argsort(dim=1)[:, members].view_as(codes)
    counts = torch.linspace(0, count, min(steps, count) + 1).round()
    scores = []
    for changed in counts.tolist():
        first, second = (baselines, codes) if insert else (codes, baselines)
        scores.append(_score(score, torch.where(place < changed, second, first)))
    return (counts / count).double(), torch.stack(scores, dim=1)


def deletion_auc(
    score: Score,
    codes: Tensor,
    baselines: Tensor,
    attributions: Tensor,
    groups: Tensor | None = None,
    steps: int = 32,
) -> Tensor:
    """Mean score over the deletion of features, highest attribution first: low is good.

    It has the units of the score. Compare it with the same number for random attributions.

    Args:
        score: codes ``[N, C, D]`` to outputs ``[N]``.
        codes: ``[B, C, D]``.
        baselines: of a shape that broadcasts to the codes'.
        attributions: ``[B, C, D]``.
        groups: as for `deletion_curve`.
        steps: as for `deletion_curve`.

    Returns:
        ``[B]``.

    Raises:
        ValueError: as `deletion_curve`.

    Source: Petsiuk et al., RISE, BMVC 2018, section 4.3.

    >>> score = lambda codes: codes[:, 0] @ torch.tensor([3.0, 2.0, 1.0])
    >>> deletion_auc(score, torch.ones(1, 1, 3), torch.zeros(1, 1, 3), torch.tensor([[[3.0, 2.0, 1.0]]]))
    tensor([2.3333], dtype=torch.float64)
    """
    return _area(*deletion_curve(score, codes, baselines, attributions, groups, steps))


def insertion_auc(
    score: Score,
    codes: Tensor,
    baselines: Tensor,
    attributions: Tensor,
    groups: Tensor | None = None,
    steps: int = 32,
) -> Tensor:
    """Mean score over the insertion of features into the baseline, highest attribution first: high is good.

    Args:
        score: codes ``[N, C, D]`` to outputs ``[N]``.
        codes: ``[B, C, D]``.
        baselines: of a shape that broadcasts to the codes'.
        attributions: ``[B, C, D]``.
        groups: as for `deletion_curve`.
        steps: as for `deletion_curve`.

    Returns:
        ``[B]``.

    Raises:
        ValueError: as `deletion_curve`.

    Source: Petsiuk et al., RISE, BMVC 2018, section 4.3.

    >>> score = lambda codes: codes[:, 0] @ torch.tensor([3.0, 2.0, 1.0])
    >>> insertion_auc(score, torch.ones(1, 1, 3), torch.zeros(1, 1, 3), torch.tensor([[[3.0, 2.0, 1.0]]]))
    tensor([3.6667], dtype=torch.float64)
    """
    return _area(*deletion_curve(score, codes, baselines, attributions, groups, steps, insert=True))


def infidelity(
    score: Score,
    codes: Tensor,
    baselines: Tensor,
    attributions: Tensor,
    samples: int = 32,
    share: float = 0.5,
    seed: int = 0,
) -> Tensor:
    """How far the attributions of random sets of features are from what losing these sets does to the score.

    Each set takes every feature with probability `share` and puts it at its baseline. The mean squared difference, as
    Captum computes it, is divided by that of an attribution of zeros over the same sets.

    Args:
        score: codes ``[N, C, D]`` to outputs ``[N]``.
        codes: ``[B, C, D]``.
        baselines: of a shape that broadcasts to the codes'.
        attributions: ``[B, C, D]``.
        samples: random sets a code.
        share: of the features in a set, between 0 and 1.
        seed: of the sets.

    Returns:
        ``[B]``, from 0 (the attributions add up to every change); 1 is no better than zeros; nan if nothing changes the
        score.

    Raises:
        ValueError: shapes that do not fit, attributions that are nan, or a number out of range.

    Source: Yeh et al., NeurIPS 2019, definition 2.1, with the perturbation of section 2.3; the division is ours.

    >>> score = lambda codes: codes[:, 0] @ torch.tensor([3.0, 2.0, 1.0])
    >>> attributions = torch.tensor([[[3.0, 2.0, 1.0]]])
    >>> infidelity(score, torch.ones(1, 1, 3), torch.zeros(1, 1, 3), attributions)
    tensor([0.], dtype=torch.float64)
    """
    from captum.metrics import infidelity as captum_infidelity

    baselines = _checked(codes, baselines, attributions)
    if samples < 1 or not 0 < share < 1:
        raise ValueError(f"samples must be at least 1 and share between 0 and 1; got {samples} and {share}.")

    def measured(values: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)

        def lose_features(inputs: Tensor, defaults: Tensor) -> tuple[Tensor, Tensor]:
            lost = (torch.rand(inputs.shape, generator=generator) < share).to(inputs)
            # Captum multiplies the first by the attributions: these already hold the factor codes - baselines.
            return lost, inputs - lost * (inputs - defaults)

        found = captum_infidelity(
            lambda inputs: _score(score, inputs).to(inputs.device),
            lose_features,
            codes,
            values,
            baselines=baselines,
            n_perturb_samples=samples,
            max_examples_per_batch=min(samples, max(1, _HELD // len(codes))) * len(codes),
        )
        return found.double().cpu()

    unexplained = measured(torch.zeros_like(attributions))
    return torch.where(unexplained > 0, measured(attributions) / unexplained, torch.nan)


def max_sensitivity(
    explain: Callable[[Tensor], Tensor], codes: Tensor, radius: float = 0.02, samples: int = 10, seed: int = 0
) -> Tensor:
    """The largest change of the attributions, relative to their norm, when a code changes a little.

    Args:
        explain: codes ``[N, C, D]`` to attributions ``[N, ...]``, for any N.
        codes: ``[B, C, D]``.
        radius: each value is changed by at most this share of itself, uniformly: the subbands of a code differ in size
            by orders of magnitude.
        samples: changed codes for each code.
        seed: of the changes.

    Returns:
        ``[B]``, from 0 (stable). Below `radius` the attributions move less than the code does.

    Raises:
        ValueError: a radius or a number of samples that is not positive.

    Source: Yeh et al., NeurIPS 2019, definition 3.1, as Captum computes it; the relative noise is ours.

    >>> max_sensitivity(lambda codes: torch.ones_like(codes), torch.rand(2, 1, 4))
    tensor([0., 0.], dtype=torch.float64)
    """
    from captum.metrics import sensitivity_max

    if samples < 1 or not radius > 0:
        raise ValueError(f"radius must be above 0 and samples at least 1; got {radius} and {samples}.")
    generator = torch.Generator().manual_seed(seed)

    def change(inputs: Tensor, size: float) -> Tensor:
        noise = (2 * torch.rand(inputs.shape, generator=generator) - 1).to(inputs)
        return inputs + size * noise * inputs

    def explained(inputs: Tensor | tuple[Tensor]) -> tuple[Tensor]:
        with torch.enable_grad():  # Captum measures without gradients, which explanations may need
            return (explain(inputs if isinstance(inputs, Tensor) else inputs[0]).detach(),)

    found = sensitivity_max(explained, codes, perturb_func=change, perturb_radius=radius, n_perturb_samples=samples)
    return found.double().cpu()


def completeness_gap(score: Score, codes: Tensor, baselines: Tensor, attributions: Tensor) -> tuple[Tensor, Tensor]:
    """How far the attributions are from adding up to the score's change from the baseline to the code.

    Args:
        score: codes ``[N, C, D]`` to outputs ``[N]``.
        codes: ``[B, C, D]``.
        baselines: of a shape that broadcasts to the codes'.
        attributions: ``[B, C, D]``.

    Returns:
        The gap ``[B]``, from 0, in units of the score; and the size of the change ``[B]``, which is the gap of an
        attribution of zeros.

    Raises:
        ValueError: shapes that do not fit, or attributions that are nan.

    Source: Sundararajan et al., ICML 2017, section 3, "completeness".

    >>> score = lambda codes: codes.sum((1, 2))
    >>> gap, change = completeness_gap(score, torch.ones(1, 1, 2), torch.zeros(1, 1, 2), torch.tensor([[[1.0, 0.5]]]))
    >>> gap.item(), change.item()
    (0.5, 2.0)
    """
    baselines = _checked(codes, baselines, attributions)
    change = _score(score, codes) - _score(score, baselines)
    return (attributions.detach().double().cpu().flatten(1).sum(1) - change).abs(), change.abs()


def faithfulness(
    score: Score,
    codes: Tensor,
    baselines: Tensor,
    attributions: Tensor,
    groups: Tensor | None = None,
    steps: int = 32,
    samples: int = 32,
    seed: int = 0,
) -> dict[str, Tensor]:
    """What of the above needs no second explanation, each beside what says nothing would score.

    Args:
        score: codes ``[N, C, D]`` to outputs ``[N]``.
        codes: ``[B, C, D]``.
        baselines: of a shape that broadcasts to the codes'.
        attributions: ``[B, C, D]``.
        groups: as for `deletion_curve`.
        steps: as for `deletion_curve`.
        samples: as for `infidelity`.
        seed: of the random attributions and of `infidelity`.

    Returns:
        ``[B]`` each: "deletion_auc" and "insertion_auc", each also "_random" (the order of random attributions);
        "infidelity" (1: no better than zeros); "completeness_gap" and "completeness_gap_zero" (of zeros).

    Raises:
        ValueError: as `deletion_curve`.

    >>> score = lambda codes: codes.sum((1, 2))
    >>> list(faithfulness(score, torch.ones(1, 1, 2), torch.zeros(1, 1, 2), torch.ones(1, 1, 2)))[:3]
    ['deletion_auc', 'deletion_auc_random', 'insertion_auc']
    """
    generator = torch.Generator().manual_seed(seed)
    random = torch.rand(attributions.shape, generator=generator).to(codes)
    found: dict[str, Tensor] = {}
    for name, area in (("deletion_auc", deletion_auc), ("insertion_auc", insertion_auc)):
        found[name] = area(score, codes, baselines, attributions, groups, steps)
        found[f"{name}_random"] = area(score, codes, baselines, random, groups, steps)
    found["infidelity"] = infidelity(score, codes, baselines, attributions, samples, seed=seed)
    gap, change = completeness_gap(score, codes, baselines, attributions)
    return found | {"completeness_gap": gap, "completeness_gap_zero": change}


def _checked(codes: Tensor, baselines: Tensor, attributions: Tensor) -> Tensor:
    """The baselines, expanded to the codes."""
    if codes.ndim != 3 or attributions.shape != codes.shape:
        raise ValueError(
            f"codes and attributions must both be [B, C, D]; got {list(codes.shape)} and {list(attributions.shape)}."
        )
    if not bool(torch.isfinite(attributions).all()):
        raise ValueError("attributions must be finite numbers; some are nan or infinite. Is the network's output?")
    try:
        return baselines.to(codes).expand_as(codes)
    except RuntimeError:
        raise ValueError(
            f"baselines must broadcast to the codes' shape {list(codes.shape)}; got {list(baselines.shape)}."
        ) from None


def _members(codes: Tensor, groups: Tensor | None) -> Tensor:
    """The group of each feature, ``[C * D]``."""
    channels, length = codes.shape[1:]
    if groups is None:
        return torch.arange(channels * length, device=codes.device)
    if groups.is_floating_point() or groups.shape not in ((length,), (channels, length)) or int(groups.min()) < 0:
        raise ValueError(
            f"groups must be whole numbers from 0, [{length}] or [{channels}, {length}]; got {groups.dtype} of shape "
            f"{list(groups.shape)}."
        )
    return groups.to(codes.device).long().expand(channels, length).flatten()


def _score(score: Score, codes: Tensor) -> Tensor:
    with torch.no_grad():
        found = score(codes)
    if found.shape != codes.shape[:1]:
        raise ValueError(f"score must give one number a code, [{len(codes)}]; got {list(found.shape)}.")
    return found.double().cpu()


def _area(shares: Tensor, scores: Tensor) -> Tensor:
    return torch.trapezoid(scores, shares, dim=1)

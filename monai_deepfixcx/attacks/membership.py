"""Membership inference: was this patient among those a network was trained on?"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Self

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional

from monai_deepfixcx.attacks.base import Attack, Auxiliary, ThreatModel, Truth, Victims
from monai_deepfixcx.metrics import Estimate, curves
from monai_deepfixcx.metrics.bootstrap import number_patients, percentile_estimate, resample_patients
from monai_deepfixcx.metrics.weighted import IGNORED, Floats, Ints, Ranking

Train = Callable[[Tensor, Tensor, int], nn.Module]
_RATES = {"tpr_at_fpr_1e-2": 1e-2, "tpr_at_fpr_1e-3": 1e-3}
_BATCH = 256


class RMIA(Attack):
    """Robust membership inference: does the network trust an image more than it should, compared with other images?

    p(x) is the probability that a network gives to the right labels of x, and ratio(x) = p(x | target) / p(x), where
    p(x) is estimated by a few reference networks that were not trained on x, and corrected for that by `offline`:
    p(x) = ((1 + offline) p_out(x) + 1 - offline) / 2. The score is the share of auxiliary images z with
    ratio(x) / ratio(z) >= gamma. Each reference network is trained on a random half of the auxiliary patients; an
    auxiliary image is judged by those that were not trained on its patient.

    Victims are the candidates: patients the target was trained on, and others (`members`), with their labels; the
    auxiliary patients must be new to the target.

    Args:
        target: the network under attack: codes ``[B, C, D]`` in, logits out. ``[B, L]`` for labels ``[B, L]`` of 0, 1,
            or 2 (uncertain: left out); ``[B, classes]`` for class indices ``[B]``. A copy is used, in evaluation mode.
        train: ``train(codes, labels, seed)`` gives a network trained as the target was, on other data.
        references: number of reference networks, 1 to 4.
        gamma: how much more trust counts, at least 1.
        offline: the correction, 0 to 1.
        groups: patient -> subgroup, to report each subgroup; None reports none.
        group_size: the fewest members, and non-members, of a subgroup for figures on it: fewer leave nan.

    Raises:
        ValueError: an argument out of range.

    Source: Zarifzadeh, Liu & Shokri, Low-cost high-power membership inference attacks, ICML 2024.

    >>> from monai_deepfixcx.attacks import run_attack
    >>> from monai_deepfixcx.codecs import IdentityCodec
    >>> from monai_deepfixcx.networks import CodeMLP
    >>> head = CodeMLP(64)  # untrained: it cannot betray anyone
    >>> rmia = RMIA(head, train=lambda codes, labels, seed: CodeMLP(64))
    >>> def people(names: str) -> dict:
    ...     return {"images": torch.rand(8, 1, 8, 8), "patients": list(names), "labels": torch.ones(8, 1)}
    >>> victims = people("aabbccdd") | {"members": torch.arange(8) < 4}
    >>> sorted(run_attack(rmia, IdentityCodec(), people("eeffgghh"), victims, samples=0).metrics)[:3]
    ['auc', 'patient_auc', 'patient_tpr_at_fpr_1e-2']
    """

    name: str = "RMIA"

    def __init__(
        self,
        target: nn.Module,
        train: Train,
        references: int = 2,
        gamma: float = 2.0,
        offline: float = 0.3,
        groups: Mapping[str, str] | None = None,
        group_size: int = 10,
    ) -> None:
        if not 1 <= references <= 4:
            raise ValueError(f"references must be 1 to 4; got {references}.")
        if gamma < 1:
            raise ValueError(f"gamma must be at least 1; got {gamma}.")
        if not 0 <= offline <= 1:
            raise ValueError(f"offline must lie between 0 and 1; got {offline}.")
        if group_size < 1:
            raise ValueError(f"group_size must be at least 1; got {group_size}.")
        self.target = copy.deepcopy(target).eval()
        self.train = train
        self.references, self.gamma, self.offline = references, gamma, offline
        self.groups = None if groups is None else {str(patient): str(group) for patient, group in groups.items()}
        self.group_size = group_size
        held = ("a network trained on codes", "codes and labels of candidates", "codes and labels of other patients")
        self.threat = ThreatModel("infer membership", held)

    def check(self, auxiliary: Auxiliary, truth: Truth) -> None:
        """Refuse data without labels, or without both members and others.

        Raises:
            ValueError: no auxiliary labels, no `members`, or members that are all alike.
        """
        super().check(auxiliary, truth)
        if auxiliary.labels is None:
            raise ValueError("auxiliary must hold labels for membership inference; got none.")
        if truth.members is None or len(set(truth.members.bool().tolist())) < 2:
            raise ValueError(
                "victims must hold members [N], true for images that the target was trained on, some true and some "
                f"false; got {'none' if truth.members is None else 'one value'}."
            )
        missing = set() if self.groups is None else set(truth.patients) - set(self.groups)
        if missing:
            raise ValueError(f"groups must name the subgroup of every victim patient; {len(missing)} are missing.")

    def fit(self, auxiliary: Auxiliary) -> Self:
        """Train the reference networks, and judge the auxiliary images."""
        codes, labels = auxiliary.codes, _required(auxiliary.labels, "auxiliary")
        owners = torch.from_numpy(number_patients(auxiliary.patients, len(codes))).to(codes.device)
        self.target.to(codes.device)
        generator = torch.Generator().manual_seed(auxiliary.seed)
        self._networks: list[nn.Module] = []
        outside, trust = [], []
        for number in track(range(self.references), "Reference networks", disable=not auxiliary.progress):
            order = torch.randperm(int(owners.max()) + 1, generator=generator)
            inside = torch.isin(owners, order[: len(order) // 2].to(owners.device))
            network = self.train(codes[inside], labels[inside], auxiliary.seed + number).to(codes.device).eval()
            self._networks.append(network)
            outside.append(~inside)
            trust.append(_log_trust(network, codes, labels))
        unseen, log_trust = torch.stack(outside), torch.stack(trust)
        judged = unseen.any(dim=0)
        mean = (log_trust.exp() * unseen).sum(dim=0)[judged] / unseen.sum(dim=0)[judged]
        own = _log_trust(self.target, codes[judged], labels[judged])
        self._population = self._log_ratio(own, mean).sort().values
        return self

    def run(self, victims: Victims) -> Tensor:
        """Scores ``[N]``, 0 to 1: the share of auxiliary images whose ratio is no more than 1 / gamma of the image's.

        Images that beat the same number of auxiliary images are ordered by their ratios, which few auxiliary images
        could not tell apart.
        """
        labels = _required(victims.labels, "victims")
        trust = torch.stack([_log_trust(network, victims.codes, labels) for network in self._networks])
        ratio = self._log_ratio(_log_trust(self.target, victims.codes, labels), trust.exp().mean(dim=0))
        ratio = ratio.round(decimals=4)  # coarser than the error of computing it: equal images tie
        below = torch.searchsorted(self._population, ratio - math.log(self.gamma), right=True)
        return (below + ratio.sigmoid()) / (len(self._population) + 1)

    def measure(self, output: Tensor, auxiliary: Auxiliary, truth: Truth) -> dict[str, Estimate]:
        """``auc``, ``tpr_at_fpr_1e-2`` and ``tpr_at_fpr_1e-3`` over images; over patients with ``patient_`` before.

        A patient's score is the mean over their images; a patient is a member if one image is. With `groups` each
        subgroup has the figures over its patients, as ``patient_auc_<group>``, with thresholds of its own. Equal
        scores count half.
        """
        scores = output.detach().cpu().double().numpy()
        members = _required(truth.members, "victims").cpu().double().numpy()
        owners = number_patients(truth.patients, len(scores))
        found = _figures(scores, members, owners, truth)
        number = np.bincount(owners)
        means = np.bincount(owners, scores) / number
        any_member = (np.bincount(owners, members) > 0).astype(float)
        persons = np.arange(len(number))
        found |= {f"patient_{name}": figure for name, figure in _figures(means, any_member, persons, truth).items()}
        if self.groups is not None:
            names = np.empty(len(number), object)
            names[owners] = [self.groups[patient] for patient in truth.patients]
            for group in sorted(set(names)):
                chosen = names == group
                figures = self._of_group(means[chosen], any_member[chosen], truth)
                found |= {f"patient_{name}_{group}": figure for name, figure in figures.items()}
        return found

    def _of_group(self, scores: Floats, members: Floats, truth: Truth) -> dict[str, Estimate]:
        if min(members.sum(), (1 - members).sum()) < self.group_size:
            return {name: Estimate(math.nan, math.nan, math.nan, base) for name, base in _baselines().items()}
        return _figures(scores, members, np.arange(len(scores)), truth)

    def _log_ratio(self, own: Tensor, outside: Tensor) -> Tensor:
        expected = ((1 + self.offline) * outside + 1 - self.offline) / 2
        return own - expected.clamp_min(torch.finfo(own.dtype).tiny).log()


@torch.no_grad()
def _log_trust(network: nn.Module, codes: Tensor, labels: Tensor) -> Tensor:
    """Log of the probability that a network gives to the right labels, ``[N]``, float64."""
    logits = torch.cat([network(batch) for batch in codes.split(_BATCH)]).double()
    if labels.ndim == 1 and logits.ndim == 2 and logits.shape[1] > 1:
        return -functional.cross_entropy(logits, labels.long(), reduction="none")
    labels = labels.reshape(len(labels), -1)
    logits = logits.reshape(len(logits), -1)
    if labels.shape != logits.shape:
        raise ValueError(
            f"labels must be [N, L] as the network's logits are, or class indices [N]; got labels "
            f"{list(labels.shape)} and logits {list(logits.shape)}."
        )
    losses = functional.binary_cross_entropy_with_logits(logits, labels.double().clamp(0, 1), reduction="none")
    return -(losses * (labels != IGNORED)).sum(dim=1)


def _figures(scores: Floats, members: Floats, owners: Ints, truth: Truth) -> dict[str, Estimate]:
    """AUC and true positive rates of scores ``[N]``, with intervals over `owners` ``[N]``."""
    ranking = Ranking.of(scores, members)

    def rate(at: float) -> Callable[[Floats], Floats]:
        return lambda weights: curves.true_positive_rate(*_curve(ranking, weights), at)

    statistics = [ranking.auroc, *(rate(at) for at in _RATES.values())]
    drawn = resample_patients(statistics, owners, truth.samples, truth.seed)
    once = np.ones((1, len(scores)))
    return {
        name: percentile_estimate(float(statistic(once)[0]), row, baseline=baseline)
        for (name, baseline), statistic, row in zip(_baselines().items(), statistics, drawn, strict=True)
    }


def _curve(ranking: Ranking, weights: Floats) -> tuple[Floats, Floats]:
    """False and true positive rates after each distinct score."""
    true, false = ranking.counts(weights)
    steps = [np.diff(counts, axis=1, prepend=0.0) for counts in (false, true)]
    return curves.rates(steps[0]), curves.rates(steps[1])


def _baselines() -> dict[str, float]:
    return {"auc": 0.5, **_RATES}


def _required(values: Tensor | None, part: str) -> Tensor:
    if values is None:
        raise ValueError(f"{part} must hold labels, and victims members, for membership inference; one is missing.")
    return values

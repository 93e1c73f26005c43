"""Membership inference at both ends: an overfitted head betrays its patients, one that never saw them does not."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_deepfixcx.attacks import RMIA, AttackResult, run_attack
from monai_deepfixcx.attacks.base import Auxiliary, Victims
from monai_deepfixcx.codecs import ConstantCodec, DeepFixCXCodec, IdentityCodec
from monai_deepfixcx.data import PhantomRadiographs
from monai_deepfixcx.networks import CodeMLP

CODEC = DeepFixCXCodec(2, 4)
RATES = ("tpr_at_fpr_1e-2", "tpr_at_fpr_1e-3")


@cache
def people() -> tuple[dict[str, Any], dict[str, Any], Tensor]:
    """Auxiliary and victim patients, half of these members, and codes of the victims; SYNTHETIC."""
    parts: list[dict[str, Any]] = [
        {**PhantomRadiographs(40, 2, 64, seed=3, first_patient=first).arrays()} for first in (0, 40)
    ]
    auxiliary, victims = ({key: part[key] for key in ("images", "patients", "labels", "sex")} for part in parts)
    victims["members"] = torch.from_numpy(victims["patients"] % 2 == 0)
    return auxiliary, victims, CODEC.encode(victims["images"])


def trainer(epochs: int = 120) -> Callable[[Tensor, Tensor, int], nn.Module]:
    def train(codes: Tensor, labels: Tensor, seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            head = CodeMLP(codes.shape[2], out_channels=labels.shape[1], width=64, normalization="whiten")
            head.fit_normalization([codes])
        optimizer = torch.optim.AdamW(head.parameters(), 1e-2)
        for _ in range(epochs):
            optimizer.zero_grad()
            functional.binary_cross_entropy_with_logits(head(codes), labels).backward()
            optimizer.step()
        return head

    return train


def target_of(members: bool, epochs: int = 120) -> nn.Module:
    """A head trained on the members, or on nobody of the victims."""
    if members:
        _, victims, codes = people()
        return trainer(epochs)(codes[victims["members"]], victims["labels"][victims["members"]], 7)
    other = PhantomRadiographs(20, 2, 64, seed=3, first_patient=80).arrays()
    return trainer(epochs)(CODEC.encode(other["images"]), other["labels"], 7)


def infer(target: nn.Module, samples: int = 100, seed: int = 0, progress: bool = False, **options: Any) -> AttackResult:
    auxiliary, victims, _ = people()
    attack = RMIA(target, trainer(), **options)
    return run_attack(attack, CODEC, auxiliary, victims, seed, samples=samples, progress=progress)


def chance_range(result: AttackResult) -> tuple[float, float]:
    """What 99 % of all ways to deal membership to the patients would have scored: AUC over images."""
    metrics = pytest.importorskip("sklearn.metrics")
    _, victims, _ = people()
    names, generator = np.unique(victims["patients"]), np.random.default_rng(0)
    dealt = [generator.permutation(names)[: len(names) // 2] for _ in range(400)]
    scores = result.output.numpy()
    areas = [metrics.roc_auc_score(np.isin(victims["patients"], members), scores) for members in dealt]
    low, high = np.quantile(areas, [0.005, 0.995])
    return float(low), float(high)


@pytest.mark.parametrize("references", [1, 4])
def test_an_overfitted_head_betrays_its_patients(references: int) -> None:
    result = infer(target_of(members=True), references=references)
    found = result.metrics
    assert found["auc"].low > 0.6
    assert found["auc"].value > chance_range(result)[1]
    assert found["patient_auc"].low > 0.65
    assert found["patient_auc"].value > found["auc"].value
    assert found["patient_tpr_at_fpr_1e-2"].value > 0.1


@pytest.mark.parametrize("epochs", [0, 120])
def test_a_head_that_never_saw_them_betrays_nobody(epochs: int) -> None:
    result = infer(target_of(members=False, epochs=epochs))
    low, high = chance_range(result)
    assert low < result.metrics["auc"].value < high
    for name in RATES:
        assert result.metrics[name].baseline == float(name.removeprefix("tpr_at_fpr_"))
        assert result.metrics[name].value < 0.15


def test_codes_that_hold_nothing_leave_membership_at_chance() -> None:
    auxiliary, victims, _ = people()
    alike = {**victims, "labels": torch.ones_like(victims["labels"])}
    attack = RMIA(CodeMLP(1, out_channels=2), lambda codes, labels, seed: CodeMLP(1, out_channels=2))
    found = run_attack(attack, ConstantCodec(), auxiliary, alike, samples=50).metrics
    for name, estimate in found.items():
        assert estimate.value == estimate.low == estimate.high == pytest.approx(estimate.baseline), name


def test_the_score_is_that_of_the_paper() -> None:
    """Counted one image and one auxiliary image at a time; ties of the count are ordered by the ratio."""
    auxiliary, victims, codes = people()
    target, made = target_of(members=True), []

    def train(codes: Tensor, labels: Tensor, seed: int) -> nn.Module:
        made.append(({tuple(code.flatten()[:3].tolist()) for code in codes}, trainer(30)(codes, labels, seed)))
        return made[-1][1]

    known = CODEC.encode(auxiliary["images"])
    patients = tuple(map(str, auxiliary["patients"]))
    attack = RMIA(target, train, references=2, gamma=1.5, offline=0.4)
    attack.fit(Auxiliary(CODEC, auxiliary["images"], patients, known, auxiliary["labels"]))
    scores = attack.run(Victims(codes[:12], labels=victims["labels"][:12]))

    def trust(network: nn.Module, code: Tensor, label: Tensor) -> float:
        chance = network.eval()(code[None])[0].double().sigmoid()
        return math.prod(float(p) if y == 1 else 1 - float(p) for p, y in zip(chance, label, strict=True))

    def ratio(code: Tensor, label: Tensor) -> float | None:
        seen = [tuple(code.flatten()[:3].tolist()) in codes for codes, _ in made]
        outside = [trust(network, code, label) for (_, network), inside in zip(made, seen, strict=True) if not inside]
        return trust(target, code, label) / (0.5 * (1.4 * float(np.mean(outside)) + 0.6)) if outside else None

    with torch.no_grad():
        population = [ratio(code, label) for code, label in zip(known, auxiliary["labels"], strict=True)]
        compared = [value for value in population if value is not None]
        assert 40 < len(compared) < 80  # each reference is trained on half of the patients
        for score, code, label in zip(scores, codes, victims["labels"], strict=False):
            own = ratio(code, label)
            assert own is not None
            share = sum(own >= 1.5 * value for value in compared) / len(compared)
            assert score.item() == pytest.approx(share, abs=1.5 / len(compared))


def test_uncertain_labels_are_left_out_and_classes_are_taken() -> None:
    auxiliary, victims, codes = people()
    head = target_of(members=True)
    patients = tuple(map(str, auxiliary["patients"]))

    def scores(labels: Tensor, target: nn.Module) -> Tensor:
        attack = RMIA(target, lambda codes, labels, seed: target_of(members=False, epochs=20))
        known = Auxiliary(CODEC, auxiliary["images"], patients, CODEC.encode(auxiliary["images"]), labels)
        return attack.fit(known).run(Victims(codes, labels=victims["labels"] if labels.ndim == 2 else victims["class"]))

    uncertain = auxiliary["labels"].clone()
    uncertain[:, 1] = 2
    assert (scores(uncertain, head) != scores(auxiliary["labels"], head)).any()
    victims["class"] = victims["labels"][:, 0].long()
    by_class = scores(auxiliary["labels"][:, 0].long(), head)
    assert by_class.shape == (80,)
    assert bool(((by_class >= 0) & (by_class <= 1)).all())


def test_patients_and_subgroups_have_figures_of_their_own() -> None:
    _, victims, _ = people()
    sex = {str(name): value for name, value in zip(victims["patients"], victims["sex"], strict=True)}
    result = infer(target_of(members=True), groups=sex, group_size=5)
    scores, members = result.output.numpy(), victims["members"].numpy()
    metrics = pytest.importorskip("sklearn.metrics")
    assert result.metrics["auc"].value == pytest.approx(metrics.roc_auc_score(members, scores))
    truth = np.array([int(name) % 2 == 0 for name in sorted(sex)])
    means = np.array([scores[victims["patients"] == int(name)].mean() for name in sorted(sex)])
    assert result.metrics["patient_auc"].value == pytest.approx(metrics.roc_auc_score(truth, means))
    groups = np.array([sex[name] for name in sorted(sex)])
    for group in "FM":
        expected = metrics.roc_auc_score(truth[groups == group], means[groups == group])
        estimate = result.metrics[f"patient_auc_{group}"]
        assert estimate.value == pytest.approx(expected)
        assert estimate.low < estimate.value
    small = infer(target_of(members=True), samples=0, groups={name: "all but one" for name in sex} | {"40": "one"})
    assert math.isnan(small.metrics["patient_auc_one"].value)
    assert not math.isnan(small.metrics["patient_auc_all but one"].value)


def test_the_same_seed_gives_the_same_scores_and_the_target_is_left_alone() -> None:
    target = target_of(members=True).train()
    first, second, other = (infer(target, samples=0, seed=seed).output for seed in (0, 0, 1))
    assert (first == second).all()
    assert (first != other).any()
    assert target.training


def test_volumes_and_progress(capsys: pytest.CaptureFixture[str]) -> None:
    generator = torch.Generator().manual_seed(0)

    def volumes(names: str) -> dict[str, Any]:
        images = torch.rand(len(names), 1, 4, 4, 4, generator=generator)
        return {"images": images, "patients": list(names), "labels": (images.mean((1, 2, 3, 4)) > 0.5).float()[:, None]}

    victims = volumes("aabbccdd") | {"members": torch.arange(8) < 4}
    attack = RMIA(CodeMLP(64), lambda codes, labels, seed: CodeMLP(64))
    result = run_attack(attack, IdentityCodec(3), volumes("eeffgghh"), victims, samples=0, progress=True)
    assert result.output.shape == (8,)
    assert "Reference networks" in capsys.readouterr().out


def test_errors_say_what_is_missing() -> None:
    auxiliary, victims, _ = people()
    head = CodeMLP(CODEC.code_length((64, 64)), out_channels=2)

    def run(known: dict[str, Any], attacked: dict[str, Any], **options: Any) -> AttackResult:
        return run_attack(RMIA(head, trainer(1), **options), CODEC, known, attacked, samples=0)

    def without(part: dict[str, Any], key: str) -> dict[str, Any]:
        return {name: value for name, value in part.items() if name != key}

    with pytest.raises(ValueError, match="auxiliary must hold labels for membership inference; got none"):
        run(without(auxiliary, "labels"), victims)
    with pytest.raises(ValueError, match="victims must hold labels, and victims members, for membership inference"):
        run(auxiliary, without(victims, "labels"))
    with pytest.raises(ValueError, match=r"victims must hold members \[N\], true for images that.*got none"):
        run(auxiliary, without(victims, "members"))
    with pytest.raises(ValueError, match=r"some true and some false; got one value"):
        run(auxiliary, {**victims, "members": torch.ones(80)})
    with pytest.raises(ValueError, match="groups must name the subgroup of every victim patient; 40 are missing"):
        run(auxiliary, victims, groups={})
    with pytest.raises(ValueError, match=r"labels must be \[N, L\] as the network's .*, 1\] and logits .*, 2\]"):
        run({**auxiliary, "labels": torch.ones(80, 1)}, victims)
    for name, value, text in (
        ("references", 5, "must be 1 to 4; got 5"),
        ("gamma", 0.5, "must be at least 1; got 0.5"),
        ("offline", 2, "must lie between 0 and 1; got 2"),
        ("group_size", 0, "must be at least 1; got 0"),
    ):
        with pytest.raises(ValueError, match=f"{name} {text}"):
            RMIA(head, trainer(), **{name: value})  # type: ignore[arg-type]

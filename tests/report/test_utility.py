from typing import Any

import numpy as np
import pytest
import torch

from monai_deepfixcx.codecs import ConstantCodec, DeepFixCXCodec, IdentityCodec
from monai_deepfixcx.report import measure_utility, utility

linear_model = pytest.importorskip("sklearn.linear_model")
preprocessing = pytest.importorskip("sklearn.preprocessing")
metrics = pytest.importorskip("sklearn.metrics")


def people(count: int, seed: int, name: str) -> dict[str, Any]:
    """Two images a patient; the finding is a faint brighter corner."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand((count, 1), generator=generator) > 0.5).float().repeat_interleave(2, 0)
    images = torch.rand((2 * count, 1, 8, 8), generator=generator)
    images[..., :4, :4] += 0.12 * labels[..., None, None]
    return {"images": images, "labels": labels, "patients": [f"{name}{n // 2}" for n in range(2 * count)]}


def test_agrees_with_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utility, "PENALTIES", (0.3,))
    auxiliary, victims = people(30, 0, "a"), people(30, 1, "v")
    codec = DeepFixCXCodec(1, 4)
    found = measure_utility(codec, auxiliary, victims, ["corner"], samples=20)["corner"]
    codes = [codec.encode(part["images"])[:, 0].double().numpy() for part in (auxiliary, victims)]
    scaler = preprocessing.StandardScaler().fit(codes[0])
    inputs = [scaler.transform(code) / codes[0].shape[1] ** 0.5 for code in codes]
    oracle = linear_model.LogisticRegression(C=1 / 0.3, tol=1e-8, max_iter=1000).fit(
        inputs[0], auxiliary["labels"][:, 0].numpy()
    )
    expected = metrics.roc_auc_score(victims["labels"][:, 0].numpy(), oracle.decision_function(inputs[1]))
    assert found.value == pytest.approx(expected, abs=2e-3)
    assert found.low <= found.value <= found.high
    assert found.baseline == 0.5


def test_both_ends() -> None:
    auxiliary, victims = people(40, 0, "a"), people(40, 1, "v")
    seen = measure_utility(IdentityCodec(), auxiliary, victims, ["corner"], samples=0)["corner"].value
    blind = measure_utility(ConstantCodec(), auxiliary, victims, ["corner"], samples=0)["corner"].value
    assert seen > 0.65
    assert blind == 0.5


def test_uncertain_labels_are_left_out() -> None:
    auxiliary, victims = people(20, 0, "a"), people(20, 1, "v")
    for part in (auxiliary, victims):
        part["labels"][:6] = 2.0
    learnt, tested = ({key: value[6:] for key, value in part.items()} for part in (auxiliary, victims))
    codec = IdentityCodec()
    with_uncertain = measure_utility(codec, auxiliary, victims, ["corner"], samples=0)["corner"].value
    # Standardisation, which needs no label, may still use them: the two heads differ by little.
    assert with_uncertain == pytest.approx(
        measure_utility(codec, learnt, tested, ["corner"], samples=0)["corner"].value, abs=0.05
    )


def test_a_label_of_one_class_is_undefined_and_costs_no_other() -> None:
    auxiliary, victims = people(20, 0, "a"), people(20, 1, "v")
    for part in (auxiliary, victims):
        part["labels"] = torch.cat([part["labels"], torch.zeros_like(part["labels"])], dim=1)
    found = measure_utility(IdentityCodec(), auxiliary, victims, ["corner", "never"], samples=0)
    assert np.isnan(found["never"].value)
    assert found["mean"].value == found["corner"].value

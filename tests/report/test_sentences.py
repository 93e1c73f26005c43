from typing import Any

import pytest

from monai_deepfixcx.report.sentences import headline, percent, percent_interval, utility_sentence, worst_first


def result(attack: str, goal: str, **values: float | None) -> dict[str, Any]:
    metrics = {
        name: {"value": value, "low": None, "high": None, "baseline": 0.0 if name == "explained_variance" else 0.5}
        for name, value in values.items()
    }
    return {"attack": attack, "goal": goal, "metrics": metrics, "threat_model": ""}


def test_the_strongest_attack_comes_first_and_undefined_ones_last() -> None:
    results = [
        result("none", "reconstruct", explained_variance=None),
        result("bad", "reconstruct", explained_variance=-0.4),
        result("best", "reconstruct", explained_variance=0.7),
        result("other goal", "link", auc=0.99),
    ]
    assert [found["attack"] for found in worst_first(results, "reconstruct")] == ["best", "bad", "none"]


def test_headline_compares_with_the_same_attack_undefended() -> None:
    text = headline(
        [result("A", "reconstruct", explained_variance=0.41), result("B", "reconstruct", explained_variance=0.1)],
        [result("B", "reconstruct", explained_variance=0.99), result("A", "reconstruct", explained_variance=0.98)],
        "reconstruct",
    )
    assert text == (
        "The strongest attack, A, recovered 41 % of what distinguishes one patient's image from the average; with the "
        "undefended image it recovers 98 %."
    )


def test_headline_of_an_attack_that_has_no_undefended_twin_names_another() -> None:
    before = [result("B", "reconstruct", explained_variance=0.99)]
    text = headline([result("A", "reconstruct", explained_variance=0.41)], before, "reconstruct")
    assert text.endswith("; with the undefended image, B recovers 99 %.")


def test_headline_says_when_no_attack_got_anywhere() -> None:
    results = [result(name, "reconstruct", explained_variance=value) for name, value in (("A", 0.0), ("B", -0.2))]
    assert headline(results, [], "reconstruct").startswith("None of the 2 attacks did better than guessing the average")


def test_linking_headline_gives_guessing_and_undefended() -> None:
    before = [result("A", "link", auc=0.95, precision_at_1=0.8)]
    text = headline([result("A", "link", auc=0.87, precision_at_1=0.34)], before, "link")
    assert "in 87 % of comparisons; guessing gives 50 %, the undefended images 95 %." in text
    assert "at the first try in 34 % of searches; guessing 50 %, undefended 80 %." in text


def test_membership_headline() -> None:
    text = headline([result("RMIA", "infer membership", auc=0.56)], [], "infer membership")
    assert "56 % of comparisons; guessing gives 50 %" in text


def test_no_attack_no_sentence() -> None:
    assert headline([], [], "link") == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 %"),
        (-0.0001, "0 %"),
        (0.0004, "0 %"),
        (0.00051, "0.1 %"),
        (0.0996, "10 %"),
        (1.0, "100 %"),
        (-0.123, "-12 %"),
    ],
)
def test_percent(value: float, text: str) -> None:
    assert percent(value) == text


def test_undefined_scores_are_said_to_be() -> None:
    assert percent_interval({"value": None, "low": None, "high": None}) == "not defined"
    assert "AUROC not defined" in utility_sentence({"mean": {"value": None}}, None)

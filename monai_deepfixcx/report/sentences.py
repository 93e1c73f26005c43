"""Findings in plain sentences with numbers: no verdicts, no colours, no promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai_deepfixcx.metrics.markdown import estimate_text
from monai_deepfixcx.report.words import SCORES_OF_GOAL

Scores = Mapping[str, Any]
Result = Mapping[str, Any]


def percent(value: float | None) -> str:
    """A share in percent; one digit after the point below 10 %.

    >>> percent(0.4138), percent(0.0213), percent(None)
    ('41 %', '2.1 %', 'not defined')
    """
    if value is None:
        return "not defined"
    return f"{_number(value)} %"


def percent_interval(score: Scores) -> str:
    """A share with its interval.

    >>> percent_interval({"value": 0.4138, "low": 0.38, "high": 0.44})
    '41 % (38 to 44)'
    """
    value, low, high = score["value"], score.get("low"), score.get("high")
    if value is None or low is None or high is None:
        return percent(value)
    return f"{percent(value)} ({_number(low)} to {_number(high)})"


def decimal_interval(score: Scores) -> str:
    """A score with its interval, three digits.

    >>> decimal_interval({"value": 0.9812, "low": 0.95, "high": 0.991})
    '0.981 (0.950 to 0.991)'
    """
    return "not defined" if score["value"] is None else estimate_text(score)


def worst_first(results: Sequence[Result], goal: str) -> list[Result]:
    """The results of one goal, the strongest attack first; undefined ones last.

    >>> scores = [{"attack": a, "goal": "link", "metrics": {"auc": {"value": v}}} for a, v in (("A", 0.6), ("B", 0.9))]
    >>> [result["attack"] for result in worst_first(scores, "link")]
    ['B', 'A']
    """
    name = SCORES_OF_GOAL[goal][0]
    return sorted(
        (result for result in results if result["goal"] == goal),
        key=lambda result: -_value(result, name, float("-inf")),
    )


def undefended_score(result: Result, undefended: Sequence[Result], name: str) -> Scores | None:
    """The same attack's score on the undefended images, where it was run on them."""
    for other in undefended:
        if other["attack"] == result["attack"]:
            found: Scores | None = other["metrics"].get(name)
            return found
    return None


def headline(results: Sequence[Result], undefended: Sequence[Result], goal: str) -> str:
    """What the strongest attack of a goal reached, as one or two sentences.

    Args:
        results: of every attack on one codec, as the card holds them.
        undefended: of the same attacks on the images themselves.
        goal: "reconstruct", "link" or "infer membership".

    >>> result = {"attack": "LinearMMSE", "goal": "reconstruct",
    ...           "metrics": {"explained_variance": {"value": 0.41, "low": 0.38, "high": 0.44, "baseline": 0.0}}}
    >>> print(headline([result], [], "reconstruct"))
    The strongest attack, LinearMMSE, recovered 41 % (38 to 44) of what distinguishes one patient's image from the \
average.
    """
    ordered = worst_first(results, goal)
    if not ordered:
        return ""
    result = ordered[0]
    sentence = _SENTENCES[goal](result, undefended)
    others = len(ordered) - 1
    if others and goal == "reconstruct" and _value(result, "explained_variance", 0.0) <= 0:
        return f"None of the {others + 1} attacks did better than guessing the average image: {sentence}"
    return sentence


def _reconstruction(result: Result, undefended: Sequence[Result]) -> str:
    name = "explained_variance"
    said = (
        f"The strongest attack, {result['attack']}, recovered {percent_interval(result['metrics'][name])} of what "
        "distinguishes one patient's image from the average"
    )
    before = undefended_score(result, undefended, name)
    if before is not None:
        return f"{said}; with the undefended image it recovers {percent(before['value'])}."
    others = worst_first(undefended, "reconstruct")  # some attacks make no sense on images themselves
    if not others:
        return f"{said}."
    best = others[0]
    return f"{said}; with the undefended image, {best['attack']} recovers {percent(best['metrics'][name]['value'])}."


def _linkage(result: Result, undefended: Sequence[Result]) -> str:
    scores = result["metrics"]
    said = (
        f"The strongest attack, {result['attack']}, ranked two images of one patient above images of two patients in "
        f"{percent_interval(scores['auc'])} of comparisons; guessing gives 50 %"
    )
    before = undefended_score(result, undefended, "auc")
    said += f", the undefended images {percent(before['value'])}." if before else "."
    first = scores.get("precision_at_1")
    if first is None or first["value"] is None:
        return said
    said += f" It found the right patient at the first try in {percent_interval(first)} of searches"
    if first.get("baseline") is not None:
        said += f"; guessing {percent(first['baseline'])}"
    before = undefended_score(result, undefended, "precision_at_1")
    return f"{said}, undefended {percent(before['value'])}." if before else f"{said}."


def _membership(result: Result, undefended: Sequence[Result]) -> str:
    return (
        f"The strongest attack, {result['attack']}, told patients that the model was trained on from others in "
        f"{percent_interval(result['metrics']['auc'])} of comparisons; guessing gives 50 %."
    )


_SENTENCES = {"reconstruct": _reconstruction, "link": _linkage, "infer membership": _membership}


def utility_sentence(utility: Scores, undefended: Scores | None) -> str:
    """How well findings are still recognised.

    >>> utility_sentence({"mean": {"value": 0.9, "low": 0.85, "high": 0.94}}, {"mean": {"value": 0.95}})
    'A simple model on the codes recognises the findings with AUROC 0.900 (0.850 to 0.940); on the images themselves, \
0.950.'
    """
    said = f"A simple model on the codes recognises the findings with AUROC {decimal_interval(utility['mean'])}"
    if undefended is None or undefended["mean"]["value"] is None:
        return f"{said}."
    return f"{said}; on the images themselves, {undefended['mean']['value']:.3f}."


def _value(result: Result, name: str, missing: float) -> float:
    value = result["metrics"].get(name, {}).get("value")
    return missing if value is None else float(value)


def _number(value: float) -> str:
    hundred = round(100 * value, 1) + 0.0  # no "-0"
    return f"{hundred:.0f}" if abs(hundred) >= 10 or hundred == 0 else f"{hundred:.1f}"

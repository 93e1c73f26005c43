"""The page is looked at by parsing it: whether it is beautiful, a person must say."""

import copy
import itertools
import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from monai_deepfixcx.report import Card, render_page

VOID = {"meta", "img", "br", "line", "circle", "polyline"}
NASTY = '<script>alert("x")</script><img src=x onerror=alert(1)>'


class Page(HTMLParser):
    """Elements with their attributes, text, and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.open: list[str] = []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data + " "

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(card: Card) -> Page:
    return Page(render_page(card))


def test_it_fetches_nothing_and_runs_nothing(card: Card, page: Page) -> None:
    assert not {name for name, _ in page.elements} & {"script", "link", "iframe", "object", "embed", "form", "base"}
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "data", "action", "srcset", "poster"):
            target = attributes.get(name)
            assert target is None or target.startswith(("#", "data:image/png;base64,"))
    assert "url(" not in render_page(card)
    assert "@import" not in render_page(card)
    (policy,) = [meta for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy["content"]).startswith("default-src 'none'")


def test_links_lead_somewhere(page: Page) -> None:
    places = {attributes.get("id") for _, attributes in page.elements}
    targets = [str(link["href"]) for link in page.all("a")]
    assert targets
    assert {target[1:] for target in targets} <= places
    labelled = [attributes["aria-labelledby"] for attributes in page.all("section")]
    assert set(labelled) <= places


def test_everything_a_reader_needs_is_there(page: Page) -> None:
    for text in (
        "Synthetic data.",
        "The strongest attack, LinearMMSE, recovered",
        "of what distinguishes one patient's image from the average",
        "Whose pictures these are.",
        "Nobody's: they are synthetic",
        "The attacker knows the method and all its settings exactly.",
        "Not attacked by",
        "Inversion with a large generative model",
        "Attacks of this package that were not run, or failed",
        "These codes carry no such guarantee.",
        "epsilon and delta",
        "Best guess without the code",
        "Undefended images",
        "monai-deepfixcx 0.1.0",
        "2026-11-21",
    ):
        assert text in " ".join(page.words.split()), text


def test_it_gives_no_verdict(page: Page) -> None:
    text = page.words.lower()
    for word in ("prevent", "guarantees privacy", "anonymous", "is safe", "secure", "cannot be reconstructed"):
        assert word not in text


def test_the_strongest_attack_stands_first(card: Card) -> None:
    text = render_page(card)
    tables = re.findall(r"DeepFixCX J=2 P=4</caption>.*?</table>", text, flags=re.DOTALL)
    first = re.search(r'<th scope="row" role="rowheader">(\w+)', tables[0])
    assert first is not None
    assert first[1] == "LinearMMSE"


def test_it_can_be_used_without_eyes(page: Page) -> None:
    assert page.all("html")[0]["lang"] == "en"
    for picture in page.all("img"):
        assert len(str(picture.get("alt"))) > 10
    assert len(page.all("svg")) == 2
    assert all(drawing.get("role") == "img" and drawing.get("aria-label") for drawing in page.all("svg"))
    for head in page.all("th"):
        assert head["scope"] in ("row", "col")
    levels = [int(name[1]) for name, _ in page.elements if re.fullmatch(r"h\d", name)]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def luminance(colour: str) -> float:
    full = colour if len(colour) == 7 else "#" + "".join(2 * digit for digit in colour[1:])
    parts = [int(full[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, contrast ratio."""
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_by_day_by_night_and_on_paper() -> None:
    style = files("monai_deepfixcx.report").joinpath("page.css").read_text("utf-8")
    themes = [
        dict(re.findall(r"(--[a-z-]+): (#[0-9a-f]+);", block)) for block in re.findall(r":root \{(.*?)\}", style, re.S)
    ]
    assert len(themes) == 3
    for theme in themes:
        for ground in ("--paper", "--tint", "--note"):
            assert contrast(theme["--ink"], theme[ground]) >= 7
            assert contrast(theme["--soft"], theme[ground]) >= 4.5
        assert contrast(theme["--accent"], theme["--paper"]) >= 4.5
        assert contrast(theme["--accent"], theme["--on-accent"]) >= 4.5


def test_everything_is_escaped(card: Card) -> None:
    """Whatever a card says, it stays text: in every string of it, one after the other."""
    marked = 0

    def spoil(value: object) -> object:
        nonlocal marked
        if isinstance(value, dict):
            return {key: spoil(item) for key, item in value.items() if key != "goal"} | (
                {"goal": value["goal"]} if "goal" in value else {}
            )
        if isinstance(value, list):
            return [spoil(item) for item in value]
        if isinstance(value, str) and not value.startswith("data:"):
            marked += 1
            return f"{value}{NASTY}"
        return value

    text = render_page(spoil(copy.deepcopy(card)))  # type: ignore[arg-type]
    assert marked > 50
    assert "<script" not in text
    assert "<img src=x" not in text
    assert len(Page(text).all("img")) == len(Page(render_page(card)).all("img"))


@pytest.mark.parametrize(
    "uri", ["https://example.org/x.png", "data:image/svg+xml;base64,AAAA", 'data:image/png;base64,A" onload="x']
)
def test_other_pictures_are_refused(card: Card, uri: str) -> None:
    spoilt = copy.deepcopy(card)
    spoilt["pictures"]["originals"][0] = uri
    with pytest.raises(ValueError, match="pictures must be PNG data URIs"):
        render_page(spoilt)


def test_a_damaged_card_is_said_to_be(card: Card) -> None:
    spoilt = copy.deepcopy(card)
    del spoilt["codecs"][0]["attacks"]
    with pytest.raises(ValueError, match="the card is damaged"):
        render_page(spoilt)


def test_without_labels_and_pictures_the_page_says_so(card: Card) -> None:
    bare = copy.deepcopy(card)
    bare["pictures"] = None
    for entry in (*bare["codecs"], bare["undefended"]):
        entry["utility"] = None
    text = Page(render_page(bare)).words
    assert "utility was not measured" in text
    assert "made without pictures" in text


def test_a_formal_guarantee_stands_apart(card: Card) -> None:
    released = {**card, "differential_privacy": {"epsilon": 8.0, "delta": 1e-6, "unit": "per image"}}
    text = " ".join(Page(render_page(released)).words.split())
    assert "epsilon = 8 and delta = 1e-06, per image. The measurements above are no part of it." in text


def test_failures_are_named(card: Card) -> None:
    failed = copy.deepcopy(card)
    failed["codecs"][1]["failed"] = [{"name": "LearnedInversion", "reason": "unforeseen MemoryError"}]
    assert "Tried, but it failed: unforeseen MemoryError" in Page(render_page(failed)).words

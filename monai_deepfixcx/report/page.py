"""A privacy card as one HTML page: nothing is fetched, nothing is executed, every text is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from monai_deepfixcx.report.card import Card
from monai_deepfixcx.report.pareto import Point, pareto_svg
from monai_deepfixcx.report.sentences import (
    Result,
    decimal_interval,
    headline,
    percent,
    percent_interval,
    undefended_score,
    utility_sentence,
    worst_first,
)
from monai_deepfixcx.report.words import GLOSSARY, GOALS, SCORES, SCORES_OF_GOAL, attack_words

_PICTURE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]*")
Entry = dict[str, Any]


def render_page(card: Card) -> str:
    """The page.

    Args:
        card: as `privacy_card` gives it or `read_card` reads it.

    Returns:
        One self-contained HTML document.

    Raises:
        ValueError: the card lacks something, or a picture in it is no PNG data URI.
    """
    try:
        sections = [
            ("short", "In short", _short(card)),
            ("curve", "Utility against leakage", _curve(card)),
            ("pictures", "How it looks", _pictures(card)),
            ("keeps", "What the code keeps", _keeps(card)),
            ("attacks", "Every attack, the strongest first", _attacks(card)),
            ("attacker", "Who is assumed to attack", _attacker(card)),
            ("not-attacked", "Not attacked by", _not_attacked(card)),
            ("guarantee", "Formal guarantee", _guarantee(card)),
            ("measured", "How this was measured", _measured(card)),
            ("words", "Words", _words()),
        ]
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"the card is damaged ({type(error).__name__}: {error}). Attack again.") from None
    sections = [section for section in sections if section[2]]
    banner = ""
    if card["data"]["synthetic"]:
        banner = (
            '<p class="note"><strong>Synthetic data.</strong> All images here were drawn by a computer. The figures '
            "show how the measurement works; they say nothing about real patients.</p>"
        )
    package = files("monai_deepfixcx.report")
    return Template(package.joinpath("page.html").read_text("utf-8")).substitute(
        title=escape(card["title"]),
        style=package.joinpath("page.css").read_text("utf-8"),
        banner=banner,
        contents="\n".join(f'<li><a href="#{name}">{heading}</a></li>' for name, heading, _ in sections),
        sections="\n".join(
            f'<section id="{name}" aria-labelledby="{name}-h"><h2 id="{name}-h">{heading}</h2>\n{_unbroken(body)}\n'
            "</section>"
            for name, heading, body in sections
        ),
        footer=_footer(card),
    )


def _short(card: Card) -> str:
    before = card["undefended"]
    boxes = []
    for number, entry in enumerate(card["codecs"], start=1):
        said = [(goal, headline(entry["attacks"], before["attacks"], goal)) for goal in GOALS]
        lines = [f"<p><strong>{GOALS[goal][0]}.</strong> {escape(sentence)}</p>" for goal, sentence in said if sentence]
        if entry["utility"] is not None:
            lines.append(
                f"<p><strong>What it is good for.</strong> "
                f"{escape(utility_sentence(entry['utility'], before['utility']))}</p>"
            )
        boxes.append(
            f'<div class="codec"><h3>{_mark(number)}{escape(entry["name"])}</h3>'
            f"<p>{_kept(entry)}</p>{''.join(lines) or '<p>No attack could be run.</p>'}</div>"
        )
    limits = _list(escape(text) for text in card["limits"])
    return "\n".join([*boxes, "<h3>What these figures cannot say</h3>", limits])


def _curve(card: Card) -> str:
    shown = [_plot(card, goal) for goal in ("reconstruct", "link")]
    plots = "".join(shown)
    head = ["Setting", "Values kept", "Image got back", "Patient recognised", "Utility (AUROC)"]
    rows = []
    for number, entry in enumerate(card["codecs"], start=1):
        name = f"{_mark(number)}{escape(entry['name'])}"
        rows.append([name, percent(entry["values_kept"] / entry["pixels"]), *_strongest(entry, entry["utility"])])
    before = card["undefended"]
    rows.append([f"{_mark('U')}Undefended images", "100 %", *_strongest(before, before["utility"])])
    table = _table(
        "The strongest attack of each kind, and the mean utility over all findings. In brackets: 95 % intervals.",
        head,
        rows,
    )
    if not plots:
        note = "<p>No labels were given, so utility was not measured and there is no curve to draw.</p>"
        return f"{note}\n{table}"
    note = (
        "<p>Each numbered point is one setting. Further left leaks less, further up is more useful. The dashed line "
        "joins the settings that no other beats on both; <strong>U</strong> are the undefended images.</p>"
    )
    return f'{note}\n<div class="plots">{plots}</div>\n{table}'


def _plot(card: Card, goal: str) -> str:
    score = SCORES_OF_GOAL[goal][0]
    points = []
    entries = [(str(number), entry["name"], entry) for number, entry in enumerate(card["codecs"], start=1)]
    for mark, name, entry in [*entries, ("U", "Undefended images", card["undefended"])]:
        ordered = worst_first(entry["attacks"], goal)
        useful = (entry["utility"] or {}).get("mean")
        if not ordered or useful is None:
            continue
        leakage = ordered[0]["metrics"][score]
        if leakage["value"] is not None and useful["value"] is not None:
            points.append(Point(name, mark, _triple(leakage), _triple(useful), reference=mark == "U"))
    if not any(not point.reference for point in points):
        return ""
    words = {
        "reconstruct": ("of what distinguishes the image, recovered", (0.0, 1.0), "left end: the average image"),
        "link": ("of comparisons, same patient recognised", (0.5, 1.0), "left end: blind guessing"),
    }
    label, ends, note = words[goal]
    title = f"{GOALS[goal][0]}: utility against the strongest attack"
    svg = pareto_svg(points, title, label, ends)
    return f"<figure>{svg}<figcaption>{GOALS[goal][0]}, by the strongest attack ({note}).</figcaption></figure>"


def _strongest(entry: Entry, utility: Entry | None) -> list[str]:
    cells = []
    for goal in ("reconstruct", "link"):
        ordered = worst_first(entry["attacks"], goal)
        if ordered:
            score = ordered[0]["metrics"][SCORES_OF_GOAL[goal][0]]
            cells.append(f"{percent_interval(score)}{_small(ordered[0]['attack'])}")
        else:
            cells.append("not attacked")
    return [*cells, "not measured" if utility is None else decimal_interval(utility["mean"])]


def _keeps(card: Card) -> str:
    parts = ["<p>This follows from the settings alone, whatever an image shows.</p>"]
    for number, entry in enumerate(card["codecs"], start=1):
        sentences = _list(escape(sentence) for sentence in entry["explanation"])
        parts.append(f"<h3>{_mark(number)}{escape(entry['name'])}</h3>\n{sentences}")
        if entry.get("drawing"):
            alternative = f"Drawing of what {entry['name']} keeps, as described above."
            parts.append(f'<img class="drawing" src="{_source(entry["drawing"])}" alt="{escape(alternative)}">')
    return "\n".join(parts)


def _pictures(card: Card) -> str:
    shown = card["pictures"]
    if shown is None:
        return "<p>This card was made without pictures.</p>"
    count = len(shown["originals"])
    rows = [["Original", *(_image(uri, f"original image of person {n}") for n, uri in _numbered(shown["originals"]))]]
    for number, entry in enumerate(card["codecs"], start=1):
        drawn = entry["pictures"]
        if drawn is None:
            continue
        name = f"{_mark(number)}{escape(entry['name'])}"
        for kind, title in (("privatized", "what the code shows"), ("attacked", f"got back by {drawn['attack']}")):
            if drawn[kind]:
                images = [_image(uri, f"{entry['name']}, person {n}: {title}") for n, uri in _numbered(drawn[kind])]
                rows.append([f"{name}{_small(title)}", *images])
    head = ["Setting", *(f"Person {number}" for number in range(1, count + 1))]
    whose = f'<p class="note"><strong>Whose pictures these are.</strong> {escape(shown["whose"])}</p>'
    return f"{whose}\n{_table('Below each other: original, privatized, attacked.', head, rows, 'pictures')}"


def _attacks(card: Card) -> str:
    parts = []
    for goal, (heading, meaning) in GOALS.items():
        if not any(worst_first(entry["attacks"], goal) for entry in card["codecs"]):
            continue
        names = {result["attack"]: result for entry in card["codecs"] for result in worst_first(entry["attacks"], goal)}
        known = _definitions((name, attack_words(name) or result["threat_model"]) for name, result in names.items())
        parts.append(f"<h3>{heading}</h3><p>{meaning}</p>{known}")
        for number, entry in enumerate(card["codecs"], start=1):
            ordered = worst_first(entry["attacks"], goal)
            if ordered:
                parts.append(_attack_table(number, entry, ordered, card["undefended"]["attacks"], goal))
    return "\n".join(parts)


def _attack_table(number: int, entry: Entry, ordered: Sequence[Result], before: Sequence[Result], goal: str) -> str:
    first, second = SCORES_OF_GOAL[goal]
    head = ["Attack", SCORES[first][0], "Best guess without the code", "Undefended images"]
    head += [SCORES[second][0]] if second else []
    rows = []
    for result in ordered:
        name = result["attack"]
        score, plain = result["metrics"][first], undefended_score(result, before, first)
        row = [
            escape(name),
            percent_interval(score),
            percent(score.get("baseline")) if score.get("baseline") is not None else "-",
            percent_interval(plain) if plain else "not run",
        ]
        if second:
            row.append(_second(result["metrics"].get(second), undefended_score(result, before, second), second))
        rows.append(row)
    return _table(f"{_mark(number)}{escape(entry['name'])}", head, rows)


def _second(score: Entry | None, before: Any, name: str) -> str:
    if score is None:
        return "-"
    as_percent = SCORES[name][1]
    text = percent_interval(score) if as_percent else decimal_interval(score)
    notes = []
    for word, value in (("best guess", score.get("baseline")), ("undefended", before["value"] if before else None)):
        if value is not None:
            notes.append(f"{word} {percent(value) if as_percent else f'{value:.3f}'}")
    return text + (_small(", ".join(notes)) if notes else "")


def _attacker(card: Card) -> str:
    data = card["data"]
    texts = [
        "The attacker knows the method and all its settings exactly. Nothing here rests on keeping them secret.",
        f"The attacker has images of {data['auxiliary']['patients']:,} other (auxiliary) patients, "
        f"{data['auxiliary']['images']:,} images, and learns from them.",
        f"The attacker holds the codes of {data['victims']['patients']:,} victim patients "
        f"({data['victims']['images']:,} images). No victim is an auxiliary patient.",
    ]
    models = sorted({result["threat_model"] for entry in card["codecs"] for result in entry["attacks"]})
    return f"{_list(map(escape, texts))}\n<p>In the words of the attacks themselves:</p>\n{_list(map(escape, models))}"


def _not_attacked(card: Card) -> str:
    parts = [
        "<p>What was not tried may succeed. These attacks are known, and nothing on this page speaks about them:</p>",
        _definitions((item["name"], item["reason"]) for item in card["not_attacked_by"]),
    ]
    here: dict[tuple[str, str], list[str]] = {}
    for number, entry in enumerate(card["codecs"], start=1):
        for item in entry["not_run"]:
            here.setdefault((item["name"], f"Not run: {item['reason']}"), []).append(_mark(number))
        for item in entry["failed"]:
            here.setdefault((item["name"], f"Tried, but it failed: {item['reason']}"), []).append(_mark(number))
    if here:
        parts.append("<h3>Attacks of this package that were not run, or failed</h3>")
        rows = [[escape(name), escape(reason), "".join(marks)] for (name, reason), marks in here.items()]
        parts.append(_table("By setting.", ["Attack", "Why", "Setting"], rows))
    return "\n".join(parts)


def _guarantee(card: Card) -> str:
    release = card["differential_privacy"]
    stands_apart = (
        "<p>Measured resistance and a mathematical guarantee (differential privacy, two numbers called epsilon and "
        "delta) are different things. A guarantee holds against every attack, also unknown ones, up to what its "
        "numbers allow; a measurement holds for the attacks that were run.</p>"
    )
    if release is None:
        return f"{stands_apart}<p><strong>These codes carry no such guarantee.</strong></p>"
    return (
        f"{stands_apart}<p>The codes were released with epsilon = {float(release['epsilon']):g} and delta = "
        f"{float(release['delta']):g}, {escape(str(release['unit']))}. The measurements above are no part of it.</p>"
    )


def _measured(card: Card) -> str:
    data, settings = card["data"], card["settings"]
    shape = " x ".join(str(n) for n in data["image_shape"][1:])
    facts = [
        ("Images", f"{data['description']} {shape} pixels."),
        ("Synthetic", "Yes: drawn, not of patients." if data["synthetic"] else "No."),
        ("Auxiliary", f"{data['auxiliary']['images']:,} images of {data['auxiliary']['patients']:,} patients."),
        ("Victims", f"{data['victims']['images']:,} images of {data['victims']['patients']:,} patients."),
        ("Split", "By patient, drawn at random with the seed below; utility and attacks use the same split."),
        ("Seed", str(settings["seed"])),
        (
            "Intervals",
            f"{100 * settings['confidence']:g} %, {settings['samples']:,} resamples; {settings['interval']}.",
        ),
        ("Versions", ", ".join(f"{name} {number}" for name, number in card["versions"].items())),
    ]
    if data.get("left_out"):
        facts.insert(1, ("Left out", f"{data['left_out']:,} files could not be read or had no patient."))
    if data.get("labels"):
        facts.insert(-3, ("Findings", ", ".join(data["labels"])))
    rows = [[escape(name), escape(text)] for name, text in facts]
    codecs = [
        [f"{_mark(n)}{escape(entry['name'])}", f"<code>{escape(entry['fingerprint'][:16])}</code>"]
        for n, entry in enumerate(card["codecs"], start=1)
    ]
    return _table("", ["What", "Value"], rows) + _table(
        "The fingerprint names a codec with all its settings; stores of codes carry it, too.",
        ["Setting", "Fingerprint (first 16 digits)"],
        codecs,
    )


def _words() -> str:
    return _definitions(GLOSSARY)


def _footer(card: Card) -> str:
    date = f", {escape(card['date'])}" if card["date"] else ""
    return (
        f"Made with monai-deepfixcx {escape(card['versions']['monai-deepfixcx'])}{date}. Research software, not a "
        "medical device. card.json beside this page holds every figure."
    )


def _kept(entry: Entry) -> str:
    kept, pixels = entry["values_kept"], entry["pixels"]
    return f"Keeps {kept:,} numbers of the {pixels:,} in an image ({percent(kept / pixels)})."


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "stack") -> str:
    """A table of cells that are HTML already; the first column heads its row. On a phone each row becomes a block."""
    top = "".join(f'<th scope="col" role="columnheader">{name}</th>' for name in head)
    body = []
    for first, *others in rows:
        labelled = zip(head[1:], others, strict=True)
        cells = "".join(f'<td role="cell" class="number" data-label="{name}">{cell}</td>' for name, cell in labelled)
        body.append(f'<tr role="row"><th scope="row" role="rowheader">{first}</th>{cells}</tr>')
    title = f"<caption>{caption}</caption>" if caption else ""
    return (
        f'<div class="scroll"><table class="{kind}" role="table">{title}'
        f'<thead role="rowgroup"><tr role="row">{top}</tr></thead>'
        f'<tbody role="rowgroup">{"".join(body)}</tbody></table></div>'
    )


def _list(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def _definitions(pairs: Iterable[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(text)}</dd>' for name, text in pairs)}</dl>"


def _mark(number: int | str) -> str:
    return f'<span class="mark">{number}</span>'


def _small(text: str) -> str:
    return f'<span class="small">{escape(text)}</span>'


def _image(uri: str, alternative: str) -> str:
    return f'<img src="{_source(uri)}" alt="{escape(alternative)}">'


def _source(uri: str) -> str:
    """A picture that the page may hold: anything else could fetch from elsewhere."""
    if not _PICTURE.fullmatch(uri):
        raise ValueError("pictures must be PNG data URIs; got something else. Attack again.")
    return uri


def _unbroken(text: str) -> str:
    """A number stays on one line with its per cent sign."""
    return re.sub(r"(?<=\d) %", "&nbsp;%", text)


def _numbered(items: Sequence[str]) -> Iterable[tuple[int, str]]:
    return enumerate(items, start=1)


def _triple(score: Entry) -> tuple[float, float | None, float | None]:
    return score["value"], score.get("low"), score.get("high")

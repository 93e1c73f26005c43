"""How reports write figures and rows of tables in Markdown."""

from collections.abc import Mapping, Sequence


def estimate_text(estimate: Mapping[str, float | None] | None, to: str = " to ") -> str:
    """A value with its interval, three digits; "-" is undefined.

    Args:
        estimate: with the keys ``value`` and, if there is an interval, ``low`` and ``high``.
        to: stands between the ends of the interval.

    >>> estimate_text({"value": 0.9812, "low": 0.95, "high": 0.991})
    '0.981 (0.950 to 0.991)'
    >>> estimate_text(None)
    '-'
    """
    if estimate is None or estimate["value"] is None:
        return "-"
    value, low, high = f"{estimate['value']:.3f}", estimate.get("low"), estimate.get("high")
    return value if low is None or high is None else f"{value} ({low:.3f}{to}{high:.3f})"


def table_row(cells: Sequence[str]) -> str:
    r"""A row of a table; a bar within a cell does not end it.

    >>> table_row(["A|B", "0.5"])
    '| A\\|B | 0.5 |'
    """
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"

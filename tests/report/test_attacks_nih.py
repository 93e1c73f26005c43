"""benchmarks/attacks_nih.py: does it run, and does its table land between the markers?"""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import accuracy_nih, attacks_nih


def test_it_measures_and_tabulates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not accuracy_nih.DATA.exists():
        pytest.skip("the NIH films are not here")
    threads, page = torch.get_num_threads(), attacks_nih.DOCS.read_text()
    attacks_nih.main(["--quick", "--threads", "1", "--out", str(tmp_path)])
    torch.set_num_threads(threads)
    text = (tmp_path / "attacks_nih.json").read_text()
    result = json.loads(text)
    assert [entry["name"] for entry in result["codecs"]] == ["DeepFixCX J=1 P=16", "HeartSpot hline"]
    assert "data:image" not in text
    assert "| undefended images | 100 % |" in capsys.readouterr().out
    assert attacks_nih.DOCS.read_text() == page  # a quick run leaves the page alone


def test_without_the_films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(attacks_nih, "DATA", tmp_path / "absent")
    attacks_nih.main(["--out", str(tmp_path)])
    assert "nothing was measured" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_the_table_is_replaced_and_the_text_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{attacks_nih.BEGIN}\nold\n{attacks_nih.END}\nafter\n")
    for table in ("| a |", "| b |"):
        attacks_nih.write_table(page, table)
    assert page.read_text() == f"before\n{attacks_nih.BEGIN}\n\n| b |\n\n{attacks_nih.END}\nafter\n"
    page.write_text("no markers")
    with pytest.raises(ValueError, match="must hold the markers"):
        attacks_nih.write_table(page, "| c |")


def test_the_page_has_the_markers() -> None:
    text = attacks_nih.DOCS.read_text()
    assert text.index(attacks_nih.BEGIN) < text.index(attacks_nih.END)

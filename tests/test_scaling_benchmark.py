import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import scaling


@pytest.fixture(autouse=True)
def _keep_threads() -> Any:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_scaling(tmp_path: Path) -> None:
    document = tmp_path / "scaling.md"
    document.write_text("before\n<!-- scaling:begin -->\nstale words\n<!-- scaling:end -->\nafter\n")
    scaling.main(["--quick", "--out", str(tmp_path), "--document", str(document)])
    result = json.loads((tmp_path / "scaling.json").read_text())
    formats = result["images"]["source_bytes"]
    assert formats.keys() == {"uncompressed DICOM", "PNG", "JPEG"}
    assert formats["uncompressed DICOM"] > 2 * 96**2
    assert result["images"]["store_bytes"] > 4 * result["images"]["code_values"]
    assert all(entry["bytes"] > 100 * entry["files"] for entry in result["driver"]["find and plan"])
    total = result["extrapolated"]
    for name, seconds in total["seconds_per_image"].items():
        parts = (f"read {name}", f"encode {name}", "write")
        assert seconds == pytest.approx(sum(result["images"]["seconds"][part]["median"] for part in parts))
        assert [row["core_hours"][name] for row in total["rows"]] == pytest.approx(
            [count * seconds / 3600 for count in (1e5, 1e7, 1e9)]
        )
    text = document.read_text()
    assert "stale words" not in text
    assert text.startswith("before\n<!-- scaling:begin -->\n")
    assert text.endswith("<!-- scaling:end -->\nafter\n")
    assert "| uncompressed DICOM |" in text


def test_a_slope_leaves_out_what_is_fixed() -> None:
    measured = [{"files": count, "seconds": 5 + 0.25 * count} for count in (1, 100, 300)]
    assert scaling.slope(measured, "files", "seconds") == pytest.approx(0.25)


def test_the_document_has_the_section_to_fill() -> None:
    text = scaling.DOCUMENT.read_text()
    assert text.count("<!-- scaling:begin -->") == text.count("<!-- scaling:end -->") == 1

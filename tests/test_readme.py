"""What README shows runs."""

import re
from pathlib import Path

import pytest

from monai_deepfixcx.cli import app

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.mark.filterwarnings("ignore:the DICOM file states no usable pixel spacing")
def test_the_pipeline_trains() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert float(names["loss"].detach()) < 0.1  # type: ignore[attr-defined]
    assert names["batch"]["image"].shape == (2, 1, 6400)  # type: ignore[index]


def test_the_commands_exist() -> None:
    named = set(re.findall(r"(?:`|^    )deepfixcx ([a-z]{3,})", README, flags=re.MULTILINE))
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert {"privatize", "verify", "index", "inspect", "doctor"} <= named <= known

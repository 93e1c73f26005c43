"""What the command shows while it works."""

import io

from rich.console import Console

from monai_deepfixcx.terminal import FileProgress


def shown(through: list[int]) -> str:
    """All that a terminal is sent while so many files get through."""
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with FileProgress(console) as progress:
        progress.plan(3, already=0)
        for count in through:
            progress.advance(count)
            progress.bar.refresh()
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_before_the_first_file_it_says_why_that_may_take_long() -> None:
    assert "compiles" in shown([0])
    assert "privatizing" not in shown([0])


def test_then_how_many_files_are_through() -> None:
    assert "privatizing" in shown([0, 2])
    assert "2/3" in shown([0, 2])

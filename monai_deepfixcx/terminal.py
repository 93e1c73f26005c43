"""What the command shows: progress, the table at the end of a run, and text made safe to print."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from monai_deepfixcx.codecs import Codec
    from monai_deepfixcx.pipeline.privatize import Summary
    from monai_deepfixcx.pipeline.workspace import Entry

SHOWN_REASONS = 20
_STARTING = "starting (compiles for some 10 s, once after an installation)"


class FileProgress:
    """A progress bar over files, with the first quarantined files named above it."""

    def __init__(self, console: Console) -> None:
        from rich import progress

        self.bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self.told = 0

    def __enter__(self) -> "FileProgress":
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def plan(self, files: int, already: int) -> None:
        """Told how much there is to do."""
        if already:
            self.bar.console.print(f"{already} files were done by an earlier run.")
        self.task = self.bar.add_task(_STARTING, total=files)

    def advance(self, through: int) -> None:
        """Told how many files are through."""
        self.bar.update(self.task, completed=through, description="privatizing" if through else _STARTING)

    def tell_quarantined(self, entries: "list[Entry]") -> None:
        """Told what became of a shard."""
        for entry in entries:
            if entry.reason:
                self.told += 1
                if self.told <= SHOWN_REASONS:
                    print_quarantined(self.bar.console, entry)
                elif self.told == SHOWN_REASONS + 1:
                    self.bar.console.print("[yellow]quarantined[/]  and more: the list is in the private folder")


def print_quarantined(console: Console, entry: "Entry") -> None:
    """One line: the file, and why it was left out."""
    console.print(f"[yellow]quarantined[/]  {safe(entry.source)}: {safe(entry.reason)}", soft_wrap=True)


def safe(text: str) -> str:
    """Text of unknown origin, such as a file name, without markup and control characters."""
    return escape("".join(character if character.isprintable() else "?" for character in text))


def summary_table(summary: "Summary", codec: "Codec") -> Table:
    """What a run did and what the store holds."""
    table = Table(title=f"{codec.name} {codec.fingerprint()[:8]}", box=None, show_header=False, title_justify="left")
    table.add_column(justify="left", style="bold")
    table.add_column(justify="right")
    rate = f"{summary.encoded / summary.seconds:,.1f} files/s" if summary.encoded else "-"
    rows = {
        "done now": f"{summary.encoded:,}",
        "done before": f"{summary.already_done:,}",
        "quarantined": f"{len(summary.quarantined):,}",
        "time": f"{summary.seconds:,.1f} s ({rate})",
    }
    if summary.code_values:
        rows |= {
            "pixels kept": f"{100 * summary.code_values / summary.pixels:.3g} % "
            f"({summary.code_values:,} of {summary.pixels:,})",
            "in memory": f"{summary.pixels / summary.code_values:,.1f} times smaller (float32)",
            "on disk": f"{summary.source_bytes / summary.store_bytes:,.1f} times smaller "
            f"({_size(summary.source_bytes)} to {_size(summary.store_bytes)})",
        }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"

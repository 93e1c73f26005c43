"""What the commands share: the application, where it prints, and how it ends."""

import logging
import sys
import warnings
from typing import Annotated

import typer
from rich.console import Console

from monai_deepfixcx import __version__
from monai_deepfixcx.terminal import safe

FAILED, USAGE, QUARANTINED, INTERRUPTED = 1, 2, 3, 130

app = typer.Typer(
    epilog="Exit status: 0 all done, 1 failed, 2 usage, 3 some inputs quarantined.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


class StopError(Exception):
    """Ends the command with one line and an exit status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def _show_version(asked: bool) -> None:
    if asked:
        console.print(f"monai-deepfixcx {__version__}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Privatize medical images into small lossy codes, and look after the codes."""


def main() -> None:
    """Run the command; every foreseen failure is one line."""
    from monai_deepfixcx.pipeline.workspace import OutputError, WorkspaceError

    # MONAI tells of a DICOM decoder that it did not find, which no command of ours uses.
    logging.getLogger("monai.data").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
    try:
        app()
    except (StopError, WorkspaceError) as error:
        errors.print(f"[red]deepfixcx:[/] {safe(str(error))}", soft_wrap=True)
        status = error.status if isinstance(error, StopError) else FAILED if isinstance(error, OutputError) else USAGE
        sys.exit(status)
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != INTERRUPTED:  # Typer makes an exit of an interrupt
            raise
        errors.print("stopped. What is finished is safe: run the same command again to go on.")
        sys.exit(INTERRUPTED)

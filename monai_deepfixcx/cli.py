"""The command ``deepfixcx``.

Every command imports what it needs when it runs, so that ``deepfixcx --help`` answers at once.
"""

import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from monai_deepfixcx import __version__
from monai_deepfixcx.terminal import SHOWN_REASONS, FileProgress, print_quarantined, safe, summary_table

if TYPE_CHECKING:
    from monai_deepfixcx.codecs import Codec

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


class Method(StrEnum):
    """The two codecs."""

    deepfixcx = "deepfixcx"
    heartspot = "heartspot"


class Aggregate(StrEnum):
    """What HeartSpot keeps of its pixels."""

    pixels = "pixels"
    sum = "sum"


class ColorChoice(StrEnum):
    """What becomes of colour images."""

    grey = "grey"
    keep = "keep"


class ScaleChoice(StrEnum):
    """How pixel values come to [0, 1]."""

    auto = "auto"
    range = "range"
    minmax = "minmax"
    window = "window"


# The options shared by the commands that encode, in the two boxes that --help shows them in.
_codec_option = partial(typer.Option, rich_help_panel="Codec")
_image_option = partial(typer.Option, rich_help_panel="Images")
MethodOption = Annotated[Method, _codec_option(help="deepfixcx: patches of wavelet subbands; heartspot: some pixels.")]
LevelsOption = Annotated[str, _codec_option(help='DeepFixCX: J, how often each axis is halved; a number or "max".')]
PatchOption = Annotated[str, _codec_option(help="DeepFixCX: P, patches along each axis; one number, or as 3,5.")]
WaveletOption = Annotated[str, _codec_option(help="DeepFixCX: any discrete PyWavelets wavelet.")]
FeaturesOption = Annotated[
    str, _codec_option(help="DeepFixCX: l1, sum, max, min, median, l2, sum_pos, sum_neg; several with commas.")
]
ZeroMeanOption = Annotated[bool, _codec_option("--zero-mean", help="DeepFixCX: subtract each image's mean first.")]
DimsOption = Annotated[int, _codec_option(min=2, max=3, help="DeepFixCX: 2 for images, 3 for volumes.")]
PriorOption = Annotated[
    str, _codec_option(help="HeartSpot: hline, rline, rhline, heart, median, quadtree; several with '+'.")
]
SeedOption = Annotated[int, _codec_option(help="HeartSpot: of the random lines; 1 is the published one.")]
AggregateOption = Annotated[Aggregate, _codec_option(help="HeartSpot: pixels, or row and column sums only.")]
SizeOption = Annotated[
    int | None,
    _image_option(min=1, help="Scale 2-D images to this many pixels a side and crop the centre. HeartSpot: 320."),
]
ColorOption = Annotated[ColorChoice, _image_option(help="Make colour images grey, or keep three channels.")]
ScaleOption = Annotated[
    ScaleChoice,
    _image_option(help="How values come to [0, 1]: stored range, image minimum to maximum, DICOM window."),
]


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


@app.command()
def privatize(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Folder of DICOM, NIfTI, PNG, JPEG or TIFF files.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the codes. OUT-private is made beside it.")],
    method: MethodOption = Method.deepfixcx,
    levels: LevelsOption = "4",
    patch_size: PatchOption = "5",
    wavelet: WaveletOption = "db1",
    features: FeaturesOption = "l1",
    zero_mean: ZeroMeanOption = False,
    spatial_dims: DimsOption = 2,
    prior: PriorOption = "rhline+heart",
    seed: SeedOption = 1,
    aggregate: AggregateOption = Aggregate.pixels,
    size: SizeOption = None,
    color: ColorOption = ColorChoice.grey,
    scale: ScaleOption = ScaleChoice.auto,
    images: Annotated[
        bool, typer.Option("--images", help="Write the privatized images, too (PNG, 3-D NIfTI).")
    ] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 works in this one.")] = 1,
    shard: Annotated[str, typer.Option(metavar="i/n", help="Do the i-th of n parts, as one of n jobs.")] = "1/1",
    private: Annotated[
        Path | None, typer.Option(help="Folder for the site key and the list of sources, if not OUT-private.")
    ] = None,
    moved: Annotated[
        bool, typer.Option("--moved", help="IN holds the files of an earlier run in a new place.")
    ] = False,
) -> None:
    """Encode every image of a folder into a store of codes; run it again to go on where it stopped."""
    from monai_deepfixcx.pipeline import privatize as run
    from monai_deepfixcx.pipeline.workspace import Workspace

    arguments = dict(locals())
    codec, size = _build_codec(arguments)
    if images and len(getattr(codec, "features", [0])) > 1:
        raise typer.BadParameter("--images needs a single feature: several cannot be decoded. Choose --features l1.")
    try:
        part = run.read_part(shard)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    workspace = Workspace.open(source, output, private, moved)
    settings = run.settings_for(codec, size=size, color=color.value, scale=scale.value, images=images)
    with FileProgress(console) as progress:
        summary = run.privatize(
            workspace, codec, settings, workers, part, progress.plan, progress.advance, progress.tell_quarantined
        )
    console.print(summary_table(summary, codec))
    console.print(f"Codes in {output} can be shared; {workspace.private} ties them to their sources and cannot.")
    if summary.quarantined:
        console.print(f"Every quarantined file and its reason: {workspace.private / 'quarantine.csv'}")
        raise typer.Exit(QUARANTINED)


@app.command()
def verify(store: Annotated[Path, typer.Argument(metavar="OUT", help="A store of codes.")]) -> None:
    """Hash every shard of a store again, and name those that have changed."""
    codes = _open_store(store)
    problems = codes.verify()
    for found in problems:
        console.print(f"[red]damaged[/]  shard {found.shard}: {found.problem}", soft_wrap=True)
    if problems:
        console.print(
            f"{len(problems)} of {len(codes.shards)} shards are damaged: delete their files, privatize again."
        )
        raise typer.Exit(FAILED)
    console.print(f"{len(codes.shards)} shards with {len(codes)} codes are as they were written.")


@app.command()
def index(
    store: Annotated[Path, typer.Argument(metavar="OUT", help="A store of codes.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the datalist.")] = Path(
        "datalist.json"
    ),
    labels: Annotated[
        Path | None, typer.Option(help="CSV with a row an image: its columns join the items. The result stays private.")
    ] = None,
    key: Annotated[str, typer.Option(help="The CSV's column with the image's path or file name.")] = "image",
    split: Annotated[
        str | None, typer.Option(help="The CSV's column that names each item's part of the datalist.")
    ] = None,
    private: Annotated[Path | None, typer.Option(help="Folder of the site key, if not OUT-private.")] = None,
) -> None:
    """Write a MONAI datalist of the codes, with labels from a CSV on request."""
    from monai_deepfixcx.pipeline.index import write_datalist

    counts, unmatched = write_datalist(_open_store(store), output, labels, key, split, private)
    parts = ", ".join(f"{count} {name}" for name, count in counts.items())
    console.print(f"{output}: {parts or 'no items'}.", soft_wrap=True)
    if unmatched:
        console.print(f"[yellow]{unmatched} codes have no row in {labels} and were left out.[/]", soft_wrap=True)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An image.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The PNG to write. [FILE's name-inspect.png]")
    ] = None,
    method: MethodOption = Method.deepfixcx,
    levels: LevelsOption = "4",
    patch_size: PatchOption = "5",
    wavelet: WaveletOption = "db1",
    spatial_dims: DimsOption = 2,
    prior: PriorOption = "rhline+heart",
    seed: SeedOption = 1,
    size: SizeOption = None,
    color: ColorOption = ColorChoice.grey,
    scale: ScaleOption = ScaleChoice.auto,
) -> None:
    """Draw one image, its privatized form and a grid of compression ratios, as a PNG. It shows the original."""
    from monai_deepfixcx.pipeline.inspect import draw

    arguments = {**locals(), "features": "l1", "zero_mean": False, "aggregate": Aggregate.pixels}
    codec, size = _build_codec(arguments)
    output = output or Path(f"{file.stem}-inspect.png")
    try:
        draw(file, output, codec, size, color.value, scale.value)
    except (ValueError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise _StopError(f"{file}: {reason}", USAGE) from None
    console.print(f"{output} (it shows the original: keep it private)", soft_wrap=True)


@app.command()
def doctor() -> None:
    """Say which readers, decoders and extras work on this machine."""
    from monai_deepfixcx.pipeline.doctor import examine

    table = Table("", "what", "state", "to get it", box=None, header_style="bold", pad_edge=False)
    findings = examine()
    for finding in findings:
        sign = "[green]yes[/]" if finding.works else "[red]NO[/]" if finding.required else "[yellow]no[/]"
        table.add_row(sign, finding.what, finding.state, "" if finding.works else safe(finding.remedy))
    console.print(table)
    if any(finding.required and not finding.works for finding in findings):
        raise typer.Exit(FAILED)


@app.command()
def demo(
    data: Annotated[Path | None, typer.Option(help="A folder of your own images to privatize, too.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to leave stores and pictures.")] = Path(
        "demo-out"
    ),
) -> None:
    """Privatize real images that come with Python packages (radiographs, a brain volume), and your own on request.

    Inside the repository, it also trains both bundles on a small synthetic phantom.
    """
    from monai_deepfixcx.pipeline.demo import run_demo, train_bundles

    for step in run_demo(data, output):
        console.print(f"\n[bold cyan]{safe(step.title)}[/]")
        for entry in step.summary.quarantined[:SHOWN_REASONS]:
            print_quarantined(console, entry)
        console.print(summary_table(step.summary, step.codec))
        console.print("damaged shards: " + str(step.damaged) if step.damaged else "every shard verified")
        for picture in step.pictures:
            console.print(f"look at {picture}", soft_wrap=True)
    if Path("bundles/deepfixcx_classification").is_dir():
        console.print("\n[bold cyan]both bundles, trained on a synthetic phantom[/] (a minute or two)")
        for bundle in train_bundles(Path(), output):
            aurocs = (f"{label} {v:.3f} ({low:.3f}-{high:.3f})" for label, (v, low, high) in bundle.auroc.items())
            console.print(
                f"{bundle.name}: AUROC {', '.join(aurocs)} on {bundle.images} synthetic films of {bundle.patients} "
                f"patients; more in {bundle.report}",
                soft_wrap=True,
            )
    console.print(f"\nStores and privatized images are in {output}.", soft_wrap=True)


class _StopError(Exception):
    """Ends the command with one line and an exit status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def _build_codec(arguments: dict[str, Any]) -> "tuple[Codec, int | None]":
    """The codec and image size that the options ask for."""
    from monai_deepfixcx.codecs import DeepFixCXCodec, HeartSpotCodec

    size = arguments["size"]
    try:
        if arguments["method"] is Method.heartspot:
            size = size or 320
            codec: Codec = HeartSpotCodec(
                arguments["prior"], (size, size), arguments["seed"], aggregate=arguments["aggregate"].value
            )
            return codec, size
        if size is not None and arguments["spatial_dims"] == 3:
            raise ValueError("--size is for 2-D images: volumes keep theirs.")
        levels = arguments["levels"]
        patches = [int(number) for number in arguments["patch_size"].split(",")]
        codec = DeepFixCXCodec(
            levels="max" if levels == "max" else int(levels),
            patch_size=patches[0] if len(patches) == 1 else patches,
            wavelet=arguments["wavelet"],
            features=arguments["features"].split(","),
            zero_mean=arguments["zero_mean"],
            spatial_dims=arguments["spatial_dims"],
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return codec, size


def _open_store(folder: Path) -> Any:
    from monai_deepfixcx.data.code_store import CodeStore

    try:
        return CodeStore.open(folder)
    except (FileNotFoundError, ValueError) as error:
        raise _StopError(str(error), USAGE) from None


def main() -> None:
    """Run the command; every foreseen failure is one line."""
    from monai_deepfixcx.pipeline.workspace import OutputError, WorkspaceError

    try:
        app()
    except (_StopError, WorkspaceError) as error:
        errors.print(f"[red]deepfixcx:[/] {safe(str(error))}", soft_wrap=True)
        status = error.status if isinstance(error, _StopError) else FAILED if isinstance(error, OutputError) else USAGE
        sys.exit(status)
    except KeyboardInterrupt:
        errors.print("stopped. What is finished is safe: run the same command again to go on.")
        sys.exit(INTERRUPTED)

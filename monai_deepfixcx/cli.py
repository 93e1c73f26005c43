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


class Pictures(StrEnum):
    """Whose pictures a privacy card holds."""

    phantom = "phantom"
    auxiliary = "auxiliary"
    none = "none"


# The options of the commands that encode, in the boxes that --help shows them in.
_codec_option = partial(typer.Option, rich_help_panel="Codec")
_image_option = partial(typer.Option, rich_help_panel="Images")
_engine_option = partial(typer.Option, rich_help_panel="Where to encode")
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
    workers: Annotated[
        int | None, _engine_option(min=0, help="Processes; 0 works in this one. With --slurm, jobs. 1 by default.")
    ] = None,
    scheduler: Annotated[
        str | None, _engine_option(metavar="ADDRESS", help="Encode on the workers of this Dask scheduler.")
    ] = None,
    slurm: Annotated[bool, _engine_option("--slurm", help="Encode in SLURM jobs.")] = False,
    slurm_script: Annotated[
        bool, _engine_option("--slurm-script", help="Print the job that --slurm would submit, and stop.")
    ] = False,
    shard: Annotated[str, _engine_option(metavar="i/n", help="Do the i-th of n parts, as one of n jobs.")] = "1/1",
    private: Annotated[
        Path | None, typer.Option(help="Folder for the site key and the list of sources, if not OUT-private.")
    ] = None,
    moved: Annotated[
        bool, typer.Option("--moved", help="IN holds the files of an earlier run in a new place.")
    ] = False,
) -> None:
    """Encode every image of a folder into a store of codes; run it again to go on where it stopped."""
    from monai_deepfixcx.pipeline import privatize as run
    from monai_deepfixcx.pipeline.engines.choice import check_one_engine, choose_engine, slurm_job_script
    from monai_deepfixcx.pipeline.workspace import Workspace

    arguments = dict(locals())
    codec, size = _build_codec(arguments)
    if images and len(getattr(codec, "features", [0])) > 1:
        raise typer.BadParameter("--images needs a single feature: several cannot be decoded. Choose --features l1.")
    try:
        part = run.read_part(shard)
        check_one_engine(workers, scheduler, slurm or slurm_script)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if slurm_script:
        console.print(slurm_job_script(), markup=False, soft_wrap=True)
        raise typer.Exit
    workspace = Workspace.open(source, output, private, moved)
    engine = choose_engine(workspace.private, workers, scheduler, slurm)
    settings = run.settings_for(codec, size=size, color=color.value, scale=scale.value, images=images)
    with FileProgress(console) as progress:
        summary = run.privatize(
            workspace, codec, settings, engine, part, progress.plan, progress.advance, progress.tell_quarantined
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
def explain(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Folder of images, or a store of codes.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for pictures, maps and attributions.json.")],
    bundle: Annotated[
        Path,
        typer.Option(help="A bundle's folder, or its configuration file. It can run any code: use those you trust."),
    ],
    checkpoint: Annotated[Path | None, typer.Option(help="Weights, if not the bundle's own.")] = None,
    method: Annotated[
        str, typer.Option(help="Such as integrated_gradients, deeplift, saliency, occlusion, shapley_sampling.")
    ] = "integrated_gradients",
    labels: Annotated[str | None, typer.Option(help="Outputs to explain, with commas. [all]")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Cases to explain, the first ones; 0 for all.")] = 16,
    drawn: Annotated[int, typer.Option(min=0, help="How many of these get a picture and a map.")] = 16,
    measures: Annotated[
        str, typer.Option(help="faithfulness, agreement, localization, sensitivity, randomization, with commas.")
    ] = "faithfulness,agreement,localization",
    heart: Annotated[bool, typer.Option("--heart", help="Outline HeartSpot's heart region, and look into it.")] = False,
    leak: Annotated[
        bool, typer.Option("--leak", help="Compare the maps with the original images, too (images only).")
    ] = False,
) -> None:
    """Explain a bundle's network by the codes alone, drawn on the privatized images."""
    from rich.progress import Progress

    from monai_deepfixcx.handlers.attribution_measures import AttributionSettings
    from monai_deepfixcx.pipeline import explain as run

    asked: Any = tuple(filter(None, measures.split(",")))
    try:
        settings = AttributionSettings(
            method,
            labels=labels.split(",") if labels else None,
            limit=limit or None,
            drawn=drawn,
            measures=asked,
            region="heart" if heart else None,
        )
        model = run.load_model(bundle, checkpoint)
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task("explaining", total=None)
            found = run.explain(
                source,
                output,
                model,
                settings,
                leak,
                plan=lambda cases: bar.update(task, total=cases),
                advance=lambda done: bar.update(task, completed=done),
            )
    except (ValueError, OSError) as error:
        raise _StopError(str(error), USAGE) from None
    for name, problem in found.unread[:SHOWN_REASONS]:
        console.print(f"[yellow]left out[/]  {safe(name)}: {safe(problem)}", soft_wrap=True)
    console.print(f"{found.cases} cases explained: {output}", soft_wrap=True)
    if found.leak is not None:
        for label, kinds in found.leak.items():
            shown = ", ".join(f"{kind} {estimate['value']:.3f}" for kind, estimate in kinds.items())
            console.print(f"likeness to the originals, {safe(label)}: {shown}", soft_wrap=True)
    if found.unread:
        raise typer.Exit(QUARANTINED)


@app.command()
def attack(
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="Folder of images; or phantom (synthetic), phantom:patients=60,visits=4."),
    ],
    codec: Annotated[
        list[str],
        typer.Option(
            "--codec",
            metavar="CODEC",
            help="deepfixcx:levels=4,patch_size=5 or heartspot:prior=rhline+heart, a JSON file, or a store's folder. "
            "Say it again for each setting to compare.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for card.json and card.html.")] = Path("card"),
    patients: Annotated[
        str,
        typer.Option(
            help="CSV with columns image and patient, or a pattern whose first group, in the path, is the patient."
        ),
    ] = "^([^/]+)/",
    columns: Annotated[
        str | None, typer.Option(help="The CSV's own names, as image=file,patient=patient_id,findings=findings.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="The CSV's findings to measure utility by, with commas. The phantom has its own.")
    ] = None,
    size: Annotated[
        int, typer.Option(min=8, help="Scale 2-D images to this many pixels a side, crop the centre.")
    ] = 64,
    attacks: Annotated[
        str, typer.Option(help="Names with commas; default: every attack that suits the codec.")
    ] = "default",
    victims: Annotated[float, typer.Option(help="Share of the patients that are attacked.")] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Of everything drawn.")] = 0,
    samples: Annotated[int, typer.Option(min=0, help="Resamples of the victims for the intervals.")] = 1000,
    pictures: Annotated[
        Pictures, typer.Option(help="Who is pictured: synthetic patients; auxiliary ones, as originals; nobody.")
    ] = Pictures.phantom,
    title: Annotated[str, typer.Option(help="Heads the card.")] = "Privacy card",
    device: Annotated[str | None, typer.Option(help="Where to run the attacks, such as cuda.")] = None,
) -> None:
    """Attack codes of one half of the patients with images of the other half, and write a privacy card."""
    from datetime import UTC, datetime

    from monai_deepfixcx.pipeline import attack as run
    from monai_deepfixcx.pipeline.attack_data import parse_spec, read_codec, read_population

    asked: Any = attacks if attacks == "default" else attacks.split(",")
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    progress = console.is_terminal
    settings = run.AttackSettings(asked, seed, samples, victims, pictures.value, title, today, progress, device)
    try:
        codecs = [read_codec(text, size) for text in codec]
        names = parse_spec(f":{columns}")[1] if columns else None
        population = read_population(data, patients, labels.split(",") if labels else (), size, seed, names)
        for entry in population.left_out[:SHOWN_REASONS]:
            print_quarantined(console, entry)
        card = run.attack_population(population, codecs, settings, lambda name: console.print(f"attacking {name}"))
    except ValueError as error:
        raise _StopError(str(error), USAGE) from None
    paths = run.write_card_and_page(card, output)
    for line in run.headlines(card):
        console.print(safe(line), soft_wrap=True)
    harmless = card["pictures"] is None or card["pictures"]["synthetic"]
    private = "" if harmless else " (they show originals of auxiliary patients: keep them private)"
    console.print(f"look at {paths[1]}; every figure is in {paths[0]}{private}", soft_wrap=True)
    if run.any_failed(card):
        raise typer.Exit(FAILED)
    if population.left_out:
        raise typer.Exit(QUARANTINED)


@app.command()
def report(
    cards: Annotated[list[Path], typer.Argument(metavar="CARD...", help="card.json files, or their folders.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page. [card.html beside the first]")
    ] = None,
) -> None:
    """Write privacy cards as one HTML page; several must be of the same patients and settings."""
    from monai_deepfixcx.report import merge_cards, read_card, render_page

    first = cards[0] if cards[0].is_dir() else cards[0].parent
    output = output or first / "card.html"
    try:
        page = render_page(merge_cards([read_card(path) for path in cards]))
        output.write_text(page, encoding="utf-8")
    except (ValueError, OSError) as error:
        reason = f"cannot write {output}: {error.strerror}." if isinstance(error, OSError) else str(error)
        raise _StopError(reason, USAGE) from None
    console.print(f"look at {output}", soft_wrap=True)


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

    Inside the repository, it also trains both bundles on a small synthetic phantom. It ends with a privacy card: what
    attacks get back from codes of that phantom.
    """
    from monai_deepfixcx.pipeline.demo import attack_phantom, run_demo, train_bundles

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
    console.print("\n[bold cyan]attacks on codes of a synthetic phantom[/] (less than a minute)")
    lines, page = attack_phantom(output)
    for line in lines:
        console.print(safe(line), soft_wrap=True)
    console.print(f"look at {page}", soft_wrap=True)
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

"""``privatize``, ``verify``, ``index`` and ``inspect``: making stores of codes, and looking after them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from monai_deepfixcx.cli.base import FAILED, QUARANTINED, USAGE, StopError, app, console
from monai_deepfixcx.cli.encoding import (
    Aggregate,
    AggregateOption,
    ColorChoice,
    ColorOption,
    DimsOption,
    FeaturesOption,
    LevelsOption,
    Method,
    MethodOption,
    PatchOption,
    PriorOption,
    ScaleChoice,
    ScaleOption,
    SeedOption,
    SizeOption,
    WaveletOption,
    ZeroMeanOption,
    build_codec,
    engine_option,
)
from monai_deepfixcx.terminal import FileProgress, summary_table


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
        int | None,
        engine_option(
            min=0,
            help="Processes, a Dask cluster on 127.0.0.1; 0 works in this one. With --slurm, jobs. 1 by default.",
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        engine_option(metavar="ADDRESS", help="Encode on the workers of this Dask scheduler, which runs already."),
    ] = None,
    slurm: Annotated[bool, engine_option("--slurm", help="Encode in SLURM jobs.")] = False,
    slurm_script: Annotated[
        bool, engine_option("--slurm-script", help="Print the job that --slurm would submit, and stop.")
    ] = False,
    shard: Annotated[str, engine_option(metavar="i/n", help="Do the i-th of n parts, as one of n jobs.")] = "1/1",
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
    codec, size = build_codec(arguments)
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
    codec, size = build_codec(arguments)
    output = output or Path(f"{file.stem}-inspect.png")
    try:
        draw(file, output, codec, size, color.value, scale.value)
    except (ValueError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StopError(f"{file}: {reason}", USAGE) from None
    console.print(f"{output} (it shows the original: keep it private)", soft_wrap=True)


def _open_store(folder: Path) -> Any:
    from monai_deepfixcx.data.code_store import CodeStore

    try:
        return CodeStore.open(folder)
    except (FileNotFoundError, ValueError) as error:
        raise StopError(str(error), USAGE) from None

"""``explain``, ``attack`` and ``report``: what a network goes by, and what an attacker gets back."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from monai_deepfixcx.cli.base import FAILED, QUARANTINED, USAGE, StopError, app, console
from monai_deepfixcx.terminal import SHOWN_REASONS, print_quarantined, safe


class Pictures(StrEnum):
    """Whose pictures a privacy card holds."""

    phantom = "phantom"
    auxiliary = "auxiliary"
    none = "none"


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
    limit: Annotated[
        int, typer.Option(min=0, help="Images to explain, the first ones (unreadable ones count); 0 for all.")
    ] = 16,
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
        raise StopError(str(error), USAGE) from None
    for name, problem in found.unread[:SHOWN_REASONS]:
        console.print(f"[yellow]left out[/]  {safe(name)}: {safe(problem)}", soft_wrap=True)
    console.print(f"explained {found.cases}: {output}", soft_wrap=True)
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
        raise StopError(str(error), USAGE) from None
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
        raise StopError(reason, USAGE) from None
    console.print(f"look at {output}", soft_wrap=True)

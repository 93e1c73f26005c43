"""``doctor`` and ``demo``: does it work here?"""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from monai_deepfixcx.cli.base import FAILED, app, console
from monai_deepfixcx.terminal import SHOWN_REASONS, print_quarantined, safe, summary_table


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
    from monai_deepfixcx.pipeline.demo import attack_phantom, run_demo, train_bundles, train_privately

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
    console.print("\n[bold cyan]differentially private training on codes of a synthetic phantom[/]")
    private = train_privately(output)
    if private is None:
        console.print('left out: pip install "monai-deepfixcx[dp]"')
    else:
        console.print(f"{safe(private[0])}; more in {private[1]}", soft_wrap=True)
    console.print("\n[bold cyan]attacks on codes of a synthetic phantom[/] (less than a minute)")
    lines, page = attack_phantom(output)
    for line in lines:
        console.print(safe(line), soft_wrap=True)
    console.print(f"look at {page}", soft_wrap=True)
    console.print(f"\nStores and privatized images are in {output}.", soft_wrap=True)

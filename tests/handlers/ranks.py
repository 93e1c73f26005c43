"""What each of two processes does in `test_two_ranks`; in a module of its own, so that spawn can import it."""

from pathlib import Path
from typing import Any

from ignite.engine import Engine

from monai_deepfixcx.handlers import ClassificationReportHandler
from monai_deepfixcx.metrics import ClassificationReport, MaskedAUROCMetric
from tests.metrics.predictions import NAMES, predictions

SPLITS = {"uneven": 17, "second empty": 30, "first empty": 0}


def share_of(rank: int, first: int) -> slice:
    return slice(0, first) if rank == 0 else slice(first, 30)


def measure(part: slice) -> dict[str, Any]:
    scores, labels, patients = predictions()
    report, auroc = ClassificationReport(NAMES, samples=40), MaskedAUROCMetric()
    # Twice, as two epochs of validation: what an epoch gathered must not be what the next one reports.
    results: list[Any] = []
    for _ in range(2):
        report.reset()
        auroc.reset()
        for start in range(part.start, part.stop, 4):
            batch = slice(start, min(start + 4, part.stop))
            report(scores[batch], labels[batch], patients=patients[batch])
            auroc(scores[batch], labels[batch])
        thresholds = report.best_thresholds()
        results.append([report.aggregate(thresholds), auroc.aggregate(), len(report)])
    return {"epochs": results}


def evaluate(part: slice, folder: Path) -> dict[str, float]:
    """Run the handler in an engine; `folder` tells who wrote."""
    scores, labels, patients = (column[part] for column in predictions())
    engine = Engine(lambda _, batch: batch)
    thresholds = folder / "thresholds.json"
    ClassificationReportHandler(folder, NAMES, activation="none", samples=40, save_thresholds=thresholds).attach(engine)
    return dict(engine.run([{"pred": scores, "label": labels, "patient": patients}]).metrics)


def run_rank(rank: int, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {name: measure(share_of(rank, first)) for name, first in SPLITS.items()}
    found["handler"] = evaluate(share_of(rank, 11), Path(folder, f"report of {rank}"))
    try:
        MaskedAUROCMetric().aggregate()
    except ValueError as error:
        found["all empty"] = str(error)
    return found

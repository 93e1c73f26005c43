"""What a training run writes for people to watch: TensorBoard, MLflow, the progress bar."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.bundles.conftest import BUNDLES, Train, overlay, workflow


def scalars(folder: Path) -> dict[str, list[float]]:
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize("bundle", BUNDLES)
def test_tensorboard_shows_loss_and_auroc(bundle: str, train: Train) -> None:
    folder, made = train(bundle)
    curves: dict[str, list[float]] = {}
    for file in (folder / "logs").glob("events.*"):
        curves |= scalars(file)
    assert len(curves["train_loss"]) == made.trainer.state.iteration
    assert len(curves["val_mean_auroc"]) == made.trainer.state.epoch
    best = made.parser.get_parsed_content("validate#evaluator").state.best_metric
    assert max(curves["val_mean_auroc"]) == pytest.approx(best)


def test_mlflow_and_the_progress_bar(data_dir: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    uri = f"sqlite:///{tmp_path}/runs.db"
    places = {"dataset_dir": data_dir, "ckpt_dir": str(tmp_path), "output_dir": str(tmp_path / "logs")}
    made = workflow(
        BUNDLES[0], "train.yaml", overlay("smoke.yaml"), mlflow_uri=uri, progress=True, max_epochs=2, **places
    )
    made.run()
    made.finalize()
    output = "".join(capfd.readouterr())
    assert "Loading dataset: 100%" in output
    assert "[2/2]" in output
    client = MlflowClient(uri)
    (experiment,) = [found for found in client.search_experiments() if found.name != "Default"]
    (run,) = client.search_runs([experiment.experiment_id])
    losses = client.get_metric_history(run.info.run_id, "train_loss")
    assert len(losses) >= made.trainer.state.iteration
    scores = [point.value for point in client.get_metric_history(run.info.run_id, "val_mean_auroc")]
    assert max(scores) == pytest.approx(made.parser.get_parsed_content("validate#evaluator").state.best_metric)

"""DPTrainer takes the steps that DP-SGD is, for records and for patients, and can be stopped, resumed and trusted."""

import copy
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser
from monai.data import CacheDataset, Dataset
from monai.engines import SupervisedEvaluator
from monai.handlers import CheckpointLoader, CheckpointSaver, StatsHandler, from_engine
from torch import Tensor, nn
from torch.utils.data import DataLoader

from monai_deepfixcx.dp import DPEvaluator, DPTrainer, epsilon_of, sample_losses
from monai_deepfixcx.dp.sampling import members_of
from monai_deepfixcx.handlers.privacy_budget import PrivacyBudgetHandler
from monai_deepfixcx.metrics.losses import MaskedBCEWithLogitsLoss
from tests.dp.data import DIM, budget, flat, items, linear, loader, trainer

pytest.importorskip("opacus", reason="opacus comes with the extra 'dp'")
QUIET = 1e-12  # a noise multiplier that leaves the clipped gradients to be seen
LOSS = nn.BCEWithLogitsLoss()


def gradient(network: nn.Module, item: dict[str, Any]) -> Tensor:
    loss = LOSS(network(item["image"][None]), item["label"][None])
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))])


def by_hand(engine: DPTrainer, network: nn.Module, data: list[dict[str, Any]], clip: float, rate: float) -> Tensor:
    """DP-SGD without noise, unit by unit and sample by sample, over the draws that the trainer will take."""
    members = members_of(Dataset(data), engine.unit, "patient")
    for step in range(engine.sampler.steps * engine.budget.epochs):
        total = torch.zeros_like(flat(network))
        for unit in engine.sampler.draw(step):
            gradients = torch.stack([gradient(network, data[index]) for index in members[unit]])
            of_unit = gradients.mean(0) if engine.patient_gradient == "mean" else gradients.sum(0)
            total += of_unit * min(1.0, clip / (float(of_unit.norm()) + 1e-6))
        change = rate * total / engine.batch_size
        with torch.no_grad():
            for parameter, part in zip(
                network.parameters(), change.split([p.numel() for p in network.parameters()]), strict=True
            ):
                parameter.sub_(part.reshape(parameter.shape))
    return flat(network)


@pytest.mark.parametrize("mode", ["ghost", "hooks", "functorch"])
@pytest.mark.parametrize("physical", [None, 3])
def test_records_are_clipped_one_by_one(mode: Any, physical: int | None) -> None:
    spend = budget(epsilon=None, noise_multiplier=QUIET, max_grad_norm=0.4)
    network = linear()
    engine = trainer(network, spend=spend, grad_sample_mode=mode, physical_batch_size=physical)
    expected = by_hand(engine, copy.deepcopy(linear()), items(), 0.4, 0.5)
    engine.run()
    torch.testing.assert_close(flat(network), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("gradients", ["mean", "sum"])
@pytest.mark.parametrize("physical", [None, 3, 1])
@pytest.mark.parametrize("mode", ["hooks", "functorch"])
def test_patients_are_clipped_one_by_one_however_many_images_they_have(
    gradients: Any, physical: int | None, mode: Any
) -> None:
    data = items(20, patients=4) + items(4, patients=1, seed=9)  # five images of p1 to p3, nine of p0
    spend = budget(epsilon=None, noise_multiplier=QUIET, max_grad_norm=0.4)
    network = linear()
    engine = trainer(
        network,
        data,
        spend,
        batch_size=2,
        unit="patient",
        patient_gradient=gradients,
        physical_batch_size=physical,
        grad_sample_mode=mode,
    )
    assert engine.units == 4
    assert engine.sample_rate == 0.5
    expected = by_hand(engine, linear(), data, 0.4, 0.5)
    engine.run()
    torch.testing.assert_close(flat(network), expected, rtol=1e-6, atol=1e-9)


def two_crops(item: dict[str, Any]) -> list[dict[str, Any]]:
    return [item, {**item, "image": -item["image"]}]


def test_several_crops_are_one_patient() -> None:
    data = items(8, patients=4)
    crops = [crop for item in data for crop in two_crops(item)]
    spend = budget(epsilon=None, noise_multiplier=QUIET, max_grad_norm=0.4)
    results = []
    for dataset in (Dataset(data, two_crops), Dataset(crops)):
        network = linear()
        trainer(network, dataset, spend, batch_size=2, unit="patient").run()
        results.append(flat(network))
    torch.testing.assert_close(results[0], results[1])


def test_the_loss_of_a_sample_does_not_depend_on_the_others() -> None:
    # Reduced over the certain labels of the batch, the masked loss gives each sample a share that the others change.
    labels = torch.tensor([[1.0, 2.0], [0.0, 1.0]])
    logits = torch.tensor([[0.3, -0.2], [1.0, 2.0]])
    masked = MaskedBCEWithLogitsLoss()
    alone = torch.stack([masked(logits[:1], labels[:1]), masked(logits[1:], labels[1:])])
    torch.testing.assert_close(sample_losses(masked, logits, labels), alone)

    def branching(p: Tensor, y: Tensor) -> Tensor:
        return p.square().mean() if bool(y.sum() > 1) else p.abs().mean()

    expected = torch.stack([branching(logits[:1], labels[:1]), branching(logits[1:], labels[1:])])
    torch.testing.assert_close(sample_losses(branching, logits, labels), expected)


@pytest.mark.parametrize("mode", ["ghost", "hooks", "functorch"])
def test_a_step_that_drew_nobody_adds_its_noise_and_is_accounted(mode: Any) -> None:
    network = linear()
    engine = trainer(network, spend=budget(epsilon=None, noise_multiplier=2.0, epochs=40), grad_sample_mode=mode)
    engine.sampler.sample_rate = 0.0  # draws nobody, and is accounted as if it might have
    seen = []
    before = flat(network)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: seen.append(flat(network)))
    engine.run()
    steps = torch.stack([before, *seen]).diff(dim=0)
    # learning rate .5, clip 1, 8 expected units
    assert float(steps.std()) == pytest.approx(0.5 * 2.0 * 1.0 / 8, rel=0.05)
    assert [tuple(done) for done in engine.history] == [(2.0, 0.2, 200)]
    assert engine.state.output[0]["loss"] == 0


@pytest.mark.parametrize("mode", ["ghost", "hooks"])
def test_the_noise_is_that_which_was_accounted(mode: Any) -> None:
    network, quiet = linear(), linear()
    spend = {"epsilon": None, "max_grad_norm": 0.3, "epochs": 60}
    states: list[list[Tensor]] = [[], []]
    for net, multiplier, seen in ((network, 1.5, states[0]), (quiet, QUIET, states[1])):
        engine = trainer(net, spend=budget(**spend, noise_multiplier=multiplier), grad_sample_mode=mode)
        start = {name: value.clone() for name, value in net.state_dict().items()}

        def note(e: Any, net: nn.Module = net, seen: list[Tensor] = seen, start: Any = start) -> None:
            seen.append(flat(net))
            net.load_state_dict(start)  # the same gradients at every step, but for the draw

        engine.add_event_handler(Events.ITERATION_COMPLETED, note)
        engine.run()
    noise = torch.stack(states[0]) - torch.stack(states[1])
    assert float(noise.std()) == pytest.approx(0.5 * 1.5 * 0.3 / 8, rel=0.04)
    assert abs(float(noise.mean())) < 5 * float(noise.std()) / math.sqrt(noise.numel())


def test_the_noise_does_not_follow_the_global_seed() -> None:
    results = []
    for seed in (None, None, 5, 5):
        network = linear()
        engine = trainer(network, seed=seed)
        torch.manual_seed(0)
        engine.run()
        results.append(flat(network))
        assert engine.privacy_report()["secret_randomness"] == (seed is None)
    assert not torch.equal(results[0], results[1])
    assert torch.equal(results[2], results[3])


def test_the_epsilon_is_that_of_the_accountant_for_the_steps_taken() -> None:
    engine = trainer(spend=budget(epsilon=3.0, epochs=3))
    engine.run()
    report = engine.privacy_report()
    assert report["steps"] == 15
    assert (report["unit"], report["units"], report["sample_rate"]) == ("record", 40, 0.2)
    assert report["neighbouring"] == "add or remove one record"
    assert report["epsilon"] == epsilon_of(engine.history, 1e-3, "rdp").epsilon
    assert 2.98 < report["epsilon"] <= 3.0


def test_the_report_names_the_patient_as_the_unit() -> None:
    report = trainer(unit="patient", batch_size=2).privacy_report()
    assert (report["unit"], report["units"], report["sample_rate"], report["epsilon"]) == ("patient", 10, 0.2, 0.0)


def test_a_run_past_the_budget_is_stopped_by_the_trainer_itself() -> None:
    engine = trainer(spend=budget(epsilon=2.0, noise_multiplier=3.0), max_epochs=50)
    left = engine.steps_left()
    assert 10 < left < 250
    with pytest.raises(RuntimeError, match=r"another step would pass the budget of epsilon=2.0.*PrivacyBudgetHandler"):
        engine.run()
    assert engine.privacy_report()["steps"] == left
    assert engine.spent().epsilon <= 2.0


def test_the_handler_logs_epsilon_and_ends_training_in_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    seen: list[float] = []
    engine = trainer(
        spend=budget(epsilon=2.0, noise_multiplier=3.0), max_epochs=50, train_handlers=[PrivacyBudgetHandler()]
    )
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: seen.append(e.state.metrics["epsilon"]))
    engine.run()
    assert seen == sorted(seen)
    assert 1.7 < engine.state.metrics["epsilon"] <= 2.0
    assert engine.state.metrics["delta"] == 1e-3
    last = engine.history[-1]
    assert epsilon_of([last._replace(number=last.number + 1)], 1e-3, "rdp").epsilon > 2.0
    assert engine.state.iteration == last.number < 250
    assert "per record (RDP accountant)" in caplog.text
    assert "another step would pass epsilon 2 at delta 0.001" in caplog.text
    with pytest.raises(TypeError, match="engine must be a DPTrainer; got SupervisedEvaluator"):
        PrivacyBudgetHandler().attach(SupervisedEvaluator(torch.device("cpu"), loader(), linear()))


def test_the_handler_lets_a_planned_run_end_by_itself() -> None:
    engine = trainer(train_handlers=[PrivacyBudgetHandler(log=False)])
    engine.run()
    assert engine.state.iteration == 10
    assert 7.9 < engine.state.metrics["epsilon"] <= 8.0


def checkpointed(folder: Path, network: nn.Module, engine: DPTrainer) -> dict[str, Any]:
    return {"network": network, "optimizer": engine.optimizer, "trainer": engine}


def test_a_resumed_run_is_the_run_that_was_never_stopped(tmp_path: Path) -> None:
    spend = budget(epochs=4)
    whole = linear()
    straight = trainer(whole, spend=spend, learning_rate=0.1)
    straight.run()

    half = linear()
    first = trainer(half, spend=spend, learning_rate=0.1, max_epochs=2)
    CheckpointSaver(str(tmp_path), checkpointed(tmp_path, half, first), save_final=True, final_filename="x.pt").attach(
        first
    )
    first.run()
    resumed = linear(seed=1)
    second = trainer(resumed, spend=spend, learning_rate=0.1)
    CheckpointLoader(str(tmp_path / "x.pt"), checkpointed(tmp_path, resumed, second)).attach(second)
    second.run()
    assert torch.equal(flat(resumed), flat(whole))
    assert second.history == straight.history
    assert second.spent() == straight.spent()
    assert second.state.epoch == 4

    saved = torch.load(tmp_path / "x.pt", weights_only=True)
    linear().load_state_dict(saved["network"])  # plain keys
    assert set(saved["trainer"]["privacy"]) == {"history"}, "no random numbers in a checkpoint"
    with pytest.raises(ValueError, match='state_dict lacks "privacy"'):
        second.load_state_dict({"epoch_length": 5, "max_epochs": 4, "iteration": 3})


def test_what_was_spent_before_counts_after_resuming() -> None:
    engine = trainer(spend=budget(epsilon=2.0, noise_multiplier=3.0), max_epochs=50)
    state = engine.state_dict()
    full = engine.steps_left()
    state["privacy"] = {"history": [[3.0, 0.2, full - 3]]}
    engine.load_state_dict(state)
    assert engine.steps_left() == 3
    state["privacy"] = {"history": [[0.5, 0.2, 500]]}
    engine.load_state_dict(state)
    assert engine.steps_left() == 0


def test_it_learns_and_its_network_serves_any_evaluator() -> None:
    data = items(200)
    for item in data:
        item["label"] = (item["image"][:1] > 0).double()
    network = linear()
    losses: list[float] = []
    engine = trainer(
        network,
        data,
        budget(epochs=10),
        batch_size=40,
        learning_rate=2.0,
        train_handlers=[StatsHandler(output_transform=from_engine(["loss"], first=True), iteration_log=False)],
    )
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(float(e.state.output[0]["loss"])))
    engine.run()
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    network.eval()
    with torch.no_grad():
        right = [bool((network(item["image"]) > 0) == (item["label"] > 0)) for item in data]
    assert sum(right) > 170
    assert list(network.state_dict()) == list(linear().state_dict())


def test_it_is_built_from_a_configuration() -> None:
    config = {
        "network": {"_target_": "torch.nn.Linear", "in_features": DIM, "out_features": 1, "dtype": "$torch.float64"},
        "imports": ["$import torch"],
        "trainer": {
            "_target_": "monai_deepfixcx.dp.DPTrainer",
            "device": "cpu",
            "max_epochs": None,
            "train_data_loader": {
                "_target_": "monai.data.DataLoader",
                "dataset": {"_target_": "monai.data.CacheDataset", "data": items(), "progress": False},
                "batch_size": 8,
            },
            "network": "@network",
            "optimizer": {"_target_": "torch.optim.SGD", "params": "$@network.parameters()", "lr": 0.1},
            "loss_function": {"_target_": "monai_deepfixcx.metrics.MaskedBCEWithLogitsLoss"},
            "budget": {
                "_target_": "monai_deepfixcx.dp.PrivacyBudget",
                "epsilon": 5,
                "delta": 1e-3,
                "accountant": "rdp",
            },
            "unit": "patient",
            "train_handlers": [{"_target_": "monai_deepfixcx.handlers.privacy_budget.PrivacyBudgetHandler"}],
        },
    }
    engine = ConfigParser(config).get_parsed_content("trainer")
    engine.run()
    assert 4.9 < engine.state.metrics["epsilon"] <= 5


def evaluation(**options: Any) -> DPEvaluator:
    data = options.pop("data", items(6, patients=3))
    return DPEvaluator(
        "cpu",
        DataLoader(CacheDataset(data, progress=False) if isinstance(data, list) else data, batch_size=4),
        options.pop("network", linear()),
        **{"trained_patients": ["q1", "q2"], **options},
    )


def test_the_twin_of_evaluation_predicts_what_any_evaluator_does() -> None:
    plain = SupervisedEvaluator(
        torch.device("cpu"), DataLoader(CacheDataset(items(6, patients=3), progress=False), batch_size=4), linear()
    )
    seen: dict[Any, list[Tensor]] = {}
    for engine in (plain, evaluation()):
        engine.add_event_handler(
            Events.ITERATION_COMPLETED, lambda e: seen.setdefault(e, []).extend(row["pred"] for row in e.state.output)
        )
        engine.run()
    first, second = seen.values()
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trained_patients": ["p0", "p2", "q"]}, "holds 2 of the patients that the network was trained on"),
        ({"network": nn.Sequential(nn.Linear(DIM, 4), nn.BatchNorm1d(4))}, "its running statistics are private data"),
        ({"data": Dataset([{"image": 1}])}, "items are dictionaries with the key 'patient'"),
        ({"public_statistics": ["means"]}, "public_statistics must name any of normalization, loss_weights; got means"),
    ],
)
def test_evaluation_that_reads_private_statistics_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluation(**options)

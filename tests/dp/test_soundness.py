"""Every combination that would make the reported epsilon untrue is refused, with the reason."""

import re
from typing import Any

import pytest
import torch
from ignite.metrics import Loss
from monai.data import CacheDataset, Dataset, GridPatchDataset, PatchDataset, SmartCacheDataset
from monai.inferers import SlidingWindowInferer
from monai.transforms import RandSpatialCropSamplesd
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, Subset, WeightedRandomSampler

from monai_deepfixcx.dp import DPTrainer, make_dp_compatible
from monai_deepfixcx.metrics.losses import MaskedBCEWithLogitsLoss
from monai_deepfixcx.networks import CodeMLP, privatized_mlp
from tests.dp.data import DIM, budget, items, linear, loader, trainer

pytest.importorskip("opacus", reason="opacus comes with the extra 'dp'")


def images(count: int = 12) -> list[dict[str, Any]]:
    return [{"image": torch.rand(1, 8, 8), "label": torch.ones(1), "patient": f"p{i % 3}"} for i in range(count)]


def convolution() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 1))


CROPS = RandSpatialCropSamplesd("image", roi_size=(4, 4), num_samples=3, random_size=False)


def test_several_crops_of_a_record_are_refused_and_of_a_patient_are_not() -> None:
    with pytest.raises(ValueError, match=r"made 3 samples of one record.*counts for more than the one"):
        trainer(convolution(), Dataset(images(), CROPS), batch_size=12).run()
    trainer(convolution(), Dataset(images(), CROPS), batch_size=3, unit="patient").run()


def refused(message: str, **options: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        trainer(**options)


def test_weighted_sampling_is_refused() -> None:
    weighted = WeightedRandomSampler([1.0] * 40, 40)
    refused("sampler WeightedRandomSampler draws some records more often", train_data_loader=loader(sampler=weighted))
    twice = RandomSampler(items(), replacement=True)
    refused("sampler RandomSampler draws some records more often", train_data_loader=loader(sampler=twice))


def test_batches_that_are_no_poisson_sample_are_refused() -> None:
    refused("batches of a shuffled epoch have no such bound", poisson_sampling=False)
    trainer(poisson_sampling=True)
    own = type("Own", (BatchSampler,), {})(SequentialSampler(items()), 8, False)
    refused(
        "batch_sampler Own draws batches in its own way",
        train_data_loader=DataLoader(Dataset(items()), batch_sampler=own),
    )


def test_a_smart_cache_is_refused_also_within_a_subset() -> None:
    smart = SmartCacheDataset(items(), replace_rate=0.5, cache_num=10, progress=False)
    for dataset in (smart, Subset(smart, [0, 1, 2])):
        refused("a record in the window takes part far more often", data=dataset)


def test_data_without_an_index_or_in_patches_are_refused() -> None:
    stream = GridPatchDataset(images(), patch_iter=lambda item: iter([item]))
    refused("GridPatchDataset cannot be drawn from by index", data=stream)
    patches = PatchDataset(images(), lambda item: [item, item], samples_per_image=2)
    refused("PatchDataset cannot be drawn from by index", data=patches)


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("amp", True, "a GradScaler skips every step whose gradient overflows"),
        ("accumulation_steps", 2, "it adds up gradients over steps that are accounted one by one"),
        ("compile", True, "does not run the hooks"),
        ("iteration_update", print, "another update would not clip, add noise or account"),
        (
            "key_train_metric",
            {"loss": Loss(nn.MSELoss())},
            "a statistic of private records that no budget accounts for",
        ),
        ("additional_metrics", {"loss": 1}, "a statistic of private records that no budget accounts for"),
        ("postprocessing", print, "the trainer gives out no predictions"),
        ("epoch_length", 3, "the number of steps per epoch is that of Poisson sampling"),
        ("inferer", SlidingWindowInferer((4, 4)), "the gradient of a part would be clipped instead of the sample's"),
    ],
)
def test_options_of_the_trainer_that_break_the_accounting_are_refused(option: str, value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=f"{option} must be.*{re.escape(reason)}"):
        trainer(**{option: value})


def test_amp_switched_on_later_is_refused() -> None:
    engine = trainer()
    engine.amp = True
    with pytest.raises(ValueError, match="amp must be False under differential privacy"):
        engine.run()


def test_the_gdp_accountant_is_refused() -> None:
    with pytest.raises(ValueError, match="lies below the true epsilon: it is no guarantee"):
        budget(accountant="gdp")


def code_items() -> list[dict[str, Any]]:
    return [{"image": torch.rand(1, 20), "label": torch.ones(1)} for _ in range(16)]


@pytest.mark.parametrize("normalization", ["whiten", "0mean"])
def test_statistics_fitted_on_private_data_are_refused_unless_public(normalization: Any) -> None:
    network = CodeMLP(20, width=8, normalization=normalization)
    network.fit_normalization([torch.rand(8, 1, 20)])
    refused("Fitted on the training data they are private statistics", network=network, data=code_items())
    trainer(network, code_items(), public_statistics=["normalization"], grad_sample_mode="functorch").run()


def test_class_weights_are_refused_unless_public() -> None:
    for loss in (nn.BCEWithLogitsLoss(pos_weight=torch.ones(1)), MaskedBCEWithLogitsLoss(pos_weight=2.0)):
        refused("Weights from counts of the training labels are private", loss_function=loss)
        trainer(loss_function=loss, public_statistics=["loss_weights"])
    refused("public_statistics must name any of normalization, loss_weights; got labels", public_statistics=["labels"])


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm1d(4), nn.SyncBatchNorm(4), nn.InstanceNorm1d(4, track_running_stats=True)], ids=type
)
def test_normalization_over_a_batch_is_refused(norm: nn.Module) -> None:
    network = nn.Sequential(nn.Linear(DIM, 4), norm, nn.Linear(4, 1))
    with pytest.raises(ValueError, match=r"network holds 1 \(.*Norm.*\): .*make_dp_compatible"):
        trainer(network)
    trainer(make_dp_compatible(network).network)


def test_a_wrapped_or_frozen_network_is_refused(tmp_path: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/x", rank=0, world_size=1)
    try:
        refused("adds up gradients before they are clipped", network=DistributedDataParallel(linear()))
    finally:
        torch.distributed.destroy_process_group()
    refused("network must have a parameter to train", network=linear().requires_grad_(False))


def with_optimizer(network: nn.Module, parameters: Any) -> DPTrainer:
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    return DPTrainer("cpu", None, loader(), network, optimizer, nn.BCEWithLogitsLoss(), budget())


def test_an_optimizer_of_something_else_is_refused() -> None:
    network: Any = linear()
    with pytest.raises(ValueError, match="optimizer must hold the network's parameters only"):
        with_optimizer(network, linear().parameters())
    with pytest.raises(ValueError, match=r"2.weight is missing. Add it, or freeze it"):
        with_optimizer(network, network[0].parameters())
    network[2].requires_grad_(False)
    with_optimizer(network, network[0].parameters()).run()


class Spare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.spare = nn.Linear(DIM, 1), nn.Linear(DIM, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x)


@pytest.mark.parametrize("mode", ["ghost", "hooks", "functorch"])
def test_a_parameter_that_takes_no_part_is_named(mode: Any) -> None:
    with pytest.raises(ValueError, match=r"network: spare.weight took no part.*Freeze it"):
        trainer(Spare().double(), grad_sample_mode=mode).run()


def test_learned_filters_that_take_no_part_are_named() -> None:
    codec = {"codec": "deepfixcx", "levels": 1, "patch_size": 2, "adaptive": "filters_1d"}
    network: Any = privatized_mlp(codec, (8, 8), width=4)
    with pytest.raises(ValueError, match=r"network: codec.synthesis.filters took no part"):
        trainer(network, images(), batch_size=12).run()
    network.codec.synthesis.requires_grad_(False)
    before = network.codec.analysis.filters.detach().clone()
    trainer(network, images(), batch_size=12).run()
    assert not torch.equal(network.codec.analysis.filters, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "study"}, "unit must be one of record, patient; got 'study'"),
        ({"patient_gradient": "max"}, "patient_gradient must be one of mean, sum; got 'max'"),
        ({"physical_batch_size": 0}, "physical_batch_size must be at least 1"),
        ({"grad_sample_mode": "ew"}, "grad_sample_mode must be one of ghost, hooks, functorch; got 'ew'"),
        ({"grad_sample_mode": "ghost", "unit": "patient"}, "knows the norm of each sample's gradient but not"),
        ({"max_epochs": 3}, "max_epochs must be at most budget.epochs=2"),
        ({"data": Dataset([])}, "the dataset is empty"),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    refused(message, **options)


def test_a_loader_without_batches_is_refused() -> None:
    with pytest.raises(TypeError, match=r"train_data_loader must be a DataLoader with a batch_size.*got list"):
        trainer(train_data_loader=items())
    with pytest.raises(TypeError, match="got DataLoader"):
        trainer(train_data_loader=DataLoader(Dataset(items()), batch_size=None))


def test_a_delta_that_promises_nothing_warns() -> None:
    with pytest.warns(UserWarning, match="delta=0.5 is not below 1/40"):
        trainer(spend=budget(delta=0.5))


def test_a_batch_that_is_more_than_an_image_and_a_label_is_refused() -> None:
    data = CacheDataset([{"image": item["image"]} for item in items()], progress=False)
    with pytest.raises(ValueError, match="prepare_batch must give inputs and targets"):
        trainer(data=data).run()

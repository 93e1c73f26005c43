"""What would make the reported epsilon untrue, refused with the reason."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from monai.data import DistributedSampler as MonaiDistributedSampler
from monai.data import SmartCacheDataset
from monai.inferers import SimpleInferer
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils.data import BatchSampler, IterableDataset, RandomSampler, SequentialSampler
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import DistributedSampler as TorchDistributedSampler

from monai_deepfixcx.networks import CodeNormalization

PUBLIC_STATISTICS = ("normalization", "loss_weights")
# Options of SupervisedTrainer that the guarantee does not survive: the only value allowed, and why.
_REFUSED: dict[str, tuple[Any, str]] = {
    "amp": (
        False,
        "a GradScaler skips every step whose gradient overflows: noise that was accounted is then not added, and "
        "whether a step was skipped tells about the data",
    ),
    "accumulation_steps": (
        1,
        "it adds up gradients over steps that are accounted one by one, each with its own noise and clipping. Take a "
        "larger batch_size and set physical_batch_size: the step is then split inside",
    ),
    "poisson_sampling": (
        True,
        "the accounting is of units drawn independently for every step; batches of a shuffled epoch have no such "
        "bound, and epsilon would be understated",
    ),
    "compile": (False, "compiled code does not run the hooks that take per-sample gradients. Leave it out"),
    "iteration_update": (None, "another update would not clip, add noise or account"),
    "key_train_metric": (
        None,
        "a metric of the training data is a statistic of private records that no budget accounts for. Evaluate on "
        "other patients",
    ),
    "additional_metrics": (
        None,
        "a metric of the training data is a statistic of private records that no budget accounts for. Evaluate on "
        "other patients",
    ),
    "postprocessing": (None, "the trainer gives out no predictions, only the loss. Leave it out"),
    "epoch_length": (
        None,
        "the number of steps per epoch is that of Poisson sampling, which the noise is chosen for. Change batch_size "
        "or epochs",
    ),
}


def refuse_options(options: Mapping[str, Any]) -> None:
    """Refuse options of MONAI's trainer that make the accounting untrue.

    Raises:
        ValueError: one of them, with the reason.
    """
    for name, (allowed, reason) in _REFUSED.items():
        if name in options and options[name] != allowed:
            raise ValueError(f"{name} must be {allowed!r} under differential privacy; got {options[name]!r}: {reason}.")
    inferer = options.get("inferer")
    if inferer is not None and type(inferer) is not SimpleInferer:
        raise ValueError(
            f"inferer must be monai.inferers.SimpleInferer under differential privacy; got {type(inferer).__name__}: "
            "one that cuts windows sends parts of several samples through the network as one batch, and the gradient "
            "of a part would be clipped instead of the sample's."
        )


def refuse_loader(loader: Any) -> None:
    """Refuse data that cannot be sampled as it is accounted.

    Raises:
        TypeError: not a DataLoader.
        ValueError: a dataset or a sampler that is not sound.
    """
    if isinstance(loader, TorchDataLoader) and type(loader.batch_sampler) not in (BatchSampler, type(None)):
        raise ValueError(
            f"train_data_loader: batch_sampler {type(loader.batch_sampler).__name__} draws batches in its own way, "
            "which the accounting does not know. Give batch_size; the trainer draws Poisson batches."
        )
    if not isinstance(loader, TorchDataLoader) or loader.batch_size is None:
        raise TypeError(
            "train_data_loader must be a DataLoader with a batch_size, the mean number of units per step; got "
            f"{type(loader).__name__}. Its dataset, workers and collation are kept, its batches drawn anew."
        )
    for dataset in _layers(loader.dataset):
        if isinstance(dataset, SmartCacheDataset):
            raise ValueError(
                "train_data_loader: SmartCacheDataset serves a window of the data that moves by epochs: a record in "
                "the window takes part far more often than the sampling rate that is accounted. Use CacheDataset."
            )
        if isinstance(dataset, IterableDataset):
            raise ValueError(
                f"train_data_loader: {type(dataset).__name__} cannot be drawn from by index, so that no record has a "
                "known probability of taking part. Use a dataset with a length, one item per record."
            )
    sampler = loader.sampler
    plain = (SequentialSampler, RandomSampler, TorchDistributedSampler, MonaiDistributedSampler)
    if type(sampler) not in plain or getattr(sampler, "replacement", False):
        raise ValueError(
            f"train_data_loader: sampler {type(sampler).__name__} draws some records more often than others or twice "
            "in a step, while epsilon is accounted for one rate that holds for all. Balance by weights of the loss "
            "from public knowledge, or leave the sampler out."
        )


def _layers(dataset: Any) -> Iterator[Any]:
    """The dataset, and those that it wraps."""
    while dataset is not None:
        yield dataset
        dataset = getattr(dataset, "dataset", None)


def refuse_network(network: nn.Module, training: bool = True) -> None:
    """Refuse layers that mix samples, or keep statistics of them.

    Args:
        network: to train or to evaluate.
        training: whether it must have something to train.

    Raises:
        ValueError: batch normalization or running statistics, a network in DistributedDataParallel, or nothing to
            train.
    """
    if isinstance(network, DistributedDataParallel):
        raise ValueError(
            "network must not be in DistributedDataParallel, which adds up gradients before they are clipped; pass the "
            "plain network. In several processes DPTrainer itself adds up the clipped gradients."
        )
    mixing = [
        f"{name or 'the network'} ({type(module).__name__})"
        for name, module in network.named_modules()
        if isinstance(module, _NormBase) and (module.track_running_stats or not _is_instance_norm(module))
    ]
    if mixing:
        raise ValueError(
            f"network holds {', '.join(mixing[:3])}{' and others' if len(mixing) > 3 else ''}: normalization over a "
            "batch makes every sample's gradient depend on the others, so that clipping one bounds nothing, and its "
            "running statistics are private data that no noise was added to. Use make_dp_compatible(network)."
        )
    if training and not any(parameter.requires_grad for parameter in network.parameters()):
        raise ValueError("network must have a parameter to train; all are frozen.")


def _is_instance_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d)


def refuse_statistics(network: nn.Module, loss: Any, public: Collection[str]) -> None:
    """Refuse what was computed from data, unless it is declared to come from public data.

    Args:
        network: whose `CodeNormalization` ("whiten", "0mean") holds means and variances.
        loss: whose class weights (`weight`, `pos_weight`) are counts of labels.
        public: any of `PUBLIC_STATISTICS`.

    Raises:
        ValueError: a statistic that is not declared public, or an unknown name.
    """
    if unknown := set(public) - set(PUBLIC_STATISTICS):
        raise ValueError(
            f"public_statistics must name any of {', '.join(PUBLIC_STATISTICS)}; got {', '.join(sorted(unknown))}."
        )
    fitted = [name for name, module in network.named_modules() if _is_fitted(module)]
    if fitted and "normalization" not in public:
        raise ValueError(
            f"network: {fitted[0]} normalizes by means and spreads of a data set. Fitted on the training data they are "
            'private statistics, released without noise and not accounted. Use normalization="none", or fit them on '
            'public data and say so: public_statistics=["normalization"].'
        )
    weighted = [
        name for name in ("weight", "pos_weight", "class_weight") if isinstance(getattr(loss, name, None), torch.Tensor)
    ]
    if weighted and "loss_weights" not in public:
        raise ValueError(
            f"loss_function: {weighted[0]} weights classes. Weights from counts of the training labels are private "
            "statistics, used without noise and not accounted. Leave them out, or take them from public knowledge "
            '(such as a published prevalence) and say so: public_statistics=["loss_weights"].'
        )


def _is_fitted(module: nn.Module) -> bool:
    return isinstance(module, CodeNormalization) and module.needs_statistics


def refuse_optimizer(network: nn.Module, optimizer: Optimizer) -> None:
    """Refuse an optimizer whose parameters are not those that the network trains.

    Raises:
        ValueError: parameters of something else, or some left out.
    """
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    learning = {id(parameter): name for name, parameter in network.named_parameters() if parameter.requires_grad}
    known = {id(parameter) for parameter in network.parameters()}
    if trained - known:
        raise ValueError(
            "optimizer must hold the network's parameters only; it holds others, whose gradients nobody would clip. "
            "Build it on the network that make_dp_compatible returned, not on the one it was given."
        )
    if left := [name for key, name in learning.items() if key not in trained]:
        raise ValueError(
            f"optimizer must hold every parameter that is to learn; {left[0]} is missing. Add it, or freeze it with "
            "requires_grad_(False)."
        )

"""One training of a sweep: the same network, data and recipe, with and without differential privacy."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from torch import Tensor, nn

from monai_deepfixcx.codecs import Codec
from monai_deepfixcx.dp import DPTrainer, PrivacyBudget
from monai_deepfixcx.dp.accounting import Accountant
from monai_deepfixcx.dp.sampling import Unit
from monai_deepfixcx.metrics.losses import MaskedBCEWithLogitsLoss
from monai_deepfixcx.networks.privatized_network import as_codec

Items = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: NAdam, as in the third paper, at a constant rate for a fixed number of epochs.

    No epoch is chosen by validation: what a private training gives is the network of its last step.

    Args:
        epochs: passes over the data.
        batch_size: mean number of units of a step.
        learning_rate: of NAdam.
        max_grad_norm: to which the gradient of each unit is clipped under differential privacy.
        physical_batch_size: most samples that go through the network at once under differential privacy.
    """

    epochs: int = 20
    batch_size: int = 256
    learning_rate: float = 5e-3
    max_grad_norm: float = 1.0
    physical_batch_size: int | None = None


@dataclass(frozen=True)
class Contender:
    """What a sweep compares: a network, and what it is shown of the images.

    Args:
        name: of the row.
        build: gives a new, untrained network, fit for per-sample gradients.
        codec: the network is trained on this codec's codes; None: on the images.
        recipe: the same with and without privacy.
        public_statistics: see `DPTrainer`.
    """

    name: str
    build: Callable[[], nn.Module]
    codec: Codec | Mapping[str, Any] | None = None
    recipe: Recipe = field(default_factory=Recipe)
    public_statistics: Sequence[str] = ()

    def inputs(self, items: Items) -> list[dict[str, Any]]:
        """The items with codes in place of their images, if there is a codec."""
        if self.codec is None:
            return [dict(item) for item in items]
        codec = as_codec(self.codec)
        with torch.no_grad():
            codes = [
                code
                for start in range(0, len(items), 256)
                for code in codec.encode(torch.stack([_plain(item["image"]) for item in items[start : start + 256]]))
            ]
        return [{**item, "image": code.clone()} for item, code in zip(items, codes, strict=True)]


class Trained(NamedTuple):
    """A trained network.

    Attributes:
        network: in evaluation mode, on its device.
        privacy: what `DPTrainer.privacy_report` says; None without privacy.
        steps: what was accounted, for composition.
        seconds: that training took.
        epoch_seconds: that each epoch took; under differential privacy the first one also asks the accountant once
            how many steps fit the budget.
    """

    network: nn.Module
    privacy: dict[str, Any] | None
    steps: list[Any]
    seconds: float
    epoch_seconds: list[float]


def train_contender(
    contender: Contender,
    items: Items,
    epsilon: float | None,
    delta: float = 1e-5,
    unit: Unit = "record",
    accountant: Accountant = "prv",
    seed: int = 0,
    noise_seed: int | None = None,
    device: str | torch.device = "cpu",
) -> Trained:
    """Train a contender once.

    Args:
        contender: what to train.
        items: what it takes, see `Contender.inputs`; each with "image", "label" ``[L]`` and "patient".
        epsilon: of the privacy budget; None trains without privacy.
        delta: of the budget.
        unit: "record" or "patient".
        accountant: "prv" or "rdp".
        seed: of the initial weights, and of the order of the images without privacy.
        noise_seed: makes a private run repeatable, and its guarantee void for whoever knows it: for synthetic data
            only. None draws a secret.
        device: where to train.

    Raises:
        ValueError: what `DPTrainer` refuses.
    """
    recipe = contender.recipe
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = contender.build().to(device)
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(Dataset(items), batch_size=recipe.batch_size, shuffle=True, num_workers=0, generator=order)
    common: dict[str, Any] = {
        "device": torch.device(device),
        "max_epochs": recipe.epochs,
        "train_data_loader": loader,
        "network": network,
        "optimizer": torch.optim.NAdam(network.parameters(), lr=recipe.learning_rate),
        "loss_function": MaskedBCEWithLogitsLoss(),
    }
    private: DPTrainer | None = None  # its noise is chosen for all epochs: no handler need stop it in time
    if epsilon is not None:
        private = DPTrainer(
            **common,
            budget=PrivacyBudget(epsilon, delta, recipe.max_grad_norm, recipe.epochs, accountant),
            unit=unit,
            physical_batch_size=recipe.physical_batch_size,
            public_statistics=contender.public_statistics,
            seed=noise_seed,
        )
    trainer = private or SupervisedTrainer(**common, decollate=False)
    ends = [time.perf_counter()]
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: ends.append(time.perf_counter()))
    trainer.run()
    taken = ends[-1] - ends[0], [after - before for before, after in pairwise(ends)]
    if private is None:
        return Trained(network.eval(), None, [], *taken)
    return Trained(network.eval(), private.privacy_report(), list(private.history), *taken)


def _plain(image: Any) -> Tensor:
    """The image without metadata, which no code carries on."""
    return torch.as_tensor(image).as_subclass(Tensor).float()

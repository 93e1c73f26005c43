"""MONAI's supervised trainer under differential privacy.

Source: DP-SGD, Abadi et al. 2016 (arXiv:1607.00133), by Opacus.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
import torch.distributed as dist
from ignite.engine import Engine
from monai.engines import SupervisedTrainer
from monai.utils.enums import CommonKeys
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from monai_deepfixcx.dp.accounting import Spent, Steps, epsilon_of, max_steps
from monai_deepfixcx.dp.budget import PrivacyBudget
from monai_deepfixcx.dp.clipping import ClippedGradients, GradSampleMode
from monai_deepfixcx.dp.compatible import pick_grad_sample_mode
from monai_deepfixcx.dp.randomness import is_distributed, secret_generator, secret_key, seed_of_step
from monai_deepfixcx.dp.sampling import PoissonSampler, Unit, members_of, poisson_loader, steps_per_epoch
from monai_deepfixcx.dp.soundness import (
    refuse_loader,
    refuse_network,
    refuse_optimizer,
    refuse_options,
    refuse_statistics,
)

PatientGradient = Literal["mean", "sum"]


class DPTrainer(SupervisedTrainer):
    """Train a network by DP-SGD, within a `PrivacyBudget`.

    Every step draws each unit (a record, or a patient with all records) with the same probability, clips its gradient,
    adds noise to the sum and is accounted; a step that drew nobody still adds its noise. The network stays as it is:
    plain keys in checkpoints, usable in any evaluator. What the guarantee covers is the network's weights; the loss
    that the engine gives out, and any log of it, is private.

    In several processes (an initialised `torch.distributed` group) all take their share of the same draw and the noise
    is added once: the same epsilon, the same result, as in one process. `batch_size` counts for all together.

    A checkpoint of ``{"network": network, "optimizer": optimizer, "trainer": trainer}`` holds all it takes to go on:
    the trainer's state includes what was spent.

    Args:
        device: where to train.
        max_epochs: at most `budget.epochs` where the noise is chosen from epsilon; None takes that.
        train_data_loader: a DataLoader over a dataset of dictionaries. Its `batch_size` is the mean number of units
            per step; its order is replaced by Poisson sampling.
        network: see `make_dp_compatible`.
        optimizer: over the network's parameters.
        loss_function: of a batch; it is given each sample on its own, see `sample_losses`.
        budget: the budget, or a mapping of its arguments.
        unit: whom the guarantee protects, "record" (one item of the dataset) or "patient" (all items of one).
        patient_key: where an item names its patient.
        patient_gradient: a patient's gradient before clipping, the "mean" or the "sum" over the samples.
        physical_batch_size: most samples that go through the network at once; None is the whole step.
        grad_sample_mode: see `ClippedGradients`; None picks one.
        public_statistics: which statistics come from public data: "normalization", "loss_weights".
        seed: makes a run repeatable. Whoever knows it can take the noise off: for experiments only. None draws a
            secret from the operating system, whatever the global seeds are.
        options: of SupervisedTrainer: train_handlers, prepare_batch, non_blocking, event_names, event_to_attr,
            to_kwargs. Those that would make the accounting untrue are refused.

    Attributes:
        noise_multiplier: standard deviation of the noise by `budget.max_grad_norm`.
        sample_rate: probability with which a unit takes part in a step.
        units: number of units in the data.

    Raises:
        TypeError: not a DataLoader.
        ValueError: an argument out of range, or a combination that is not sound; the text says why.
        ImportError: Opacus is not installed.

    >>> from monai.data import CacheDataset
    >>> from monai_deepfixcx.networks import CodeMLP
    >>> items = [{"image": torch.rand(1, 20), "label": torch.ones(1)} for _ in range(40)]
    >>> loader = DataLoader(CacheDataset(items, progress=False), batch_size=8)
    >>> network = CodeMLP(code_length=20, width=10)
    >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    >>> budget = PrivacyBudget(epsilon=8, delta=1e-3, epochs=2, accountant="rdp")
    >>> trainer = DPTrainer("cpu", None, loader, network, optimizer, nn.BCEWithLogitsLoss(), budget)
    >>> trainer.run()
    >>> 7.9 < trainer.spent().epsilon <= 8, trainer.steps_left()
    (True, 0)
    """

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int | None,
        train_data_loader: DataLoader[Any],
        network: nn.Module,
        optimizer: Optimizer,
        loss_function: Callable[[Tensor, Tensor], Tensor],
        budget: PrivacyBudget | Mapping[str, Any],
        unit: Unit = "record",
        patient_key: str = "patient",
        patient_gradient: PatientGradient = "mean",
        physical_batch_size: int | None = None,
        grad_sample_mode: GradSampleMode | None = None,
        public_statistics: Sequence[str] = (),
        seed: int | None = None,
        **options: Any,
    ) -> None:
        for name, value, known in (
            ("unit", unit, get_args(Unit)),
            ("patient_gradient", patient_gradient, get_args(PatientGradient)),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}.")
        if physical_batch_size is not None and physical_batch_size < 1:
            raise ValueError(f"physical_batch_size must be at least 1; got {physical_batch_size!r}.")
        budget = budget if isinstance(budget, PrivacyBudget) else PrivacyBudget(**budget)
        refuse_options(options)
        refuse_loader(train_data_loader)
        refuse_network(network)
        refuse_statistics(network, loss_function, public_statistics)
        refuse_optimizer(network, optimizer)
        mode = grad_sample_mode or pick_grad_sample_mode(network, unit)
        if mode == "ghost" and unit == "patient":
            raise ValueError(
                'grad_sample_mode must be "hooks" or "functorch" with unit="patient"; got "ghost", which knows the '
                "norm of each sample's gradient but not that of a patient's sum."
            )
        members = members_of(train_data_loader.dataset, unit, patient_key)
        if not members:
            raise ValueError("train_data_loader: the dataset is empty.")
        self.budget, self.unit, self.units = budget, unit, len(members)
        self.patient_gradient = patient_gradient
        self.batch_size = min(int(train_data_loader.batch_size or 1), self.units)
        self.sample_rate = self.batch_size / self.units
        length = steps_per_epoch(self.units, self.batch_size)
        max_epochs = budget.epochs if max_epochs is None else max_epochs
        if budget.noise_multiplier is None and max_epochs > budget.epochs:
            raise ValueError(
                f"max_epochs must be at most budget.epochs={budget.epochs}, for which the noise is chosen; got "
                f"{max_epochs}. Raise budget.epochs: a longer run needs more noise from its first step."
            )
        budget.check_delta(self.units, unit)
        self.noise_multiplier = budget.noise_for(self.sample_rate, budget.epochs * length)
        rank, world = (dist.get_rank(), dist.get_world_size()) if is_distributed() else (0, 1)
        key = secret_key(seed)
        self._seeded = seed is not None
        self._key, self._noise = key, secret_generator(device)
        self.sampler = PoissonSampler(members, self.sample_rate, length, key, rank, world)
        self.history: list[Steps] = []
        self._limit: int | None = None
        self._taken = 0
        network.to(device)
        _synchronise(network)
        self.gradients = ClippedGradients(
            network,
            optimizer,
            loss_function,
            mode,
            self.noise_multiplier,
            budget.max_grad_norm,
            expected_units=self.batch_size,
            mean_of_unit=patient_gradient == "mean",
            generator=self._noise,
        )
        options.pop("poisson_sampling", None)
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            train_data_loader=poisson_loader(train_data_loader, self.sampler, unit, physical_batch_size),
            network=network,
            optimizer=optimizer,
            loss_function=loss_function,
            decollate=False,
            **{name: value for name, value in options.items() if name != "decollate"},
        )

    def spent(self) -> Spent:
        """The epsilon spent so far at the budget's delta, and the accountant that vouches for it."""
        return epsilon_of(self.history, self.budget.delta, self.budget.accountant)

    def steps_left(self) -> int:
        """How many more steps the budget allows, up to the end of the run."""
        done = sum(steps.number for steps in self.history)
        if self._limit is None:
            planned = max(int(self.state.max_epochs) * self.sampler.steps - self._taken, 0)
            if self.budget.epsilon is None:
                return planned
            more = Steps(self.noise_multiplier, self.sample_rate, 0)
            self._limit = done + max_steps(
                self.history, more, self.budget.epsilon, self.budget.delta, planned, self.budget.accountant
            )
        return max(self._limit - done, 0)

    def privacy_report(self) -> dict[str, Any]:
        """What was spent and on which terms, as JSON values: epsilon, delta, unit, accountant, noise and steps."""
        epsilon, accountant = self.spent()
        return {
            "epsilon": epsilon,
            "delta": self.budget.delta,
            "unit": self.unit,
            "neighbouring": f"add or remove one {self.unit}",
            "units": self.units,
            "accountant": accountant,
            "noise_multiplier": self.noise_multiplier,
            "max_grad_norm": self.budget.max_grad_norm,
            "sample_rate": self.sample_rate,
            "steps": sum(steps.number for steps in self.history),
            "secret_randomness": not self._seeded,
        }

    def run(self) -> None:  # type: ignore[override]
        """Train to `max_epochs`, from where the trainer stands.

        Raises:
            ValueError: `amp` was switched on after construction.
            RuntimeError: the next step would pass the budget.
        """
        refuse_options({"amp": self.amp})
        self._limit = None
        self._taken = self.sampler.step = self.state.iteration
        super().run()

    def state_dict(self) -> OrderedDict[str, Any]:
        """The engine's state and what was spent; no random numbers, which must stay secret."""
        return OrderedDict(super().state_dict(), privacy={"history": [list(steps) for steps in self.history]})

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state: the sampler at its step, the accounting with what was spent.

        Args:
            state_dict: of a DPTrainer.

        Raises:
            ValueError: the state of another trainer, which says nothing of what was spent.
        """
        if "privacy" not in state_dict:
            raise ValueError(
                'state_dict lacks "privacy": it is not of a DPTrainer, and what its weights cost is not known. Resume '
                "from a checkpoint whose save_dict held the DPTrainer."
            )
        super().load_state_dict({name: value for name, value in state_dict.items() if name != "privacy"})
        self.history = [Steps(*steps) for steps in state_dict["privacy"]["history"]]
        self._limit = None
        self._taken = self.sampler.step = self.state.iteration

    def _iteration(self, engine: Engine, batchdata: Any) -> Any:
        if self.steps_left() == 0:
            raise RuntimeError(
                f"another step would pass the budget of epsilon={self.budget.epsilon} at delta={self.budget.delta}. "
                "Attach PrivacyBudgetHandler, which ends training in time."
            )
        self.network.train()
        self._account()
        if self._seeded:
            self._noise.manual_seed(seed_of_step(self._key, self.state.iteration))
        loss = self.gradients.step(batchdata, self._prepare)
        self._taken = self.state.iteration
        self.state.output = [{CommonKeys.LOSS: loss}]
        return self.state.output

    def _account(self) -> None:
        last = self.history[-1] if self.history else None
        if last and last[:2] == (self.noise_multiplier, self.sample_rate):
            self.history[-1] = last._replace(number=last.number + 1)
        else:
            self.history.append(Steps(self.noise_multiplier, self.sample_rate, 1))

    def _prepare(self, data: Any) -> tuple[Tensor, Tensor]:
        batch = self.prepare_batch(data, self.state.device, self.non_blocking, **self.to_kwargs)
        if len(batch) != 2 or batch[1] is None:
            raise ValueError("prepare_batch must give inputs and targets, two tensors [n, ...], and nothing else.")
        return batch[0], batch[1]


def _synchronise(network: nn.Module) -> None:
    """All processes begin with the weights of the first."""
    if is_distributed():
        for value in network.state_dict().values():
            dist.broadcast(value, src=0)

"""Clipped sums of per-unit gradients, in three ways that give the same result.

Source: DP-SGD, Abadi et al. 2016 (arXiv:1607.00133); ghost clipping, Li et al. 2021 (arXiv:2110.05679).
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
import torch.distributed as dist
from monai.data.meta_tensor import MetaTensor
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.optim import Optimizer

from monai_deepfixcx.dp.opacus_gate import opacus_module
from monai_deepfixcx.dp.randomness import is_distributed
from monai_deepfixcx.dp.sampling import Chunk

GradSampleMode = Literal["ghost", "hooks", "functorch"]
Loss = Callable[[Tensor, Tensor], Tensor]


def sample_losses(loss: Loss, predictions: Tensor, targets: Tensor) -> Tensor:
    """The loss of each sample on its own, ``[n]``, as if it were alone in its batch.

    So no sample's gradient depends on another, whatever reduction the loss uses: clipping one bounds its influence.

    Args:
        loss: of a batch.
        predictions: ``[n, ...]``.
        targets: ``[n, ...]``.

    >>> masked = lambda p, y: ((p - y) ** 2 * (y > 0)).sum() / (y > 0).sum()
    >>> sample_losses(masked, torch.zeros(2, 2), torch.tensor([[3.0, 0.0], [1.0, 1.0]]))
    tensor([9., 1.])
    """

    def alone(prediction: Tensor, target: Tensor) -> Tensor:
        return loss(prediction.unsqueeze(0), target.unsqueeze(0)).mean()

    try:
        return vmap(alone)(predictions, targets)
    except (RuntimeError, NotImplementedError):
        # A loss that branches on its values cannot be vectorised.
        return torch.stack([alone(p, y) for p, y in zip(predictions, targets, strict=True)])


class ClippedGradients:
    """Takes physical batches, and steps an optimizer by the noisy sum of their units' clipped gradients.

    Args:
        network: to train; in "ghost" and "hooks" mode it gets hooks, its parameters and keys stay as they are.
        optimizer: of its parameters.
        loss: see `sample_losses`.
        mode: "hooks" keeps all gradients of a physical batch; "functorch" too, by vectorising the whole network,
            which takes any layer; "ghost" goes backward twice and keeps norms only, much faster and smaller for linear
            layers, one sample per unit.
        noise_multiplier: standard deviation of the noise by `max_grad_norm`.
        max_grad_norm: to clip to.
        expected_units: mean number of units of a step, over all processes.
        mean_of_unit: a unit's gradient is the mean over its samples, otherwise the sum.
        generator: of the noise.

    Raises:
        ValueError: an unknown mode.
        ImportError: Opacus is not installed.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        loss: Loss,
        mode: GradSampleMode,
        noise_multiplier: float,
        max_grad_norm: float,
        expected_units: float,
        mean_of_unit: bool,
        generator: torch.Generator,
    ) -> None:
        if mode not in get_args(GradSampleMode):
            raise ValueError(f"grad_sample_mode must be one of {', '.join(get_args(GradSampleMode))}; got {mode!r}.")
        self.network, self.loss, self.mode, self.mean_of_unit = network, loss, mode, mean_of_unit
        distributed = is_distributed()
        make = opacus_module("opacus.optimizers").get_optimizer_class(
            clipping="flat", distributed=distributed, grad_sample_mode="ghost" if mode == "ghost" else "hooks"
        )
        # Opacus divides by the batch of one process and then by the number of processes.
        self.optimizer = make(
            optimizer=optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=expected_units / (dist.get_world_size() if distributed else 1),
            loss_reduction="mean",
            generator=generator,
        )
        self.parameters: list[nn.Parameter] = self.optimizer.params
        grad_sample = opacus_module("opacus.grad_sample")
        self.hooks: Any = None
        if mode == "ghost":
            self.hooks = grad_sample.GradSampleModuleFastGradientClipping(
                network, max_grad_norm=max_grad_norm, use_ghost_clipping=True, loss_reduction="sum"
            )
        elif mode == "hooks":
            self.hooks = grad_sample.GradSampleModule(network, loss_reduction="sum")
        self._open: dict[nn.Parameter, Tensor] = {}
        self._all_reached = False

    def step(self, chunks: list[Chunk], prepare: Callable[[Any], tuple[Tensor, Tensor]]) -> Tensor:
        """Update the network once. Without chunks the update is noise.

        Args:
            chunks: the physical batches of this process; may be empty.
            prepare: gives inputs and targets of a chunk's data, on the device.

        Returns:
            The mean loss of the samples, a scalar; 0 without any. It is a private number.

        Raises:
            ValueError: a parameter that took no part in the prediction.
        """
        total, count = torch.zeros((), device=self.parameters[0].device), 0
        for number, chunk in enumerate(chunks):
            inputs, targets = (_plain(x) for x in prepare(chunk.data))
            self.optimizer.signal_skip_step(number < len(chunks) - 1)
            self.optimizer.zero_grad()
            with _no_hook_warning():
                losses = getattr(self, f"_{self.mode}")(inputs, targets, chunk)
            self.optimizer.step()
            total, count = total + losses.detach().sum(), count + len(losses)
        if not chunks:
            self.optimizer.zero_grad()
            for parameter in self.parameters:
                parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))  # type: ignore[attr-defined]
                parameter.grad = torch.zeros_like(parameter)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total / max(count, 1)

    def _ghost(self, inputs: Tensor, targets: Tensor, chunk: Chunk) -> Tensor:
        for parameter in self.parameters:
            parameter._norm_sample = None  # type: ignore[attr-defined]
        losses = sample_losses(self.loss, self.network(inputs), targets)
        losses.sum().backward(retain_graph=True)
        self._check_reached(lambda parameter: getattr(parameter, "_norm_sample", None))
        factors = self.hooks.get_clipping_coef()
        self.optimizer.zero_grad()
        self.hooks.disable_hooks()
        (factors * losses).sum().backward()
        self.hooks.enable_hooks()
        return losses

    def _hooks(self, inputs: Tensor, targets: Tensor, chunk: Chunk) -> Tensor:
        losses = sample_losses(self.loss, self.network(inputs), targets)
        losses.sum().backward()
        self._check_reached(lambda parameter: getattr(parameter, "grad_sample", None))
        self._join(chunk)
        return losses

    def _functorch(self, inputs: Tensor, targets: Tensor, chunk: Chunk) -> Tensor:
        names = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        if not self._all_reached:
            loss = sample_losses(self.loss, self.network(inputs[:1]), targets[:1]).sum()
            reached = torch.autograd.grad(loss, list(names.values()), allow_unused=True)
            self._check_reached(dict(zip(names.values(), reached, strict=True)).get)
            self._all_reached = True

        def alone(parameters: dict[str, Tensor], sample: Tensor, target: Tensor) -> Tensor:
            prediction = functional_call(self.network, parameters, (sample.unsqueeze(0),))
            return self.loss(prediction, target.unsqueeze(0)).mean()

        each = vmap(grad_and_value(alone), in_dims=(None, 0, 0), randomness="different")
        gradients, losses = each({name: p.detach() for name, p in names.items()}, inputs, targets)
        for name, parameter in names.items():
            parameter.grad_sample = gradients[name]  # type: ignore[attr-defined]
        self._join(chunk)
        return losses

    def _join(self, chunk: Chunk) -> None:
        """Sum the gradients of each unit's samples; what goes on in the next chunk waits for it."""
        if int(chunk.sizes.max()) == 1:
            return
        for parameter in self.parameters:
            samples: Tensor = parameter.grad_sample  # type: ignore[attr-defined]
            if self.mean_of_unit:
                share = chunk.sizes[chunk.owners].to(samples).reciprocal()
                samples = samples * share.reshape(-1, *[1] * (samples.ndim - 1))
            units = samples.new_zeros((len(chunk.sizes), *parameter.shape))
            units.index_add_(0, chunk.owners.to(samples.device), samples)
            if parameter in self._open:
                units[0] += self._open.pop(parameter)
            if chunk.continues:
                self._open[parameter], units = units[-1], units[:-1]
            parameter.grad_sample = units  # type: ignore[attr-defined]

    def _check_reached(self, found: Callable[[nn.Parameter], Any]) -> None:
        for parameter in self.parameters:
            if found(parameter) is None:
                name = next(name for name, p in self.network.named_parameters() if p is parameter)
                raise ValueError(
                    f"network: {name} took no part in the prediction, so that there is no gradient to clip. Freeze it "
                    "with requires_grad_(False)."
                )


def _plain(x: Any) -> Any:
    return x.as_tensor() if isinstance(x, MetaTensor) else x


@contextmanager
def _no_hook_warning() -> Iterator[None]:
    """Inputs need no gradient, which torch thinks worth a warning when a layer with a hook sees them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Full backward hook is firing")
        yield

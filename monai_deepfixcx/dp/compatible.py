"""Networks that differentially private training can take.

Source: group for batch normalization, Wu & He 2018 (arXiv:1803.08494), as in Tayebi Arasteh et al. (arXiv:2302.01622).
"""

import ast
import inspect
import operator
import textwrap
from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from monai_deepfixcx.codecs import Codec
from monai_deepfixcx.dp.clipping import GradSampleMode
from monai_deepfixcx.dp.sampling import Unit
from monai_deepfixcx.networks.resnet import group_count

# What changes its first argument in place, and what does the same on a new tensor.
_OUT_OF_PLACE: dict[Any, Callable[..., Any]] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}


class DPCompatible(NamedTuple):
    """A network to train under differential privacy.

    Attributes:
        network: a copy, changed where it had to be.
        changes: what was changed, a sentence each.
        grad_sample_mode: for `DPTrainer` with ``unit="record"``.
    """

    network: nn.Module
    changes: tuple[str, ...]
    grad_sample_mode: GradSampleMode


def make_dp_compatible(network: nn.Module) -> DPCompatible:
    """Turn a MONAI or torch network into one whose per-sample gradients exist and can be taken.

    - Batch normalization becomes group normalization with as many groups, up to 32 and of two channels or more, as
      divide the channels; its weight, bias and eps are kept, its running statistics, which are of private data, go.
      Instance normalization loses running statistics.
    - Activations and dropout no longer work in place, and ``x += y`` in a block becomes ``x = x + y`` (by `torch.fx`).

    All other weights stay as they are, under their names. The network that was given is left alone.

    Args:
        network: any module.

    Returns:
        The changed copy, what was changed, and the grad-sample mode that works for it.

    Raises:
        ValueError: a block works in place in a way that cannot be traced.

    >>> from monai.networks.nets import resnet18
    >>> compatible = make_dp_compatible(resnet18(spatial_dims=2, n_input_channels=1, num_classes=2))
    >>> for change in compatible.changes:
    ...     print(change)
    20 batch normalizations became group normalizations (weights kept, running statistics dropped), first: bn1.
    9 activations or dropouts no longer work in place, first: act.
    8 blocks add without changing a tensor in place, first: layer1.0.
    """
    holder = nn.Sequential(deepcopy(network))  # so that the network itself can be replaced
    done = {
        "batch normalizations became group normalizations (weights kept, running statistics dropped)": _replace(
            holder, _group_norm
        ),
        "instance normalizations lost their running statistics": _replace(holder, _instance_norm),
        "activations or dropouts no longer work in place": _replace(holder, _not_in_place),
        "blocks add without changing a tensor in place": _replace(holder, _traced),
    }
    changes = tuple(f"{len(names)} {what}, first: {names[0]}." for what, names in done.items() if names)
    return DPCompatible(holder[0], changes, pick_grad_sample_mode(holder, "record"))


def pick_grad_sample_mode(network: nn.Module, unit: Unit) -> GradSampleMode:
    """The way to per-sample gradients that suits a network.

    Opacus' layer rules are the quickest: "ghost", on norms alone, where linear layers hold most of the weights, and
    "hooks" otherwise. They cannot follow learned wavelet filters and ignore a convolution's ``padding_mode``; for
    these "functorch" vectorises the whole network.

    Args:
        network: to train.
        unit: "record" or "patient".

    >>> pick_grad_sample_mode(nn.Linear(2, 2), "record")
    'ghost'
    >>> pick_grad_sample_mode(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), "record")
    'functorch'
    """
    if any(_beyond_hooks(module) for module in network.modules()):
        return "functorch"
    linear = sum(_weights(module) for module in network.modules() if isinstance(module, nn.Linear))
    return "ghost" if unit == "record" and 2 * linear > _weights(network) else "hooks"


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def _beyond_hooks(module: nn.Module) -> bool:
    if isinstance(module, Codec):
        return any(parameter.requires_grad for parameter in module.parameters())
    return getattr(module, "padding_mode", "zeros") != "zeros"


def _replace(holder: nn.Sequential, make: Callable[[str, nn.Module], nn.Module | None]) -> list[str]:
    """Put in place of each module what `make` gives for it, if anything; the names of those replaced."""
    replaced = []
    for path, module in list(holder.named_modules()):
        name = path.partition(".")[2] or "the network itself"
        new = make(name, module) if path else None
        if new is not None:
            holder.set_submodule(path, new.train(module.training))
            replaced.append(name)
    return replaced


def _group_norm(name: str, module: nn.Module) -> nn.Module | None:
    if not isinstance(module, _BatchNorm):
        return None
    channels = module.num_features
    return _with_weights_of(module, nn.GroupNorm(group_count(channels, least=2), channels, module.eps, module.affine))


def _instance_norm(name: str, module: nn.Module) -> nn.Module | None:
    if not isinstance(module, _NormBase) or not module.track_running_stats:
        return None
    return _with_weights_of(module, type(module)(module.num_features, module.eps, affine=module.affine))


def _with_weights_of(old: nn.Module, new: nn.Module) -> nn.Module:
    state = old.state_dict()
    new.load_state_dict({name: state[name] for name in new.state_dict()})
    for name, parameter in new.named_parameters():
        parameter.requires_grad_(old.get_parameter(name).requires_grad)
    return new.to(next((value.device for value in state.values()), None))


def _not_in_place(name: str, module: nn.Module) -> nn.Module | None:
    if getattr(module, "inplace", False) is not True:
        return None
    module.inplace = False  # type: ignore[assignment]
    return module


class _InPlaceProxy(fx.Proxy):
    """Records ``x += y`` as what it is; torch's own proxy takes it for ``x + y``, wrong where x has another name."""

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __isub__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.isub, (self, other), {})

    def __imul__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})

    def __itruediv__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.itruediv, (self, other), {})


class _BlockTracer(fx.Tracer):
    """Follows one module's own forward, and takes its children as they are."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _InPlaceProxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _traced(name: str, module: nn.Module) -> nn.Module | None:
    """The module with nothing done in place in its own forward; None where it does nothing in place."""
    if not isinstance(module, fx.GraphModule) and not _writes_in_place(type(module)):
        return None
    try:
        graph = module.graph if isinstance(module, fx.GraphModule) else _BlockTracer().trace(module)
    except Exception as error:  # a trace runs the module's own code, which may raise anything
        raise ValueError(
            f"network: {name} ({type(module).__name__}) changes a tensor in place, which per-sample gradients do not "
            f"survive, and cannot be traced to mend it ({type(error).__name__}). Write x = x + y instead of x += y."
        ) from error
    changed = [_take_out_of_place(graph, node) for node in list(graph.nodes) if _is_in_place(node)]
    return fx.GraphModule(module, graph, type(module).__name__) if changed else None


def _writes_in_place(cls: type[nn.Module]) -> bool:
    """Whether the source of a module's forward has ``x += y``, ``x.add_(y)`` or ``inplace=True``."""
    if cls.__module__.startswith("torch."):
        return False
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls.forward)))
    except (OSError, TypeError):
        return False
    return any(
        isinstance(node, ast.AugAssign)
        or (isinstance(node, ast.Attribute) and node.attr.endswith("_") and not node.attr.endswith("__"))
        or (isinstance(node, ast.keyword) and node.arg == "inplace")
        for node in ast.walk(tree)
    )


def _is_in_place(node: fx.Node) -> bool:
    if node.op == "call_method":
        return str(node.target).endswith("_") and not str(node.target).endswith("__")
    return node.op == "call_function" and (node.target in _OUT_OF_PLACE or bool(node.kwargs.get("inplace")))


def _take_out_of_place(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """Compute a new tensor, and let all that comes after use it where it used the one that was changed."""
    changed = node.args[0]
    if node.op == "call_method":
        node.target = str(node.target)[:-1]
    elif "inplace" in node.kwargs:
        node.kwargs = {**node.kwargs, "inplace": False}
    else:
        node.target = _OUT_OF_PLACE[node.target]
    if isinstance(changed, fx.Node):
        order = {other: place for place, other in enumerate(graph.nodes)}
        changed.replace_all_uses_with(node, delete_user_cb=lambda user: order[user] > order[node])
    return node

"""What `attribute` accepts, and the state that a network must be in meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from monai_deepfixcx.attribution.methods import METHODS
from monai_deepfixcx.codecs import Codec
from monai_deepfixcx.networks import PrivatizedNetwork

Target = int | Sequence[int] | Tensor | None


def check_codes(codes: Tensor, codec: Codec, spatial_shape: Sequence[int], fingerprint: str | None) -> None:
    """Refuse codes that the codec cannot have made.

    Raises:
        ValueError: another codec's fingerprint, another length, no code, or values that are not finite.
    """
    if fingerprint is not None and fingerprint != codec.fingerprint():
        raise ValueError(
            f"codes were made by another codec: their fingerprint is {fingerprint[:12]}..., this codec's "
            f"{codec.fingerprint()[:12]}.... Use the codec of the store (CodeStore.codec), or encode the images again."
        )
    expected = codec.code_length(spatial_shape)
    if codes.ndim != 3 or codes.shape[-1] != expected or not len(codes):
        raise ValueError(
            f"codes must have shape [B, C, {expected}] with B of at least 1 for "
            f"{'x'.join(map(str, spatial_shape))} images; got {list(codes.shape)}. Was the code made by another codec, "
            "or from images of another size?"
        )
    finite = codes.isfinite().flatten(1).all(1)
    if not finite.all():
        wrong = (~finite).nonzero().flatten().tolist()
        raise ValueError(
            f"codes must be finite; got NaN or infinity in {len(wrong)} of {len(codes)}, first in code {wrong[0]}. "
            "Check the images that were encoded."
        )


def check_network_codec(network: nn.Module, codec: Codec) -> None:
    """Refuse a network built around another codec.

    Raises:
        ValueError: the fingerprints differ.
    """
    for module in network.modules():
        if isinstance(module, PrivatizedNetwork) and module.codec.fingerprint() != codec.fingerprint():
            raise ValueError(
                f"network was built for codes of {module.codec.config()}, codec is {codec.config()}. "
                "Give network.codec as codec, and codes that it made."
            )


def output_of(network: nn.Module, codes: Tensor, target: Target, method: str) -> Tensor | None:
    """Try the network on one code: the output that `target` names for each code, as int64 ``[B]``.

    Returns:
        `None` for a network with a single output.

    Raises:
        ValueError: outputs of another shape than ``[B]`` or ``[B, L]``, a target that does not fit them, or a
            gradient-based method for a network without gradients.
    """
    with torch.no_grad():
        outputs = network(codes[:1])
    if not isinstance(outputs, Tensor) or outputs.shape[:1] != (1,) or outputs.ndim > 2:
        shape = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"network must give outputs [B] or [B, L]; got {shape} for one code.")
    count = outputs.numel()
    single = targets_of(target, len(codes), count, codes.device)
    if METHODS[method].gradient:
        _need_gradient(network, codes[:1], method)
    return single if outputs.ndim == 2 else None


def targets_of(target: Target, batch: int, count: int, device: torch.device) -> Tensor:
    """The output to explain for each of `batch` inputs, int64 ``[B]``, out of `count`.

    Raises:
        ValueError: no target where there are several outputs, or one that is not an index of them.
    """
    if target is None:
        if count > 1:
            raise ValueError(f"target must name one of the network's {count} outputs, 0 to {count - 1}; got None.")
        target = 0
    targets = torch.as_tensor(target).detach().as_subclass(Tensor).to(device)
    if targets.is_floating_point() or targets.dtype == torch.bool or targets.shape not in ((), (batch,)):
        raise ValueError(
            f"target must be an integer, or one for each of the {batch} codes; got {targets.dtype} of shape "
            f"{list(targets.shape)}."
        )
    wrong = targets[(targets < 0) | (targets >= count)]
    if wrong.numel():
        raise ValueError(f"target must be from 0 to {count - 1}, one of the network's outputs; got {int(wrong[0])}.")
    return targets.long().expand(batch)


def _need_gradient(network: nn.Module, code: Tensor, method: str) -> None:
    without = ", ".join(name for name, entry in METHODS.items() if not entry.gradient)
    message = (
        f"method={method!r} needs a network whose output has a gradient with respect to the code; this one has none. "
        f"Use {without}."
    )
    try:
        outputs = network(code.clone().requires_grad_())
    except RuntimeError as error:  # torch's word for .numpy() on a tensor with a gradient
        raise ValueError(message) from error
    if not outputs.requires_grad:
        raise ValueError(message)


def check_finite(code: Tensor, method: str) -> None:
    """Refuse attributions that are not finite.

    Raises:
        ValueError: one is not.
    """
    finite = code.isfinite().flatten(1).all(1)
    if not finite.all():
        raise ValueError(
            f"method={method!r} gave NaN or infinity for {int((~finite).sum())} of {len(code)} codes. Check the "
            "network's weights and the scale of the codes."
        )


@contextmanager
def explaining(network: nn.Module) -> Iterator[None]:
    """A network in evaluation mode, on codes, with gradients whatever surrounds it; as it was afterwards."""
    training = [(module, module.training) for module in network.modules()]
    inputs = [(module, module.inputs) for module in network.modules() if isinstance(module, PrivatizedNetwork)]
    try:
        network.eval()
        for module, _ in inputs:
            module.inputs = "codes"
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for one, mode in training:
            one.training = mode
        for module, taken in inputs:
            module.inputs = taken

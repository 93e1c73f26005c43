"""Attribution for networks on images: MONAI's visualization methods, on the privatized image.

Sources: Grad-CAM: Selvaraju et al., arXiv:1610.02391. Grad-CAM++: Chattopadhyay et al., arXiv:1710.11063. Occlusion:
Zeiler and Fergus, arXiv:1311.2901.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from monai.visualize.class_activation_maps import GradCAM, GradCAMpp
from monai.visualize.occlusion_sensitivity import OcclusionSensitivity
from torch import Tensor, nn

from monai_deepfixcx.attribution.inputs import Target, check_finite, explaining, targets_of
from monai_deepfixcx.networks import PrivatizedNetwork


def attribute_image(
    network: nn.Module,
    images: Tensor,
    method: str = "gradcam",
    target: Target = None,
    layer: str | None = None,
    *,
    progress: bool = False,
    **options: Any,
) -> Tensor:
    """Where in a privatized image a network on images looks, through `monai.visualize`.

    Args:
        network: takes images ``[B, C, *S]`` and gives ``[B, L]``, or a `PrivatizedNetwork` that feeds one. A copy is
            used: hooks, gradients and modes of the one given stay as they are.
        images: *privatized* images ``[B, C, *S]``, as the codec decodes them and the network sees them. Never give the
            original: the map would be drawn from it.
        method: "gradcam", "gradcam++" or "occlusion".
        target: the output to explain, or one for each image; `None` if there is only one.
        layer: the module whose activations Grad-CAM weighs, by its name in the network (for a `PrivatizedNetwork`, in
            its inner network); by default the last one with more than one pixel that is called once.
        progress: draw a progress bar, for "occlusion".
        **options: of `monai.visualize.OcclusionSensitivity`, for "occlusion".

    Returns:
        Plain maps ``[B, 1, *S]`` on the images' device, not normalized. Grad-CAM: what speaks for the target, from 0
        up. Occlusion: how far the output falls (in its units) when what lies around a pixel is left out.

    Raises:
        ValueError: an unknown method, layer or target, images or maps that are not finite, a network that takes codes,
            or options that the method does not have.

    >>> from monai_deepfixcx.networks import privatized_cnn
    >>> codec = {"codec": "deepfixcx", "levels": 2, "patch_size": 5}
    >>> network = privatized_cnn(codec, (64, 64), out_channels=3, backbone="resnet18", feed="image")
    >>> privatized = network.codec(torch.rand(2, 1, 64, 64))
    >>> attribute_image(network, privatized, "gradcam", target=1).shape
    torch.Size([2, 1, 64, 64])
    """
    if method not in IMAGE_METHODS:
        raise ValueError(f"method must be one of {', '.join(IMAGE_METHODS)}; got {method!r}.")
    if method != "occlusion" and options:
        raise ValueError(f"method={method!r} has no option {sorted(options)[0]!r}; it has only layer.")
    plain = images.detach().as_subclass(Tensor)
    if plain.ndim < 3 or not len(plain) or not plain.isfinite().all():
        raise ValueError(
            f"images must be finite, [B, C, *S] with B of at least 1; got {list(plain.shape)}"
            f"{'' if plain.isfinite().all() else ' with NaN or infinity'}."
        )
    used = _on_images(copy.deepcopy(network))
    with explaining(used):
        like = next(used.parameters())
        inputs = plain.to(like, copy=True)
        with torch.no_grad():
            outputs = used(inputs[:1])
        if not isinstance(outputs, Tensor) or outputs.ndim != 2:
            raise ValueError("network must give outputs [B, L] for images.")
        targets = targets_of(target, len(inputs), outputs.shape[1], inputs.device)
        maps = inputs.new_zeros((len(inputs), 1, *inputs.shape[2:]))
        for index in targets.unique().tolist():
            chosen = targets == index
            maps[chosen] = IMAGE_METHODS[method](used, inputs[chosen], index, layer, progress, options).detach()
    check_finite(maps, method)
    return maps.to(images.device)


def _gradcam(kind: type[GradCAM]) -> Callable[..., Tensor]:
    def maps(
        network: nn.Module, images: Tensor, target: int, layer: str | None, progress: bool, options: dict[str, Any]
    ) -> Tensor:
        name = _named(network, layer) if layer is not None else _last_spatial_layer(network, images[:1])
        # MONAI's own post-processing turns the map over and stretches each to [0, 1]: maps could not be compared.
        cam = kind(copy.deepcopy(network), name, postprocessing=lambda values: values)
        return cam(images, class_idx=target).as_subclass(Tensor)

    return maps


def _occlusion(
    network: nn.Module, images: Tensor, target: int, layer: str | None, progress: bool, options: dict[str, Any]
) -> Tensor:
    settings = {"mask_size": max(2, min(images.shape[2:]) // 10), "activate": False, "verbose": progress, **options}
    try:
        occluder = OcclusionSensitivity(network, **settings)
    except TypeError as error:
        raise ValueError(f'method="occlusion" has other options, those of OcclusionSensitivity: {error}') from error
    parts = []
    for image in images.split(1):
        with torch.no_grad():
            left, _ = occluder(image)
            parts.append(network(image)[:, target].reshape(1, *[1] * (images.ndim - 1)) - left[:, [target]])
    return torch.cat(parts).as_subclass(Tensor)


IMAGE_METHODS: dict[str, Callable[..., Tensor]] = {
    "gradcam": _gradcam(GradCAM),
    "gradcam++": _gradcam(GradCAMpp),
    "occlusion": _occlusion,
}


class _Enlarging(nn.Module):
    """The image network inside a `PrivatizedNetwork`, behind its enlargement of small images."""

    def __init__(self, outer: PrivatizedNetwork) -> None:
        super().__init__()
        self.network = outer.network
        self.outer = [outer]  # in a list, so that its modules do not count twice

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.outer[0]._enlarged(images))


def _on_images(network: nn.Module) -> nn.Module:
    if not isinstance(network, PrivatizedNetwork):
        return network
    if network.feed == "code":
        raise ValueError("network takes codes, not images; explain it with attribute, and draw that attribution.")
    return _Enlarging(network)


def _named(network: nn.Module, layer: str) -> str:
    name = f"network.{layer}" if isinstance(network, _Enlarging) else layer
    known = dict(network.named_modules())
    if name not in known:
        last = ", ".join(key.removeprefix("network.") for key in list(known)[-5:])
        raise ValueError(f"layer must be the name of a module of the network, such as {last}; got {layer!r}.")
    return name


def _last_spatial_layer(network: nn.Module, image: Tensor) -> str:
    """The module that is last to give a map of more than one pixel, of those called once."""
    calls: dict[str, int] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == image.ndim and output[0, 0].numel() > 1:
                count = calls.pop(name, 0)
                calls[name] = count + 1

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in network.named_modules() if name]
    with torch.no_grad():
        network(image)
    for handle in handles:
        handle.remove()
    once = [name for name, count in calls.items() if count == 1]
    if not once:
        raise ValueError("network has no module that gives a map of more than one pixel; Grad-CAM needs one.")
    return once[-1]

"""Heads for codes that differential privacy can train, normalized without a look at private data."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from monai_deepfixcx.codecs import HeartSpotCodec
from monai_deepfixcx.data.phantom import PhantomRadiographs
from monai_deepfixcx.data.phantom_ct import PhantomVolumes
from monai_deepfixcx.dp import make_dp_compatible
from monai_deepfixcx.networks import PrivatizedNetwork, privatized_heartspot_mlp, privatized_mlp
from monai_deepfixcx.networks.builders import CodecLike
from monai_deepfixcx.networks.privatized_network import Inputs, as_codec


def publicly_normalized_mlp(
    codec: CodecLike,
    spatial_shape: Sequence[int],
    in_channels: int = 1,
    out_channels: int = 1,
    inputs: Inputs = "images",
    width: int = 64,
    depth: int = 1,
    public_patients: int = 100,
    public_seed: int = 1000,
) -> PrivatizedNetwork:
    """A codec and a `CodeMLP` whose whitening is fitted on SYNTHETIC images, so that it costs no privacy.

    Code values differ in scale by orders of magnitude, and statistics of the training data would be private. Those of
    the phantom are public: they are drawn from random numbers. For photographs or images unlike it, whiten by public
    images of your own instead.

    Args:
        codec: a codec or its configuration.
        spatial_shape: of the images, all sides equal: 64 to 512 pixels, or at least 16 voxels.
        in_channels: C of the images; the phantom's one channel is repeated.
        out_channels: number of logits.
        inputs: "images" or "codes".
        width: of the hidden layers.
        depth: number of hidden layers.
        public_patients: synthetic patients to whiten by.
        public_seed: of the phantom; patients of another seed than any that is trained on.

    Raises:
        ValueError: a spatial shape whose sides differ, or what the phantom refuses.

    >>> codec = {"codec": "deepfixcx", "levels": 2, "patch_size": 8}
    >>> network = publicly_normalized_mlp(codec, (64, 64), out_channels=2, public_patients=4)
    >>> network(torch.rand(3, 1, 64, 64)).shape
    torch.Size([3, 2])
    """
    if len(set(spatial_shape)) != 1:
        raise ValueError(f"spatial_shape must have equal sides, as the phantom has; got {list(spatial_shape)}.")
    network = privatized_mlp(
        codec, spatial_shape, in_channels, out_channels, width=width, depth=depth, normalization="whiten"
    )
    images = _public_images(len(spatial_shape), int(spatial_shape[0]), public_patients, public_seed)
    network.fit_normalization([images.expand(-1, in_channels, *spatial_shape)])
    network.inputs = inputs
    return network


def dp_head(
    codec: CodecLike,
    spatial_shape: Sequence[int],
    in_channels: int = 1,
    out_channels: int = 1,
    inputs: Inputs = "images",
    **head: Any,
) -> PrivatizedNetwork:
    """The head of the bundle that has this codec, its batch normalization turned into group normalization.

    For ``configs/dp.yaml``, which puts it in place of the bundle's own head under the same arguments.

    Args:
        codec: a codec or its configuration.
        spatial_shape: of the images.
        in_channels: C of the images.
        out_channels: number of logits.
        inputs: "images" or "codes".
        head: of `privatized_heartspot_mlp` for a HeartSpot codec, else of `privatized_mlp`.

    >>> network = dp_head({"codec": "deepfixcx", "levels": 2, "patch_size": 8}, (64, 64), normalization="batchnorm")
    >>> type(network.network.normalization.batchnorm).__name__
    'GroupNorm'
    """
    codec = as_codec(codec)
    build = privatized_heartspot_mlp if isinstance(codec, HeartSpotCodec) else privatized_mlp
    network = make_dp_compatible(build(codec, spatial_shape, in_channels, out_channels, inputs, **head)).network
    if not isinstance(network, PrivatizedNetwork):
        raise TypeError(f"make_dp_compatible must keep a PrivatizedNetwork; got {type(network).__name__}.")
    return network


@functools.lru_cache(maxsize=4)
def _public_images(spatial_dims: int, size: int, patients: int, seed: int) -> Tensor:
    """Synthetic images ``[N, 1, *S]``; pure, and asked for by every network of a sweep."""
    if spatial_dims == 3:
        volumes = PhantomVolumes(patients, size, seed)
        return torch.stack([volumes[index]["image"] for index in range(len(volumes))])
    return PhantomRadiographs(patients, 1, size, seed).arrays()["images"]

"""Fused encoders, equal to the torch path but for rounding, for when no gradient is needed."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from monai_deepfixcx.codecs.kernels.gpu import encode_haar_gpu, gpu_works
from monai_deepfixcx.codecs.kernels.haar import encode_haar
from monai_deepfixcx.codecs.kernels.packets import encode_packets
from monai_deepfixcx.codecs.kernels.windows import window_quantiles

__all__ = ["encode_haar", "encode_haar_gpu", "encode_packets", "gpu_takes", "takes", "window_quantiles"]

_DTYPES = frozenset([torch.float32, torch.float64, torch.uint8, torch.uint16, torch.int16])
_GPU_DTYPES = _DTYPES | {torch.float16, torch.bfloat16}


def takes(images: Tensor) -> bool:
    """Whether a compiled encoder can read these images: values in CPU memory, and nobody who records what is done.

    >>> takes(torch.zeros(1)), takes(torch.zeros(1, requires_grad=True))
    (True, False)
    """
    if not images.is_cpu or images.dtype not in _DTYPES or images.numel() == 0:
        return False
    return not _recorded(images)


def gpu_takes(images: Tensor, features: Sequence[str]) -> bool:
    """Whether `encode_haar_gpu` can encode these images: values on a GPU that Triton serves, not recorded, no median.

    >>> gpu_takes(torch.zeros(1, 1, 2, 2), ["l1"])
    False
    """
    readable = images.is_cuda and images.dtype in _GPU_DTYPES
    if not readable or images.numel() == 0 or "median" in features or _recorded(images):
        return False
    return gpu_works(images.device)


def _recorded(images: Tensor) -> bool:
    """Whether somebody records or traces what is done with these images."""
    recorded = images.requires_grad and torch.is_grad_enabled()
    traced = torch.compiler.is_compiling() or torch._C._is_tracing() or isinstance(images, FakeTensor)
    return recorded or traced or torch._C._are_functorch_transforms_active()

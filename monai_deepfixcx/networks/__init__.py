"""Heads for codes and images, those fit for differentially private training among them, and a codec before each."""

from monai_deepfixcx.networks.builders import (
    privatized_cnn,
    privatized_code_cnn,
    privatized_heartspot_mlp,
    privatized_mlp,
)
from monai_deepfixcx.networks.code_cnn import CodeCNN
from monai_deepfixcx.networks.code_mlp import CodeMLP, FeatureWeights
from monai_deepfixcx.networks.heartspot_mlp import HeartSpotMLP
from monai_deepfixcx.networks.normalization import CodeNormalization, CodeStatistics
from monai_deepfixcx.networks.privatized_network import PrivatizedNetwork
from monai_deepfixcx.networks.resnet import PerSampleResNet, ResNet9, VolumetricResNet18

__all__ = [
    "CodeCNN",
    "CodeMLP",
    "CodeNormalization",
    "CodeStatistics",
    "FeatureWeights",
    "HeartSpotMLP",
    "PerSampleResNet",
    "PrivatizedNetwork",
    "ResNet9",
    "VolumetricResNet18",
    "privatized_cnn",
    "privatized_code_cnn",
    "privatized_heartspot_mlp",
    "privatized_mlp",
]

"""The two methods, DeepFixCX and HeartSpot, as differentiable modules."""

from monai_deepfixcx.codecs.base import Codec, ConstantCodec, IdentityCodec, codec_from_config
from monai_deepfixcx.codecs.deepfixcx import FEATURES, DeepFixCXCodec
from monai_deepfixcx.codecs.heartspot import HeartSpotCodec
from monai_deepfixcx.codecs.prefilters import median_pool, quadtree, quantile_pool
from monai_deepfixcx.codecs.priors import HEART
from monai_deepfixcx.codecs.wavelet_packet import InverseWaveletPacket, WaveletPacket

__all__ = [
    "FEATURES",
    "HEART",
    "Codec",
    "ConstantCodec",
    "DeepFixCXCodec",
    "HeartSpotCodec",
    "IdentityCodec",
    "InverseWaveletPacket",
    "WaveletPacket",
    "codec_from_config",
    "median_pool",
    "quadtree",
    "quantile_pool",
]

"""Privatize medical images into small lossy codes inside MONAI, and measure what an attacker can still get back.

Importing the package does no work: take what you need from ``monai_deepfixcx.codecs``,
``monai_deepfixcx.transforms`` and ``monai_deepfixcx.data``.
"""

__version__ = "0.1.0"

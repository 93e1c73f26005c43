"""Linkage attacks, weakest first: whose image was this code made of?"""

from monai_deepfixcx.attacks.reidentification.euclidean import EuclideanLinkage
from monai_deepfixcx.attacks.reidentification.features import FeatureLinkage
from monai_deepfixcx.attacks.reidentification.learned import LearnedLinkage
from monai_deepfixcx.attacks.reidentification.linkage import Against, LinkageAttack

__all__ = ["Against", "EuclideanLinkage", "FeatureLinkage", "LearnedLinkage", "LinkageAttack"]

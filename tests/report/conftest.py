"""A card made by real attacks on a small phantom."""

import pytest

from monai_deepfixcx.codecs import DeepFixCXCodec, HeartSpotCodec
from monai_deepfixcx.pipeline.attack import AttackSettings, attack_population
from monai_deepfixcx.pipeline.attack_data import Population, phantom_population
from monai_deepfixcx.report import Card

QUICK = ("MeanImage", "LinearMMSE", "LowPassThumbnail", "EuclideanLinkage")


@pytest.fixture(scope="session")
def population() -> Population:
    return phantom_population({"patients": 12, "visits": 2}, 64, seed=3)


@pytest.fixture(scope="session")
def card(population: Population) -> Card:
    codecs = [DeepFixCXCodec(2, 4), HeartSpotCodec("hline", (64, 64))]
    return attack_population(population, codecs, AttackSettings(QUICK, seed=1, samples=50, date="2026-11-21"))

"""The synthetic volumes: reproducible, without a patient in two parts, with a lesion that can be found."""

import pytest
import torch

from monai_deepfixcx.data.phantom_ct import PhantomVolumes, volume_parts
from monai_deepfixcx.metrics import auroc


def test_a_volume_follows_from_its_seed_and_patient_alone() -> None:
    many, one = PhantomVolumes(6, 24, seed=2), PhantomVolumes(1, 24, seed=2, first_patient=4)
    assert torch.equal(many[4]["image"], one[0]["image"])
    assert many[4]["patient"] == one[0]["patient"] == "PHANTOM-CT-000004"
    assert not torch.equal(many[4]["image"], PhantomVolumes(6, 24, seed=3)[4]["image"])
    image = many[0]["image"]
    assert image.shape == (1, 24, 24, 24)
    assert image.dtype == torch.float32
    assert 0 <= image.min() < image.max() <= 1


def test_parts_share_no_patient_and_hold_both_classes() -> None:
    parts = volume_parts(60, 16, seed=1)
    patients = [{item["patient"] for item in items} for items in parts.values()]
    assert [len(part) for part in patients] == [36, 9, 15]
    assert len(set.union(*patients)) == 60
    labels = torch.cat([item["label"] for items in parts.values() for item in items])
    assert 0.3 < labels.mean() < 0.7
    assert {item["sex"] for item in parts["training"]} == {"F", "M"}


def test_the_lesion_is_darker_than_the_pancreas() -> None:
    """Without contrast nothing tells the classes apart in the middle; with it, a threshold nearly does."""

    def found(contrast: float) -> float:
        phantom = PhantomVolumes(80, 24, seed=0, contrast=contrast)
        items = [phantom[index] for index in range(80)]
        middle = torch.stack([item["image"][0, 10:14, 10:14, 9:17].flatten().quantile(0.1) for item in items])
        return auroc(-middle, torch.cat([item["label"] for item in items]))

    assert found(300) > 0.8
    assert abs(found(0) - 0.5) < 0.2


def test_errors_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="size must be at least 16; got 8"):
        PhantomVolumes(2, 8)
    with pytest.raises(ValueError, match="patients must be at least 1; got 0"):
        PhantomVolumes(0)
    with pytest.raises(IndexError, match="index must be from 0 to 1; got 2"):
        PhantomVolumes(2, 16)[2]
    with pytest.raises(ValueError, match="fractions must add up to 1 and leave every part a patient"):
        volume_parts(10, 16, fractions=(0.9, 0.1, 0.0))

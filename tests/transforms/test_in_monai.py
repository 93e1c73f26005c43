"""Every codec transform in every way MONAI loops over data."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor, PersistentDataset, ThreadDataLoader
from monai.data.utils import pickle_hashing
from monai.transforms import Compose
from torch import Tensor

from monai_deepfixcx.transforms import DeepFixCXd, HeartSpotd, StripMetadatad
from tests.transforms.test_transforms import AFFINE, SIZE


@pytest.fixture(params=["deepfixcx", "heartspot"])
def pipeline(request: pytest.FixtureRequest) -> Compose:
    privatize = DeepFixCXd("image", 2, 3) if request.param == "deepfixcx" else HeartSpotd("image", "rhline", SIZE)
    return Compose([privatize])


class TestInMonai:
    """Every way MONAI loops over data gives the codec's own codes, bit for bit, in batches [B, C, D]."""

    @pytest.fixture
    def items(self) -> list[dict[str, Any]]:
        generator = torch.Generator().manual_seed(5)
        return [{"image": MetaTensor(torch.rand(2, *SIZE, generator=generator)), "label": n} for n in range(4)]

    def check(self, pipeline: Compose, items: list[dict[str, Any]], batches: Iterator[Any]) -> None:
        codes = torch.stack([pipeline(item)["image"] for item in items])
        loaded = list(batches)
        assert all(type(batch["image"]) is Tensor for batch in loaded)
        assert [tuple(batch["image"].shape) for batch in loaded] == [(2, *codes.shape[1:])] * 2
        assert torch.equal(torch.cat([batch["image"] for batch in loaded]), codes)
        assert torch.cat([batch["label"] for batch in loaded]).tolist() == [0, 1, 2, 3]

    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_data_loader(
        self, pipeline: Compose, items: list[dict[str, Any]], num_workers: int, track_meta: bool
    ) -> None:
        loader = DataLoader(Dataset(items, pipeline), batch_size=2, num_workers=num_workers)
        self.check(pipeline, items, iter(loader))

    def test_spawned_worker(self, items: list[dict[str, Any]]) -> None:
        """A spawned process gets the transform by pickle and imports everything anew."""
        pipeline = Compose([HeartSpotd("image", "rhline", SIZE, output="image"), DeepFixCXd("image", 2, 3)])
        loader = DataLoader(Dataset(items, pipeline), batch_size=2, num_workers=1, multiprocessing_context="spawn")
        self.check(pipeline, items, iter(loader))

    def test_cache_dataset(self, pipeline: Compose, items: list[dict[str, Any]]) -> None:
        dataset = CacheDataset(items, pipeline, num_workers=2, progress=False)
        self.check(pipeline, items, iter(DataLoader(dataset, batch_size=2)))

    def test_thread_data_loader(self, pipeline: Compose, items: list[dict[str, Any]]) -> None:
        loader = ThreadDataLoader(Dataset(items, pipeline), batch_size=2, num_workers=0)
        self.check(pipeline, items, iter(loader))

    def test_persistent_dataset(self, pipeline: Compose, items: list[dict[str, Any]], tmp_path: Path) -> None:
        for _ in range(2):
            dataset = PersistentDataset(items, deepcopy(pipeline), tmp_path, hash_transform=pickle_hashing)
            self.check(pipeline, items, iter(DataLoader(dataset, batch_size=2)))
        assert len(list(tmp_path.iterdir())) == 4, "the second data set must have found the first one's files"

    def test_an_image_in_a_persistent_dataset(self, tmp_path: Path) -> None:
        image = MetaTensor(torch.rand(1, *SIZE), affine=AFFINE, meta={"patient": "DOE^JANE"})
        for transform in (DeepFixCXd("image", 2, 3, output="image"), StripMetadatad("image")):
            folder = tmp_path / type(transform).__name__
            dataset = PersistentDataset([{"image": image}], transform, folder, track_meta=True)
            first, cached = dataset[0]["image"], dataset[0]["image"]
            assert torch.equal(first.as_tensor(), cached.as_tensor())
            assert torch.equal(first.affine, cached.affine)
            assert sorted(map(str, cached.meta)) == ["affine", "space"]

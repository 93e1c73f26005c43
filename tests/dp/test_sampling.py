"""Units are drawn as the accounting supposes, and no sample is lost or counted twice on the way to the network."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import CacheDataset, Dataset
from torch.utils.data import DataLoader, Subset, TensorDataset

from monai_deepfixcx.dp.randomness import secret_generator, secret_key
from monai_deepfixcx.dp.sampling import PoissonSampler, Unit, members_of, patients_of, poisson_loader, steps_per_epoch
from tests.dp.data import items


def singles(count: int) -> list[list[int]]:
    return [[index] for index in range(count)]


def test_every_unit_is_drawn_with_the_same_probability_and_independently() -> None:
    sampler = PoissonSampler(singles(20), 0.3, steps=4000, key=1)
    drawn = np.zeros((4000, 20))
    for step, indices in enumerate(sampler):
        drawn[step, indices] = 1
    # Binomial counts: 5 standard deviations for each unit, and for every pair.
    assert np.abs(drawn.mean(0) - 0.3).max() < 5 * np.sqrt(0.21 / 4000)
    correlations = np.corrcoef(drawn.T) - np.eye(20)
    assert np.abs(correlations).max() < 5 / np.sqrt(4000)
    sizes = drawn.sum(1)
    assert abs(sizes.var() - 20 * 0.21) < 0.5


def test_a_key_repeats_its_draws_and_another_does_not() -> None:
    one, same, other = (list(PoissonSampler(singles(50), 0.5, 5, key)) for key in (1, 1, 2))
    assert one == same != other
    sampler = PoissonSampler(singles(50), 0.5, 5, 1)
    assert list(sampler) == one
    assert sampler.step == 5
    assert list(sampler) != one, "the next epoch draws anew"


@given(st.integers(1, 4), st.integers(0, 20))
@settings(deadline=None, max_examples=20)
def test_processes_share_one_draw(world: int, key: int) -> None:
    members = [[0, 1], [2], [3, 4, 5], [6]]
    whole = list(PoissonSampler(members, 0.5, 3, key))
    shares = [list(PoissonSampler(members, 0.5, 3, key, rank, world)) for rank in range(world)]
    for step, indices in enumerate(whole):
        assert sorted(index for share in shares for index in share[step]) == indices


@given(
    sizes=st.lists(st.integers(1, 5), min_size=0, max_size=6),
    chunk=st.one_of(st.none(), st.integers(1, 7)),
)
@settings(deadline=None, max_examples=50)
def test_chunks_hold_every_sample_once_and_know_whose_it_is(sizes: list[int], chunk: int | None) -> None:
    ends = np.cumsum([0, *sizes]).tolist()
    members = [list(range(start, end)) for start, end in pairwise(ends)]
    data = Dataset([{"image": torch.tensor([float(index)])} for index in range(ends[-1])])
    if not members:
        return
    sampler = PoissonSampler(members, 1.0, 1, key=0)
    (chunks,) = list(poisson_loader(DataLoader(data, batch_size=2), sampler, "patient", chunk))
    assert torch.cat([c.data["image"].flatten() for c in chunks]).tolist() == list(range(ends[-1]))
    assert all(chunk is None or len(c.owners) <= chunk for c in chunks)
    total: list[int] = []
    going_on = False
    for c in chunks:
        counts = torch.bincount(c.owners, minlength=len(c.sizes)).tolist()
        if going_on:
            total[-1] += counts.pop(0)
        total += counts
        assert int(c.sizes[-1]) == sizes[len(total) - 1]
        going_on = c.continues
    assert total == sizes
    assert not going_on


def test_a_step_that_drew_nobody_is_an_empty_list() -> None:
    sampler = PoissonSampler(singles(4), 0.0, 3, key=0)
    loader = poisson_loader(DataLoader(Dataset(items(4)), batch_size=2), sampler, "record", None)
    assert list(loader) == [[], [], []]


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_and_collation_are_kept(workers: int) -> None:
    loader = DataLoader(CacheDataset(items(6), progress=False), batch_size=3, num_workers=workers)
    sampler = PoissonSampler(singles(6), 1.0, 2, key=0)
    for chunks in poisson_loader(loader, sampler, "record", 4):
        assert [len(chunk.data["image"]) for chunk in chunks] == [4, 2]
        assert chunks[0].data["patient"] == ["p0", "p1", "p2", "p3"]


def test_patients_are_told_by_the_datalist_without_loading() -> None:
    class Unread(Dataset):
        def __getitem__(self, index: int) -> None:  # type: ignore[override]
            raise AssertionError("an image was loaded")

    data = Unread(items(6, patients=2))
    assert members_of(data, "patient", "patient") == [[0, 2, 4], [1, 3, 5]]
    assert members_of(Subset(data, [1, 2, 3]), "patient", "patient") == [[0, 2], [1]]
    assert members_of(data, "record", "patient") == singles(6)


def test_data_that_name_no_patient_are_refused() -> None:
    tensors = TensorDataset(torch.zeros(3, 1))
    assert patients_of(tensors, "patient") is None
    assert patients_of(Dataset([{"image": 1}]), "patient") is None
    unit: Unit = "patient"
    with pytest.raises(ValueError, match=r'unit="patient" needs a MONAI dataset whose items.*TensorDataset'):
        members_of(tensors, unit, "patient")


def test_an_epoch_draws_every_unit_once_on_average() -> None:
    assert [steps_per_epoch(units, 8) for units in (1, 8, 9, 80)] == [1, 1, 2, 10]


def test_secrets_do_not_follow_the_global_seeds() -> None:
    drawn = []
    for _ in range(2):
        torch.manual_seed(0)
        drawn.append((secret_key(None), torch.randn(3, generator=secret_generator()).tolist()))
    assert drawn[0][0] != drawn[1][0]
    assert drawn[0][1] != drawn[1][1]
    assert secret_key(None) > 2**90, "128 bits"
    assert secret_key(7) == 7


def test_the_whole_state_of_a_secret_generator_is_random_and_its_noise_is_normal() -> None:
    # manual_seed alone fills it from 32 bits: seeds 2^32 apart give the same noise.
    twins = [torch.Generator().manual_seed(seed) for seed in (1, 1 + 2**32)]
    assert torch.equal(torch.rand(5, generator=twins[0]), torch.rand(5, generator=twins[1]))
    noise = torch.randn(100_000, generator=secret_generator(), dtype=torch.float64)
    assert abs(noise.mean()) < 5 / 316
    assert abs(noise.var() - 1) < 5 * (2 / 100_000) ** 0.5
    assert noise.unique().numel() == 100_000

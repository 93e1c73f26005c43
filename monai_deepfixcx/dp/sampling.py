"""Poisson sampling of records or patients from a dataset of dictionaries, split over processes and physical batches."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from monai.data import DataLoader
from torch import Tensor
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Dataset, Sampler, Subset

Unit = Literal["record", "patient"]


class Chunk(NamedTuple):
    """A physical batch: as many samples as go through the network at once.

    Attributes:
        data: the collated samples.
        owners: int64 ``[n]``, for each sample the position of its unit among the units of this chunk.
        sizes: int64 ``[units]``, how many samples each of these units has in all.
        continues: whether the last unit has further samples in the next chunk.
    """

    data: Any
    owners: Tensor
    sizes: Tensor
    continues: bool


class PoissonSampler(Sampler[list[int]]):
    """Draw every unit with the same probability, on its own, for every step: the sampling that the accounting is of.

    Step t of a key always draws the same units. In several processes all draw the same and each keeps its share,
    so that together they take the steps that one process would.

    Args:
        members: for each unit the indices of its records.
        sample_rate: probability with which a unit takes part in a step.
        steps: per epoch.
        key: of the random numbers; whoever knows it knows who took part.
        rank: this process's number.
        world_size: number of processes.

    Attributes:
        step: the next step, counted over all epochs.

    >>> sampler = PoissonSampler([[0, 1], [2], [3]], sample_rate=0.5, steps=3, key=0)
    >>> [len(indices) for indices in sampler]
    [1, 1, 1]
    """

    def __init__(
        self,
        members: Sequence[Sequence[int]],
        sample_rate: float,
        steps: int,
        key: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.members, self.sample_rate, self.steps, self.key = members, sample_rate, steps, key
        self.rank, self.world_size = rank, world_size
        self.step = 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(self.steps):
            units = self.draw(self.step)[self.rank :: self.world_size]
            self.step += 1
            yield [index for unit in units for index in self.members[unit]]

    def draw(self, step: int) -> list[int]:
        """The units that take part in a step, in all processes together, in ascending order."""
        generator = np.random.default_rng(np.random.SeedSequence(self.key, spawn_key=(step,)))
        return np.flatnonzero(generator.random(len(self.members)) < self.sample_rate).tolist()


def poisson_loader(loader: TorchDataLoader[Any], sampler: PoissonSampler, unit: Unit, chunk_size: int | None) -> Any:
    """The same data, workers and collation as `loader`, drawn by `sampler`; a step may be an empty list.

    Args:
        loader: whose batches and order are replaced.
        sampler: draws the steps.
        unit: "record", or "patient", of whose records a transform may make several samples.
        chunk_size: most samples of a chunk; None for all of a step at once.

    Returns:
        A MONAI DataLoader of lists of `Chunk`.
    """
    owner_of = {index: unit for unit, indices in enumerate(sampler.members) for index in indices}
    workers = loader.num_workers
    return DataLoader(
        _Owned(loader.dataset, owner_of),
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_Chunks(loader.collate_fn, unit, chunk_size),
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        prefetch_factor=loader.prefetch_factor if workers else None,
        persistent_workers=loader.persistent_workers,
        multiprocessing_context=loader.multiprocessing_context,
    )


def members_of(dataset: Any, unit: Unit, patient_key: str) -> list[list[int]]:
    """The units of a dataset, and the indices of each one's records.

    Args:
        dataset: of known length; for patients a MONAI dataset over dictionaries, or a Subset of one.
        unit: "record" or "patient".
        patient_key: where an item names its patient.

    Raises:
        ValueError: no patients can be told.
    """
    if unit == "record":
        return [[index] for index in range(len(dataset))]
    patients = patients_of(dataset, patient_key)
    if patients is None:
        raise ValueError(
            f'unit="patient" needs a MONAI dataset whose items are dictionaries with the key {patient_key!r}; got '
            f"{type(dataset).__name__}. Add the patient to every item of the datalist, or name another patient_key."
        )
    members: dict[Any, list[int]] = {}
    for index, patient in enumerate(patients):
        members.setdefault(patient, []).append(index)
    return list(members.values())


def patients_of(dataset: Any, patient_key: str) -> list[Any] | None:
    """Whose each item is, read from the datalist without loading an image; None where it does not say."""
    if isinstance(dataset, Subset):
        whole = patients_of(dataset.dataset, patient_key)
        return None if whole is None else [whole[index] for index in dataset.indices]
    items = getattr(dataset, "data", None)
    if not isinstance(items, Sequence) or len(items) != len(dataset):
        return None
    if not all(isinstance(item, Mapping) and patient_key in item for item in items):
        return None
    return [item[patient_key] for item in items]


def steps_per_epoch(units: int, batch_size: int) -> int:
    """Steps in which, on average, every unit takes part once (rounded up).

    >>> steps_per_epoch(100, 30)
    4
    """
    return max(1, math.ceil(units / batch_size))


class _Owned(Dataset[Any]):
    """A dataset that tells with each item whose it is."""

    def __init__(self, dataset: Any, owner_of: Mapping[int, int]) -> None:
        self.dataset, self.owner_of = dataset, owner_of

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        return self.owner_of[index], self.dataset[index]


class _Chunks:
    """Collates the samples of a step, in chunks, and keeps count of whose they are."""

    def __init__(self, collate: Callable[[list[Any]], Any], unit: Unit, size: int | None) -> None:
        self.collate, self.unit, self.size = collate, unit, size

    def __call__(self, items: list[tuple[int, Any]]) -> list[Chunk]:
        owners: list[int] = []
        samples: list[Any] = []
        for owner, item in items:
            crops = item if isinstance(item, list) else [item]
            if len(crops) != 1 and self.unit == "record":
                raise ValueError(
                    f"train_data_loader: a transform made {len(crops)} samples of one record, each of which would be "
                    "clipped on its own, so that the record counts for more than the one that is accounted. Make one "
                    'sample (num_samples=1), or train with unit="patient", which clips their joint gradient.'
                )
            owners += [owner] * len(crops)
            samples += crops
        size = self.size or max(len(samples), 1)
        sizes = {owner: owners.count(owner) for owner in set(owners)} if self.unit == "patient" else None
        chunks = []
        for start in range(0, len(samples), size):
            mine = owners[start : start + size]
            unique, position = np.unique(np.array(mine), return_inverse=True)
            # Units are drawn in ascending order, so that positions ascend and only the last one can go on.
            ends = owners[start + size : start + size + 1]
            chunks.append(
                Chunk(
                    self.collate(samples[start : start + size]),
                    torch.from_numpy(position),
                    torch.tensor([1 if sizes is None else sizes[owner] for owner in unique.tolist()]),
                    bool(ends) and ends[0] == mine[-1],
                )
            )
        return chunks

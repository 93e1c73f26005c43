"""Small data and trainers for the tests of this folder."""

from typing import Any

import torch
from monai.data import CacheDataset
from torch import Tensor, nn
from torch.utils.data import DataLoader

from monai_deepfixcx.dp import DPTrainer, PrivacyBudget

DIM = 6


def items(count: int = 40, patients: int = 10, seed: int = 0) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "image": torch.randn(DIM, generator=generator, dtype=torch.float64),
            "label": torch.rand(1, generator=generator).round().double(),
            "patient": f"p{index % patients}",
        }
        for index in range(count)
    ]


def loader(data: Any = None, batch_size: int = 8, **options: Any) -> DataLoader[Any]:
    dataset = data if hasattr(data, "__getitem__") and not isinstance(data, list) else None
    return DataLoader(
        CacheDataset(items() if data is None else data, progress=False) if dataset is None else dataset,
        batch_size=batch_size,
        **options,
    )


def linear(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(DIM, 4), nn.Tanh(), nn.Linear(4, 1)).double()


def budget(**options: Any) -> PrivacyBudget:
    return PrivacyBudget(**{"epsilon": 8.0, "delta": 1e-3, "accountant": "rdp", "epochs": 2, **options})


def trainer(
    network: nn.Module | None = None,
    data: Any = None,
    spend: PrivacyBudget | None = None,
    learning_rate: float = 0.5,
    batch_size: int = 8,
    **options: Any,
) -> DPTrainer:
    network = linear() if network is None else network
    optimizer = torch.optim.SGD(network.parameters(), lr=learning_rate)
    return DPTrainer(
        "cpu",
        options.pop("max_epochs", None),
        options.pop("train_data_loader", None) or loader(data, batch_size),
        network,
        optimizer,
        options.pop("loss_function", nn.BCEWithLogitsLoss()),
        spend or budget(),
        **{"seed": 3, **options},
    )


def flat(network: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])

"""MONAI's supervised evaluator, kept from reading what no budget accounts for."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from monai.engines import SupervisedEvaluator
from torch import nn
from torch.utils.data import DataLoader

from monai_deepfixcx.dp.sampling import patients_of
from monai_deepfixcx.dp.soundness import refuse_network, refuse_statistics


class DPEvaluator(SupervisedEvaluator):
    """Evaluate a network that was trained under differential privacy, on other patients than it was trained on.

    What reaches the prediction of a patient is then that patient and the network's noisy weights only: no running or
    fitted statistic of the training data, unless declared public, and no metric of the patients whom the guarantee is
    for. It does not cover the patients evaluated on: a metric, or a best epoch chosen by it, is theirs.

    Args:
        device: where to evaluate.
        val_data_loader: a DataLoader over a MONAI dataset of dictionaries that name their patients.
        network: as trained.
        trained_patients: whom the network was trained on.
        patient_key: where an item names its patient.
        public_statistics: see `DPTrainer`.
        options: further ones of SupervisedEvaluator: postprocessing, key_val_metric, val_handlers, ...

    Raises:
        ValueError: a patient who was trained on, data that do not name patients, or a network with statistics.

    >>> from monai.data import Dataset
    >>> loader = DataLoader(Dataset([{"image": torch.rand(4), "label": torch.ones(1), "patient": "b"}]))
    >>> evaluator = DPEvaluator("cpu", loader, nn.Linear(4, 1), trained_patients=["a"])
    >>> evaluator.run()
    >>> evaluator.state.output[0]["pred"].shape
    torch.Size([1])
    """

    def __init__(
        self,
        device: str | torch.device,
        val_data_loader: DataLoader[Any],
        network: nn.Module,
        trained_patients: Iterable[Any],
        patient_key: str = "patient",
        public_statistics: Sequence[str] = (),
        **options: Any,
    ) -> None:
        refuse_network(network, training=False)
        refuse_statistics(network, None, public_statistics)
        patients = patients_of(val_data_loader.dataset, patient_key)
        if patients is None:
            raise ValueError(
                f"val_data_loader: its dataset must be a MONAI dataset whose items are dictionaries with the key "
                f"{patient_key!r}, so that those who were trained on can be told. Name another patient_key."
            )
        if shared := set(patients) & set(trained_patients):
            raise ValueError(
                f"val_data_loader holds {len(shared)} of the patients that the network was trained on: a metric of "
                "theirs is a statistic of private records that no budget accounts for. Split by patient."
            )
        super().__init__(device=torch.device(device), val_data_loader=val_data_loader, network=network, **options)

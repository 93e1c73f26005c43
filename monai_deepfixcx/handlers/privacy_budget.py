"""Keeps an eye on what differentially private training costs."""

from __future__ import annotations

from ignite.engine import Engine, Events

from monai_deepfixcx.dp.trainer import DPTrainer


class PrivacyBudgetHandler:
    """Logs epsilon after every epoch of a `DPTrainer`, and ends training before the budget is passed.

    `engine.state.metrics` then holds ``epsilon`` and ``delta``. Without it a trainer whose next step would pass the
    budget raises an error; with it, training ends after the last step that fits.

    Args:
        log: write a line per epoch; on all but the first process leave it out.

    >>> import torch
    >>> from monai.data import DataLoader, Dataset
    >>> from monai_deepfixcx.dp import PrivacyBudget
    >>> loader = DataLoader(Dataset([{"image": torch.rand(4), "label": torch.ones(1)}] * 40), batch_size=8)
    >>> network, loss = torch.nn.Linear(4, 1), torch.nn.BCEWithLogitsLoss()
    >>> budget = PrivacyBudget(epsilon=4, delta=1e-3, noise_multiplier=1.0, accountant="rdp")
    >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    >>> trainer = DPTrainer(
    ...     "cpu", 100, loader, network, optimizer, loss, budget, train_handlers=[PrivacyBudgetHandler()]
    ... )
    >>> trainer.run()
    >>> 3.5 < trainer.state.metrics["epsilon"] <= 4, trainer.state.epoch < 100
    (True, True)
    """

    def __init__(self, log: bool = True) -> None:
        self.log = log

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer.

        Args:
            engine: a `DPTrainer`.

        Raises:
            TypeError: another engine, which spends no budget.
        """
        if not isinstance(engine, DPTrainer):
            raise TypeError(f"engine must be a DPTrainer; got {type(engine).__name__}, which accounts for nothing.")
        engine.add_event_handler(Events.STARTED | Events.EPOCH_STARTED | Events.ITERATION_COMPLETED, self._stop_in_time)
        engine.add_event_handler(Events.EPOCH_COMPLETED | Events.TERMINATE, self._report)

    def _stop_in_time(self, engine: DPTrainer) -> None:
        last = engine.state.max_epochs * engine.sampler.steps
        if engine.steps_left() == 0 and engine.state.iteration < last:
            engine.logger.warning(
                "Training ends at step %d of %d: another step would pass epsilon %g at delta %g.",
                engine.state.iteration,
                last,
                engine.budget.epsilon,
                engine.budget.delta,
            )
            engine.terminate()

    def _report(self, engine: DPTrainer) -> None:
        epsilon, accountant = engine.spent()
        engine.state.metrics.update(epsilon=epsilon, delta=engine.budget.delta)
        if self.log:
            engine.logger.info(
                "Privacy spent after epoch %d: epsilon %.3f at delta %g per %s (%s accountant).",
                engine.state.epoch,
                epsilon,
                engine.budget.delta,
                engine.unit,
                accountant.upper(),
            )

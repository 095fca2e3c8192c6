"""The learning rate over the epochs: a function of the epoch, the batch and the losses so far, so it can be resumed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from lightning.pytorch import Callback, LightningModule, Trainer

from models.settings import ScheduleSettings, TrainingSettings

_FLOOR = 0.01  # the share of the rate that is left at the end of a cosine schedule
_RISE = 0.3  # one_cycle: the part of the training in which the rate rises ...
_START = 1 / 25  # ... from this share of it, as in a warm-up
_END = _START / 1e4  # one_cycle: the share that is left at the end
_BETTER = 1e-4  # reduce_on_plateau: a loss has fallen when it is lower by more than this share of it


def share(settings: TrainingSettings, epoch: int, done: float, losses: Sequence[float]) -> float:
    """Return the share of the learning rate that holds at a moment of the training.

    Parameters
    ----------
    settings : TrainingSettings
        Schedule, warm-up and the number of epochs that they span, also where fewer are run.
    epoch : int
        From 0.
    done : float
        The part of this epoch's batches that lie behind; from 0, less than 1.
    losses : sequence of float
        What ``reduce_on_plateau`` watches: the loss of each epoch before.
    """
    warm = settings.warmup
    if epoch + done < warm:
        # In a straight line (Goyal et al. 2017).
        return _START + (1 - _START) * (epoch + done) / warm
    plan = settings.schedule
    if plan.name == "one_cycle":
        return _one_cycle((epoch + done) / settings.epochs)
    if plan.name == "cosine":
        part = min((epoch - warm) / max(settings.epochs - warm, 1), 1.0)
        return _between(1.0, _FLOOR, part)
    if plan.name == "step":
        return float(plan.factor ** ((epoch - warm) // plan.every))
    return _plateaus(plan, losses[warm:]) if plan.name == "reduce_on_plateau" else 1.0


def _between(a: float, b: float, part: float) -> float:
    """Go from ``a`` to ``b`` along half a cosine (Loshchilov and Hutter 2017)."""
    return b + (a - b) * 0.5 * (1 + math.cos(math.pi * part))


def _one_cycle(part: float) -> float:
    """Rise, then fall to nearly nothing (Smith and Topin 2018), along cosines as torch's `OneCycleLR` does."""
    if part < _RISE:
        return _between(_START, 1.0, part / _RISE)
    return _between(1.0, _END, min((part - _RISE) / (1 - _RISE), 1.0))


def _plateaus(plan: ScheduleSettings, losses: Sequence[float]) -> float:
    """Go through the losses from the start, as torch's `ReduceLROnPlateau` does one by one."""
    left, lowest, waited = 1.0, math.inf, 0
    for loss in losses:
        fallen = loss < lowest * (1 - _BETTER)
        lowest, waited = (loss, 0) if fallen else (lowest, waited + 1)
        if waited > plan.patience:
            left, waited = left * plan.factor, 0
    return left


class _Past(Protocol):
    """What has been: the figures of each epoch."""

    history: list[dict[str, float]]


class Rate(Callback):
    """Sets the learning rate of each batch.

    Parameters
    ----------
    settings : TrainingSettings
        Schedule and warm-up.
    past : object with ``history``
        Figures of the epochs so far, those before a resumption included.
    """

    def __init__(self, settings: TrainingSettings, past: _Past) -> None:
        self.settings = settings
        self.past = past

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002 - a hook
        batch: object,  # noqa: ARG002 - a hook
        batch_idx: int,
    ) -> None:
        """Set the rates of all optimisers to the share of what they started with."""
        # Without a validation fold the training loss is all there is to watch.
        losses = [figures.get("val_loss", figures["train_loss"]) for figures in self.past.history]
        left = share(self.settings, trainer.current_epoch, batch_idx / trainer.num_training_batches, losses)
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                # Kept in the checkpoint with the group, so a resumed training knows it.
                group["lr"] = left * group.setdefault("initial_lr", group["lr"])

"""What every training shares, whatever is learnt: the optimiser, penalties, and means over an epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics import Metric

from models.network import Network
from models.optimisers import optimizer, weights
from models.settings import TrainingSettings

Batch = dict[str, Tensor]


class LearningTask(LightningModule, ABC):
    """A network that learns by steps on batches.

    Batches are dictionaries: ``cube`` (B, T, C, H, W) float32, ``valid`` (B, T, H, W) bool, ``time`` (B, T) float32, and what
    the task needs beside them.

    Each epoch ends with ``train_loss`` and, where there is a validation fold, ``val_loss``: exact over the fold, whatever
    the batches.

    Parameters
    ----------
    network : Network
        What learns, and what is kept.
    settings : TrainingSettings
        Loss, optimiser and penalties. The schedule is set from outside, see `models.schedules`.
    centred : bool
        Whether a sample is a patch of which only the centre is asked for.
    """

    def __init__(self, network: Network, settings: TrainingSettings, *, centred: bool = False) -> None:
        super().__init__()
        self.network = network
        self.settings = settings
        self.centred = centred
        self.train_mean = Ratio()
        self.val_mean = Ratio()

    @abstractmethod
    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the summed loss of a batch and the sum of the weights in it; their ratio is the loss."""

    def samples(self, batch: Batch) -> int:
        """Return how many places are looked at in a batch, labelled or not: pixels, or the centres of patches."""
        return len(batch["valid"]) if self.centred else batch["valid"][:, 0].numel()

    def training_step(self, batch: Batch, index: int) -> Tensor | None:  # noqa: ARG002 - Lightning's signature
        """Return the loss of a batch; None, and no step, where nothing can be learnt from it."""
        # A single pixel has no variance that batch normalisation could take; it comes again in another batch.
        if self.samples(batch) < 2:
            return None
        total, weight = self.loss(batch)
        if not weight > 0:
            return None
        self.train_mean.update(total.detach(), weight)
        return total / weight + self.penalty()

    def penalty(self) -> Tensor:
        """Return what large weights cost in a step; ``train_loss`` does not hold it, to be comparable with ``val_loss``."""
        cost = torch.zeros((), device=self.device)
        if self.settings.l1:
            cost = cost + self.settings.l1 * torch.stack([w.abs().sum() for w in weights(self.network)]).sum()
        if self.settings.l2:
            cost = cost + self.settings.l2 * torch.stack([w.square().sum() for w in weights(self.network)]).sum()
        return cost

    def on_train_epoch_end(self) -> None:
        """Publish the mean loss of the epoch."""
        if self.train_mean.update_called:
            self.log("train_loss", self.train_mean.compute())
        self.train_mean.reset()

    def validation_step(self, batch: Batch, index: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Add a batch to the figures of the validation fold."""
        total, weight = self.loss(batch)
        if weight > 0:
            self.val_mean.update(total, weight)

    def on_validation_epoch_end(self) -> None:
        """Publish the figures of the validation fold."""
        if self.val_mean.update_called:
            self.log("val_loss", self.val_mean.compute())
        self.val_mean.reset()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser."""
        return optimizer(self.network, self.settings.optimizer)


class Ratio(Metric):
    """A sum over a sum of weights, over all batches and devices.

    `torchmetrics.MeanMetric` either drops values that are not numbers, by which a broken training must be seen, or
    (``nan_strategy="disable"``, torchmetrics 1.9) ignores the weights.
    """

    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("weight", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, total: Tensor, weight: Tensor) -> None:
        """Add a sum and its weight."""
        self.total += total
        self.weight += weight

    def compute(self) -> Tensor:
        """Return the ratio."""
        return (self.total / self.weight).float()

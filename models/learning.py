"""What every training shares, whatever is learnt: the optimiser, penalties, and means over an epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics import Metric

from models.network import Network
from models.optimisers import optimizer, weights
from models.ranks import Company
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
        self.company: Company | None = None
        # Of a step all ranks know the sums; of validation each knows its own.
        self.train_mean = Ratio(sync_on_compute=False)
        self.val_mean = Ratio()

    @abstractmethod
    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the summed loss of a batch and the sum of the weights in it; their ratio is the loss."""

    def samples(self, batch: Batch) -> int:
        """Return how many places are looked at in a batch, labelled or not: pixels, or the centres of patches."""
        return len(batch["valid"]) if self.centred else batch["valid"][:, 0].numel()

    def training_step(self, batch: Batch, index: int) -> Tensor | None:  # noqa: ARG002 - Lightning's signature
        """Return the loss of a batch; None, and no step, where nothing can be learnt from it."""
        if self.company is not None:
            return self._part(batch, self.company)
        # A single pixel has no variance that batch normalisation could take; it comes again in another batch.
        if self.samples(batch) < 2:
            return None
        total, weight = self.loss(batch)
        if not weight > 0:
            return None
        self.train_mean.update(total.detach(), weight)
        return total / weight + self.penalty()

    def _part(self, batch: Batch, company: Company) -> Tensor:
        """Return the loss of a rank's part of a batch.

        Gradients are averaged over ranks, of which each may have another number of labelled pixels, or none. So a part
        weighs as much as its labels: the mean is the gradient of the whole batch.
        """
        total, weight = self.loss(batch)
        whole, weights_ = company.sum(total.detach(), weight)
        self.train_mean.update(whole, weights_)
        # Where nobody has a label the step is made all the same, with no more than the penalty: every rank must take it.
        return total * (company.place.size / weights_ if weights_ > 0 else 0.0) + self.penalty()

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
        self._publish("train_loss", self.train_mean)

    def _publish(self, name: str, mean: Ratio) -> bool:
        """Log a mean over an epoch, and begin anew; return whether there is one, for nothing may have had a weight."""
        known = False
        if mean.update_called:
            total, weight = mean.compute()
            known = bool(weight > 0)
            if known:
                self.log(name, (total / weight).float())
        mean.reset()
        return known

    def validation_step(self, batch: Batch, index: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Add a batch to the figures of the validation fold."""
        # Also where no label is: all ranks add up their sums in the end, or one would wait for ever.
        self.val_mean.update(*self.loss(batch))

    def on_validation_epoch_end(self) -> None:
        """Publish the figures of the validation fold."""
        self._publish("val_loss", self.val_mean)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser."""
        return optimizer(self.network, self.settings.optimizer)


class Ratio(Metric):
    """A sum and the sum of its weights, over all batches and devices.

    `torchmetrics.MeanMetric` either drops values that are not numbers, by which a broken training must be seen, or
    (``nan_strategy="disable"``, torchmetrics 1.9) ignores the weights.
    """

    total: Tensor
    weight: Tensor

    def __init__(self, **options: bool) -> None:
        super().__init__(**options)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("weight", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, total: Tensor | float, weight: Tensor | float) -> None:
        """Add a sum and its weight."""
        self.total += total
        self.weight += weight

    def compute(self) -> Tensor:
        """Return the sum and its weight, (2,)."""
        return torch.stack([self.total, self.weight])

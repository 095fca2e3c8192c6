"""Lightning modules: what is learnt, step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCohenKappa,
    MulticlassF1Score,
    MulticlassJaccardIndex,
)

from models.losses import LOSSES, class_weights, labelled
from models.network import Network
from models.settings import OptimizerSettings, TrainingSettings

Batch = dict[str, Tensor]

# The share of the learning rate that is left at the end of a cosine schedule.
_FLOOR = 0.01


class ClassificationTask(LightningModule):
    """Learn classes from labelled pixels.

    Batches are dictionaries: ``cube`` (B, T, C, H, W) float32, ``valid`` (B, T, H, W) bool, ``time`` (B, T) float32,
    ``labels`` (B, H, W) int64 with `IGNORE` where there is no label.

    Each epoch ends with ``train_loss`` and, where there is a validation fold, ``val_loss``, ``val_overall``,
    ``val_kappa``, ``val_macro_f1`` and ``val_iou_<class index>``. All are exact over the fold, whatever the batches.

    Parameters
    ----------
    network : Network
        What learns.
    classes : int
        K.
    settings : TrainingSettings
        Loss, optimiser and schedule.
    counts : (K,) int
        Training pixels per class, for balanced weights.
    """

    class_weights: Tensor

    def __init__(
        self,
        network: Network,
        *,
        classes: int,
        settings: TrainingSettings,
        counts: Sequence[int] | np.ndarray[Any, Any],
    ) -> None:
        super().__init__()
        self.network = network
        self.settings = settings
        self.register_buffer("class_weights", class_weights(settings.loss, counts, classes), persistent=False)
        self.train_mean = _Ratio()
        self.val_mean = _Ratio()
        common: dict[str, Any] = {"num_classes": classes, "validate_args": False}
        self.val_figures = MetricCollection(
            {
                "overall": MulticlassAccuracy(average="micro", **common),
                "kappa": MulticlassCohenKappa(**common),
                "macro_f1": MulticlassF1Score(average="macro", **common),
                "iou": MulticlassJaccardIndex(average="none", **common),
            }
        )

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        scores, target = labelled(self.network(batch["cube"], batch["valid"], batch["time"]), batch["labels"])
        loss = LOSSES[self.settings.loss.name]
        total, weight = loss(scores.float(), target, self.class_weights, self.settings.loss.label_smoothing)
        return total, weight, scores, target

    def training_step(self, batch: Batch, index: int) -> Tensor | None:  # noqa: ARG002 - Lightning's signature
        """Return the loss of a batch; None, and no step, where nothing can be learnt from it."""
        # A single pixel has no variance that batch normalisation could take; it comes again in another batch.
        if batch["labels"].numel() < 2:
            return None
        total, weight, _, _ = self._loss(batch)
        if not weight > 0:
            return None
        self.train_mean.update(total.detach(), weight)
        return total / weight

    def on_train_epoch_end(self) -> None:
        """Publish the mean loss of the epoch."""
        if self.train_mean.update_called:
            self.log("train_loss", self.train_mean.compute())
        self.train_mean.reset()

    def validation_step(self, batch: Batch, index: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Add a batch to the figures of the validation fold."""
        total, weight, scores, target = self._loss(batch)
        if weight > 0:
            self.val_mean.update(total, weight)
            self.val_figures.update(scores.argmax(1), target)

    def on_validation_epoch_end(self) -> None:
        """Publish the figures of the validation fold; one that is undefined (a kappa of one class) is left out."""
        if not self.val_mean.update_called:
            return
        self.log("val_loss", self.val_mean.compute())
        for name, value in self.val_figures.compute().items():
            values = {f"val_{name}": value} if value.ndim == 0 else {f"val_{name}_{i}": v for i, v in enumerate(value)}
            self.log_dict({k: v for k, v in values.items() if torch.isfinite(v)})
        self.val_mean.reset()
        self.val_figures.reset()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser."""
        return _optimizer(self.network, self.settings.optimizer)

    def on_train_epoch_start(self) -> None:
        """Set the learning rate of the epoch.

        It is a function of the epoch alone, so a resumed training needs no state of a scheduler. The schedule spans
        `epochs`, also where fewer are run.
        """
        share = 1.0
        if self.settings.schedule == "cosine":
            done = min(self.current_epoch / self.settings.epochs, 1.0)
            share = _FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * done))
        optimizer = cast(torch.optim.Optimizer, self.optimizers(use_pl_optimizer=False))
        for group in optimizer.param_groups:
            group["lr"] = share * self.settings.optimizer.lr


class _Ratio(Metric):
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
        self.total += total
        self.weight += weight

    def compute(self) -> Tensor:
        return (self.total / self.weight).float()


def _optimizer(network: Network, settings: OptimizerSettings) -> torch.optim.Optimizer:
    # Decay is for weights that multiply inputs; biases and normalisation would only be biased by it.
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0)
    kind: type[torch.optim.Adam] = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[settings.name]
    return kind(groups, lr=settings.lr)

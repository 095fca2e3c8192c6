"""Lightning modules: what is learned, and how it is measured while it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L  # noqa: N812 - Lightning's own habit
import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCohenKappa,
    MulticlassF1Score,
    MulticlassJaccardIndex,
)

from models.losses import IGNORE, class_weights, masked_cross_entropy
from models.network import Network
from models.settings import TrainingSettings


class ClassificationTask(L.LightningModule):
    """Supervised classification of labelled pixels.

    Parameters
    ----------
    network : Network
        What learns.
    classes : int
        Number of classes K.
    settings : TrainingSettings
        Loss, optimiser and schedule.
    counts : sequence of int
        Training pixels per class, for the class weights.
    """

    weights: Tensor | None

    def __init__(self, network: Network, *, classes: int, settings: TrainingSettings, counts: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.options = settings
        self.register_buffer("weights", class_weights(settings.loss.class_weights, counts))
        self.val = MetricCollection(
            {
                "overall": MulticlassAccuracy(classes, average="micro", ignore_index=IGNORE),
                "kappa": MulticlassCohenKappa(classes, ignore_index=IGNORE),
                "macro_f1": MulticlassF1Score(classes, average="macro", ignore_index=IGNORE),
            },
            prefix="val_",
        )
        self.val_iou = MulticlassJaccardIndex(classes, average="none", ignore_index=IGNORE)
        # Sums, not means of means: a chip with three labelled pixels counts three, whatever batch it fell into.
        self._sums = {"train": [0.0, 0.0], "val": [0.0, 0.0]}

    def _loss(self, batch: dict[str, Tensor], fold: str) -> tuple[Tensor, Tensor]:
        scores = self.network(batch["cube"], batch["valid"], batch["time"])
        labels = batch["labels"]
        total = masked_cross_entropy(scores, labels, self.weights, self.options.loss, reduction="sum")
        known = labels != IGNORE
        weight = known.sum() if self.weights is None else self.weights[labels[known]].sum()
        sums = self._sums[fold]
        sums[0] += float(total.detach())
        sums[1] += float(weight)
        return total / weight.clamp(min=1e-6), scores

    def training_step(self, batch: dict[str, Tensor], _index: int) -> Tensor:
        """Return the loss of a batch."""
        return self._loss(batch, "train")[0]

    def validation_step(self, batch: dict[str, Tensor], _index: int) -> None:
        """Measure a batch of the validation fold."""
        _, scores = self._loss(batch, "val")
        # Only labelled pixels reach the metrics: some of torchmetrics' counts would take the others for a class.
        known = batch["labels"] != IGNORE
        picked = scores.permute(0, 2, 3, 1)[known]
        self.val.update(picked, batch["labels"][known])
        self.val_iou.update(picked, batch["labels"][known])

    def on_train_epoch_start(self) -> None:
        """Begin the sums anew, and the random numbers: an epoch is the same, resumed or not."""
        torch.manual_seed(1_000_003 * self.options.seed + self.current_epoch)
        self._sums["train"] = [0.0, 0.0]

    def on_validation_epoch_start(self) -> None:
        """Begin the sums anew."""
        self._sums["val"] = [0.0, 0.0]

    def on_validation_epoch_end(self) -> None:
        """Log the figures of the validation fold."""
        total, weight = self._sums["val"]
        self.log("val_loss", total / max(weight, 1e-6))
        self.log_dict(self.val.compute())
        for i, value in enumerate(self.val_iou.compute()):
            self.log(f"val_iou_{i}", value)
        self.val.reset()
        self.val_iou.reset()

    def on_train_epoch_end(self) -> None:
        """Log the loss of the training fold."""
        total, weight = self._sums["train"]
        self.log("train_loss", total / max(weight, 1e-6))

    def configure_optimizers(self) -> Any:
        """Return the optimiser and the schedule of the settings."""
        own = self.options.optimizer
        common: dict[str, Any] = {"lr": own.lr, "weight_decay": own.weight_decay}
        kinds: dict[str, Any] = {
            "adamw": torch.optim.AdamW,
            "adam": torch.optim.Adam,
            "sgd": lambda p, **k: torch.optim.SGD(p, momentum=own.momentum, **k),
        }
        optimizer = kinds[own.name](self.network.parameters(), **common)
        if self.options.schedule == "constant":
            return optimizer
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.options.epochs)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}

"""Learning classes: the Lightning module of supervised classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCohenKappa,
    MulticlassF1Score,
    MulticlassJaccardIndex,
)

from models.learning import Batch, LearningTask
from models.losses import LOSSES, class_weights, labelled, summed
from models.network import Network
from models.settings import TrainingSettings


class ClassificationTask(LearningTask):
    """Learn classes from labelled pixels.

    Batches also hold ``labels`` (B, H, W) int64, with `IGNORE` where there is no label.

    Beside the losses an epoch ends with ``val_overall``, ``val_kappa``, ``val_macro_f1`` and ``val_iou_<class index>``.

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
    centred : bool
        Whether a sample is a patch with one label, at its centre.
    """

    class_weights: Tensor

    def __init__(
        self,
        network: Network,
        *,
        classes: int,
        settings: TrainingSettings,
        counts: Sequence[int] | np.ndarray[Any, Any],
        centred: bool = False,
    ) -> None:
        super().__init__(network, settings, centred=centred)
        self._summed = summed(settings.loss, LOSSES)
        self.register_buffer("class_weights", class_weights(settings.loss, counts, classes), persistent=False)
        common: dict[str, Any] = {"num_classes": classes, "validate_args": False}
        self.val_figures = MetricCollection(
            {
                "overall": MulticlassAccuracy(average="micro", **common),
                "kappa": MulticlassCohenKappa(**common),
                "macro_f1": MulticlassF1Score(average="macro", **common),
                "iou": MulticlassJaccardIndex(average="none", **common),
            },
            # Said, for what a rank has seen must not decide which of them share their sums.
            compute_groups=[["kappa", "iou"], ["overall"], ["macro_f1"]],
        )

    def scored(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the scores (N, K) and class indices (N,) of the labelled pixels of a batch."""
        inputs = batch["cube"], batch["valid"], batch["time"]
        if self.centred:
            height, width = batch["labels"].shape[1:]
            centre = batch["labels"][:, height // 2, width // 2]
            return labelled(self.network.centre(*inputs)[:, :, None, None], centre[:, None, None])
        return labelled(self.network(*inputs), batch["labels"])

    def _loss(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return self._summed(scores.float(), target, self.class_weights, self.settings.loss)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the summed loss of the labelled pixels, and the sum of their weights."""
        return self._loss(*self.scored(batch))

    def validation_step(self, batch: Batch, index: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Add a batch to the figures of the validation fold."""
        scores, target = self.scored(batch)
        self.val_mean.update(*self._loss(scores, target))
        if len(target):
            self.val_figures.update(scores.argmax(1), target)

    def on_validation_epoch_end(self) -> None:
        """Publish the figures of the validation fold; one that is undefined (a kappa of one class) is left out."""
        figures = self.val_figures.compute() if self._publish("val_loss", self.val_mean) else {}
        for name, value in figures.items():
            values = {f"val_{name}": value} if value.ndim == 0 else {f"val_{name}_{i}": v for i, v in enumerate(value)}
            self.log_dict({k: v for k, v in values.items() if torch.isfinite(v)})
        self.val_figures.reset()

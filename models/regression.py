"""Learning numbers: the Lightning module of regression."""

from __future__ import annotations

import torch
from torch import Tensor

from models.learning import Batch, LearningTask
from models.losses import IGNORE, REGRESSION_LOSSES, summed
from models.network import Network
from models.settings import TrainingSettings


class RegressionTask(LearningTask):
    """Learn the number that each labelled pixel has.

    Batches also hold ``numbers`` (B, H, W) float32, and ``labels`` (B, H, W) int64 with `IGNORE` where a pixel takes no part.
    The network is made for one output: the number in standard deviations of those that train, around their mean.

    Parameters
    ----------
    network : Network
        What learns.
    settings : TrainingSettings
        Loss, optimiser and schedule.
    mean, std : float
        Of the numbers that train.
    centred : bool
        Whether a sample is a patch with one label, at its centre.
    """

    def __init__(
        self, network: Network, settings: TrainingSettings, *, mean: float, std: float, centred: bool = False
    ) -> None:
        super().__init__(network, settings, centred=centred)
        self.mean, self.std = mean, std
        self._loss = summed(settings.loss, REGRESSION_LOSSES)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the summed loss of the labelled pixels, and how many they are."""
        inputs = batch["cube"], batch["valid"], batch["time"]
        where = batch["labels"] != IGNORE
        wanted = ((batch["numbers"] - self.mean) / self.std)[where]
        if self.centred:
            found = self.network.centre(*inputs)[where.flatten(1).any(1)]
        else:
            found = self.network(*inputs).permute(0, 2, 3, 1)[where]
        weights = torch.ones_like(wanted)
        return self._loss(found.float(), wanted[:, None], weights, self.settings.loss)

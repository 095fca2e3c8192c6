"""Learning what comes next in a series, from the series themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from models.horizon import Horizon
from models.learning import Batch, LearningTask
from models.network import Network
from models.settings import TrainingSettings


class ForecastTask(LearningTask):
    """Learn the next dates of series.

    Batches hold whole series; ``labels`` (B, H, W) is negative where a pixel takes no part.

    Parameters
    ----------
    network : Network
        Made for `Horizon.history` dates and S * Cb scores: what is added to the naive forecast of the normalised values to
        come, dates before bands.
    settings : TrainingSettings
        Optimiser and schedule; the loss is the mean squared error.
    horizon : Horizon
        Which dates are seen and forecast.
    centred : bool
        Whether a sample is a patch of which the centre is forecast.
    """

    def __init__(
        self, network: Network, settings: TrainingSettings, horizon: Horizon, *, centred: bool = False
    ) -> None:
        super().__init__(network, settings, centred=centred)
        self.horizon = horizon

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the summed squared error of what came, and how many values that is.

        While training the window is drawn at random, one for each batch; validation has its own.
        """
        start = self.horizon.validated
        if self.training:
            start = int(torch.randint(self.horizon.trained, ()))
        inputs, wanted, known = self.horizon.window(batch, start)
        # Where nothing was seen there is nothing to go by.
        known = known & inputs[1].any(1, keepdim=True) & (batch["labels"] >= 0)[:, None]
        if self.centred:
            middle = known.shape[-1] // 2
            known, wanted = known[..., middle, middle], wanted[..., middle, middle]
            found = self.network.centre(*inputs)
        else:
            found = self.network(*inputs)
        error = (found.float() - wanted)[known]
        return (error**2).sum(), known.sum()

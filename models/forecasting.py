"""Learning what comes next in a series, from the series themselves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.learning import Batch, LearningTask
from models.network import ModelError, Network
from models.settings import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """Which dates of a series are seen, and which are forecast.

    Windows of ``history + steps`` dates slide over the series. The last ``steps`` dates of it are the test, those before
    them the validation; windows that train end before both.

    Attributes
    ----------
    dates : int
        Dates of the series, T.
    history, steps : int
        Dates that the network sees, and dates to come that it forecasts.
    bands : tuple of int
        Places of the bands that are forecast.
    shift : tuple of float
        Per first date of a window: what is added to the days of the series, so that they count from the first day of that
        date's year; (T,).
    """

    dates: int
    history: int
    steps: int
    bands: tuple[int, ...]
    shift: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.trained < 1:
            raise ModelError(
                f"a forecast of {self.steps} dates from {self.history} needs a series of {self.history + 3 * self.steps} "
                f"dates at least (two times the steps are kept to stop by and to test), found {self.dates}; set "
                "forecast.history or forecast.steps lower"
            )

    @property
    def trained(self) -> int:
        """How many windows train: they start at the first so many dates."""
        return self.validated - self.steps + 1

    @property
    def validated(self) -> int:
        """First date of the window that tells when to stop."""
        return self.tested - self.steps

    @property
    def tested(self) -> int:
        """First date of the window that is tested."""
        return self.dates - self.history - self.steps

    def window(self, batch: Batch, start: int) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, Tensor]:
        """Return what a network sees of a batch of whole series from a date on, what came, and where that is known.

        Returns
        -------
        tuple
            Cube, valid and time of ``history`` dates, as `Network.forward` takes them; the ``steps`` dates that came,
            (B, S * Cb, H, W); and whether they are known, (B, S * Cb, H, W) bool.
        """
        middle, end = start + self.history, start + self.history + self.steps
        seen = slice(start, middle)
        inputs = batch["cube"][:, seen], batch["valid"][:, seen], batch["time"][:, seen] + self.shift[start]
        came = batch["cube"][:, middle:end][:, :, list(self.bands)].flatten(1, 2)
        known = batch["valid"][:, middle:end].repeat_interleave(len(self.bands), dim=1)
        return inputs, came, known


class ForecastTask(LearningTask):
    """Learn the next dates of series.

    Batches hold whole series; ``labels`` (B, H, W) is negative where a pixel takes no part.

    Parameters
    ----------
    network : Network
        Made for `Horizon.history` dates and S * Cb scores: the normalised values to come, dates before bands.
    settings : TrainingSettings
        Optimiser and schedule; the loss is the mean squared error.
    horizon : Horizon
        Which dates are seen and forecast.
    """

    def __init__(self, network: Network, settings: TrainingSettings, horizon: Horizon) -> None:
        super().__init__(network, settings)
        self.horizon = horizon

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the summed squared error of what came, and how many values that is.

        While training the window is drawn at random, one for each batch; validation has its own.
        """
        start = self.horizon.validated
        if self.training:
            start = int(torch.randint(self.horizon.trained, ()))
        inputs, came, known = self.horizon.window(batch, start)
        # Where nothing was seen there is nothing to go by.
        known = known & inputs[1].any(1, keepdim=True) & (batch["labels"] >= 0)[:, None]
        error = (self.network(*inputs).float() - came)[known]
        return (error**2).sum(), known.sum()

"""The next dates of a series, and how far the images that came were from what was to be expected."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from models.horizon import naive, naive_places
from pipeline.errors import BundleError
from pipeline.maps.layers import Layer
from workflows.products.product import Array, Product

if TYPE_CHECKING:
    from pipeline.imagery.cube import Cube


@dataclass(frozen=True)
class Forecast(Product):
    """Outputs are what is added to the naive forecast of the dates to come: steps, each with the bands that are forecast."""

    @property
    def steps(self) -> int:
        """Dates that are forecast."""
        return int(self.bundle.task["steps"])

    @property
    def dates(self) -> int:
        """The dates that the network sees, and those that it forecasts."""
        return self.bundle.network.dates + self.steps

    @cached_property
    def chosen(self) -> list[int]:
        """Places of the bands that are forecast among those of the imagery."""
        return [self.bundle.bands.index(band) for band in self.bundle.task["bands"]]

    def cube(self, cube: Cube) -> Cube:
        """Return the last dates of the imagery: those that the network sees, and those whose forecast is compared.

        Raises
        ------
        BundleError
            If there are too few.
        """
        if len(cube.dates) < self.dates:
            raise BundleError(
                f"the model sees {self.bundle.network.dates} dates and forecasts {self.steps}: a map needs the images of "
                f"{self.dates}, found {len(cube.dates)}"
            )
        dates = cube.dates[-self.dates :]
        return dataclasses.replace(cube, dates=dates, origin=origin_of(dates[0]))

    def layers(self, wanted: Collection[str], cube: Cube, tags: Mapping[str, str], overviews: Any) -> list[Layer]:  # noqa: ARG002 - nothing here is a class
        """Return the layers that are wanted; see `Product.layers`."""
        days = [str(d) for d in cube.dates[-self.steps :]]
        names = [f"{band} {day}" for day in days for band in self.bundle.task["bands"]]
        made = []
        if "forecast" in wanted:
            of = {**tags, "meaning": "what was to be expected on these days, from the images before"}
            made.append(Layer.number("forecast", names, unit="", tags=of))
        sd = "standard deviations of the validation error"
        if "surprise" in wanted:
            of = {**tags, "meaning": "observed minus forecast", "units": sd}
            made.append(Layer.number("surprise", names, unit=sd, tags=of))
        if "change" in wanted:
            of = {**tags, "meaning": "root mean square of the surprise over days and bands", "units": sd}
            made.append(Layer.number("change", ["change"], unit=sd, tags=of))
        return made

    def made(
        self, wanted: Collection[str], outputs: Tensor, cube: Tensor, valid: Tensor, time: Tensor
    ) -> dict[str, Array]:
        """Return the forecast in units of the imagery, and the surprise; see `Product.made`."""
        flat = outputs.float() + self.naive(cube, valid, time)
        expected = flat.cpu().numpy().reshape(self.steps, len(self.chosen), *outputs.shape[1:])
        made: dict[str, Array] = {}
        if "forecast" in wanted:
            mean, std = (np.asarray(v)[self.chosen][:, None, None] for v in (self.bundle.mean, self.bundle.std))
            made["forecast"] = (expected * std + mean).reshape(-1, *outputs.shape[1:])
        if {"surprise", "change"} & set(wanted):
            observed = cube[-self.steps :].cpu().numpy()[:, self.chosen]
            seen = valid[-self.steps :].cpu().numpy()[:, None]
            spread = np.asarray(self.bundle.task["spread"])[:, :, None, None]
            surprise = np.where(seen, (observed - expected) / spread, np.nan)
            if "surprise" in wanted:
                made["surprise"] = surprise.reshape(-1, *outputs.shape[1:])
            if "change" in wanted:
                made["change"] = root_mean_square(surprise)[None]
        return made

    def measured(self, outputs: Tensor, cube: Tensor, valid: Tensor, time: Tensor) -> Tensor:
        """Return what was expected, what came, and the naive forecast, (3 * S * Cb, h, w), normalised; NaN where unknown."""
        known = cube.masked_fill(~valid[:, None], torch.nan)[:, self.chosen]
        before = known[self._places(time)]
        # Where nothing was seen there is nothing to go by.
        seen = valid[: self.bundle.network.dates].any(0)
        expected = (outputs.float() + self.naive(cube, valid, time)).masked_fill(~seen, torch.nan)
        return torch.cat([expected, known[-self.steps :].flatten(0, 1), before.flatten(0, 1)])

    def naive(self, cube: Tensor, valid: Tensor, time: Tensor) -> Tensor:
        """Return the naive forecast, normalised, to which outputs are added, (S * Cb, h, w)."""
        return naive(cube[None], valid[None], self._places(time), self.chosen)[0]

    def _places(self, time: Tensor) -> list[int]:
        days = time.tolist()
        return naive_places(days[: -self.steps], days[-self.steps :])

    def parts(self, measured: Array) -> tuple[Array, Array, Array]:
        """Return what was expected, what came, and the naive forecast of places (n, 3 * S * Cb): (n, S, Cb) float64 each."""
        found = measured.astype(np.float64).reshape(len(measured), 3, self.steps, len(self.chosen))
        return found[:, 0], found[:, 1], found[:, 2]


def root_mean_square(surprise: Array) -> Array:
    """Return the root of the mean square over dates and bands (S, C, h, w), (h, w); NaN where nothing was seen."""
    seen = np.isfinite(surprise)
    number = seen.sum((0, 1))
    total = np.where(seen, surprise, 0.0) ** 2
    return np.asarray(np.where(number > 0, np.sqrt(total.sum((0, 1)) / np.maximum(number, 1)), np.nan))


def origin_of(first: datetime.date | None) -> datetime.date | None:
    """Return the day from which days are counted: the first of the year, so that the season is known."""
    return None if first is None else datetime.date(first.year, 1, 1)

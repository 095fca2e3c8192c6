"""A series of images in time: which steps are made of them, and which of them a period needs."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.errors import ImageryError
from pipeline.imagery.dates import Period
from pipeline.imagery.steps import stepped
from pipeline.settings import TemporalSettings

Array = np.ndarray[Any, Any]

_FILLED = {"linear": "filled linearly", "nearest": "filled with the nearest", "none": "not filled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Images on their own dates, and how they are brought to steps.

    Attributes
    ----------
    observed : tuple of date
        Dates of the images that are read, rising.
    every : int or None
        Days between steps; None: the dates of the images are the steps.
    fill, composite : str
        As in `TemporalSettings`.
    """

    observed: tuple[datetime.date, ...]
    every: int | None = None
    fill: str = "none"
    composite: str = "none"

    @classmethod
    def of(cls, dates: Sequence[datetime.date | None], settings: TemporalSettings) -> Series:
        """Return the series of a cube's dates.

        Raises
        ------
        ImageryError
            If the imagery has no dates.
        """
        observed = tuple(d for d in dates if d is not None)
        if not observed:
            raise ImageryError(
                "temporal: the imagery has no dates; say how a date stands in the names of the files, such as "
                '`date: "%Y%m%d"`, or leave `temporal` out'
            )
        return cls(observed=observed, every=settings.every, fill=settings.fill, composite=settings.composite)

    def steps(self, period: Period | None = None) -> tuple[datetime.date, ...]:
        """Return the dates of the steps, of the whole series or of a period.

        Regular steps start on the first image, or on the first day of the period, and end before the last: all periods of a
        length have the same number of them.
        """
        if self.every is None:
            return tuple(d for d in self.observed if period is None or d in period)
        first, last = (period.start, period.end) if period else (self.observed[0], self.observed[-1])
        return tuple(first + datetime.timedelta(days) for days in range(0, (last - first).days + 1, self.every))

    def around(self, period: Period) -> Series:
        """Return the series of the images that a period needs: those within it, and within one step before and after.

        Without regular steps, a step is an image. A composite of the step after the last is made of all its days.

        Raises
        ------
        ImageryError
            If there is no image in the period; says from when to when there are.
        """
        inside = [i for i, d in enumerate(self.observed) if d in period]
        if not inside:
            raise ImageryError(
                f"there is no image from {period}: it reaches from {self.observed[0]} to {self.observed[-1]}"
            )
        if self.every is None:
            more = 0 if self.fill == "none" else 1
            return replace(self, observed=self.observed[max(0, inside[0] - more) : inside[-1] + 1 + more])
        step = datetime.timedelta(self.every)
        last = self.steps(period)[-1] + step
        if self.composite != "none":
            last += step - datetime.timedelta(1)
        return replace(self, observed=tuple(d for d in self.observed if period.start - step <= d <= last))

    def fill_in(self, values: Array, valid: Array, dates: Sequence[datetime.date | None], out: Array) -> Array:
        """Bring observations to steps.

        Parameters
        ----------
        values : (T, C, h, w) float32
            On the observed dates.
        valid : (T, h, w) bool
        dates : sequence of date or None
            The steps; after the last date, None, which is invalid everywhere.
        out : (S, C, h, w) float32
            Is overwritten; zero where invalid.

        Returns
        -------
        valid : (S, h, w) bool
        """
        at = [d.toordinal() for d in dates if d is not None]
        days = [d.toordinal() for d in self.observed]
        good = np.zeros((len(dates), *valid.shape[1:]), bool)
        _, good[: len(at)] = stepped(
            values, valid, days, at, every=self.every, fill=self.fill, composite=self.composite, out=out[: len(at)]
        )
        out[len(at) :] = 0
        return good

    def __str__(self) -> str:
        """Return what was decided, for the user."""
        images = f"{len(self.observed)} images"
        if self.every is None:
            return f"{images} on their own dates, {_FILLED[self.fill]}"
        kind = "" if self.composite == "none" else f" ({self.composite} of the days of each)"
        filled = "the nearest image within half a step" if (self.fill, kind) == ("none", "") else _FILLED[self.fill]
        return f"{images} -> {len(self.steps())} steps of {self.every} days{kind}, {filled}"

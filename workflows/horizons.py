"""Which dates of the imagery a forecast sees, and which it is to name."""

from __future__ import annotations

import dataclasses
import datetime
from typing import TYPE_CHECKING

from models.horizon import Horizon, naive_places
from pipeline.errors import RequestError, nearest
from workflows.products.forecast import origin_of

if TYPE_CHECKING:
    from pipeline.imagery.cube import Cube
    from workflows.settings import ForecastSettings

_YEAR = datetime.timedelta(days=365)


def horizon_of(cube: Cube, settings: ForecastSettings) -> Horizon:
    """Return the horizon of a job.

    Raises
    ------
    RequestError
        If the imagery has no dates, or not the band that is to be forecast.
    ModelError
        If it has too few dates.
    """
    days = [d for d in cube.dates if d is not None]
    if len(days) < len(cube.dates) or not days:
        raise RequestError(
            'task: forecast needs imagery with dates; say how they stand in the file names, such as `date: "%Y%m%d"`'
        )
    bands = list(cube.bands) if settings.bands is None else settings.bands
    for band in bands:
        if band not in cube.bands:
            raise RequestError(
                f"forecast.bands: the imagery has no band '{band}'{nearest(band, cube.bands) or '.'} "
                f"It has {', '.join(cube.bands)}"
            )
    year = sum(d < days[0] + _YEAR for d in days)
    history = settings.history or max(1, min(year, len(days) // 2))
    first = cube.origin or days[0]
    starts = [origin_of(d) for d in days]
    count = [d.toordinal() for d in days]
    return Horizon(
        dates=len(days),
        history=history,
        steps=settings.steps,
        bands=tuple(cube.bands.index(b) for b in bands),
        shift=tuple(float((first - start).days) for start in starts if start is not None),
        naive=tuple(
            tuple(naive_places(count[i : i + history], count[i + history : i + history + settings.steps]))
            for i in range(len(days))
        ),
    )


def window_of(cube: Cube, horizon: Horizon, start: int) -> Cube:
    """Return the dates from ``start`` on that a network sees, then those that it forecasts; days count from that year's first."""
    dates = cube.dates[start : start + horizon.history + horizon.steps]
    return dataclasses.replace(cube, dates=dates, origin=origin_of(dates[0]))

"""Charts over the days of a period: what labelled pixels look like, and how much each date counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from workflows.drawing import INK, chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True, eq=False)
class Seasons:
    """What labelled pixels look like over time.

    Attributes
    ----------
    days : (T,) float
        Day of each date, from the first of the period.
    bands : sequence of str
        Names of the C bands.
    colors : sequence of str
        Colours of the K classes.
    low, middle, high : (K, T, C) float
        Quartiles of the labelled pixels of a class; NaN where there is none.
    """

    days: np.ndarray[Any, Any]
    bands: Sequence[str]
    colors: Sequence[str]
    low: np.ndarray[Any, Any]
    middle: np.ndarray[Any, Any]
    high: np.ndarray[Any, Any]


def season_charts(seasons: Seasons) -> list[Markup]:
    """Return a chart per band: the median of each class over time, with the range of its middle half. The page has the legend."""
    return [_season(seasons, c) for c in range(len(seasons.bands))]


def _season(seasons: Seasons, c: int) -> Markup:
    lines = [
        TimeLine(
            color=color,
            days=seasons.days,
            middle=seasons.middle[k, :, c],
            low=seasons.low[k, :, c],
            high=seasons.high[k, :, c],
        )
        for k, color in enumerate(seasons.colors)
    ]
    of = f"{seasons.bands[c]} over time: median and middle half of the labelled pixels of each class"
    return time_chart(lines, seasons.bands[c], of)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TimeLine:
    """A line over the days of a period, with a range around it; NaN where there is nothing."""

    color: str
    days: Sequence[float] | np.ndarray[Any, Any]
    middle: Sequence[float] | np.ndarray[Any, Any]
    low: Sequence[float] | np.ndarray[Any, Any]
    high: Sequence[float] | np.ndarray[Any, Any]


def time_chart(lines: Sequence[TimeLine], what: str, alt: str, limits: tuple[float, float] | None = None) -> Markup:
    """Return lines over the days of a period, each with its range; ``limits`` are those of the y axis."""

    def draw(axes: Axes) -> None:
        for line in lines:
            axes.fill_between(line.days, line.low, line.high, color=line.color, alpha=0.13, linewidth=0)
            axes.plot(line.days, line.middle, color=line.color, lw=1.5)
        axes.set(xlabel="days since the start of the period", ylabel=what)
        axes.margins(x=0.02)
        if limits is not None:
            axes.set_ylim(*limits)
        axes.grid(axis="y", color=INK, alpha=0.12, lw=0.6)

    return chart(draw, alt)

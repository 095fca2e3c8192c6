"""A section of a report as its tables, charts and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipeline.maps.layers import LegendEntry
from workflows.pictures import MapPicture, ramp_picture


@dataclass(frozen=True, slots=True, kw_only=True)
class RampFigure:
    """A layer under a colour ramp, with what stands at its ends and below it."""

    title: str
    picture: MapPicture
    low: str
    high: str
    caption: str

    @classmethod
    def of(
        cls, path: Path, title: str, caption: str, *, colors: str = "viridis", span: tuple[float, float] | None = None
    ) -> RampFigure:
        """Return the picture of the first band of a layer."""
        picture = ramp_picture(path, colors=colors, span=span)
        ends = ("" if v is None else f"{v:.3g}" for v in (picture.low, picture.high))
        return cls(title=title, picture=picture, low=next(ends), high=next(ends), caption=caption)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFigure:
    """A class map in its colours, with its legend beside it and what is to be said below it."""

    title: str
    picture: MapPicture
    legend: Sequence[LegendEntry]
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One of several tables of a section; the first column names the row."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading with a sentence or two, and below them figures.

    Attributes
    ----------
    title, text : str
        The heading, and what is to be said below it.
    columns, rows : sequence
        A table; the first column names the row.
    charts : sequence of Markup
        SVG.
    ramps : sequence of RampFigure
        Pictures of layers.
    tables : sequence of Table
        Tables where there are several, after `rows`.
    maps : sequence of ClassFigure
        Pictures of class maps.
    notes : sequence of str
        What must be said beside the figures, a point each.
    """

    title: str
    text: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    charts: Sequence[Markup] = ()
    ramps: Sequence[RampFigure] = ()
    tables: Sequence[Table] = ()
    maps: Sequence[ClassFigure] = ()
    notes: Sequence[str] = ()

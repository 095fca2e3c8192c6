"""A table of labelled series: pixels with their values and labels, without any imagery."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from pipeline.errors import LabelError
from pipeline.imagery.dates import Period
from pipeline.imagery.indices import appended, find_indices
from pipeline.samples.columns import band_columns, labelled_rows, need_column, read_table, sample_rows
from pipeline.samples.labels import check_classes
from pipeline.samples.legend import Legend, natural, text_of
from pipeline.samples.periods import days, periods_of
from pipeline.samples.regular import reach, regular
from pipeline.samples.standalone import Samples
from pipeline.samples.vectors import COLUMNS
from pipeline.settings import ClassSettings, LabelSettings, TemporalSettings

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class SeriesTable(Samples):
    """Labelled series of N samples, at most T dates each, of C bands.

    Attributes
    ----------
    values : (N, T, C) float32
        Sorted by date; NaN where a value is missing, and after the last date of a sample.
    time : (N, T) float32
        Days since the first day of the sample's period; where it states none, since its first date.
    """

    what: ClassVar[str] = "series"

    values: Array
    time: Array

    @property
    def dates(self) -> int:
        """Most dates of a sample."""
        return int(self.values.shape[1])

    @property
    def reach(self) -> int:
        """A series is of a single pixel."""
        return 0

    def read(self, some: slice, radius: int) -> tuple[Array, Array]:
        """Return values (n, T, C, 1, 1) and days (n, T) of some series; see `Samples.read`."""
        assert radius == 0
        return self.values[some][..., None, None], self.time[some]

    def spoken(self) -> list[tuple[str, str]]:
        """Return what there is, for people."""
        days = self.time[np.isfinite(self.values).all(2)]
        return [
            ("samples", f"{len(self):,} series"),
            ("bands", ", ".join(self.bands)),
            ("dates", f"up to {self.dates} each, from day {days.min():g} to day {days.max():g} of their period"),
            ("periods", str(len(self.periods)) if self.periods[0] is not None else "none stated"),
        ]


def open_series(
    settings: LabelSettings,
    classes: Sequence[ClassSettings] | None,
    temporal: TemporalSettings | None = None,
    indices: Sequence[str] = (),
    roles: Mapping[str, str] | None = None,
) -> SeriesTable:
    """Read a table of labelled series.

    Parameters
    ----------
    settings : LabelSettings
        As in the job file; ``series`` is given.
    classes : sequence of ClassSettings or None
        The classes of the job; None takes every value.
    temporal, indices, roles
        Steps in time, and indices; see `open_cube`.

    Raises
    ------
    ImageryError
        If a band of an index is not there.
    LabelError
        If a table or a column of it is missing, a sample has no label, values are no numbers or no dates, or there is
        nothing to learn from.
    """
    notes: list[str] = []
    where = str(settings.series)
    long = read_table(where, "labels.series")
    samples = sample_rows(long, settings)
    need_column(long, settings.id, where, "labels.id")
    field = settings.field or "label"
    named = settings.samples or where
    need_column(samples, field, named, "labels.field")
    samples = labelled_rows(long, samples, settings, field, named, notes)
    legend = Legend.from_values(samples[field], classes)
    index = np.array([-1 if i is None else i for i in map(legend.index, samples[field])], dtype=np.int64)
    total = Counter(map(text_of, samples[field]))
    values_there = sorted(total, key=natural)
    if strangers := [v for v in values_there if legend.index(v) is None]:
        notes.append(
            f"label values of no class are left out: {'; '.join(f'{legend.unknown(v)} ({total[v]})' for v in strangers[:5])}"
        )
    samples, target = samples[index >= 0], index[index >= 0]
    check_classes(legend, target.tolist(), named, values_there)
    bands = band_columns(long, samples, settings, field)
    periods: tuple[Period | None, ...] = (None,)
    period, held = np.zeros(len(samples), np.int64), None
    if settings.from_ is not None and settings.to is not None:
        periods, period = periods_of(samples, settings.from_, settings.to, named)
        held = np.array([(p.start, p.end) for p in periods if p is not None], "datetime64[D]")[period]
    temporal = temporal or TemporalSettings()
    values, time, count = _series(long, samples[settings.id].to_numpy(), held, bands, settings, temporal, notes)
    made = find_indices(indices, bands, roles)
    values = np.moveaxis(appended(np.moveaxis(values, -1, 0), bands, made), 0, -1)
    bands += [index.name for index in made]
    # A date counts where all its bands have a value, as in imagery.
    values[~np.all(np.isfinite(values), axis=2)] = np.nan
    spans = time.max(1) if held is None else (held[:, 1] - held[:, 0]).astype(np.int64)
    values, time = regular(values, time, count, spans, temporal)
    empty = ~np.any(np.all(np.isfinite(values), axis=2), axis=1)
    if empty.any():
        raise LabelError(
            f"{where}: {int(empty.sum())} samples have no date with a value of every band"
            f"{' within their period' if held is not None else ''} (first: {samples[settings.id].to_numpy()[empty][0]})"
        )
    names = [legend.classes[i].name if (i := legend.index(v)) is not None else "none" for v in values_there]
    return SeriesTable(
        legend=legend,
        bands=tuple(bands),
        values=values,
        time=time,
        target=target,
        frame=samples,
        places=_places(samples),
        periods=periods,
        period=period,
        notes=notes,
        rows=[{"label": v, "class": c, "samples": total[v]} for v, c in zip(values_there, names, strict=True)],
    )


def _series(
    long: pd.DataFrame,
    ids: Array,
    held: Array | None,
    bands: list[str],
    settings: LabelSettings,
    temporal: TemporalSettings,
    notes: list[str],
) -> tuple[Array, Array, Array]:
    """Return values (N, T, C) float32, days (N, T) float32 and numbers of dates (N,) of samples, each sorted by date.

    Of samples that hold from a day to a day, (N, 2), only the dates that serve there are kept, as of imagery.
    """
    where = str(settings.series)
    place = pd.Index(ids).get_indexer(pd.Index(long[settings.id]))
    kept = place >= 0
    date, place = days(long[kept], settings.date, where), place[kept]
    values = long.loc[kept, bands].to_numpy(np.float32)
    # Stable: of two rows of a sample on one date, the first in the table stays the first.
    order = np.lexsort((date, place))
    date, place, values = date[order], place[order], values[order]
    again = np.zeros(len(place), bool)
    again[1:] = (place[1:] == place[:-1]) & (date[1:] == date[:-1])
    if again.any():
        notes.append(f"{int(again.sum())} rows stand for a sample and date that has one already: the first counts")
        date, place, values = date[~again], place[~again], values[~again]
    if held is not None:
        since, span = (date - held[place, 0]).astype(np.int64), (held[:, 1] - held[:, 0]).astype(np.int64)[place]
        before, after = reach(span, temporal)
        outside = (since < before) | (since > after)
        if outside.any():
            notes.append(f"{int(outside.sum())} rows lie outside the period of their sample and are left out")
            date, place, values = date[~outside], place[~outside], values[~outside]
    count = np.bincount(place, minlength=len(ids))
    if len(np.unique(count)) > 1:
        notes.append(
            f"samples have {count.min()} to {count.max()} dates; the shorter ones are followed by masked dates"
        )
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    origin = held[:, 0] if held is not None else date[np.minimum(first, len(date) - 1)]
    rank = np.arange(len(place)) - first[place]
    made = np.full((len(ids), int(count.max()), len(bands)), np.nan, np.float32)
    made[place, rank] = values
    time = np.zeros(made.shape[:2], np.float32)
    time[place, rank] = (date - origin[place]).astype("timedelta64[D]").astype(np.float32)
    return made, time, count


def _places(samples: pd.DataFrame) -> Array | None:
    by_name = {c.lower(): c for c in samples.columns}
    for x, y in COLUMNS:
        if x in by_name and y in by_name:
            columns = [pd.to_numeric(samples[by_name[name]], errors="coerce") for name in (x, y)]
            return np.column_stack(columns).astype(np.float64)
    return None

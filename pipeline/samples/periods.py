"""Periods in which labels hold, from two fields of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import LabelError, nearest
from pipeline.imagery.dates import Period
from pipeline.samples.legend import text_of

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray[Any, Any]


def periods_of(frame: pd.DataFrame, start: str, end: str, where: str) -> tuple[tuple[Period, ...], Array]:
    """Return the distinct periods of the rows of a table, sorted, and the number of each row's, (n,) int64.

    Parameters
    ----------
    frame : DataFrame
        A row per label, numbered from 1 in the index.
    start, end : str
        Columns with the first and the last day, both within the period.
    where : str
        The file, for messages.

    Raises
    ------
    LabelError
        If a column is missing, a value is no date, or a period ends before it starts; names the row.
    """
    first, last = (days(frame, column, where) for column in (start, end))
    wrong = np.flatnonzero(last < first)
    if len(wrong):
        i = int(wrong[0])
        raise LabelError(
            f"{where}: label {frame.index[i]} ends before it starts: '{start}' is {first[i]}, '{end}' is {last[i]}"
        )
    distinct, number = np.unique(np.stack([first, last], 1), axis=0, return_inverse=True)
    return tuple(Period(a, b) for a, b in distinct.tolist()), number.reshape(-1).astype(np.int64)


def days(frame: pd.DataFrame, column: str, where: str) -> Array:
    """Return a column of dates, (n,) datetime64[D].

    Raises
    ------
    LabelError
        If there is no such column, or a value of it is no date; names the row.
    """
    import pandas as pd

    if column not in frame.columns:
        there = [str(c) for c in frame.columns]
        raise LabelError(f"{where} has no field '{column}'{nearest(column, there)} It has {', '.join(there)}")
    values = frame[column]
    if not pd.api.types.is_datetime64_any_dtype(values):
        # 20210630 is read as a number. A year or a month alone is no day.
        text = values.map(text_of)
        values = text.where(text.str.len() >= len("20210630"))
    found = pd.to_datetime(values, errors="coerce", format="ISO8601", utc=True)
    wrong = np.flatnonzero(found.isna().to_numpy())
    if len(wrong):
        i = int(wrong[0])
        value = "nothing" if frame[column].isna().iloc[i] else repr(text_of(frame[column].iloc[i]))
        raise LabelError(
            f"{where}: row {frame.index[i]}: expected a date such as 2021-06-30 in '{column}', found {value}"
        )
    return found.dt.tz_localize(None).to_numpy("datetime64[D]")

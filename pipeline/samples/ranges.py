"""Numbers as labels: ranges of them stand for classes where places are divided and counted."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import LabelError
from pipeline.samples.legend import Legend, LegendClass, palette

Array = np.ndarray[Any, Any]

# Ranges of about as many numbers each: so folds hold small and large ones alike.
_RANGES = 4


def ranges_of(values: Array, where: str) -> tuple[Legend, Array]:
    """Return ranges of numbers that hold about as many each.

    Parameters
    ----------
    values : (n,) float
        Finite.
    where : str
        What they are, for messages.

    Returns
    -------
    Legend
        A class for each range, named by its ends.
    edges : (K - 1,) float64
        Where one range ends and the next begins.

    Raises
    ------
    LabelError
        If all numbers are the same: there is nothing to be estimated.
    """
    low, high = float(values.min()), float(values.max())
    if low == high:
        raise LabelError(f"{where}: all labels are {low:g}; a regression needs numbers that differ")
    # Each begins with one of the numbers, so nothing lies in none of them: numbers that are mostly zero have fewer ranges.
    cuts = np.unique(np.quantile(values, np.linspace(0, 1, _RANGES + 1)[1:-1], method="higher"))
    edges = cuts[cuts > low]
    if not len(edges):
        edges = np.array([values[values > low].min()])
    names = _named([low, *edges.tolist(), high])
    legend = Legend(
        tuple(
            LegendClass(name=name, code=i + 1, color=color, values=(name,))
            for i, (name, color) in enumerate(zip(names, palette(names), strict=True))
        )
    )
    return legend, np.asarray(edges, dtype=np.float64)


def _named(ends: list[float]) -> list[str]:
    """Return a name for each range between two ends, with as many digits as tell them apart."""
    for digits in range(4, 18):
        names = [f"{a:.{digits}g} to {b:.{digits}g}" for a, b in itertools.pairwise(ends)]
        if len(set(names)) == len(names):
            break
    return names


def numbers_of(column: pd.Series[Any], where: str) -> Array:
    """Return a column of numbers, (n,) float64; NaN where it is empty.

    Raises
    ------
    LabelError
        If it holds text that is no number; names the first.
    """
    found = pd.to_numeric(column, errors="coerce")
    wrong = ~np.isfinite(found) & column.notna()
    if wrong.any():
        first, more = str(column[wrong].iloc[0]), int(wrong.sum()) - 1
        raise LabelError(
            f"{where}: a regression needs numbers, found {first!r} (and {more} more values that "
            "are none); name a field of numbers in labels.field, or leave out task: regression to map classes"
        )
    return np.asarray(found, dtype=np.float64)

"""What the classes look like over time, from the samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.samples.folds import TRAIN
from pipeline.samples.pixels import labelled
from workflows.timecharts import Seasons

if TYPE_CHECKING:
    from pipeline.samples.chips import ChipStore

Array = np.ndarray[Any, Any]

# Chips that are looked at, bands that are drawn, and the fewest dates that make a curve.
_CHIPS, _BANDS, _DATES = 2000, 6, 3


def seasons_of(store: ChipStore) -> Seasons | None:
    """Return the quartiles of the training pixels of the first round, per class, date and band; None of a few dates."""
    _, times, bands, *_ = store.values.shape
    if times < _DATES:
        return None
    chips = store.indices(0, TRAIN)
    chips = chips[:: max(1, len(chips) // _CHIPS)]
    values, target = labelled(store, 0, TRAIN, chips)
    shown = min(bands, _BANDS)
    classes = store.legend.classes
    quartiles = np.full((3, len(classes), times, shown), np.nan)
    for k in range(len(classes)):
        of = values[target == k][:, :, :shown]
        # A date without any valid pixel has no curve.
        there = np.isfinite(of).any(0) if len(of) else np.zeros((times, shown), bool)
        for t, c in np.argwhere(there):
            quartiles[:, k, t, c] = np.nanpercentile(of[:, t, c], (25, 50, 75))
    # Days of a date differ a little from period to period; masked dates at the end of a short one have none.
    time = np.where(np.arange(times) == 0, store.time, np.where(store.time > 0, store.time, np.nan))[chips]
    has = np.isfinite(time).any(0)
    days = np.where(has, np.nanmedian(np.where(has, time, 0), axis=0), np.nan)
    return Seasons(
        days=days[has],
        bands=list(store.attrs["bands"])[:shown],
        colors=[c.color for c in classes],
        low=quartiles[0][:, has],
        middle=quartiles[1][:, has],
        high=quartiles[2][:, has],
    )

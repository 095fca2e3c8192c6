"""Series of a table brought to steps in time, as imagery is."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.imagery.steps import stepped
from pipeline.settings import TemporalSettings

Array = np.ndarray[Any, Any]


def reach(spans: Array, settings: TemporalSettings) -> tuple[int, Array]:
    """Return the first and the last day on which dates serve a sample, as `Series.around` has it for imagery.

    Parameters
    ----------
    spans : (N,) int
        Last day of each sample, from day zero on.
    settings : TemporalSettings
        Without regular steps only dates from day zero to the last day serve.
    """
    step = settings.every
    if step is None:
        return 0, spans
    return -step, (spans // step + 1) * step + (step - 1 if settings.composite != "none" else 0)


def regular(values: Array, time: Array, count: Array, spans: Array, settings: TemporalSettings) -> tuple[Array, Array]:
    """Bring series to steps.

    Parameters
    ----------
    values : (N, T, C) float32
        Sorted by date; NaN where invalid.
    time : (N, T) float32
        Day of each date.
    count : (N,) int
        How many dates each sample has; what follows them is none.
    spans : (N,) int
        Last day of each sample: steps start on day zero and end there.
    settings : TemporalSettings
        As for imagery; steps that are images are the sample's own dates.

    Returns
    -------
    values : (N, S, C) float32
        NaN where there is none.
    time : (N, S) float32
    """
    if settings.every is None and settings.fill == "none":
        return values, time
    most = values.shape[1] if settings.every is None else int(spans.max()) // settings.every + 1
    made = np.full((len(values), most, values.shape[2]), np.nan, np.float32)
    days = np.zeros((len(values), most), np.float32)
    # Samples on the same days are brought to steps together, as the pixels of a block are.
    _, group = np.unique(np.column_stack([time, count, spans]), axis=0, return_inverse=True)
    group = group.reshape(-1)
    order = np.argsort(group, kind="stable")
    for of in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        n = int(count[of[0]])
        own = time[of[0], :n].astype(np.int64).tolist()
        at = own if settings.every is None else list(range(0, int(spans[of[0]]) + 1, settings.every))
        # (n, T, C) as a block of n pixels: (T, C, n, 1).
        seen = np.moveaxis(values[of, :n], 0, -1)[..., None]
        valid = np.asarray(np.all(np.isfinite(seen), axis=1))
        found, good = stepped(
            np.where(valid[:, None], seen, 0), valid, own, at,
            every=settings.every, fill=settings.fill, composite=settings.composite,
        )  # fmt: skip
        found[~np.broadcast_to(good[:, None], found.shape)] = np.nan
        made[of, : len(at)] = np.moveaxis(found[..., 0], -1, 0)
        days[of, : len(at)] = at
    return made, days

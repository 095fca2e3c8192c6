"""Samples of single pixels as tables: the reverse of `open_series`."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from pipeline.grid import wkt
from pipeline.samples.chips import ChipStore
from pipeline.samples.rounds import NONE, TEST
from pipeline.samples.truth import roles_of

Array = np.ndarray[Any, Any]


def series_frames(
    store: ChipStore, geobox: GeoBox, origins: Sequence[datetime.date]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables of series and of samples of a store of single pixels.

    Parameters
    ----------
    store : ChipStore
        Chips of one pixel.
    geobox : GeoBox
        The grid on which they lie.
    origins : sequence of date
        Day zero of each period.

    Returns
    -------
    series : DataFrame
        A row per sample and valid date: ``sample_id``, ``date``, and a column per band.
    samples : DataFrame
        A row per sample: ``sample_id``, ``longitude``, ``latitude`` (of the pixel's centre), ``label``, ``fold``, and where
        labels hold for periods ``from`` and ``to``.
    """
    values, truth = store.read(np.arange(len(store)))
    values = values[..., 0, 0]
    target = truth[:, 0, 0, 0].astype(np.int64) - 1
    labelled = np.flatnonzero(target >= 0)
    values, target, period = values[labelled], target[labelled], store.period[labelled]
    sample, step = np.nonzero(np.all(np.isfinite(values), axis=2))
    starts = np.array(origins, dtype="datetime64[D]")[period]
    date = starts[sample] + store.time[labelled][sample, step].astype("timedelta64[D]")
    number = np.arange(1, len(labelled) + 1)
    bands = {name: values[sample, step, c] for c, name in enumerate(store.attrs["bands"])}
    series = pd.DataFrame({"sample_id": number[sample], "date": date.astype("datetime64[s]"), **bands})
    longitude, latitude = _lonlat(geobox, store.origins[labelled])
    names = np.array([c.name for c in store.legend.classes], dtype=object)
    samples = pd.DataFrame(
        {
            "sample_id": number,
            "longitude": longitude,
            "latitude": latitude,
            "label": names[target],
            "fold": _folds(store, truth[labelled]),
        }
    )
    held = store.attrs["periods"]
    if held != [None]:
        for i, column in enumerate(("from", "to")):
            samples[column] = np.array([p[i] for p in held], dtype=object)[period]
    return series, samples


def _lonlat(geobox: GeoBox, origins: Array) -> tuple[Array, Array]:
    a = geobox.affine
    row, column = origins[:, 0] + 0.5, origins[:, 1] + 0.5
    to = Transformer.from_crs(wkt(geobox), "EPSG:4326", always_xy=True)
    x, y = to.transform(a.a * column + a.b * row + a.c, a.d * column + a.e * row + a.f)
    return np.asarray(x), np.asarray(y)


def _folds(store: ChipStore, truth: Array) -> Array:
    """Return the name of the fold of each sample, (N,): that of its role, or of the round that tests it."""
    names = np.array(store.attrs["folds"], dtype=object)
    if 1 < store.rounds < len(names):
        # Each round tests a fold of several parts.
        names = np.array([f"fold {r + 1}" for r in range(store.rounds)], dtype=object)
    roles = [roles_of(truth, r)[:, 0, 0] for r in range(store.rounds)]
    if store.rounds == 1:
        return np.asarray(np.where(roles[0] == NONE, "", names[np.maximum(roles[0].astype(np.int64) - 1, 0)]))
    return np.asarray(names[np.argmax(np.stack(roles) == TEST, axis=0)])

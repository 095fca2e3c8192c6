"""Cubes opened from entries of a job, and files of many dates."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from rasters import noise, write

from pipeline.errors import ImageryError
from pipeline.imagery.open import open_cube
from pipeline.settings import GridSettings, ImagerySettings, TemporalSettings


def opened(*entries, grid=None, area=None, keep=(), temporal=None, **options):
    return open_cube(
        [ImagerySettings.model_validate(e if isinstance(e, dict) else {"path": str(e)}) for e in entries],
        None if grid is None else GridSettings(**grid),
        area,
        keep,
        temporal=None if temporal is None else TemporalSettings.model_validate(temporal),
        **options,
    )


def refused(*entries, **options):
    with pytest.raises(ImageryError) as caught:
        opened(*entries, **options)
    return str(caught.value)


def day(number):
    return datetime.date(2021, 1, 1) + datetime.timedelta(number)


def write_days(folder, days, bands=1, height=21, width=17, names=(), **profile):
    """Write a file per day; zero is no data, and is strewn over each. Return what is stored (T, C, h, w)."""
    stored = noise(bands * len(days), height, width, most=9).reshape(len(days), bands, height, width)
    stored = np.where(
        stored < 4, 0, stored * 100 + noise(len(days) * bands, height, width, seed=1).reshape(stored.shape)
    )
    stored = stored.astype("uint16")
    for number, values in zip(days, stored, strict=True):
        write(folder / f"s_{day(number):%Y%m%d}.tif", values, nodata=0, names=names, **profile)
    return stored

"""Images of two years, fields that hold for one each, and a job of them."""

from __future__ import annotations

import csv
import datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import yaml
from conftest import CRS, TRANSFORM
from rasters import write
from shapely.geometry import box

SIDE, CELL = 40, 8
NAMES = ("corn", "forest", "soy")
YEARS = (("2019-09-01", "2020-08-31"), ("2020-09-01", "2021-08-31"))
FOLDERS = tuple("_".join(year) for year in YEARS)

# Days of the images from the first of September on; the second year has one less.
DAYS = ((20, 65, 110, 150, 200, 250, 300), (25, 60, 115, 155, 195, 255))
MODEL = {"name": "lstm", "hidden": 8, "layers": 1}


def cover(year: int) -> Any:
    """Return the class of each pixel in a year: every field is another the year after."""
    n = SIDE // CELL
    cells = (np.arange(n)[:, None] * 2 + np.arange(n)[None] + year) % 3
    return np.kron(cells, np.ones((CELL, CELL), int))


def season(days: Any) -> Any:
    """Return red and near infrared of each class (K, 2) on a day: only time tells corn from soy."""
    green = [np.exp(-(((days - peak) / 40) ** 2)) for peak in (90, 180)]
    corn, soy = ([1500 - 1200 * g, 1500 + 2500 * g] for g in green)
    return np.array([corn, [400, 3500], soy])


def write_year(folder: Path, year: int, days: tuple[int, ...]) -> list[Path]:
    rng = np.random.default_rng(year)
    start = datetime.date.fromisoformat(YEARS[year][0])
    paths = []
    for day in days:
        values = season(day)[cover(year)].transpose(2, 0, 1) + rng.normal(0, 150, (2, SIDE, SIDE))
        stored = np.clip(values, 1, None).astype("uint16")
        stored[:, :3, :3] = 0
        path = folder / f"s_{start + datetime.timedelta(day):%Y%m%d}.tif"
        paths.append(write(path, stored, nodata=0, names=("red", "nir")))
    return paths


def write_fields(path: Path) -> None:
    rows = []
    for year, (first, last) in enumerate(YEARS):
        of = cover(year)
        for y in range(0, SIDE, CELL):
            for x in range(0, SIDE, CELL):
                left, top = TRANSFORM.c + 10 * x, TRANSFORM.f - 10 * y
                geometry = box(left + 20, top - 60, left + 60, top - 20)
                rows.append({"crop": NAMES[of[y, x]], "from": first, "to": last, "geometry": geometry})
    gpd.GeoDataFrame(rows, crs=CRS).to_file(path)


def write_job(path: Path, **changes: Any) -> Path:
    values: dict[str, Any] = {
        "imagery": [{"path": "images/s_*.tif", "date": "%Y%m%d"}],
        "labels": {"path": "fields.gpkg", "field": "crop", "from": "from", "to": "to"},
        "output": "out",
        "folds": {"k": 0},
        "model": MODEL,
        "training": {"epochs": 12, "batch_size": 64, "optimizer": {"name": "adamw", "lr": 0.02}, "track": ["csv"]},
        "predict": {"periods": "labels", "layers": ["classes", "saliency"]},
        "compute": {"threads": 1},
    }
    path.write_text(yaml.safe_dump(values | changes))
    return path


def make(folder: Path) -> Path:
    for year, days in enumerate(DAYS):
        write_year(folder / "images", year, days)
    write_fields(folder / "fields.gpkg")
    write_job(folder / "job.yaml")
    return folder


def classes(path: Path) -> Any:
    with rasterio.open(path) as raster:
        return raster.read(1)


def right(path: Path, year: int) -> float:
    """Return the share of valid pixels whose class is right; codes are 1, 2, 3 in the order of names."""
    found = classes(path)
    valid = found > 0
    assert valid.sum() == SIDE * SIDE - 9
    return float((found == cover(year) + 1)[valid].mean())


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))

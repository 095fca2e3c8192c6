"""Small things that many tests need: a scene with three classes, labels for it, and a job."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
import yaml
from affine import Affine
from shapely.geometry import box

CRS = "EPSG:32633"
TRANSFORM = Affine(10, 0, 500_000, 0, -10, 5_000_000)
NAMES = ("green", "red", "nir")
MEANS = {"water": (200, 150, 80), "forest": (300, 500, 2500), "field": (900, 1100, 1800)}


def write_scene(path: Path, *, side: int = 96, seed: int = 0, nodata: int = 0) -> Path:
    """Write a raster of three bands whose land cover lies in squares of 12 pixels; the first corner has no data."""
    rng = np.random.default_rng(seed)
    cover = np.kron(cells(side), np.ones((12, 12), int))[:side, :side]
    means = np.array(list(MEANS.values()))
    values = means[cover].transpose(2, 0, 1) + rng.normal(0, 120, (3, side, side))
    values = np.clip(values, 1, None).astype(np.uint16)
    values[:, :5, :5] = nodata
    profile = {
        "driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint16", "crs": CRS,
        "transform": TRANSFORM, "nodata": nodata,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(values)
        for i, name in enumerate(NAMES, 1):
            raster.set_band_description(i, name)
    return path


def cells(side: int) -> np.ndarray[Any, Any]:
    """Return the class of each square of 12 pixels."""
    n = -(-side // 12)
    return (np.arange(n)[:, None] * 2 + np.arange(n)[None]) % 3


def write_labels(path: Path, *, side: int = 96, crs: str = CRS, every: int = 1) -> Path:
    """Write a polygon inside each whole square (each ``every``-th), with its class in the field `class`."""
    names = list(MEANS)
    rows = []
    for i, (r, c) in enumerate(np.ndindex(*cells(side).shape)):
        if i % every or 12 * (r + 1) > side or 12 * (c + 1) > side:
            continue
        x, y = TRANSFORM.c + 120 * c, TRANSFORM.f - 120 * r
        rows.append({"class": names[cells(side)[r, c]], "geometry": box(x + 30, y - 90, x + 90, y - 30)})
    frame = gpd.GeoDataFrame(rows, crs=CRS).to_crs(crs)
    frame.to_file(path)
    return path


def write_season(folder: Path, *, side: int = 48, years: tuple[int, ...] = (2020, 2021)) -> Path:
    """Write a folder of dated images, ``season/S2_YYYYMMDD.tif``, and points with a period each, ``seasons.csv``.

    Land lies in squares of 12 pixels. On each grows, from one year to the next another of three: an early crop, a late one, or
    forest; only their course over the year tells them apart. A tenth of each image is cloud: its band ``clouds`` is 1 there.
    """
    rng = np.random.default_rng(0)
    (folder / "season").mkdir(parents=True, exist_ok=True)
    peaks = {"early": 120.0, "late": 240.0, "forest": None}
    names = list(peaks)
    rows = []
    to = pyproj.Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)
    for k, year in enumerate(years):
        cover = (cells(side) + k) % 3
        grown = np.kron(cover, np.ones((12, 12), int))[:side, :side]
        for day in range(5, 365, 30):
            level = np.array(
                [0.6 if p is None else 0.15 + 0.6 * np.exp(-(((day - p) / 45) ** 2)) for p in peaks.values()]
            )
            green = level[grown] + rng.normal(0, 0.03, grown.shape)
            cloud = np.kron(rng.random((side // 12, side // 12)) < 0.1, np.ones((12, 12), bool))
            values = np.stack([2000 * (1 - green), 4000 * green + 500, cloud])
            values[:2, cloud] = 9000
            date = datetime.date(year, 1, 1) + datetime.timedelta(day)
            profile = {
                "driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint16", "crs": CRS,
                "transform": TRANSFORM, "nodata": 65535,
            }  # fmt: skip
            with rasterio.open(folder / "season" / f"S2_{date:%Y%m%d}.tif", "w", **profile) as raster:
                raster.write(np.clip(values, 0, 9000).astype(np.uint16))
                for i, name in enumerate(("red", "nir", "clouds"), 1):
                    raster.set_band_description(i, name)
        for r, c in np.ndindex(*cover.shape):
            for _ in range(4):
                column, row = c * 12 + rng.uniform(1, 11), r * 12 + rng.uniform(1, 11)
                lon, lat = to.transform(TRANSFORM.c + 10 * column, TRANSFORM.f - 10 * row)
                rows.append((lon, lat, f"{year}-01-01", f"{year}-12-31", names[cover[r, c]]))
    table = pd.DataFrame(rows, columns=["lon", "lat", "from", "to", "class"])
    table.to_csv(folder / "seasons.csv", index=False)
    return folder


def write_plots(path: Path, scene: Path, *, number: int = 60) -> Path:
    """Write points on a scene with a field `height`, a hundredth of near infrared minus red."""
    rng = np.random.default_rng(0)
    with rasterio.open(scene) as raster:
        values = raster.read().astype(float)
        rows, columns = rng.integers(6, min(raster.shape), (2, number))
        x, y = raster.transform * (columns + 0.5, rows + 0.5)
    height = (values[2] - values[1])[rows, columns] / 100
    pd.DataFrame({"x": x, "y": y, "height": height}).to_csv(path, index=False)
    return path


def write_chips(folder: Path, *, side: int = 5, per_class: int = 20, folds: tuple[str, ...] = ()) -> Path:
    """Write chips in the colours of the scene: ``<class>/<number>.tif``, in folders of folds if there are any.

    The value at the centre says less than those around it.
    """
    rng = np.random.default_rng(0)
    for fold in folds or ("",):
        for name, means in MEANS.items():
            (folder / fold / name).mkdir(parents=True)
            for i in range(per_class):
                values = np.array(means)[:, None, None] + rng.normal(0, 150, (len(means), side, side))
                values[:, side // 2, side // 2] += rng.normal(0, 400, len(means))
                # Each at a place of its own.
                place = TRANSFORM * Affine.translation(*rng.uniform(0, 5000, 2))
                with rasterio.open(
                    folder / fold / name / f"{i}.tif", "w", driver="GTiff", count=len(means), width=side, height=side,
                    dtype="float32", crs=CRS, transform=place,
                ) as raster:  # fmt: skip
                    raster.write(values.astype(np.float32))
                    for band, text in enumerate(NAMES, 1):
                        raster.set_band_description(band, text)
    return folder


def write_job(path: Path, **changes: Any) -> Path:
    """Write a small, quick job over ``scene.tif`` and ``fields.gpkg`` beside it."""
    values: dict[str, Any] = {
        "imagery": [{"path": "scene.tif"}],
        "labels": {"path": "fields.gpkg", "field": "class"},
        "output": "out",
        "folds": {"k": 0},
        "model": {"name": "mlp", "hidden": [8]},
        "training": {"epochs": 3, "track": ["csv"]},
    }
    path.write_text(yaml.safe_dump(values | changes))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with `scene.tif`, `fields.gpkg` (in geographic coordinates) and `job.yaml`."""
    write_scene(tmp_path / "scene.tif")
    write_labels(tmp_path / "fields.gpkg", crs="EPSG:4326")
    write_job(tmp_path / "job.yaml")
    return tmp_path


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of real imagery; tests that need it are skipped where it is absent."""
    path = Path(os.environ.get("LANDWEAVE_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"real imagery is absent: neither $LANDWEAVE_DATA nor {path} is a folder")
    return path

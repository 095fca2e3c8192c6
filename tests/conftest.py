"""Small things that many tests need: a scene with three classes, labels for it, and a job."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine
from shapely.geometry import box

CRS = "EPSG:32633"
TRANSFORM = Affine(10, 0, 500_000, 0, -10, 5_000_000)
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
        for i, name in enumerate(("green", "red", "nir"), 1):
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

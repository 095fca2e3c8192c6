"""Small rasters for tests of imagery."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from pipeline.imagery.sources import Source

CRS = "EPSG:32633"
NORTH_UP = Affine(10, 0, 500_000, 0, -10, 5_000_000)


def write(path: Path, bands: Any, **profile: Any) -> Path:
    """Write bands (C, H, W) to a GeoTIFF; ``names`` are their descriptions."""
    bands = np.asarray(bands)
    names = profile.pop("names", ())
    before = {k: profile.pop(k) for k in ("scales", "offsets", "colorinterp") if k in profile}
    place = {} if "gcps" in profile else {"transform": NORTH_UP}
    options = {"driver": "GTiff", "crs": CRS, "dtype": bands.dtype.name} | place | profile
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = bands.shape
    with rasterio.open(path, "w", count=count, height=height, width=width, **options) as raster:
        # A GeoTIFF takes these only before its first pixel.
        for key, value in before.items():
            setattr(raster, key, value)
        for i, name in enumerate(names, start=1):
            raster.set_band_description(i, name)
        raster.write(bands)
    return path


def grid(height: int, width: int, transform: Affine = NORTH_UP, crs: str = CRS) -> GeoBox:
    """Return a grid."""
    return GeoBox((height, width), transform, crs)


def source(path: Path, count: int = 1, **changes: Any) -> Source:
    """Return a source of the first bands of a file, b1, b2, ..."""
    date: datetime.date | None = changes.pop("date", None)
    values = {
        "indexes": tuple(range(1, count + 1)),
        "bands": tuple(f"b{i}" for i in range(1, count + 1)),
        "nodata": None,
        "scales": (1.0,) * count,
        "offsets": (0.0,) * count,
    }
    return Source(path=str(path), date=date, **(values | changes))


def noise(count: int, height: int, width: int, dtype: str = "uint16", seed: int = 0, most: int = 4000) -> Any:
    """Return random stored values (C, H, W) from 1 on."""
    return np.random.default_rng(seed).integers(1, most, (count, height, width)).astype(dtype)


def pattern(bands: int, height: int, width: int, dtype: str = "uint8") -> Any:
    """Return values of which no two are alike."""
    return np.arange(bands * height * width).reshape(bands, height, width).astype(dtype)

"""What the benchmarks share: a raster, a bundle without training, and how figures are reported."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
from affine import Affine
from shapely.geometry import box

from models.bundle import Bundle
from models.settings import SaliencySettings
from models.table import build
from pipeline.imagery.open import open_cube
from pipeline.settings import ComputeSettings, ImagerySettings
from workflows.request import MapRequest
from workflows.settings import PredictSettings

BANDS = ("blue", "green", "red", "nir")
CLASSES = 8
FIGURES = "LANDWEAVE_FIGURES"
"""Environment variable that names the file to which figures are added, a line of JSON each."""


def shown(value: float, unit: str) -> str:
    """Return a figure as it is shown."""
    return f"{value:.1%}" if unit == "%" else f"{value:.3g} {unit}".rstrip()


def report(figure: str, value: float, *, unit: str = "", least: float | None = None, most: float | None = None) -> None:
    """Print a figure for the table of docs/performance.md, and add it to the file of figures where one is asked for.

    Parameters
    ----------
    figure : str
        What was measured, against what, in a few words.
    value : float
        A ratio of one run; a share or a time only where that is what was asked for.
    unit : str
        ``"%"`` of a share between 0 and 1, ``"ms"``, ...; none of a ratio.
    least, most : float, optional
        What was asked for, in the unit of the value.
    """
    line = {"figure": figure, "value": float(value), "unit": unit, "least": least, "most": most}
    print(f"=> {figure}: {shown(value, unit)}", flush=True)
    file = os.environ.get(FIGURES)
    if file:
        with Path(file).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def make_raster(path: Path, side: int, seed: int = 0, compress: str = "deflate", predictor: int = 2) -> Path:
    """Write a side x side x 4 uint16 GeoTIFF, 512 tiles: smooth land with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:512, :512] / 512 * 2 * np.pi
    tiles = [
        (2000 + 600 * np.sin(y * (i + 1)) * np.cos(x * (i + 2)) + rng.normal(0, 60, (512, 512))).astype(np.uint16)
        for i in range(len(BANDS))
    ]
    profile = {
        "driver": "GTiff", "width": side, "height": side, "count": len(BANDS), "dtype": "uint16", "tiled": True,
        "blockxsize": 512, "blockysize": 512, "compress": compress, "predictor": predictor, "interleave": "band",
        "crs": "EPSG:32633", "transform": Affine(10, 0, 500_000, 0, -10, 5_000_000), "nodata": 0, "bigtiff": "if_safer",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as raster:
        for i, name in enumerate(BANDS, 1):
            raster.set_band_description(i, name)
        for row in range(0, side, 512):
            for column in range(0, side, 512):
                height, width = min(512, side - row), min(512, side - column)
                window = ((row, row + height), (column, column + width))
                raster.write(np.stack([t[:height, :width] for t in tiles]), window=window)
    return path


def make_labels(path: Path, raster: Path, features: int) -> Path:
    """Write squares of 8 classes, scattered over the raster."""
    with rasterio.open(raster) as dataset:
        left, bottom, right, top = dataset.bounds
    rng = np.random.default_rng(0)
    side = rng.uniform(50, 400, features)
    x, y = rng.uniform(left, right - side), rng.uniform(bottom, top - side)
    shapes = [box(a, b, a + s, b + s) for a, b, s in zip(x, y, side, strict=True)]
    gpd.GeoDataFrame({"class": rng.integers(1, 9, features)}, geometry=shapes, crs="EPSG:32633").to_file(path)
    return path


def make_series(path: Path, side: int, dates: int) -> Path:
    """Write a side x side uint16 GeoTIFF whose bands are 16 days apart, their dates in their names."""
    first = datetime.date(2020, 1, 1)
    y, x = np.mgrid[:side, :side] / 64
    profile = {
        "driver": "GTiff", "width": side, "height": side, "count": dates, "dtype": "uint16", "tiled": True,
        "blockxsize": 256, "blockysize": 256, "compress": "lzw", "interleave": "band", "crs": "EPSG:32633",
        "transform": Affine(10, 0, 500_000, 0, -10, 5_000_000), "nodata": 0,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as raster:
        for t in range(dates):
            raster.write((2000 + 900 * np.sin(y + t / 4) * np.cos(x)).astype(np.uint16), t + 1)
            raster.set_band_description(t + 1, (first + datetime.timedelta(16 * t)).isoformat())
    return path


def make_bundle(
    folder: Path, name: str, settings: dict[str, object], dates: int = 1, bands: Sequence[str] = ()
) -> Bundle:
    """Save and load a bundle with random weights: what a map costs does not depend on what was learned.

    Where bands are not named, imagery of several dates has one, and of one date four.
    """
    bands = bands or (BANDS if dates == 1 else ("ndvi",))
    network = build(name, settings, bands=len(bands), dates=dates, classes=CLASSES)
    legend = [
        {"name": f"class {i}", "code": i, "color": f"#{i * 30:02x}{255 - i * 30:02x}40", "values": [str(i)]}
        for i in range(1, CLASSES + 1)
    ]
    bundle = Bundle(
        task={"name": "classification"},
        network=network, bands=list(bands), dates=[None] * dates, time=[16.0 * t for t in range(dates)],
        mean=[2000.0] * len(bands), std=[400.0] * len(bands), legend=legend,
        temperature=1.0, figures={}, training={}, imagery={}, created="2020-01-01T00:00:00+00:00",
    )  # fmt: skip
    bundle.save(folder)
    return Bundle.load(folder)


def request(
    raster: Path, folder: Path, bundle: Bundle, layers: list[str], threads: int, memory: str = "auto"
) -> MapRequest:
    """Return the request of a map of a raster, or of a file whose bands are dates."""
    series = {"band": "ndvi", "dates": "bands"} if len(bundle.time) > 1 else {}
    cube, _ = open_cube([ImagerySettings.model_validate({"path": str(raster)} | series)], None, None)
    return MapRequest(
        bundle=bundle, folder=folder, cube=cube, predict=PredictSettings(layers=layers), saliency=SaliencySettings(),
        compute=ComputeSettings(threads=threads, memory=memory), key_imagery={}, software={"landweave": "benchmark"},
    )  # fmt: skip

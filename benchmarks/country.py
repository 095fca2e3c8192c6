"""A country of 100,000 x 100,000 pixels, 10 bands and 24 dates: checked whole, run over a part of it."""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import yaml
from affine import Affine
from rasterio.windows import Window
from shapely.geometry import box

SIDE, BANDS, DATES = 100_000, 10, 24
# The part that holds pixels, and the part that is mapped around it.
LAND, AREA = 2048, 4096
_TILE = 512
# Side of the fields on the land, of which every second in each direction is labelled, on a part of it.
_FIELD = 128
_CLASSES = ("water", "forest", "grassland", "cropland")
_CRS, _CORNER, _PIXEL = "EPSG:3035", (2_600_000.0, 4_100_000.0), 10.0
_STAGES = ("check", "prepare", "train", "predict", "evaluate", "report")


@dataclass(frozen=True, slots=True)
class Country:
    """A sparse series of images of a country, of which only a square of land in the middle holds pixels.

    Attributes
    ----------
    side : int
        Pixels on a side of the images.
    land : int
        Pixels on a side of the land.
    """

    side: int = SIDE
    land: int = LAND

    @property
    def first(self) -> int:
        """Row, and column, of the land's first pixel: that of a tile."""
        return (self.side - self.land) // 2 // _TILE * _TILE

    def square(self, row: int, column: int, side: int) -> object:
        """Return a square of pixels in map units."""
        x, y = _CORNER[0] + _PIXEL * column, _CORNER[1] - _PIXEL * row
        return box(x, y - _PIXEL * side, x + _PIXEL * side, y)

    def image(self, path: Path, date: int) -> None:
        """Write the image of one date: where there is no land the file holds nothing."""
        rng = np.random.default_rng(date)
        rows, columns = np.mgrid[: self.land, : self.land] // _FIELD
        kind = (rows // 2 + columns // 2) % len(_CLASSES)
        noise = rng.normal(0, 40, (self.land, self.land))
        profile = {
            "driver": "GTiff", "width": self.side, "height": self.side, "count": BANDS, "dtype": "uint16", "nodata": 0,
            "crs": _CRS, "transform": Affine(_PIXEL, 0, _CORNER[0], 0, -_PIXEL, _CORNER[1]), "tiled": True,
            "blockxsize": _TILE, "blockysize": _TILE, "compress": "zstd", "zstd_level": 1, "predictor": 2, "bigtiff": "yes",
            "sparse_ok": True, "interleave": "pixel", "num_threads": "all_cpus",
        }  # fmt: skip
        with rasterio.open(path, "w", **profile) as raster:
            for i in range(BANDS):
                raster.set_band_description(i + 1, f"b{i + 1}")
            levels = [
                [1000 + 300 * k + 60 * i + 200 * np.sin(date / 4 + k) for k in range(len(_CLASSES))]
                for i in range(BANDS)
            ]
            values = np.stack([(np.array(of)[kind] + noise).astype(np.uint16) for of in levels])
            raster.write(values, window=Window(self.first, self.first, self.land, self.land))

    def make(self, folder: Path, network: str, *, area: int | None) -> Path:
        """Write images, labels and the job file; return the last."""
        day = datetime.date(2024, 1, 7)
        for t in range(DATES):
            self.image(folder / f"S2_{day + datetime.timedelta(15 * t):%Y%m%d}.tif", t)
        fields = range(0, self.land // _FIELD, 4)
        places = [(r, c) for r in fields for c in range(0, self.land // _FIELD, 2)]
        labels = {
            "class": [_CLASSES[(r // 2 + c // 2) % len(_CLASSES)] for r, c in places],
            "geometry": [self.square(self.first + r * _FIELD + 8, self.first + c * _FIELD + 8, 24) for r, c in places],
        }
        gpd.GeoDataFrame(labels, crs=_CRS).to_file(folder / "fields.gpkg")
        job = {
            "output": "run",
            "imagery": [{"path": "S2_*.tif", "date": "%Y%m%d"}],
            "labels": {"path": "fields.gpkg", "field": "class"},
            "folds": {"method": "features"},
            "model": {"name": network},
            "training": {"epochs": 1},
            "predict": {"layers": ["classes", "confidence"]},
        }
        if area is not None:
            margin = (area - self.land) // 2
            around = self.square(self.first - margin, self.first - margin, area)
            gpd.GeoDataFrame(geometry=[around], crs=_CRS).to_file(folder / "area.gpkg")
            job["area"] = "area.gpkg"
        path = folder / "country.yaml"
        path.write_text(yaml.safe_dump(job, sort_keys=False))
        return path


def timed(stage: str, job: Path, *, shown: bool) -> None:
    """Run a command in a process of its own; print what it took."""
    start = time.perf_counter()
    stream = None if shown else subprocess.PIPE
    command = [sys.executable, "-m", "workflows.cli", stage, str(job)]
    process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT if stream else None)
    said = process.stdout.read() if process.stdout else b""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(said.decode() or f"{stage} failed")
    cpu = used.ru_utime + used.ru_stime
    print(
        f"{stage:<9} {time.perf_counter() - start:7.1f} s, {cpu:7.1f} s of a core, peak {used.ru_maxrss / 1024:,.0f} MiB",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=SIDE, help="pixels on a side of the country")
    parser.add_argument("--land", type=int, default=LAND, help="pixels on a side of what is not empty")
    parser.add_argument("--network", default="mlp")
    parser.add_argument("--run", action="store_true", help="run the whole job, over a part of the country")
    parser.add_argument(
        "--everywhere", action="store_true", help="with --run: without an area, so that all of it is mapped"
    )
    parser.add_argument(
        "--paper", action="store_true", help="print the plan of a country, from rates, and nothing else"
    )
    options = parser.parse_args()
    country = Country(options.side, options.land)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        job = country.make(folder, options.network, area=None if options.everywhere else 2 * options.land)
        files = sorted(folder.glob("*.tif"))
        said, kept = len(files) * BANDS * 2 * country.side**2, sum(f.stat().st_size for f in files)
        print(
            f"{len(files)} images of {country.side:,} x {country.side:,} px, {BANDS} bands: {said / 1e12:.2f} TB, "
            f"{kept / 1e6:,.0f} MB on disk",
            flush=True,
        )
        for stage in _STAGES if options.run else _STAGES[:1]:
            timed(stage, job, shown=stage == "check")
        for path in sorted((folder / "run" / "maps").glob("*.tif")):
            print(f"{path.name:<16} {path.stat().st_size / 1e6:,.1f} MB")


if __name__ == "__main__":
    main()

"""A country of 100,000 x 100,000 pixels, 10 bands and 24 dates: checked whole, run over a part of it, planned on paper."""

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
from paper import Measured, plan, stored_share
from rasterio.windows import Window
from shapely.geometry import box

SIDE, BANDS, DATES = 100_000, 10, 24
LAND = 2048
_TILE = 512
# Fields along a side of the land.
_FIELDS = 16
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

    @property
    def field(self) -> int:
        """Pixels on a side of a field."""
        return self.land // _FIELDS

    def square(self, row: int, column: int, side: int) -> object:
        """Return a square of pixels in map units."""
        x, y = _CORNER[0] + _PIXEL * column, _CORNER[1] - _PIXEL * row
        return box(x, y - _PIXEL * side, x + _PIXEL * side, y)

    def image(self, path: Path, date: int) -> None:
        """Write the image of one date: where there is no land the file holds nothing."""
        rng = np.random.default_rng(date)
        rows, columns = np.mgrid[: self.land, : self.land] // self.field
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

    def images(self, folder: Path) -> list[Path]:
        """Write all images; return their paths."""
        first = datetime.date(2024, 1, 7)
        paths = [folder / f"S2_{first + datetime.timedelta(15 * t):%Y%m%d}.tif" for t in range(DATES)]
        for t, path in enumerate(paths):
            self.image(path, t)
        return paths

    def job(self, folder: Path, network: str, *, part: bool) -> Path:
        """Write labels, an area of twice the land's width around it, and the job file, of that ``part`` or of all; return it."""
        # On every fourth row of fields every second is labelled, on a part of it.
        places = [(r, c) for r in range(0, _FIELDS, 4) for c in range(0, _FIELDS, 2)]
        labels = {
            "class": [_CLASSES[(r // 2 + c // 2) % len(_CLASSES)] for r, c in places],
            "geometry": [
                self.square(self.first + r * self.field + 8, self.first + c * self.field + 8, 24) for r, c in places
            ],
        }
        gpd.GeoDataFrame(labels, crs=_CRS).to_file(folder / "fields.gpkg")
        job = {
            "output": "run",
            "imagery": [{"path": "S2_*.tif", "date": "%Y%m%d"}],
            "area": "area.gpkg" if part else None,
            "labels": {"path": "fields.gpkg", "field": "class"},
            "folds": {"method": "features"},
            "model": {"name": network},
            "training": {"epochs": 1},
            "predict": {"layers": ["classes", "confidence"]},
        }
        around = self.square(self.first - self.land // 2, self.first - self.land // 2, 2 * self.land)
        gpd.GeoDataFrame(geometry=[around], crs=_CRS).to_file(folder / "area.gpkg")
        path = folder / "country.yaml"
        path.write_text(yaml.safe_dump(job, sort_keys=False))
        return path


def timed(stage: str, job: Path) -> str:
    """Run a command in a process of its own; return what it says, and what it took."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([sys.executable, "-m", "workflows.cli", stage, str(job)], stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        said.seek(0)
        text = said.read().decode()
    if process.returncode:
        sys.exit(text or f"{stage} failed")
    cpu = used.ru_utime + used.ru_stime
    took = f"{stage:<9} {seconds:7.1f} s, {cpu:7.1f} s of a core, peak {used.ru_maxrss / 1024:,.0f} MiB"
    return f"{text}\n{took}" if stage == "check" else took


def put(name: str, text: str, page: Path | None) -> None:
    """Print a text, and put it between its markers in a page where one is given."""
    print(text, flush=True)
    if page is None:
        return
    before, after = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    whole = page.read_text()
    start, end = whole.index(before) + len(before), whole.index(after)
    page.write_text(f"{whole[:start]}{text}\n{whole[end:]}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=SIDE, help="pixels on a side of the country")
    parser.add_argument(
        "--land", type=int, default=LAND, help="pixels on a side of what is not empty; twice as wide is the area"
    )
    parser.add_argument("--network", default="mlp")
    parser.add_argument("--run", action="store_true", help="run the whole job, over the area")
    parser.add_argument("--paper", action="store_true", help="print the plan of the country from rates of this machine")
    parser.add_argument("--image", type=Path, help="with --paper: a real image, which says how well images compress")
    parser.add_argument("--into", type=Path, help="a page with markers, such as docs/scale.md, to put the result into")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.paper:
            scene = Country(1024, 1024)
            images = scene.images(folder)
            image = options.image or images[0]
            share = stored_share(image)
            print(f"{image.name} is stored in {share:.0%} of the bytes of its values")
            put("paper", plan(Measured(images, folder), options.side, BANDS, share), options.into)
            return
        country = Country(options.side, options.land)
        images, job = country.images(folder), country.job(folder, options.network, part=options.run)
        said, kept = len(images) * BANDS * 2 * country.side**2, sum(f.stat().st_size for f in images)
        lines = [f"{len(images)} images: {said / 1e12:.2f} TB of pixels, {kept / 1e6:,.0f} MB on disk"]
        print(lines[0], flush=True)
        for stage in _STAGES if options.run else _STAGES[:1]:
            lines.append(timed(stage, job))
            print(lines[-1], flush=True)
        lines += [
            f"{p.name:<16} {p.stat().st_size / 1e6:,.1f} MB" for p in sorted((folder / "run" / "maps").glob("*.tif"))
        ]
        text = "\n".join(line.rstrip() for line in "\n".join(lines).splitlines())
        put("run" if options.run else "check", f"```text\n{text}\n```", options.into)


if __name__ == "__main__":
    main()

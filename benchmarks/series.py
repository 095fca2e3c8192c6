"""Long series: the time to plan a cube, and to read blocks of it, against bare rasterio reads of the same windows."""

from __future__ import annotations

import argparse
import datetime
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from common import report

from pipeline.grid import Window
from pipeline.imagery import handles
from pipeline.imagery.open import open_cube
from pipeline.settings import ImagerySettings, TemporalSettings

SIDE, TILE = 256, 128
WINDOWS = [Window(y=y, x=x, height=TILE, width=TILE) for y in (0, TILE) for x in (0, TILE)]


def make(folder: Path, dates: list[datetime.date]) -> tuple[list[str], str]:
    """Write a file per date, and one file whose bands are the dates."""
    rng = np.random.default_rng(0)
    land = rng.integers(1, 4000, (SIDE, SIDE), dtype=np.uint16)
    profile = {
        "driver": "GTiff", "width": SIDE, "height": SIDE, "dtype": "uint16", "nodata": 0, "crs": "EPSG:32633", "tiled": True,
        "blockxsize": TILE, "blockysize": TILE, "transform": Affine(10, 0, 500_000, 0, -10, 5_000_000),
    }  # fmt: skip
    folder.mkdir()
    files = []
    for i, date in enumerate(dates):
        files.append(str(folder / f"ndvi_{date:%Y%m%d}.tif"))
        with rasterio.open(files[-1], "w", count=1, **profile) as raster:
            raster.write(np.roll(land, i)[None])
    together = str(folder / "dates.tif")
    with rasterio.open(together, "w", count=len(dates), interleave="band", **profile) as raster:
        for i, date in enumerate(dates, start=1):
            raster.write(np.roll(land, i - 1), i)
            raster.set_band_description(i, date.isoformat())
    return files, together


def best(work: Callable[[], object], rounds: int) -> float:
    """Return the shortest of a few times, in seconds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def bare(files: list[str]) -> None:
    """Read the windows with rasterio alone: each file opened once, all its windows read."""
    for path in files:
        with rasterio.open(path) as raster:
            for window in WINDOWS:
                raster.read(window=window.to_rasterio(), out_dtype="float32")


def bare_blocks(files: list[str]) -> None:
    """Read the windows with rasterio alone, block by block, as a map does: each file opened for each block."""
    for window in WINDOWS:
        for path in files:
            with rasterio.open(path) as raster:
                raster.read(window=window.to_rasterio(), out_dtype="float32")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dates", type=int, nargs="+", default=[137, 1000])
    for count in parser.parse_args().dates:
        dates = [datetime.date(2000, 1, 1) + datetime.timedelta(8 * i) for i in range(count)]
        with tempfile.TemporaryDirectory() as temporary:
            files, together = make(Path(temporary) / "series", dates)
            kinds = {
                "a file per date": ({"path": files, "date": "%Y%m%d"}, files),
                "bands are dates": ({"path": together, "band": "ndvi", "dates": "bands"}, [together]),
            }
            for name, (entry, paths) in kinds.items():
                measure(f"{count} dates, {name}", entry, paths, rounds=3 if count < 500 else 1)


def measure(name: str, entry: dict[str, object], paths: list[str], rounds: int) -> None:
    """Print what one series costs."""
    settings = [ImagerySettings.model_validate(entry)]
    temporal = TemporalSettings(every=16, fill="linear")
    opens = {"n": 0}
    original = handles._open

    def counted(*given: Any) -> object:
        opens["n"] += 1
        return original(*given)

    handles._open = counted
    plan = best(lambda: open_cube(settings, None, None), rounds)
    planned, opens["n"] = opens["n"] / rounds, 0
    cube, _ = open_cube(settings, None, None)
    steps, _ = open_cube(settings, None, None, temporal=temporal)
    opens["n"] = 0
    ours = best(lambda: [cube.read(window) for window in WINDOWS], rounds)
    passed = opens["n"] / rounds
    stepped = best(lambda: [steps.read(window) for window in WINDOWS], rounds)
    handles._open = original
    once, each = best(lambda: bare(paths), rounds), best(lambda: bare_blocks(paths), rounds)
    opening = best(lambda: [rasterio.open(path).close() for path in paths], rounds)
    values = len(cube.dates) * SIDE * SIDE
    print(name)
    print(
        f"  plan: {plan:.2f} s, {plan / opening:.1f} x opening each file once; {planned / len(paths):.1f} opens a file"
    )
    print(f"  four blocks: {ours:.2f} s, {values / ours / 1e6:.0f} M values/s; {passed / len(paths):.1f} opens a file")
    print(
        f"  against rasterio: {ours / each:.2f} x opening files for each block, {ours / once:.2f} x opening each once"
    )
    report(f"{name}: time to read blocks, to rasterio opening each file for each block", ours / each)
    report(f"{name}: time as steps of 16 days, to the same without", stepped / ours)


if __name__ == "__main__":
    main()

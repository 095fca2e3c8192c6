"""How close `Cube.read` comes to what bare GDAL decodes: the same windows on as many threads, in one run.

Bare GDAL reads each window into an array of the file's own type that is there already, with a handle per thread; the cube
makes float32 and validity of it. Both go over all blocks in turns, and the best turn of each counts.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from common import make_raster, report

from pipeline.engine import cores
from pipeline.grid import BlockGrid, Window, whole
from pipeline.imagery.handles import configure
from pipeline.imagery.open import open_cube
from pipeline.settings import ImagerySettings

PIECES = (("zstd", 2), ("deflate", 2), ("lzw", 2), ("none", 1))


def seconds(work: Callable[[Window], object], windows: list[Window], pool: ThreadPoolExecutor) -> tuple[float, float]:
    """Return seconds, and seconds of all cores together, for work over windows on threads."""
    start, spent = time.perf_counter(), time.process_time()

    def alone(window: Window) -> None:
        # What is read is let go at once, as by a block task.
        work(window)

    for _ in pool.map(alone, windows):
        pass
    return time.perf_counter() - start, time.process_time() - spent


def measured(path: Path, size: int, halo: int, threads: int, repeats: int) -> tuple[float, float, float]:
    """Return the rate of bare GDAL in bytes per second, and the cube's share of it by the clock and by the cores' time."""
    cube, _ = open_cube([ImagerySettings(path=str(path))], None, None)
    configure()
    inside = whole(cube.geobox)
    windows = [b.padded for b in BlockGrid(geobox=cube.geobox, size=size, halo=halo)]
    own = threading.local()

    def bare(window: Window) -> None:
        if not hasattr(own, "raster"):
            own.raster = rasterio.open(path)
            own.values = np.empty((len(cube.bands), size + 2 * halo, size + 2 * halo), np.uint16)
        region = window.intersect(inside)
        assert region is not None
        values: Any = own.values[:, : region.height, : region.width]
        own.raster.read(out=values, window=region.to_rasterio())

    with ThreadPoolExecutor(threads) as pool:
        turns = [(seconds(bare, windows, pool), seconds(cube.read, windows, pool)) for _ in range(repeats)]
    clock, spent = (min(t[0][i] for t in turns) / min(t[1][i] for t in turns) for i in (0, 1))
    total = len(cube.bands) * 2 * inside.height * inside.width
    return total / min(t[0][0] for t in turns), clock, spent


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--halo", type=int, default=32)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"uint16, 4 bands, tiles of 512, blocks of {options.size} + 2 x {options.halo} px, {options.threads} threads")
    print("compression  bare GDAL   the cube's share   by the cores' time")
    with tempfile.TemporaryDirectory() as folder:
        for compress, predictor in PIECES:
            path = make_raster(Path(folder) / f"{compress}.tif", options.side, compress=compress, predictor=predictor)
            rate, clock, spent = measured(path, options.size, options.halo, options.threads, options.repeats)
            print(f"{compress:12} {rate / 1e6:5.0f} MB/s  {clock:15.2f}  {spent:19.2f}", flush=True)
            # What is not compressed comes as fast as memory is copied: to hold it against that says nothing of decoding.
            asked = None if compress == "none" else 0.9
            report(f"reading {compress}, to bare GDAL with as many threads", clock, least=asked)


if __name__ == "__main__":
    main()

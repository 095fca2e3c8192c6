"""How the mosaic of parts compares with a bare GDAL translate of the same map, in one run.

GDAL copies a single GeoTIFF (512 tiles, ZSTD, as parts are) to a COG with the same compression, overviews and threads, as
`gdal_translate -of COG` does, and syncs it. The mosaic also reads every block back and writes what belongs beside the map.
Both take turns, and the best turn of each counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from common import report
from odc.geo.geobox import GeoBox

from pipeline.engine import cores
from pipeline.files import sync
from pipeline.grid import BlockGrid
from pipeline.maps.layers import Layer
from pipeline.maps.mosaic import cog_options, mosaic
from pipeline.maps.parts import write_parts
from pipeline.maps.store import PartStore

KEY = {"model": "m", "job": "j", "imagery": "i", "software": "s"}


@dataclass(frozen=True)
class Entry:
    """A class of the benchmark."""

    name: str
    code: int
    color: str


class Legend:
    """Eight classes."""

    classes = tuple(Entry(f"class {i}", i, f"#{i * 30:02x}8040") for i in range(1, 9))
    nodata, dtype = 0, "uint8"


def layers() -> Iterator[tuple[Layer, int]]:
    """Return the layers, and how many times shorter than the side of the class map theirs is."""
    yield Layer.classes(Legend()), 1
    yield Layer.confidence(), 1
    yield Layer.probabilities(Legend()), 4


def values_of(layer: Layer, height: int, width: int, seed: int) -> np.ndarray[Any, Any]:
    """Return what a block of a map looks like: fields with edges and specks, and scores that vary within them."""
    rng = np.random.default_rng(seed)
    fields = np.kron(rng.integers(1, 9, (height // 24 + 1, width // 24 + 1)), np.ones((24, 24)))[:height, :width]
    fields = np.where(rng.random(fields.shape) < 0.02, rng.integers(1, 9, fields.shape), fields)
    if layer.legend is not None:
        return fields[None].astype(layer.dtype)
    noise = rng.normal(0, 40, (len(layer.bands), height, width))
    return np.clip(fields * 900 + noise, 0, 10_000).astype(layer.dtype)


def clocked(work: Callable[[], object]) -> tuple[float, float]:
    """Return seconds, and seconds of all cores together."""
    start, spent = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - spent


def compared(layer: Layer, side: int, folder: Path, repeats: int) -> str:
    """Return a line of the table."""
    geobox = GeoBox((side, side), Affine(10, 0, 500_000, 0, -10, 5_000_000), "EPSG:32633")
    blocks = BlockGrid(geobox=geobox, size=1024, halo=0)
    store = PartStore.open(folder / "parts", [layer], blocks, KEY)
    single = folder / "single.tif"
    profile = {
        "driver": "GTiff", "width": side, "height": side, "count": len(layer.bands), "dtype": layer.dtype, "tiled": True,
        "blockxsize": 512, "blockysize": 512, "compress": "zstd", "zstd_level": 1, "predictor": layer.predictor,
        "interleave": "band", "nodata": layer.nodata, "crs": str(geobox.crs), "transform": geobox.affine,
    }  # fmt: skip
    with rasterio.open(single, "w", **profile) as raster:
        for block in blocks:
            values = values_of(layer, block.inner.height, block.inner.width, block.index)
            raster.write(values, window=block.inner.to_rasterio())
            store.record(write_parts(store.folder, [layer], block, {layer.name: values}, geobox))

    def bare() -> None:
        rasterio.shutil.copy(single, folder / "bare.tif", driver="COG", **cog_options(layer, cores()))
        sync(folder / "bare.tif")

    turns = [(clocked(bare), clocked(lambda: mosaic(store, layer, folder / "own.tif"))) for _ in range(repeats)]
    theirs, ours = (min(t[i][0] for t in turns) for i in (0, 1))
    spent = min(t[0][1] for t in turns) / min(t[1][1] for t in turns)
    with rasterio.open(folder / "bare.tif") as one, rasterio.open(folder / "own.tif") as other:
        assert one.overviews(1) == other.overviews(1)
        np.testing.assert_array_equal(one.read(), other.read())
    report(f"mosaicking {layer.name}, verified, to a bare translate by GDAL", theirs / ours, least=1)
    return f"{layer.name:14} {side:6} {theirs:7.2f} s {ours:8.2f} s {theirs / ours:18.2f} {spent:21.2f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print("layer            side      GDAL     mosaic  speed against GDAL    by the cores' time")
    for layer, shorter in layers():
        with tempfile.TemporaryDirectory() as folder:
            print(compared(layer, options.side // shorter, Path(folder), options.repeats), flush=True)


if __name__ == "__main__":
    main()

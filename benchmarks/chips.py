"""How fast the chip store feeds a training: chips of 256 x 256 x 4 a second, against rasterising labels for each chip.

Both ways give the same batch: values, validity and labels of random chips. One process a core reads, as loaders do.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
from common import make_raster
from rasterio.features import rasterize
from shapely import affinity
from shapely.geometry import Point

from pipeline.engine import cores, dask_client
from pipeline.imagery.open import open_cube
from pipeline.samples.chips import ChipStore
from pipeline.samples.cutting import cut_chips
from pipeline.samples.features import open_labels
from pipeline.samples.folds import TRAIN, make_folds
from pipeline.settings import ComputeSettings, FoldSettings, ImagerySettings, LabelSettings

SIZE = 256


def from_store(path: Path, seed: int, n: int) -> int:
    """Read n random chips of the store: values, validity, labels."""
    store = ChipStore.open(path)
    for i in np.random.default_rng(seed).integers(len(store), size=n):
        values = store.values[int(i)]
        valid = np.isfinite(values).all(1)
        labels = store.targets(int(i), 0, TRAIN)
        assert valid.shape[1:] == labels.shape
    return n


def from_files(raster: Path, labels: Path, seed: int, n: int) -> int:
    """Read n random chips from the raster and rasterise the labels of each, as samplers without a store do."""
    frame = gpd.read_file(labels)
    rng = np.random.default_rng(seed)
    with rasterio.open(raster) as source:
        index = frame.sindex
        for _ in range(n):
            row, column = rng.integers(0, source.height // SIZE, 2) * SIZE
            window = rasterio.windows.Window(column, row, SIZE, SIZE)
            values = source.read(window=window, out_dtype="float32")
            transform = source.window_transform(window)
            bounds = rasterio.windows.bounds(window, source.transform)
            found = frame.iloc[index.query(gpd.GeoSeries.from_wkt([_box(bounds)])[0])]
            shapes = list(zip(found.geometry, found["code"], strict=True))
            labels_ = (
                rasterize(shapes, (SIZE, SIZE), transform=transform) if shapes else np.zeros((SIZE, SIZE), np.uint8)
            )
            assert (values != 0).all(0).shape == labels_.shape
    return n


def _box(bounds: tuple[float, float, float, float]) -> str:
    left, bottom, right, top = bounds
    return f"POLYGON(({left} {bottom},{left} {top},{right} {top},{right} {bottom},{left} {bottom}))"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--chips", type=int, default=3000)
    options = parser.parse_args()
    workers = cores()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        raster = make_raster(folder / "scene.tif", options.side)
        labels = folder / "labels.gpkg"
        rng = np.random.default_rng(0)
        with rasterio.open(raster) as source:
            places = [source.transform @ tuple(p) for p in rng.uniform(0, options.side, (2000, 2))]
        shapes = [affinity.scale(Point(p).buffer(rng.uniform(40, 200)), 1, rng.uniform(0.4, 1)) for p in places]
        frame = gpd.GeoDataFrame({"code": 1 + np.arange(len(shapes)) % 8}, geometry=shapes, crs="EPSG:32633")
        frame.to_file(labels)
        cube, _ = open_cube([ImagerySettings(path=str(raster))], None, None)
        opened = open_labels(LabelSettings(path=str(labels), field="code"), None, cube.geobox)
        folds = make_folds(opened, FoldSettings(method="features", k=0), 0)
        path = folder / "chips.zarr"
        start = time.perf_counter()
        with dask_client(ComputeSettings()) as client:
            store = cut_chips(cube, opened, folds, size=SIZE, path=path, key="", max_per_class=1, seed=0, client=client)
        cut = time.perf_counter() - start
        with ProcessPoolExecutor(workers) as pool:
            list(pool.map(from_store, [path] * workers, range(workers), [50] * workers))
            start = time.perf_counter()
            done = sum(pool.map(from_store, [path] * workers, range(workers), [options.chips] * workers))
            fed = done / (time.perf_counter() - start)
            start = time.perf_counter()
            few = max(50, options.chips // 20)
            done = sum(pool.map(from_files, [raster] * workers, [labels] * workers, range(workers), [few] * workers))
            rasterised = done / (time.perf_counter() - start)
        print(f"{len(store)} chips of {SIZE} x {SIZE} x 4, {workers} processes")
        print(f"cutting, once            {len(store) / cut:7.0f} chips/s")
        print(f"from the chip store      {fed:7.0f} chips/s")
        print(f"rasterising each chip    {rasterised:7.0f} chips/s")
        print(f"ratio                    {fed / rasterised:7.1f}")


if __name__ == "__main__":
    main()

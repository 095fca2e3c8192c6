"""How fast the chip store feeds training: chips of 256 x 256 x 4 per second, against rasterising labels per chip.

Two processes by default, as two cores have them; each takes its part of the chips, from the same store or the same files.
What is compared, on the same chips in one run:

- batches: the data module as training uses it: read, normalised, packed into tensors
- reads: the bare reads of the store
- rasterising: a window of the raster and all features rasterised for every chip, as samplers do that keep no store

Then a larger raster is cut by one process and by several, which start, and load Python's packages, before the time is taken:
onto the disk, where the system's writing of gigabytes takes its share of the cores and of the time, and in memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# One thread a process: cores are counted by processes here.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import geopandas as gpd
import numpy as np
import rasterio
import torch
from common import make_labels, make_raster, report
from rasterio.features import rasterize
from rasterio.windows import Window

from pipeline.cluster import dask_client
from pipeline.imagery.open import open_cube
from pipeline.imagery.statistics import Statistics
from pipeline.samples.chips import ALL, ChipStore
from pipeline.samples.cutting import cut_chips
from pipeline.samples.datamodule import ChipDataModule
from pipeline.samples.features import open_labels
from pipeline.samples.folds import TRAIN, make_folds
from pipeline.samples.order import Draw
from pipeline.settings import ComputeSettings, FoldSettings, ImagerySettings, LabelSettings

SIZE = 256
BATCH = 16
# Where Linux has a file system in memory.
MEMORY = Path("/dev/shm")


def cut(path: Path, raster: Path, labels: Path, workers: int = 1) -> tuple[ChipStore, float]:
    """Cut the store on so many processes, of one thread each; return it, and the seconds it took once they were there."""
    cube, _ = open_cube([ImagerySettings(path=str(raster))], None, None)
    found = open_labels(LabelSettings(path=str(labels), field="class"), None, cube.geobox)
    folds = make_folds(found, FoldSettings(method="blocks", k=0), 0)
    # What others have written goes to the disk now, and not while this is timed.
    os.sync()
    with dask_client(ComputeSettings(workers=workers, threads=1)) as client:
        client.wait_for_workers(workers)
        start = time.perf_counter()
        store = cut_chips(
            [cube], found, folds, size=SIZE, path=path, key="", max_per_class=1, seed=0, client=client
        )  # fmt: skip
        return store, time.perf_counter() - start


def batches(store: ChipStore, part: Any, _: Path, __: Path) -> None:
    """Load this part of the chips through the data module."""
    bands = int(store.values.shape[2])
    statistics = Statistics(np.full(bands, 2000, np.float32), np.full(bands, 500, np.float32))
    data = ChipDataModule(store.path, ALL, statistics, batch_size=BATCH).train_dataloader()
    for i in range(0, len(part), BATCH):
        data.dataset[Draw(part[i : i + BATCH])]


def reads(store: ChipStore, part: Any, _: Path, __: Path) -> None:
    """Read values and labels of this part of the chips."""
    for i in range(0, len(part), BATCH):
        store.read(part[i : i + BATCH])


def rasterising(store: ChipStore, part: Any, raster: Path, labels: Path) -> None:
    """Read a window and rasterise the features in it, chip by chip."""
    features = gpd.read_file(labels)
    with rasterio.open(raster) as dataset:
        for i in part:
            y, x = (int(v) for v in store.origins[i])
            window = Window(x, y, SIZE, SIZE)
            dataset.read(window=window)
            near = features.cx[slice(*_span(dataset, x)), slice(*_span(dataset, y, rows=True))]
            rasterize(
                zip(near.geometry, near["class"], strict=True), (SIZE, SIZE), transform=dataset.window_transform(window)
            )


def _span(dataset: Any, start: int, rows: bool = False) -> tuple[float, float]:
    t = dataset.transform
    origin, step = (t.f, t.e) if rows else (t.c, t.a)
    return tuple(sorted((origin + step * start, origin + step * (start + SIZE))))  # type: ignore[return-value]


def child(name: str, path: Path, part: Any, raster: Path, labels: Path, gate: Any, spent: Any) -> None:
    """Do one part of the work once all processes are ready; report its seconds."""
    torch.set_num_threads(1)
    work: Callable[..., None] = {"batches": batches, "reads": reads, "rasterising": rasterising}[name]
    store = ChipStore.open(path)
    work(store, part[:BATCH], raster, labels)
    gate.wait()
    start = time.perf_counter()
    work(store, part, raster, labels)
    spent.put(time.perf_counter() - start)


def rate(name: str, store: ChipStore, chips: Any, processes: int, raster: Path, labels: Path) -> float:
    """Return chips per second of all processes together."""
    context = multiprocessing.get_context("spawn")
    gate, spent = context.Barrier(processes), context.Queue()
    parts = np.array_split(chips, processes)
    running = [
        context.Process(target=child, args=(name, store.path, part, raster, labels, gate, spent)) for part in parts
    ]
    for process in running:
        process.start()
    seconds = max(spent.get() for _ in running)
    for process in running:
        process.join()
    return len(chips) / seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4096, help="side of the raster in pixels")
    parser.add_argument("--features", type=int, default=4000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--large", type=int, default=8192, help="side of the raster that is cut by one process and by several"
    )
    parser.add_argument("--turns", type=int, default=3, help="times it is cut by each")
    parser.add_argument("--repeat", type=int, default=4, help="times each chip is read")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        raster = make_raster(folder / "scene.tif", options.side)
        labels = make_labels(folder / "labels.gpkg", raster, options.features)
        store, seconds = cut(folder / "chips.zarr", raster, labels)
        n = len(store.indices(ALL, TRAIN))
        print(f"{n} chips of {SIZE} x {SIZE} x 4 cut in {seconds:.1f} s")
        rng = np.random.default_rng(0)
        chips = np.concatenate([rng.permutation(n) for _ in range(options.repeat)])
        base = rate("rasterising", store, chips[:n], options.processes, raster, labels)
        print(f"rasterising {base:7.0f} chips/s")
        for name in ("reads", "batches"):
            found = rate(name, store, chips, options.processes, raster, labels)
            print(f"{name:<11} {found:7.0f} chips/s")
            report(f"chips per second, {name} of the store, to rasterising for each chip", found / base)
    speed_up("the disk", None, options.large, options.processes, options.turns)
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 64 * options.large**2:
        speed_up("a file system in memory", MEMORY, options.large, options.processes, options.turns)
    else:
        print(f"not cut in memory: {MEMORY} is not there, or too small")


def speed_up(where: str, place: Path | None, side: int, processes: int, turns: int) -> None:
    """Cut a raster by one process and by several, in turns; print how many times as fast these are."""
    times: dict[int, list[float]] = {1: [], processes: []}
    # The first is not counted: memory that a virtual machine has not used for a while comes page by page from its host, at the
    # cost of whoever is first. Each finds what the one before has left: a store is removed before the next.
    with tempfile.TemporaryDirectory(dir=place) as temporary:
        folder = Path(temporary)
        raster = make_raster(folder / "large.tif", side)
        labels = make_labels(folder / "large.gpkg", raster, (side // 64) ** 2)
        for n in [processes, *[1, processes] * turns]:
            seconds = cut(folder / "large.zarr", raster, labels, n)[1]
            shutil.rmtree(folder / "large.zarr")
            print(f"onto {where}: by {n} in {seconds:.1f} s")
            times[n].append(seconds)
    # The best turn of each: a turn that something disturbed is no measure of the other.
    one, many = min(times[1]), min(times[processes][1:])
    report(f"cutting chips onto {where}, {processes} processes to one, best of {turns}", one / many, least=1.6)


if __name__ == "__main__":
    main()

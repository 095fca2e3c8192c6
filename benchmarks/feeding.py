"""Whether training waits for its samples: the share of a training's time, and what the loader gives by itself.

A U-Net on chips, a patch network and an LSTM on series of single pixels, trained as `train` does, on this machine's device.
Each is fed from memory, as a fold that has room there is, and then from the store, read for every batch; the files are in the
system's cache. Then the loader runs alone: a device that learns so many batches a second would just not wait.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from common import CLASSES, make_labels, make_raster, make_series, report

from models.settings import TrainingSettings
from models.table import build
from models.tasks import ClassificationTask
from models.training import fit
from pipeline.cluster import dask_client
from pipeline.engine import cores
from pipeline.imagery.open import open_cube
from pipeline.imagery.statistics import Statistics
from pipeline.samples import batches
from pipeline.samples.chips import ALL, ChipStore
from pipeline.samples.cutting import cut_chips
from pipeline.samples.datamodule import ChipDataModule
from pipeline.samples.features import open_labels
from pipeline.samples.folds import TRAIN, make_folds
from pipeline.settings import ComputeSettings, FoldSettings, ImagerySettings, LabelSettings

AUGMENT = ("flip", "rotate", "radiometric")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A network and what it is fed with."""

    name: str
    network: dict[str, Any]
    batch: int
    chip: int = 1
    dates: int = 1


CASES = (
    Case(name="unet", network={}, batch=16, chip=128),
    Case(name="cnn", network={}, batch=64),
    Case(name="lstm", network={}, batch=256, dates=24),
)


def store_of(case: Case, folder: Path, side: int, samples: int) -> ChipStore:
    """Cut samples of a raster, or of a series."""
    if case.dates > 1:
        raster = make_series(folder / "series.tif", side, case.dates)
        source = ImagerySettings.model_validate({"path": str(raster), "band": "ndvi", "dates": "bands"})
    else:
        raster = make_raster(folder / f"{case.name}.tif", side)
        source = ImagerySettings(path=str(raster))
    features = make_labels(folder / f"{case.name}.gpkg", raster, max(64, (side // 64) ** 2))
    cube, _ = open_cube([source], None, None)
    labels = open_labels(LabelSettings(path=str(features), field="class"), None, cube.geobox)
    folds = make_folds(labels, FoldSettings(method="blocks", k=0), 0)
    chip = build(case.name, case.network, bands=len(cube.bands), dates=case.dates, classes=CLASSES).chip
    margin = chip // 2 if case.chip == 1 else 0
    with dask_client(ComputeSettings()) as client:
        return cut_chips(
            [cube], labels, folds, size=max(case.chip, chip if margin else 1), margin=margin, path=folder / f"{case.name}.zarr",
            key="", max_per_class=samples // CLASSES, seed=0, client=client,
        )  # fmt: skip


def measure(case: Case, folder: Path, side: int, samples: int, epochs: int) -> None:
    """Cut samples, and train with them; print how long that waited, and how fast the loader is alone."""
    store = store_of(case, folder, side, samples)
    # Single pixels are in memory in any case.
    for held in (batches._HELD, 0)[: 1 + (store.size > 1)]:
        with patch.object(batches, "_HELD", held):
            train(case, store, folder / f"{case.name}-{held}", epochs)


def train(case: Case, store: ChipStore, folder: Path, epochs: int) -> None:
    """Train once."""
    settings = TrainingSettings(
        epochs=epochs,
        batch_size=case.batch,
        early_stopping=None,
        check_batch=False,
        augment=list(AUGMENT),
        track=["csv"],
    )
    dates, bands = (int(n) for n in store.values.shape[1:3])
    statistics = Statistics(np.full(bands, 2000, np.float32), np.full(bands, 500, np.float32))
    data = ChipDataModule(store.path, ALL, statistics, batch_size=case.batch, augment=AUGMENT)
    torch.manual_seed(0)
    network = build(case.name, case.network, bands=bands, dates=dates, classes=CLASSES)
    task = ClassificationTask(
        network, classes=CLASSES, settings=settings, counts=store.counts(ALL, TRAIN), centred=network.centred
    )
    result = fit(task, data, folder, settings)
    loader = data.train_dataloader()
    start = time.perf_counter()
    for _ in loader:
        pass
    alone = len(loader) / (time.perf_counter() - start)
    steps = result.speed / case.batch
    held = "from memory" if loader.dataset.held is not None else "read for each batch"
    print(
        f"{case.name}: {len(loader)} batches of {case.batch} samples of {tuple(store.values.shape[1:])}, {held}: the loader "
        f"alone makes {alone:.1f} a second, training takes {steps:.1f}: {alone / steps:.0f} times as many could be taken"
    )
    report(
        f"training of {case.name}, samples {held}: share of its time spent waiting for data",
        result.waiting,
        unit="%",
        most=0.05,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[case.name for case in CASES], help="networks; default: all")
    parser.add_argument(
        "--side", type=int, default=3072, help="side of the raster in pixels; a series has an eighth of it"
    )
    parser.add_argument("--samples", type=int, default=20_000, help="pixels or patches")
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(cores())
    with tempfile.TemporaryDirectory() as temporary:
        for case in CASES:
            if case.name in options.names:
                side = options.side if case.dates == 1 else options.side // 8
                measure(case, Path(temporary), side, options.samples, options.epochs)


if __name__ == "__main__":
    main()

"""The plan of a country: bytes, blocks, hours and clusters, from rates measured in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import rasterio
import torch
from affine import Affine
from blocks import Nothing
from common import make_bundle
from odc.geo.geobox import GeoBox
from rasterio.io import MemoryFile

from models.cost import flop_per_pixel
from models.settings import SaliencySettings
from pipeline.cluster import dask_client
from pipeline.engine import run_tasks
from pipeline.grid import BlockGrid
from pipeline.imagery.open import open_cube
from pipeline.settings import ComputeSettings, ImagerySettings
from workflows.maptask import MapTask
from workflows.plan import Plan
from workflows.request import MapRequest
from workflows.settings import PredictSettings

# A worker of the planned cluster, and what it gives to blocks: the share of the limit that benchmarks/predict.py asks for.
WORKER = ComputeSettings(threads=8, memory="32GiB")
_BUSY = 0.85
# Cores beside each GPU of the planned cluster; they decode. What an A100 does of bfloat16 by its data sheet, dense; of it so much
# is taken to be used by convolutions.
_CORES_PER_GPU = 16
_PEAK, _USED = 312e12, 0.3
# Bytes per pixel of the layers that are made, classes and confidence, before compression.
_LAYERS = ["classes", "confidence"]
_LAYER_BYTES = 3
_ENGINE_BLOCKS = 1000


@dataclass(frozen=True)
class Case:
    """A network on so many dates of the country's bands."""

    title: str
    network: str
    settings: dict[str, object]
    dates: int


CASES = (
    Case("unet, 1 date", "unet", {"width": 32, "depth": 3}, 1),
    Case("unet, 24 dates", "unet", {"width": 32, "depth": 3}, 24),
    Case("lstm, 24 dates", "lstm", {}, 24),
    Case("mlp, 24 dates", "mlp", {}, 24),
)


@dataclass(frozen=True)
class Rates:
    """What a case costs, measured by the processor's clock on one thread.

    Attributes
    ----------
    reading, block : float
        Seconds of a core per pixel of the map: decoding alone, and a whole block, halo included.
    plan : Plan
        Blocks and memory of the planned worker.
    flop : float
        Operations per pixel of the map, halo included.
    """

    reading: float
    block: float
    plan: Plan
    flop: float


class Measured:
    """The cases, measured on a scene of the country's kind."""

    def __init__(self, images: Sequence[Path], folder: Path) -> None:
        self.images = images
        self.folder = folder
        torch.set_num_threads(1)

    def request(self, case: Case, predict: PredictSettings) -> MapRequest:
        """Return the map of the scene."""
        entry = {"path": [str(p) for p in self.images[: case.dates]], "date": "%Y%m%d"}
        cube, _ = open_cube([ImagerySettings.model_validate(entry)], None, None)
        model = self.folder / case.title.replace(" ", "-")
        bundle = make_bundle(model, case.network, case.settings, dates=case.dates, bands=cube.bands)
        return MapRequest(
            bundle=bundle, folder=model, cube=cube, predict=predict, saliency=SaliencySettings(), compute=WORKER,
            key_imagery={}, software={"landweave": "benchmark"},
        )  # fmt: skip

    def task(self, request: MapRequest, blocks: BlockGrid) -> MapTask:
        """Return the task of blocks."""
        return MapTask(
            bundle=request.folder, checksum=request.bundle.checksum, cube=request.cube, blocks=blocks,
            layers=request.layers("predict"), folder=self.folder / "parts",
        )  # fmt: skip

    def rates(self, case: Case, side: int) -> Rates:
        """Plan a case on the country, and measure one block of that size on the scene, after a small one that warms up."""
        request = self.request(case, PredictSettings(layers=_LAYERS))
        network, cube, layers = request.bundle.network, request.cube, request.layers("predict")
        country = replace(cube, geobox=GeoBox((side, side), cube.geobox.affine, cube.geobox.crs))
        planned = replace(request, cube=country).plan((), layers)
        blocks = replace(planned.blocks, geobox=cube.geobox)
        self.task(request, replace(blocks, size=8 * blocks.stride))(0)
        block = blocks[0]
        reading = _core_seconds(lambda: cube.read(block.padded))
        whole = _core_seconds(lambda: self.task(request, blocks)(0))
        return Rates(
            reading=reading / block.inner.pixels,
            block=whole / block.inner.pixels,
            plan=planned,
            flop=flop_per_pixel(network) * planned.side**2 / planned.blocks.size**2,
        )

    @cached_property
    def engine(self) -> float:
        """Seconds of a core that a block costs the scheduler and its client, measured on blocks with nothing to do."""
        request = self.request(CASES[0], PredictSettings(layers=_LAYERS))
        task = self.task(request, request.plan((), request.layers("predict")).blocks)
        with dask_client(ComputeSettings()) as client:
            start = time.process_time()
            run_tasks(Nothing(task), range(_ENGINE_BLOCKS), client=client, on_result=lambda *_: None)
            return (time.process_time() - start) / _ENGINE_BLOCKS


def _core_seconds(work: Callable[[], object]) -> float:
    start = time.thread_time()
    work()
    return time.thread_time() - start


def stored_share(path: Path) -> float:
    """Return the bytes of an image's bands as a country would store them, ZSTD over differences, per byte of their values."""
    with rasterio.open(path) as source:
        values = source.read()
    profile = {
        "driver": "GTiff", "count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype,
        "compress": "zstd", "predictor": 3 if values.dtype.kind == "f" else 2, "interleave": "pixel", "crs": "EPSG:3035",
        "transform": Affine.scale(10),
    }  # fmt: skip
    with MemoryFile() as memory:
        with memory.open(**profile) as target:
            target.write(values)
        return len(memory.getbuffer()) / values.nbytes


def plan(measured: Measured, side: int, bands: int, share: float) -> str:
    """Return the plan as a table in Markdown, a column for each case."""
    columns = [_column(measured.rates(case, side), case.dates, measured.engine, side, bands, share) for case in CASES]
    rows = [["", *(case.title for case in CASES)], ["---"] + ["---:"] * len(CASES)]
    rows += [[name, *(column[name] for column in columns)] for name in columns[0]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _column(rates: Rates, dates: int, engine: float, side: int, bands: int, share: float) -> dict[str, str]:
    """Return what a case costs, by the name of the row."""
    pixels = side**2
    size, halo = rates.plan.blocks.size, rates.plan.blocks.halo
    blocks = (-(-side // size)) ** 2
    raw = 2.0 * pixels * bands * dates
    hours, decoding = (pixels * seconds / 3600 for seconds in (rates.block, rates.reading))
    forward = pixels * rates.flop / (_PEAK * _USED) / 3600
    # The scheduler hands out one block after the other.
    most = rates.block * size**2 / engine
    day, hour = (hours / _BUSY / n for n in (24, 1))
    return {
        "imagery, raw": f"{raw / 1e12:.2f} TB",
        "imagery, compressed": f"{raw * share / 1e12:.2f} TB",
        "blocks, a Dask task each": f"{blocks:,} of {size} + 2 x {halo} px",
        "a block": f"{rates.block * size**2:.1f} s of a core",
        "one core": f"{1e-6 / rates.block:.2f} Mpx/s",
        "core-hours": f"{hours:,.0f}",
        "of them reading": f"{decoding / hours:.0%}",
        "cores for a day": f"{np.ceil(day):,.0f}",
        "cores for an hour": f"{np.ceil(hour):,.0f}",
        "read from the store in an hour": f"{raw * share / 3600 / 1e9:.2f} GB/s",
        "scheduling, in all": f"{blocks * engine:,.0f} s",
        "cores that one scheduler keeps busy": f"{most:,.0f}",
        "memory, worker of 8 threads": f"{rates.plan.peak / 1e9:.1f} GB",
        "parts and maps, at most": f"{2 * _LAYER_BYTES * pixels / 1e9:.0f} GB",
        "FLOP": f"{pixels * rates.flop:.1e}",
        "forward pass on one A100, not measured": f"{60 * forward:.2g} min",
        f"GPU-hours, {_CORES_PER_GPU} cores each, not measured": f"{max(decoding / _CORES_PER_GPU, forward):.2g}",
        "cores that decode for one GPU at its peak": f"{decoding / forward:,.0f}",
    }

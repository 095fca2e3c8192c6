"""Map the whole grid: blocks to parts on Dask, then parts to one GeoTIFF per layer."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.bundle import Bundle
from models.inference import activation_bytes
from pipeline.engine import cores, dask_client, memory_budget, release_memory, run_tasks
from pipeline.errors import BlocksFailedError, ReadError, RunError
from pipeline.files import digest_of
from pipeline.grid import BlockGrid, round_up
from pipeline.maps.catalog import write_item
from pipeline.maps.layers import Layer
from pipeline.maps.mosaic import mosaic
from pipeline.maps.parts import PartRecord, PartStore
from workflows.console import duration, quantity
from workflows.context import run_id
from workflows.maptask import MapTask
from workflows.products.product import product_of

if TYPE_CHECKING:
    from models.network import Network
    from models.settings import SaliencySettings
    from pipeline.imagery.cube import Cube
    from pipeline.settings import ComputeSettings
    from workflows.console import Console
    from workflows.output import Output
    from workflows.settings import PredictSettings

# Larger inputs gain nothing in a forward pass, smaller ones waste it on the halo.
_LARGEST_BLOCK = 1024
_SMALLEST_BLOCK = 64
# The share of the memory budget that blocks in work may fill; the rest is for reading, writing and the library itself.
_SHARE = 0.5


def reductions(predict: PredictSettings, saliency: SaliencySettings) -> tuple[str, ...]:
    """Return the saliency reductions to be made; none where no saliency is asked for."""
    if "saliency" not in predict.layers:
        return ()
    return ("pixel", "band", "date") if saliency.per == "auto" else tuple(saliency.per)


def bytes_per_pixel(network: Network, cube: Cube, *, gradient: bool) -> float:
    """Return the most bytes alive at once per pixel that is read: while its images are, or while it is scored."""
    return max(activation_bytes(network, gradient=gradient), 4.0 * cube.planes)


def block_grid(
    network: Network, cube: Cube, predict: PredictSettings, saliency: SaliencySettings, compute: ComputeSettings
) -> BlockGrid:
    """Return the blocks of a map: of the size asked for, else the largest that fits the memory budget.

    Where saliency is made, blocks are read with twice the network's halo around them.
    """
    geobox = cube.geobox
    explained = bool(reductions(predict, saliency))
    halo = network.halo * (2 if explained else 1)
    size = predict.block
    if size == "auto":
        threads = cores() if compute.threads == "auto" else compute.threads
        budget = _SHARE * memory_budget(compute.memory) / threads
        per_pixel = bytes_per_pixel(network, cube, gradient=explained)
        size = _LARGEST_BLOCK
        while size > _SMALLEST_BLOCK and per_pixel * (size + 2 * halo) ** 2 > budget:
            size //= 2
    side = round_up(max(int(geobox.shape.y), int(geobox.shape.x)), network.stride)
    return BlockGrid(geobox=geobox, size=min(round_up(size, network.stride), side), halo=halo, stride=network.stride)


@dataclass(frozen=True, kw_only=True)
class MapRequest:
    """A map to be made: what `predict` and `apply` have in common.

    Attributes
    ----------
    bundle, folder
        The trained model, and where it lies.
    cube : Cube
        The imagery, with the bundle's bands in the bundle's order.
    key_imagery : dict
        What the cube's values depend on.
    software : dict
        Versions of what makes the numbers.
    """

    bundle: Bundle
    folder: Path
    cube: Cube
    predict: PredictSettings
    saliency: SaliencySettings
    compute: ComputeSettings
    key_imagery: dict[str, Any]
    software: dict[str, str]

    @property
    def per(self) -> tuple[str, ...]:
        """Saliency reductions; empty where no saliency is made."""
        return reductions(self.predict, self.saliency)

    def blocks(self) -> BlockGrid:
        """Return the blocks: of the size asked for, else the largest that fits the memory budget."""
        return block_grid(self.bundle.network, self.cube, self.predict, self.saliency, self.compute)

    def key(self, blocks: BlockGrid) -> dict[str, str]:
        """Return the resume key: the model, the job, the imagery and the software."""
        job = {
            "dates": [None if d is None else d.isoformat() for d in self.cube.dates],
            "layers": sorted(self.predict.layers),
            "saliency": self.saliency.model_dump(mode="json") if self.per else None,
            "block": blocks.size,
            "overviews": self.predict.overviews,
        }
        return {
            "model": self.bundle.checksum,
            "job": digest_of(job),
            "imagery": digest_of(self.key_imagery),
            "software": digest_of(self.software),
        }

    def layers(self, key: dict[str, str]) -> tuple[Layer, ...]:
        """Return the layers to be made."""
        product = product_of(self.bundle)
        common = {
            "software": f"landweave {self.software['landweave']}",
            "run_id": run_id(key),
            "bundle": self.bundle.checksum,
            "job": key["job"],
            # Of the model, not of this run: a map resumed tomorrow is the same map to the byte.
            "date": self.bundle.created,
        }
        known = [d.isoformat() for d in self.cube.dates if d is not None]
        # Where some have a date, the others are dates that a longer period had, and this one has not.
        dates = [("none" if known else "undated") if d is None else d.isoformat() for d in self.cube.dates]
        if known:
            common["dates"] = f"{min(known)}/{max(known)}"
        made = list(product.layers(self.predict.layers, self.cube, common, self.predict.overviews))
        explained = common | {"method": self.saliency.methods[0], "target": product.target, "units": product.units}
        for per, name, bands, meaning in (
            ("pixel", "saliency", ["pixel"], "largest absolute gradient over bands and dates"),
            ("band", "saliency_bands", list(self.cube.bands), "absolute gradient, summed over dates"),
            ("date", "saliency_dates", dates, "absolute gradient, summed over bands"),
        ):
            if per in self.per:
                made.append(Layer.saliency(name, bands, tags=explained | {"reduction": meaning}))
        return tuple(made)


def make_map(request: MapRequest, output: Output, console: Console, *, overwrite: bool) -> list[Path]:
    """Make the layers of a map, resuming what an earlier run left.

    Returns
    -------
    list of Path
        The layers made.

    Raises
    ------
    StaleError
        If the folder holds a map, or parts of one, made from other inputs.
    BlocksFailedError
        If blocks failed after their retries; the others are done and kept.
    """
    blocks = request.blocks()
    key = request.key(blocks)
    layers = request.layers(key)
    paths = [output.maps / f"{layer.name}.tif" for layer in layers]
    full = {
        "model": key["model"],
        "job": {
            "predict": request.predict.model_dump(mode="json", exclude={"retries", "period", "periods"}),
            "saliency": request.saliency.model_dump(mode="json") if request.per else None,
            "block": blocks.size,
            "dates": [None if d is None else d.isoformat() for d in request.cube.dates],
        },
        "imagery": request.key_imagery,
        "software": request.software,
    }
    if output.fresh("predict", full, overwrite=overwrite) and _whole(output, paths):
        console.note("up to date")
        shutil.rmtree(output.parts, ignore_errors=True)
        return paths
    output.begin("predict", full)
    store = PartStore.open(output.parts, layers, blocks, key, overwrite=overwrite)
    _run_blocks(request, store, blocks, layers, console)
    release_memory()
    with console.progress("writing GeoTIFFs", len(layers), "layers") as tell:
        for i, (layer, path) in enumerate(zip(layers, paths, strict=True), start=1):
            mosaic(store, layer, path)
            tell(i, len(layers))
    write_item(
        output.maps,
        layers,
        run=output.folder,
        item_id=f"{output.folder.name}-{run_id(key)}",
        cube_dates=request.cube.dates,
        created=request.bundle.created,
        properties={"landweave:run": run_id(key), "landweave:bundle": key["model"], "landweave:job": key["job"]},
    )
    output.finish("predict", full, sizes={p.name: p.stat().st_size for p in paths})
    store.clear()
    return paths


def _whole(output: Output, paths: list[Path]) -> bool:
    state = output.state("predict")
    sizes = state["left"].get("sizes", {}) if state else {}
    return all(p.is_file() and p.stat().st_size == sizes.get(p.name) for p in paths)


def _run_blocks(
    request: MapRequest, store: PartStore, blocks: BlockGrid, layers: tuple[Layer, ...], console: Console
) -> None:
    done = store.done()
    if store.dropped:
        console.note(f"{store.dropped} blocks were recorded as done, but their files are damaged: made again")
    if done:
        console.note(f"resumed: {len(done)} of {len(blocks)} blocks are done and kept")
    task = MapTask(
        bundle=request.folder,
        checksum=request.bundle.checksum,
        cube=request.cube,
        blocks=blocks,
        halo=request.bundle.network.halo,
        layers=layers,
        folder=store.folder,
        per=request.per,
    )
    todo = (i for i in range(len(blocks)) if i not in done)
    left = len(blocks) - len(done)
    if not left:
        return
    start = time.monotonic()
    pixels = empty = 0
    total = _pixels(blocks, done)
    with (
        dask_client(request.compute) as client,
        console.progress("mapping", total, "px") as tell,
    ):

        def keep(index: int, record: PartRecord) -> None:
            nonlocal pixels, empty
            store.record(record)
            inner = blocks[index].inner
            pixels += inner.height * inner.width
            empty += record.empty
            tell(pixels, total)

        failures = run_tasks(
            task, todo, client=client, on_result=keep, retries=request.predict.retries, fatal=(ReadError, RunError)
        )
    seconds = time.monotonic() - start
    console.note(
        f"{left} blocks of {blocks.size} px in {duration(seconds)} ({quantity(pixels / seconds)}px/s)"
        + (f", {empty} without valid input" if empty else "")
    )
    if failures:
        console.table(
            "  blocks that failed",
            ("block", "pixels", "error"),
            [(f.item, str(blocks[f.item].inner), f.error) for f in failures],
        )
        raise BlocksFailedError(
            f"{len(failures)} of {len(blocks)} blocks failed after {request.predict.retries + 1} attempts (table above); "
            "the others are kept: mend the cause and give the same command again"
        )


def _pixels(blocks: BlockGrid, done: set[int]) -> int:
    """Return how many pixels are still to be mapped."""
    height, width = int(blocks.geobox.shape.y), int(blocks.geobox.shape.x)
    return height * width - sum(b.inner.height * b.inner.width for b in (blocks[i] for i in done))

"""Map the whole grid and explain the map: blocks to parts on Dask, then parts to one GeoTIFF per layer."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from models.bundle import Bundle
from models.inference import activation_bytes
from pipeline.engine import cores, memory_budget, release_memory
from pipeline.files import digest_of
from pipeline.grid import BlockGrid, round_up
from pipeline.maps.catalog import write_item
from pipeline.maps.layers import Layer
from pipeline.maps.mosaic import mosaic
from pipeline.maps.parts import PartStore
from workflows.blocks import run_blocks
from workflows.context import run_id
from workflows.explainers import explainers_of
from workflows.explanations import Explanation, explanation_layers, explanations_of
from workflows.products.product import product_of

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from models.network import Network
    from models.saliency.methods import Explainer
    from models.settings import SaliencySettings
    from pipeline.imagery.cube import Cube
    from pipeline.settings import ComputeSettings
    from workflows.console import Console
    from workflows.output import Output
    from workflows.settings import PredictSettings

Stage = Literal["predict", "explain"]
STAGES: tuple[Stage, ...] = ("predict", "explain")
"""What is made of a map: its layers, and those that explain it."""

# Larger inputs gain nothing in a forward pass, smaller ones waste it on the halo.
_LARGEST_BLOCK = 1024
_SMALLEST_BLOCK = 64
# The share of the memory budget that blocks in work may fill; the rest is for reading, writing and the library itself.
_SHARE = 0.5


def bytes_per_pixel(network: Network, cube: Cube, explainers: Sequence[Explainer] = ()) -> float:
    """Return the most bytes alive at once per pixel that is read: while its images are, or while it is scored or explained."""
    explained = (e.bytes_per_pixel(network) for e in explainers)
    return max(activation_bytes(network, gradient=False), 4.0 * cube.planes, *explained)


def block_grid(
    network: Network,
    cube: Cube,
    predict: PredictSettings,
    compute: ComputeSettings,
    explainers: Sequence[Explainer] = (),
) -> BlockGrid:
    """Return the blocks of a map: of the size asked for, else the largest that fits the memory budget.

    They are read with as much around them as the network needs, or those that explain it, which is more.
    """
    geobox = cube.geobox
    halo = max([network.halo, *(e.reach(network) for e in explainers)])
    size = predict.block
    if size == "auto":
        threads = cores() if compute.threads == "auto" else compute.threads
        budget = _SHARE * memory_budget(compute.memory) / threads
        per_pixel = bytes_per_pixel(network, cube, explainers)
        size = _LARGEST_BLOCK
        while size > _SMALLEST_BLOCK and per_pixel * (size + 2 * halo) ** 2 > budget:
            size //= 2
    side = round_up(max(int(geobox.shape.y), int(geobox.shape.x)), network.stride)
    return BlockGrid(geobox=geobox, size=min(round_up(size, network.stride), side), halo=halo, stride=network.stride)


@dataclass(frozen=True, kw_only=True)
class MapRequest:
    """A map to be made, or to be explained: what `predict`, `explain` and `apply` have in common.

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
    area : BaseGeometry or None
        The map is explained only inside it.
    """

    bundle: Bundle
    folder: Path
    cube: Cube
    predict: PredictSettings
    saliency: SaliencySettings
    compute: ComputeSettings
    key_imagery: dict[str, Any]
    software: dict[str, str]
    area: BaseGeometry | None = None

    @cached_property
    def explanations(self) -> tuple[Explanation, ...]:
        """How the map is explained; empty where no saliency is asked for."""
        if "saliency" not in self.predict.layers:
            return ()
        network = self.bundle.network
        explainers = explainers_of(self.saliency, self.bundle)
        return explanations_of(explainers, self.saliency, bands=network.bands, dates=network.dates)

    def blocks(self, explanations: Sequence[Explanation]) -> BlockGrid:
        """Return the blocks: of the size asked for, else the largest that fits the memory budget."""
        explainers = [e.explainer for e in explanations]
        return block_grid(self.bundle.network, self.cube, self.predict, self.compute, explainers)

    def key(self, stage: Stage) -> dict[str, Any]:
        """Return what the layers of a stage depend on, as plain values."""
        predict = self.predict.model_dump(mode="json", include={"block", "overviews", "layers"})
        predict["layers"] = [name for name in predict["layers"] if name != "saliency"]
        job: dict[str, Any] = {"dates": [None if d is None else d.isoformat() for d in self.cube.dates]}
        if stage == "predict":
            job["predict"] = predict
        else:
            job["predict"] = {"block": predict["block"]}
            job["saliency"] = self.saliency.model_dump(mode="json", include={"target", "per"})
            job["saliency"]["methods"] = {e.explainer.method: e.explainer.own for e in self.explanations}
            job["area"] = None if self.area is None else digest_of(self.area.wkb_hex)
        return {
            "model": self.bundle.checksum,
            "job": job,
            "imagery": self.key_imagery,
            "software": self.software,
        }

    def layers(self, stage: Stage) -> tuple[Layer, ...]:
        """Return the layers that a stage makes."""
        product = product_of(self.bundle)
        key = digests(self.key(stage))
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
        if stage == "predict":
            return tuple(product.layers(self.predict.layers, self.cube, common, self.predict.overviews))
        seen = dates[: self.bundle.network.dates]
        return tuple(
            explanation_layers(
                self.explanations, self.saliency, product, bands=self.cube.bands, dates=seen, tags=common
            )
        )


def digests(key: dict[str, Any]) -> dict[str, str]:
    """Return a key in short: the model's checksum, and digests of the rest."""
    return {"model": key["model"]} | {name: digest_of(key[name]) for name in ("job", "imagery", "software")}


def make_map(
    request: MapRequest, output: Output, console: Console, *, overwrite: bool, stages: Sequence[Stage] = STAGES
) -> list[Path]:
    """Make the layers of a map and of its explanation, as far as they are not there, resuming what an earlier run left.

    Parameters
    ----------
    request : MapRequest
        What is to be made.
    output : Output
        Where.
    console : Console
        Where the user is spoken to.
    overwrite : bool
        Make again what was made from other inputs.
    stages : sequence of str
        ``predict``: the map; ``explain``: its saliency, as far as the request asks for it.

    Returns
    -------
    list of Path
        The layers.

    Raises
    ------
    StaleError
        If the folder holds layers, or parts of them, made from other inputs.
    BlocksFailedError
        If blocks failed after their retries; the others are done and kept.
    """
    layers = {stage: request.layers(stage) for stage in stages}
    keys = {stage: request.key(stage) for stage in stages}
    # A stage without layers, such as the explanation of a map that is not to be explained, is no stage.
    todo = [
        stage
        for stage in stages
        if layers[stage] and not _whole(output, stage, keys[stage], layers[stage], overwrite=overwrite)
    ]
    # Of a run that was killed after a stage was done and before it was tidied up.
    for stage in stages:
        if stage not in todo:
            shutil.rmtree(output.parts(stage), ignore_errors=True)
    paths = [output.maps / f"{layer.name}.tif" for stage in stages for layer in layers[stage]]
    if not todo:
        console.note("up to date")
        return paths
    made = tuple(layer for stage in todo for layer in layers[stage])
    _drop(output, request, todo, made, console)
    for stage in todo:
        output.begin(stage, keys[stage])
    explanations = request.explanations if "explain" in todo else ()
    blocks = request.blocks(explanations)
    key = digests(keys[todo[0]] | {"job": [keys[stage]["job"] for stage in todo]})
    store = PartStore.open(output.parts(todo[0]), made, blocks, key, overwrite=overwrite)
    run_blocks(request, store, explanations, console)
    release_memory()
    with console.progress("writing GeoTIFFs", len(made), "layers") as tell:
        for i, layer in enumerate(made, start=1):
            mosaic(store, layer, output.maps / f"{layer.name}.tif")
            tell(i, len(made))
    _catalogue(request, output, todo, made)
    for stage in todo:
        sizes = {v.name: (output.maps / f"{v.name}.tif").stat().st_size for v in layers[stage]}
        output.finish(stage, keys[stage], sizes=sizes)
    store.clear()
    return paths


def _whole(output: Output, stage: Stage, key: dict[str, Any], layers: Sequence[Layer], *, overwrite: bool) -> bool:
    """Return whether the layers of a stage are there as they were made, from the same inputs."""
    if not output.fresh(stage, key, overwrite=overwrite):
        return False
    sizes = _left(output, stage)
    files = {layer.name: output.maps / f"{layer.name}.tif" for layer in layers}
    return all(p.is_file() and p.stat().st_size == sizes.get(name) for name, p in files.items())


def _left(output: Output, stage: Stage) -> dict[str, int]:
    """Return the layers that a stage made, if it was finished, and the sizes of their files."""
    state = output.state(stage)
    return dict(state["left"]["sizes"]) if state and state["done"] else {}


def _drop(output: Output, request: MapRequest, todo: Sequence[Stage], made: Sequence[Layer], console: Console) -> None:
    """Remove layers that these stages made of other inputs and will not make again, and the explanation of another model."""
    stages = list(todo)
    explained = output.state("explain")
    if "explain" not in todo and explained is not None and explained["key"]["model"] != request.bundle.checksum:
        stages.append("explain")
        console.note("the map of an earlier model was explained; that explanation is removed")
    kept = {layer.name for layer in made}
    for stage in stages:
        for name in _left(output, stage).keys() - kept:
            for path in output.maps.glob(f"{name}.*"):
                path.unlink()
        if stage not in todo:
            output.forget(stage)


def _catalogue(request: MapRequest, output: Output, todo: Sequence[Stage], made: Sequence[Layer]) -> None:
    """Write the STAC item: the layers that were made, and those of the other stage as they stand in it."""
    state = output.state("predict")
    # A map that is there already may have been cut in another way.
    key = digests(state["key"] if state and "predict" not in todo else request.key("predict"))
    other: list[Stage] = [stage for stage in STAGES if stage not in todo]
    write_item(
        output.maps,
        made,
        kept=[name for stage in other for name in _left(output, stage)],
        run=output.folder,
        item_id=f"{output.folder.name}-{run_id(key)}",
        cube_dates=request.cube.dates,
        created=request.bundle.created,
        properties={"landweave:run": run_id(key), "landweave:bundle": key["model"], "landweave:job": key["job"]},
    )

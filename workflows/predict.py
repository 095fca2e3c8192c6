"""Map the whole grid and explain the map: blocks to parts on Dask, then parts to one GeoTIFF per layer."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.engine import release_memory
from pipeline.maps.catalog import write_item
from pipeline.maps.layers import Layer
from pipeline.maps.mosaic import mosaic
from pipeline.maps.store import PartStore
from workflows.blocks import run_blocks
from workflows.gate import settle, stored
from workflows.keys import run_id
from workflows.request import STAGES, MapRequest, Stage, digests

if TYPE_CHECKING:
    from workflows.console import Console
    from workflows.output import Output

# Layers written at once: making overviews is for the most part the work of one thread.
_SIDE_BY_SIDE = 2


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
    if "predict" in todo:
        request = dataclasses.replace(request, choice=settle(request, output, console, explained="explain" in todo))
        layers = {stage: request.layers(stage) for stage in stages}
    made = tuple(layer for stage in todo for layer in layers[stage])
    _drop(output, request, todo, made, console)
    for stage in todo:
        output.begin(stage, keys[stage], choice=stored(request.choice))
    explanations = request.explanations if "explain" in todo else ()
    key = digests(keys[todo[0]] | {"job": [keys[stage]["job"] for stage in todo]})
    key["engine"] = request.choice.engine.checksum or request.choice.engine.name
    parts = output.parts(todo[0])
    # What is resumed goes on with the blocks that it began with, whatever memory there is by now.
    begun = None if overwrite else PartStore.begun(parts, made, request.cube.geobox, key)
    plan = request.plan(explanations, made, begun)
    store = PartStore.open(parts, made, plan.blocks, key, overwrite=overwrite)
    run_blocks(request, plan, store, explanations, console)
    release_memory()
    with (
        console.progress("writing GeoTIFFs", len(made), "layers") as tell,
        ThreadPoolExecutor(_SIDE_BY_SIDE) as pool,
    ):
        written = pool.map(lambda layer: mosaic(store, layer, output.maps / f"{layer.name}.tif"), made)
        for i, _ in enumerate(written, start=1):
            tell(i, len(made))
    _catalogue(request, output, todo, made)
    for stage in todo:
        sizes = {v.name: (output.maps / f"{v.name}.tif").stat().st_size for v in layers[stage]}
        output.finish(stage, keys[stage], sizes=sizes)
    store.clear()
    output.engine(".onnx").unlink(missing_ok=True)
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

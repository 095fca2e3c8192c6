"""The gate before fast paths: on samples of the very raster that is mapped, they must give the classes of the exact path."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from models.fast import EXACT, Engine, EngineName, native, native_half, ready
from models.inference import scores
from pipeline.grid import BlockGrid, round_up
from pipeline.imagery.area import inside_area
from workflows.output import plain

if TYPE_CHECKING:
    from workflows.console import Console
    from workflows.output import Output
    from workflows.request import MapRequest
    from workflows.scoring import Scorer

Array = np.ndarray[Any, Any]

AGREEMENT = 0.999
"""The least share of sampled pixels whose class must be the same."""
_CLOSE = 0.02
"""How far any of its probabilities may be off, where they are mapped too."""
_FASTER = 1.1
"""How much faster a path must be that nobody has asked for by name."""

# Windows that are compared, the side of their cores, and how small a part of the map they may be: a 64th.
_WINDOWS, _SIDE, _PART = 16, 128, 64
_LEAST = 2
_TRIES = 4


@dataclass(frozen=True, slots=True)
class Choice:
    """What scores the pixels of a map, settled once for all its blocks.

    Attributes
    ----------
    engine : Engine
        The path that is taken.
    told : str
        What the map's tags say of it: no figure that differs from run to run, such as a speed.
    """

    engine: Engine
    told: str


PLAIN = Choice(EXACT, "torch")


@dataclass(frozen=True, slots=True)
class Sample:
    """A window of the map, as the network takes it.

    Attributes
    ----------
    tile : tuple of Tensor
        Cube, valid and time.
    core : tuple of slice
        The rows and columns that are compared; around them lies what the network sees.
    counted : (h, w) bool
        Pixels of the core that get a class.
    """

    tile: tuple[Tensor, Tensor, Tensor]
    core: tuple[slice, slice]
    counted: Array


def settle(request: MapRequest, output: Output, console: Console, *, explained: bool) -> Choice:
    """Return what scores the pixels of a map: as settled by an earlier run that is resumed, or tried out now.

    Parameters
    ----------
    request : MapRequest
        The map.
    output : Output
        Where it will be.
    console : Console
        Where the user is spoken to.
    explained : bool
        Whether it is explained in the same go.

    Raises
    ------
    ModelError
        If the engine needs packages that are not there, or cannot run the network.
    """
    state = output.state("predict")
    if state and not state["done"] and state["key"] == plain(request.key("predict")) and (kept := _kept(state)):
        if kept != PLAIN:
            console.note(f"resumed: engine {kept.told}")
        return kept
    choice = _tried(request, output, console, explained=explained)
    if choice != PLAIN:
        console.note(f"engine: {choice.told}")
    return choice


def stored(choice: Choice) -> dict[str, Any]:
    """Return a choice as plain values; see `Output.begin`."""
    engine = asdict(choice.engine)
    return {"told": choice.told, "engine": engine | {"file": engine["file"] and str(engine["file"])}}


def _kept(state: dict[str, Any]) -> Choice | None:
    """Return the choice that was stored with a stage; None where its file is gone or damaged."""
    values = state["choice"]
    engine = values["engine"]
    path = Path(engine["file"]) if engine["file"] else None
    if path is not None and not (path.is_file() and _checksum(path) == engine["checksum"]):
        return None
    return Choice(Engine(engine["name"], path, engine["checksum"]), values["told"])


def _tried(request: MapRequest, output: Output, console: Console, *, explained: bool) -> Choice:
    from workflows.scoring import device, load_scorer

    wanted, bundle = request.predict.engine, request.bundle
    if wanted == "torch":
        return PLAIN
    name: EngineName | None = native_half(device()) if wanted == "auto" else wanted
    if name is None:
        console.note("engine auto: this machine computes in no precision faster than single; the exact path is taken")
        return PLAIN
    if name in ("torch-bf16", "torch-fp16") and not native(name, device()):
        return _exact(name, "this machine has no instructions for it")
    if explained:
        return _exact(name, "a map that is explained while it is made comes from the same exact forward pass")
    if not bundle.classifies:
        return _exact(name, f"a {bundle.task['name']} has no classes that could be compared")
    scorer = load_scorer(request.folder, bundle.checksum)
    samples = list(_samples(request, scorer, seed=0))
    if not samples:
        return _exact(name, "no valid pixel was found to compare")
    with scorer.turn():
        engine = _made(name, request, scorer, output)
        same, pixels, speed = _compare(request, scorer, engine, samples)
    share = f"{100 * same:.2f} % of {pixels:,} sampled pixels"
    numbers = set(request.predict.layers) & {"confidence", "probabilities"}
    what = f"classes of {share} are those of the exact path" + f", and their probabilities within {_CLOSE:g}" * bool(
        numbers
    )
    console.note(f"{name}: {what}; {speed:.2f} times as fast")
    if same < AGREEMENT:
        return _exact(name, f"{what}, and {100 * AGREEMENT:g} % must be")
    if wanted == "auto" and speed < _FASTER:
        console.note(f"{name} is not clearly faster here; the exact path is taken")
        return PLAIN
    return Choice(engine, f"{name}: {what}")


def _exact(name: str, reason: str) -> Choice:
    return Choice(EXACT, f"torch, not {name}: {reason}")


def _made(name: EngineName, request: MapRequest, scorer: Scorer, output: Output) -> Engine:
    """Return an engine, with its file where it needs one."""
    if not name.startswith("onnx"):
        return Engine(name)
    from models.onnx import quantise, require, write_onnx

    require(f"predict.engine: {name}")
    path = output.engine(".onnx")
    # A copy: the network itself stays on its device.
    write_onnx(copy.deepcopy(scorer.network).cpu(), path)
    if name == "onnx-int8":
        # Other windows than those that are compared.
        tiles = [s.tile for s in _samples(request, scorer, seed=1)]
        quantise(path, path, tiles, scorer.network.name)
    return Engine(name, path, _checksum(path))


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _samples(request: MapRequest, scorer: Scorer, seed: int) -> Iterator[Sample]:
    """Yield windows with valid pixels, spread over the map, always the same."""
    network, cube = scorer.network, request.cube
    grid = BlockGrid(geobox=cube.geobox, size=round_up(_SIDE, network.stride), halo=network.halo, stride=network.stride)
    number = min(_WINDOWS, max(_LEAST, len(grid) // _PART))
    rng = np.random.default_rng(seed)
    for part in np.array_split(np.arange(len(grid)), min(number, len(grid))):
        for index in rng.permutation(part)[:_TRIES]:
            block = grid[int(index)]
            tile = cube.read(block.padded)
            core = block.inner.within(block.padded)
            counted: Array = np.asarray(tile.valid[: network.dates, *core].any(0))
            if request.area is not None:
                counted = counted & inside_area(request.area, cube.geobox, block.inner)
            if counted.any():
                values, valid, days = scorer.tensors(tile.values[None], tile.valid[None], cube.time[None])
                dates = slice(network.dates)
                yield Sample((values[:, dates], valid[:, dates], days[:, dates]), core, counted)
                break


def _compare(request: MapRequest, scorer: Scorer, engine: Engine, samples: list[Sample]) -> tuple[float, int, float]:
    """Return the share of pixels on which two paths agree, how many were compared, and how much faster the engine is."""
    fast = ready(scorer.network, engine)
    numbers = set(request.predict.layers) & {"confidence", "probabilities"}
    same = pixels = 0
    seconds = [0.0, 0.0]
    for path in (scorer.network, fast):
        scores(path, *samples[0].tile)
    for sample in samples:
        found = []
        for i, path in enumerate((scorer.network, fast)):
            start = time.perf_counter()
            # To the host: only then has an accelerator done its work.
            found.append(scores(path, *sample.tile)[0, :, *sample.core].cpu())
            seconds[i] += time.perf_counter() - start
        exact, quick = found
        agree = exact.argmax(0) == quick.argmax(0)
        if numbers:
            likely = [torch.softmax(x / request.bundle.temperature, 0) for x in found]
            agree &= (likely[0] - likely[1]).abs().amax(0) <= _CLOSE
        same += int(agree.numpy()[sample.counted].sum())
        pixels += int(sample.counted.sum())
    return same / pixels, pixels, seconds[0] / seconds[1]

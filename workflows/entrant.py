"""One training that is compared with others: trained, measured on the test fold, timed; kept, so that it is done once."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.cost import blank_tile, parameters
from models.forest import Forest
from models.inference import scores
from pipeline.cluster import dask_client
from pipeline.files import whole_file
from pipeline.grid import Window, round_up
from pipeline.samples.folds import TEST, TRAIN
from pipeline.samples.pixels import pixels_of, places_of
from workflows.assess import assess
from workflows.evaluate import FOREST_PIXELS
from workflows.keys import key_prepare
from workflows.output import Output
from workflows.scoring import scorer_of
from workflows.train import round_bundle, train
from workflows.variant import changed, variant

if TYPE_CHECKING:
    from models.bundle import Bundle
    from pipeline.samples.chips import ChipStore
    from pipeline.samples.pixels import Places
    from workflows.context import Context

Array = np.ndarray[Any, Any]

FOREST = "forest"

# Side of the block of imagery on which speed is measured, and how often; the best time is the least disturbed.
_SIDE = 128
_TIMES = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Entrant:
    """A training and what was measured of it.

    Attributes
    ----------
    name : str
        The network, or ``forest``.
    seed : int
        Of the training.
    place : (N, 3) int64
        Period, row and column of each test pixel.
    target, predicted : (N,) int64
        Class indices.
    seconds : float
        Training time, all folds.
    speed : float
        Pixels mapped in a second by one thread, or by the accelerator; reading and writing apart.
    parameters : int or None
        Trainable values; a forest has none.
    size : int
        Bytes of the model on disk.
    """

    name: str
    seed: int
    place: Array
    target: Array
    predicted: Array
    seconds: float
    speed: float
    parameters: int | None
    size: int


def network_entrant(base: Context, store: ChipStore, seed: int) -> Entrant:
    """Train the network of a job with a seed in a folder of its own, and measure it.

    Parameters
    ----------
    base : Context
        The job of this network.
    store : ChipStore
        Its samples.
    seed : int
        Of weights, order and augmentation; the folds are the same for all.
    """
    folder = base.output.folder / f"seed-{seed}"
    run = variant(base, changed(base.job, {"training.seed": seed, "output": str(folder)}, "bench"), store=store)
    bundle = train(run)

    def measure() -> tuple[Places, Array, dict[str, Any]]:
        with dask_client(run.job.compute, run.console.note) as client:
            found = [
                assess(*round_bundle(run, i), store, i, TEST, run.imaged, client) for i in range(len(run.folds.rounds))
            ]
        done = run.output.rounds.glob("*/done.json")
        facts = {
            "seconds": sum(float(json.loads(p.read_text(encoding="utf-8"))["seconds"]) for p in done),
            "speed": _network_speed(bundle, run),
            "parameters": parameters(bundle.network),
            "size": (run.output.model / "weights.safetensors").stat().st_size,
        }
        return _joined([a.places for a in found]), np.concatenate([a.scores.argmax(1) for a in found]), facts

    return _kept(run.output, base.job.model.name, seed, {"model": bundle.checksum}, measure)


def forest_entrant(base: Context, store: ChipStore, seed: int, folder: Path) -> Entrant:
    """Train a random forest with a seed on the pixels of the samples, and measure it; on one thread, as networks map."""

    def measure() -> tuple[Places, Array, dict[str, Any]]:
        seconds, predicted = 0.0, []
        for i in range(len(base.folds.rounds)):
            x, y = pixels_of(store, i, TRAIN, FOREST_PIXELS)
            start = time.monotonic()
            forest = Forest(seed=seed, jobs=1).fit(x, y)
            seconds += time.monotonic() - start
            predicted.append(forest.predict(pixels_of(store, i, TEST, None)[0]))
        # Speed depends on the trees, not on what they are shown: any pixels will do.
        block = np.resize(x, (_SIDE**2, x.shape[1]))
        facts = {
            "seconds": seconds,
            "speed": _SIDE**2 / _best_time(lambda: forest.predict(block)),
            "parameters": None,
            "size": len(pickle.dumps(forest)),
        }
        rounds = range(len(base.folds.rounds))
        return _joined([places_of(store, i, TEST) for i in rounds]), np.concatenate(predicted), facts

    key = key_prepare(base) | {"seed": seed}
    return _kept(Output(folder / f"seed-{seed}"), FOREST, seed, key, measure)


def _kept(
    output: Output,
    name: str,
    seed: int,
    key: dict[str, Any],
    measure: Callable[[], tuple[Places, Array, dict[str, Any]]],
) -> Entrant:
    """Return what was measured from the same inputs before, else measure and keep it."""
    path = output.work / "test.npz"
    if not (output.fresh("bench", key, overwrite=True) and path.is_file()):
        output.begin("bench", key)
        where, predicted, facts = measure()
        with whole_file(path) as temporary:
            place = np.stack([where.period, where.rows, where.columns], axis=1)
            np.savez_compressed(temporary, place=place, target=where.target, predicted=predicted)
        output.finish("bench", key, **facts)
    state = output.state("bench")
    assert state is not None
    with np.load(path) as arrays:
        return Entrant(name=name, seed=seed, **{k: arrays[k] for k in arrays}, **state["left"])


def _joined(places: list[Places]) -> Places:
    names = ("rows", "columns", "target", "period")
    return type(places[0])(*(np.concatenate([getattr(p, name) for p in places]) for name in names))


def _network_speed(bundle: Bundle, context: Context) -> float:
    """Return how many pixels of the imagery are scored in a second; of a table, of a block without data."""
    scorer = scorer_of(bundle)
    network = scorer.network
    side = round_up(_SIDE, network.stride)
    padded = side + 2 * network.halo
    if context.imaged:
        cube = context.imaged[-1]
        height, width = int(cube.geobox.shape.y), int(cube.geobox.shape.x)
        tile = cube.read(Window(y=(height - padded) // 2, x=(width - padded) // 2, height=padded, width=padded))
        tensors = scorer.tensors(tile.values[None], tile.valid[None], cube.time[None])
    else:
        tensors = blank_tile(network, padded, str(scorer.device))
    with scorer.turn():
        # Read back, so that an accelerator has done its work.
        return side**2 / _best_time(lambda: scores(network, *tensors).cpu())


def _best_time(work: Callable[[], Any]) -> float:
    """Return the shortest of a few times of the same work, in seconds; the first time, which is not counted, warms up."""
    times = []
    for _ in range(1 + _TIMES):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times[1:])

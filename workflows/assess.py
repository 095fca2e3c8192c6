"""Scores of a network on labelled places, computed on blocks as for the map itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax

from models.inference import centre_scores, scores
from pipeline.engine import run_tasks
from pipeline.errors import BlocksFailedError, ReadError
from pipeline.grid import BlockGrid, round_up
from workflows.scoring import load_scorer
from workflows.settings import LABELLED

if TYPE_CHECKING:
    from distributed import Client

    from models.bundle import Bundle
    from pipeline.imagery.cube import Cube
    from pipeline.samples.chips import ChipStore
    from pipeline.samples.pixels import Places

Array = np.ndarray[Any, Any]

# Labelled places are scattered: small blocks read little that nobody asks for.
_BLOCK = 256
# Pixels of samples that are scored at once.
_SAMPLES = 65_536


@dataclass(frozen=True, slots=True)
class Assessed:
    """What the network says of labelled pixels.

    Attributes
    ----------
    places : Places
        The pixels, in the order of the scores.
    scores : (N, K) float32
        What the product measures there: scores per class before calibration, or what its task asks for.
    """

    places: Places
    scores: Array


def probabilities(scores: Array, temperature: float) -> Array:
    """Return calibrated probabilities (N, K) float64 of scores (N, K)."""
    return np.asarray(softmax(scores.astype(np.float64) / temperature, axis=1))


@dataclass(frozen=True, slots=True)
class _Task:
    bundle: Path
    checksum: str
    cubes: tuple[Cube, ...]
    blocks: BlockGrid
    places: dict[tuple[int, int], tuple[Array, Array]]

    def __call__(self, item: tuple[int, int]) -> Array:
        scorer = load_scorer(self.bundle, self.checksum)
        period, index = item
        block, cube = self.blocks[index], self.cubes[period]
        tile = cube.read(block.padded)
        with scorer.turn():
            values, valid, time = scorer.tensors(tile.values[None], tile.valid[None], cube.time[None])
            dates = slice(scorer.network.dates)
            outputs = scores(scorer.network, values[:, dates], valid[:, dates], time[:, dates])
            found = scorer.product.measured(outputs[0], values[0], valid[0], time[0]).cpu().numpy()
        rows, columns = self.places[item]
        return np.ascontiguousarray(found[:, rows - block.padded.y, columns - block.padded.x].T)


def assess(
    bundle: Bundle,
    folder: Path,
    store: ChipStore,
    round_: int | str,
    role: int,
    cubes: Sequence[Cube],
    client: Client,
    most: int | None = None,
) -> Assessed:
    """Score the labelled pixels that have a role in a round, each with the full context the network needs.

    A network of single pixels needs no more than the samples, nor does one whose samples stand by themselves; any other is run
    block by block on the imagery.

    Parameters
    ----------
    bundle, folder
        The trained model, and where it lies.
    store : ChipStore
        The samples.
    round_, role
        Which of them.
    cubes : sequence of Cube
        Imagery of each period in which labels hold.
    client : Client
        Where blocks are run.
    most : int, optional
        Score no more than so many of them, drawn at random, always the same.

    Raises
    ------
    BlocksFailedError
        If a block failed after its retries.
    """
    # Workers, which load this file too, have no need of it.
    from pipeline.samples.pixels import places_of

    where = places_of(store, round_, role)
    if most is not None and len(where.target) > most:
        where = where.at(np.sort(np.random.default_rng(0).choice(len(where.target), most, replace=False)))
    elif store.standalone or (bundle.task["name"] in LABELLED and bundle.network.pixelwise and store.size == 1):
        return Assessed(where, _of_samples(bundle, folder, store, store.indices(round_, role)))
    return Assessed(where, _of_blocks(bundle, folder, where, cubes, client))


def _of_samples(bundle: Bundle, folder: Path, store: ChipStore, chips: Array) -> Array:
    scorer = load_scorer(folder, bundle.checksum)
    found = np.empty((len(chips), bundle.network.outputs), np.float32)
    with scorer.turn():
        step = max(1, _SAMPLES // store.size**2)
        for i in range(0, len(chips), step):
            some = chips[i : i + step]
            values, _ = store.read(some)
            valid = np.asarray(np.isfinite(values).all(2))
            tensors = scorer.tensors(values, valid, store.time[some])
            found[i : i + len(some)] = centre_scores(scorer.network, *tensors).cpu().numpy()
    return found


def _of_blocks(bundle: Bundle, folder: Path, where: Places, cubes: Sequence[Cube], client: Client) -> Array:
    network = bundle.network
    blocks = BlockGrid(
        geobox=cubes[0].geobox, size=round_up(_BLOCK, network.stride), halo=network.halo, stride=network.stride
    )
    block_of = (where.rows // blocks.size) * blocks.columns + where.columns // blocks.size
    order: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, item in enumerate(zip(where.period.tolist(), block_of.tolist(), strict=True)):
        order[item].append(i)
    places = {item: (where.rows[i], where.columns[i]) for item, i in order.items()}
    task = _Task(folder, bundle.checksum, tuple(cubes), blocks, places)
    found: dict[tuple[int, int], Array] = {}

    failures = run_tasks(task, sorted(order), client=client, on_result=found.__setitem__, fatal=(ReadError,))
    if failures:
        raise BlocksFailedError(f"scoring labelled places failed: {failures[0].error}")
    result = np.concatenate([found[item] for item in order])
    back = np.empty(len(result), np.int64)
    back[np.concatenate([order[item] for item in order])] = np.arange(len(result))
    return np.asarray(result[back], dtype=np.float32)

"""Scores of a network on labelled places, computed on blocks as for the map itself."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax

from models.inference import scores
from pipeline.engine import run_tasks
from pipeline.errors import BlocksFailedError, ReadError
from pipeline.grid import BlockGrid, round_up
from workflows.scoring import load_scorer

if TYPE_CHECKING:
    from distributed import Client

    from models.bundle import Bundle
    from pipeline.imagery.cube import Cube
    from pipeline.samples.chips import Places

# Labelled places are scattered: small blocks read little that nobody asks for.
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class Assessed:
    """What the network says of labelled pixels.

    Attributes
    ----------
    places : Places
        The pixels, in the order of the scores.
    scores : (N, K) float32
        Scores per class, before calibration.
    """

    places: Places
    scores: np.ndarray[Any, Any]


def probabilities(scores: np.ndarray[Any, Any], temperature: float) -> np.ndarray[Any, Any]:
    """Return calibrated probabilities (N, K) float64 of scores (N, K)."""
    return np.asarray(softmax(scores.astype(np.float64) / temperature, axis=1))


@dataclass(frozen=True, slots=True)
class _Task:
    bundle: Path
    checksum: str
    cube: Cube
    blocks: BlockGrid
    places: dict[int, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]

    def __call__(self, index: int) -> np.ndarray[Any, Any]:
        scorer = load_scorer(self.bundle, self.checksum)
        block = self.blocks[index]
        tile = self.cube.read(block.padded)
        with scorer.turn():
            found = scores(scorer.network, *scorer.tensors(tile.values, tile.valid))[0].cpu().numpy()
        rows, columns = self.places[index]
        return np.ascontiguousarray(found[:, rows - block.padded.y, columns - block.padded.x].T)


def assess(bundle: Bundle, folder: Path, cube: Cube, where: Places, client: Client) -> Assessed:
    """Score labelled pixels with a bundle, block by block, each with the full context the network needs.

    Raises
    ------
    BlocksFailedError
        If a block failed after its retries.
    """
    network = bundle.network
    blocks = BlockGrid(
        geobox=cube.geobox, size=round_up(_BLOCK, network.stride), halo=network.halo, stride=network.stride
    )
    block_of = (where.rows // blocks.size) * blocks.columns + where.columns // blocks.size
    order: dict[int, list[int]] = defaultdict(list)
    for i, b in enumerate(block_of.tolist()):
        order[b].append(i)
    task = _Task(
        folder, bundle.checksum, cube, blocks, {b: (where.rows[i], where.columns[i]) for b, i in order.items()}
    )
    result = np.full((len(where.target), len(bundle.legend)), np.nan, dtype=np.float32)

    def keep(index: int, found: np.ndarray[Any, Any]) -> None:
        result[order[index]] = found

    failures = run_tasks(task, sorted(order), client=client, on_result=keep, fatal=(ReadError,))
    if failures:
        raise BlocksFailedError(f"scoring labelled places failed: {failures[0].error}")
    return Assessed(where, result)

"""What an explanation will cost, said before it is paid."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from models.inference import prepare, scores
from models.network import blank_tile
from models.saliency.gradients import gradient
from pipeline.grid import round_up
from workflows.console import duration
from workflows.scoring import device

if TYPE_CHECKING:
    from models.network import Network
    from models.saliency.methods import Explainer
    from pipeline.grid import BlockGrid

# Pixels on a side of the tile on which a pass is timed.
_SIDE = 128


def spoken_costs(
    network: Network, explainers: Sequence[Explainer], blocks: BlockGrid, number: int, at_once: int
) -> list[str]:
    """Return, for each method, its passes through the network on a block, and the time expected.

    Parameters
    ----------
    network : Network
        The trained network.
    explainers : sequence of Explainer
        The methods.
    blocks : BlockGrid
        The blocks; ``number`` of them are to be explained, ``at_once`` at a time.
    """
    if not explainers:
        return []
    forward, backward = _seconds_per_pixel(network)
    said = []
    for explainer in explainers:
        passes = explainer.passes(network, network.bands, network.dates)
        pixels = number * (blocks.size + 2 * explainer.reach(network)) ** 2
        seconds = pixels * (passes.forward * forward + passes.gradient * backward) / min(at_once, number)
        expected = "less than a second" if seconds < 1 else f"about {duration(seconds)}"
        said.append(
            f"{explainer.method}: {passes} a block; {expected} for {number} block{'s' * (number > 1)} of {blocks.size} px, "
            f"{min(at_once, number)} at once"
        )
    return said


def _seconds_per_pixel(network: Network) -> tuple[float, float]:
    """Return what a pixel costs forward, and forward and backward, measured on a small tile as a block is computed."""
    place = device()
    ready = prepare(network).to(place)
    side = round_up(_SIDE, network.stride)
    tile = blank_tile(ready, side, str(place))
    where = torch.ones(1, side, side, dtype=torch.bool, device=place)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return tuple(  # type: ignore[return-value]
            seconds_of(work) / side**2 for work in (lambda: scores(ready, *tile), lambda: gradient(ready, *tile, where))
        )
    finally:
        torch.set_num_threads(threads)


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long something takes the second time: the first one warms up."""
    for _ in range(2):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken = time.perf_counter() - start
    return taken

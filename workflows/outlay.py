"""How long a map or an explanation will take, by a short probe: said before it is paid."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from models.cost import blank_tile
from models.inference import prepare, scores
from models.saliency.gradients import gradient
from models.saliency.methods import BY_GRADIENT
from pipeline.grid import BlockGrid, Window, round_up, window_geobox
from pipeline.imagery.area import blocks_meeting
from pipeline.maps.layers import Layer
from pipeline.maps.parts import write_parts
from workflows.console import duration
from workflows.scoring import device

if TYPE_CHECKING:
    from models.network import Network
    from models.saliency.methods import Explainer
    from pipeline.imagery.cube import Cube
    from workflows.plan import Plan

# Pixels on a side of the tile on which a pass is timed, of the window that is read, and of the part that is written.
_SIDE, _READ, _PART = 128, 512, 256
# Places at which data is looked for.
_TRIED = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What a probe found on one thread: seconds per pixel read, forward, forward and backward; per byte of a layer written."""

    read: float
    forward: float
    backward: float
    write: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlay:
    """Seconds that a map takes, all blocks together, on one thread, and beside each other.

    Attributes
    ----------
    read, compute, write : float
        On one thread.
    at_once : int
        Blocks in work at once.
    devices : int
        Accelerators, on each of which one block is computed at a time; 0 where cores compute.
    """

    read: float
    compute: float
    write: float
    at_once: int
    devices: int

    @property
    def seconds(self) -> float:
        """Seconds expected, all at work."""
        beside = (self.read + self.write) / self.at_once
        if self.devices:
            return max(beside, self.compute / min(self.devices, self.at_once))
        return beside + self.compute / self.at_once

    def __str__(self) -> str:
        parts = ((self.read, "reading"), (self.compute, "computing"), (self.write, "writing"))
        shares = ", ".join(
            f"{100 * part / (self.read + self.compute + self.write):.0f} % {what}" for part, what in parts
        )
        return f"{spoken(self.seconds)} ({shares})"


def outlay_of(
    plan: Plan,
    network: Network,
    explainers: Sequence[Explainer],
    pace: Pace,
    *,
    stored: float,
    number: int | None = None,
) -> Outlay:
    """Return what ``number`` of the plan's blocks take, all by default; ``stored`` is what layers take per pixel, in bytes."""
    number = plan.met if number is None else number
    box = plan.blocks.geobox
    share = number / len(plan.blocks)
    each = [seconds_per_block(plan, network, e, pace) for e in explainers]
    return Outlay(
        read=share * plan.pixels * pace.read,
        compute=number * (sum(each) or plan.side**2 * pace.forward),
        write=share * int(box.shape.y) * int(box.shape.x) * stored * pace.write,
        at_once=min(plan.at_once, number),
        devices=plan.crew.workers if plan.needs.device else 0,
    )


def seconds_per_block(plan: Plan, network: Network, explainer: Explainer, pace: Pace) -> float:
    """Return what a method takes on one block, on one thread."""
    passes = explainer.passes(network, network.bands, network.dates)
    side = plan.blocks.size + 2 * explainer.reach(network)
    return side**2 * (passes.forward * pace.forward + passes.gradient * pace.backward)


def spoken_costs(
    plan: Plan,
    network: Network,
    cube: Cube,
    explainers: Sequence[Explainer],
    *,
    stored: float,
    number: int | None = None,
) -> list[str]:
    """Return the time expected, of all blocks that are made or ``number`` of them; of each method the passes as well."""
    pace = pace_of(plan, network, cube, gradient=any(e.method in BY_GRADIENT for e in explainers))
    outlay = outlay_of(plan, network, explainers, pace, stored=stored, number=number)
    said = [f"{plan.short()}; {outlay}"]
    number = plan.met if number is None else number
    for explainer in explainers:
        passes = explainer.passes(network, network.bands, network.dates)
        seconds = number * seconds_per_block(plan, network, explainer, pace) / max(1, outlay.devices or outlay.at_once)
        said.append(f"{explainer.method}: {passes} a block; {spoken(seconds)}")
    return said


def spoken(seconds: float) -> str:
    """Return a time that is expected."""
    return "less than a second" if seconds < 1 else f"about {duration(seconds)}"


def pace_of(plan: Plan, network: Network, cube: Cube, *, gradient: bool) -> Pace:
    """Return what the work costs here: one window is read, one small tile scored, one part written, on one thread.

    A cluster may be faster or slower than this machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        forward, backward = _passes(network, backward=gradient)
    finally:
        torch.set_num_threads(threads)
    return Pace(read=_reading(plan, cube), forward=forward, backward=backward, write=_writing(plan))


def _passes(network: Network, *, backward: bool) -> tuple[float, float]:
    """Return what a pixel costs forward, and forward and backward, measured on a small tile as a block is computed."""
    place = device()
    ready = prepare(network).to(place)
    side = round_up(_SIDE, network.stride)
    tile = blank_tile(ready, side, str(place))
    where = torch.ones(1, side, side, dtype=torch.bool, device=place)
    forward = seconds_of(lambda: scores(ready, *tile)) / side**2
    return forward, seconds_of(lambda: gradient(ready, *tile, where)) / side**2 if backward else 0.0


def _reading(plan: Plan, cube: Cube) -> float:
    """Return what a pixel costs to read: a window that holds data, after another one for which files were opened."""
    windows = list(itertools.islice(_probes(plan, cube), 2))
    taken = 0.0
    for window in windows:
        start = time.perf_counter()
        cube.read(window)
        taken = (time.perf_counter() - start) / window.pixels
    return taken


def _probes(plan: Plan, cube: Cube) -> Iterator[Window]:
    """Yield windows to be read for trial: corners of blocks all over what is mapped, the middle first, that are not empty."""
    blocks = plan.blocks
    numbers = np.arange(len(blocks)) if cube.area is None else blocks_meeting(cube.area, blocks)
    tried = min(len(numbers), _TRIED)
    # A window as long as the tiles of most files, and no larger than what the plan allows for.
    side = min(_READ, plan.side)
    for k in sorted(range(tried), key=lambda k: abs(k - tried // 2)):
        core = blocks[int(numbers[k * len(numbers) // tried])].inner
        window = Window(y=core.y, x=core.x, height=min(side, core.height), width=min(side, core.width))
        if cube.holds(window):
            yield window


def _writing(plan: Plan) -> float:
    """Return what a byte costs to write as a part."""
    size = min(_PART, plan.blocks.size)
    grid = window_geobox(plan.blocks.geobox, Window(y=0, x=0, height=size, width=size))
    layer = Layer.number("probe", ["probe"], unit="")
    values = torch.rand(1, size, size).numpy()
    with tempfile.TemporaryDirectory() as folder:
        taken = seconds_of(
            lambda: write_parts(Path(folder), [layer], BlockGrid(geobox=grid, size=size)[0], {"probe": values}, grid)
        )
    return taken / values.nbytes


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long something takes the second time: the first one warms up."""
    for _ in range(2):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken = time.perf_counter() - start
    return taken

"""Single places with all around them that the network needs to score them: for figures about explanations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pipeline.grid import Window
from pipeline.samples.folds import TEST
from pipeline.samples.pixels import numbers_of, places_of
from workflows.scoring import Scorer, load_scorer
from workflows.train import round_bundle

if TYPE_CHECKING:
    from models.bundle import Bundle
    from models.network import Network
    from pipeline.imagery.cube import Cube
    from pipeline.samples.chips import ChipStore
    from workflows.context import Context

Array = np.ndarray[Any, Any]

# What the windows of one set may take in memory.
_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Windows:
    """Places, each with a window around it.

    Attributes
    ----------
    cube, valid, time : Tensor
        Normalised windows (N, T, C, S, S) float32, (N, T, S, S) bool, (N, T) float32, as networks take them.
    own : Tensor
        The place itself, one pixel of each window; (N, S, S) bool.
    origins : tuple of (int, int)
        Row and column on the grid of the upper left pixel of each window.
    truth : (N,) float64
        Class index, or the number that the label states; NaN where nothing is labelled.
    """

    cube: Tensor
    valid: Tensor
    time: Tensor
    own: Tensor
    origins: tuple[tuple[int, int], ...]
    truth: Array

    def __len__(self) -> int:
        return len(self.cube)

    def at(self, some: slice) -> Windows:
        """Return some of them."""
        return Windows(
            self.cube[some], self.valid[some], self.time[some], self.own[some], self.origins[some], self.truth[some]
        )


def window_side(network: Network) -> int:
    """Return S: the step of the network's grid that holds the place, and the halo around it."""
    return network.stride + 2 * network.halo


def windows_of(
    scorer: Scorer, cubes: Sequence[Cube], rows: Array, columns: Array, period: Array, truth: Array
) -> Windows:
    """Read windows around pixels of the grid.

    Parameters
    ----------
    scorer : Scorer
        The trained network.
    cubes : sequence of Cube
        Imagery of each period.
    rows, columns, period : (N,) int64
        Pixels, and the number of the period in which each is looked at.
    truth : (N,) float64
        Class index or number of each.
    """
    network = scorer.network
    side, stride, halo = window_side(network), network.stride, network.halo
    tops, lefts = rows // stride * stride - halo, columns // stride * stride - halo
    values, valid, time = [], [], []
    for y, x, p in zip(tops.tolist(), lefts.tolist(), period.tolist(), strict=True):
        tile = cubes[p].read(Window(y=y, x=x, height=side, width=side))
        values.append(tile.values[: network.dates])
        valid.append(tile.valid[: network.dates])
        time.append(cubes[p].time[: network.dates])
    own = torch.zeros(len(rows), side, side, dtype=torch.bool)
    own[torch.arange(len(rows)), torch.as_tensor(rows - tops), torch.as_tensor(columns - lefts)] = True
    cube, seen, days = scorer.tensors(np.stack(values), np.stack(valid), np.stack(time))
    origins = tuple(zip(tops.tolist(), lefts.tolist(), strict=True))
    return Windows(cube, seen, days, own.to(scorer.device), origins, truth.astype(np.float64))


def windows_of_samples(scorer: Scorer, store: ChipStore, chips: Array, truth: Array) -> Windows:
    """Return samples as windows, which they are where nothing is seen beyond them: the label is that of their centre."""
    values, _ = store.read(chips)
    cube, valid, time = scorer.tensors(values, np.asarray(np.isfinite(values).all(2)), store.time[chips])
    own = torch.zeros(len(chips), store.size, store.size, dtype=torch.bool)
    own[:, store.size // 2, store.size // 2] = True
    # Those of a table lie nowhere on a grid: each gets a cell of its own, so that noise differs.
    places = ((int(i) * 64, 0) for i in chips) if store.standalone else map(tuple, store.origins[chips].tolist())
    origins: tuple[tuple[int, int], ...] = tuple(places)
    return Windows(cube, valid, time, own.to(scorer.device), origins, truth.astype(np.float64))


def held_out_windows(context: Context, store: ChipStore, most: int) -> list[tuple[Scorer, Windows]]:
    """Return places of the test fold of each round, drawn at random, always the same, with the network that has not seen them.

    Parameters
    ----------
    context : Context
        The job, trained.
    store : ChipStore
        Its samples.
    most : int
        Places in all; fewer where the windows would take too much memory.
    """
    rounds = len(context.folds.rounds)
    found = []
    for i in range(rounds):
        bundle, folder = round_bundle(context, i)
        scorer = load_scorer(folder, bundle.checksum)
        if windows := _read(context, store, i, scorer, -(-most // rounds)):
            found.append((scorer, windows))
    return found


def final_windows(context: Context, store: ChipStore, bundle: Bundle, most: int) -> tuple[Scorer, Windows | None]:
    """Return the same places with the network that maps; None where no test fold holds any.

    With k folds it has learnt from them too: for questions about the network, not about how good it is.
    """
    rounds = len(context.folds.rounds)
    scorer = load_scorer(context.output.model, bundle.checksum)
    found = [w for i in range(rounds) if (w := _read(context, store, i, scorer, -(-most // rounds)))]
    if not found:
        return scorer, None
    cube, valid, time, own = (torch.cat([getattr(w, name) for w in found]) for name in ("cube", "valid", "time", "own"))
    origins = tuple(o for w in found for o in w.origins)
    return scorer, Windows(cube, valid, time, own, origins, np.concatenate([w.truth for w in found]))


def _read(context: Context, store: ChipStore, round_: int, scorer: Scorer, most: int) -> Windows | None:
    """Return places of the test fold of a round; None where it holds none."""
    network = scorer.network
    places = places_of(store, round_, TEST)
    regression = context.job.task == "regression"
    truth = numbers_of(store, round_, TEST) if regression else places.target.astype(np.float64)
    side = store.size if store.standalone else window_side(network)
    room = _BYTES // (4 * network.dates * network.bands * side**2)
    which = _some(len(truth), min(most, room // len(context.folds.rounds)))
    if len(which) == 0:
        return None
    if store.standalone or (network.pixelwise and store.size == 1):
        return windows_of_samples(scorer, store, store.indices(round_, TEST)[which], truth[which])
    at = places.at(which)
    return windows_of(scorer, context.imaged, at.rows, at.columns, at.period, truth[which])


def _some(n: int, most: int) -> Array:
    return np.sort(np.random.default_rng(0).permutation(n)[: max(1, most)])

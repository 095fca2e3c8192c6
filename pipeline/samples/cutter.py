"""What happens to one block of land: labels and folds rasterised, the buffer applied, chips cut. Pure; knows no store."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import maximum_filter

from pipeline.grid import Window
from pipeline.imagery.cube import Cube
from pipeline.samples.folds import NONE, TEST, TRAIN, VAL, Folds, Round
from pipeline.samples.labels import IGNORE, Labels
from pipeline.samples.truth import packed

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Land:
    """A block of land, and the number of the period whose labels are looked at there."""

    window: Window
    period: int = 0

    def __str__(self) -> str:
        return str(self.window)


@dataclass(frozen=True, slots=True)
class Survey:
    """What a block of land holds, known from its labels alone.

    Attributes
    ----------
    origins : (N, 2) int64
        Row and column of the first pixel of each cell with labels.
    plain, kept : (R, 4, K) int64
        Labels per round, role and class, before and after the buffer.
    per_fold : (F, K) int64
        Labels per fold and class.
    """

    origins: Array
    plain: Array
    kept: Array
    per_fold: Array


@dataclass(frozen=True, slots=True)
class Cutter:
    """What all tasks of a cutting share.

    Labels lie in the cells of a lattice; a chip holds the labels of one cell, and the values of the cell and of a margin
    around it. Cells of one pixel with a margin are patches, each with one label at its centre.

    Attributes
    ----------
    cubes : tuple of Cube
        Imagery of each period in which labels hold; all have as many dates.
    size : int
        Side of a chip in pixels, margins included.
    margin : int
        Pixels around the cell.
    exempt : (R, 4, K) bool
        Per round, role and class: labels that are kept inside the buffer, because it would take them all.
    quota : (F, K) float
        Share of labelled pixels kept, per fold and class; for cells of one pixel.
    """

    cubes: tuple[Cube, ...]
    labels: Labels
    folds: Folds
    size: int
    margin: int
    seed: int
    exempt: Array
    quota: Array

    @property
    def cell(self) -> int:
        """Side of a cell in pixels."""
        return self.size - 2 * self.margin

    def survey(self, land: Land) -> Survey:
        """Find the cells with labels, and count labels per round, role and class, before and after the buffer."""
        codes, fold, before, after = self.truth(land)
        classes = len(self.labels.legend.classes)
        labelled = codes != IGNORE
        per_fold = _tally((len(self.folds.names), classes), fold[labelled], codes[labelled])
        y, x = np.nonzero(labelled)
        # Marked on the lattice: sorting the labelled pixels would take three quarters of the survey.
        cells = np.zeros([-(-n // self.cell) for n in codes.shape], bool)
        cells[y // self.cell, x // self.cell] = True
        return Survey(
            np.argwhere(cells) * self.cell + np.array((land.window.y, land.window.x)),
            plain=np.stack([_count(codes, r, classes) for r in before]),
            kept=np.stack([_count(codes, r, classes) for r in after]),
            per_fold=per_fold,
        )

    def truth(self, land: Land) -> tuple[Array, Array, list[Array], list[Array]]:
        """Return class indices and folds of a block of land, and its roles per round, before and after the buffer."""
        pad, window = self.folds.buffer, land.window
        padded = window.pad(pad)
        codes, fold = self._labels(padded, land.period)
        # Land that is kept for the test in one period is not to be learned from in another.
        others = [self._labels(padded, p) for p in range(len(self.cubes)) if p != land.period] if pad else []
        inner = (slice(pad, pad + window.height), slice(pad, pad + window.width))
        before, after = [], []
        for number, round_ in enumerate(self.folds.rounds):
            role = _roles(round_, codes, fold)
            elsewhen = [_roles(round_, *other) for other in others]
            before.append(role[inner])
            after.append(buffered(role, codes, pad, self.exempt[number], elsewhen)[inner])
        codes, fold = codes[inner].copy(), fold[inner].copy()
        if self.cell == 1 and (self.quota < 1).any():
            labelled = codes != IGNORE
            y, x = np.nonzero(labelled)
            chance = _uniform(y + window.y, x + window.x, self.seed + land.period)
            out = chance >= self.quota[fold[labelled], codes[labelled]]
            codes[y[out], x[out]] = IGNORE
            for roles in (*before, *after):
                roles[y[out], x[out]] = NONE
        return codes, fold, before, after

    def _labels(self, window: Window, period: int) -> tuple[Array, Array]:
        """Return class indices and folds, (h, w) each."""
        tile = self.labels.read(window, period)
        fold = self.folds.read(window, tile)
        tile.codes[fold < 0] = IGNORE
        return tile.codes, fold

    def cut(self, land: Land, origins: Array) -> dict[str, Array]:
        """Return the chips of cells of a block of land: values (N, T, C, S, S), truth (N, P, S, S), ...; see `new_store`."""
        codes, _, _, after = self.truth(land)
        cube = self.cubes[land.period]
        # Outside the raster the plane goes on, invalid.
        padded = land.window.pad(self.margin)
        tile = cube.read(padded)
        good = tile.valid[(slice(None), *land.window.within(padded))].any(0)
        codes[~good] = IGNORE
        after = [np.where(good, r, np.int8(NONE)) for r in after]
        values = np.where(tile.valid[:, None], tile.values, np.float32(np.nan))
        places = origins - np.array((land.window.y, land.window.x))
        margin = [(0, 0), (0, 0), *[(self.margin, self.margin)] * 2]
        numbers = self.labels.numbers(land.window, land.period)
        stated = {}
        if numbers is not None:
            cells = _squares(numbers, places, self.cell)
            stated["numbers"] = np.pad(cells, margin[1:], constant_values=np.nan)
        return stated | {
            "values": _squares(values, places, self.size),
            "truth": np.pad(_squares(packed(codes, after), places, self.cell), margin),
            "counts": counted(codes, after, places // self.cell, self.cell, len(self.labels.legend.classes)),
            "origin": (origins - self.margin).astype(np.int32),
            "period": np.full(len(origins), land.period, np.int32),
            "time": np.tile(cube.time, (len(origins), 1)),
        }


def _roles(round_: Round, codes: Array, fold: Array) -> Array:
    """Return the role of each pixel in a round, (h, w) int8."""
    return np.where(codes == IGNORE, np.int8(NONE), round_.roles[fold, codes])


def _squares(land: Array, places: Array, s: int) -> Array:
    """Return the squares (N, ..., S, S) of a block of land (..., h, w), by their first rows and columns (N, 2)."""
    squares = sliding_window_view(land, (s, s), axis=(-2, -1))
    return np.ascontiguousarray(np.moveaxis(squares[..., places[:, 0], places[:, 1], :, :], -3, 0))


def counted(codes: Array, roles: list[Array], places: Array, s: int, classes: int) -> Array:
    """Return labelled pixels per cell, round, role and class, (N, R + 1, 4, K) int32; in the last round all train.

    Parameters
    ----------
    codes : (h, w) int
        Class indices.
    roles : list of (h, w) int8
        Per round.
    places : (N, 2) int
        Row and column of each cell on the lattice of cells; others are not counted.
    s : int
        Side of a cell in pixels.
    classes : int
        K.
    """
    number = np.full((codes.shape[0] // s, codes.shape[1] // s), -1, np.int64)
    number[places[:, 0], places[:, 1]] = np.arange(len(places))
    counts = np.zeros((len(places), len(roles) + 1, 4, classes), np.int32)
    y, x = np.nonzero(codes != IGNORE)
    cell = number[y // s, x // s]
    y, x, cell = y[cell >= 0], x[cell >= 0], cell[cell >= 0]
    everything = np.full(codes.shape, TRAIN, np.int8)
    for r, role in enumerate([*roles, everything]):
        counts[:, r] = _tally((len(places), 4, classes), cell, role[y, x], codes[y, x])
    return counts


def _tally(shape: tuple[int, ...], *places: Array) -> Array:
    """Return how often each place occurs, as an array of this shape, from the indices (n,) along each of its axes."""
    flat = np.ravel_multi_index(tuple(p.astype(np.int64) for p in places), shape)
    return np.bincount(flat, minlength=math.prod(shape)).reshape(shape)


def _count(codes: Array, role: Array, classes: int) -> Array:
    """Return labelled pixels per role and class, (4, K)."""
    known = codes != IGNORE
    return _tally((4, classes), role[known], codes[known])


def buffered(role: Array, codes: Array, buffer: int, exempt: Array, elsewhen: Sequence[Array] = ()) -> Array:
    """Take the role from training labels near validation or test labels, and from validation labels near test labels.

    Parameters
    ----------
    role : (h, w) int8
    codes : (h, w) int16
        Class indices.
    buffer : int
        Pixels (Chebyshev) within which a label is near.
    exempt : (4, K) bool
        Roles and classes that keep their labels all the same.
    elsewhen : sequence of (h, w) int8
        Roles that labels of other periods have there.
    """
    if not buffer:
        return role
    side = 2 * buffer + 1
    roles = [role, *elsewhen]
    near_test = maximum_filter(np.logical_or.reduce([r == TEST for r in roles]), side)
    near_val = maximum_filter(np.logical_or.reduce([r == VAL for r in roles]), side)
    lost = ((role == TRAIN) & (near_test | near_val)) | ((role == VAL) & near_test)
    y, x = np.nonzero(lost)
    kept = exempt[role[y, x], codes[y, x]]
    lost[y[kept], x[kept]] = False
    return np.where(lost, np.int8(NONE), role)


def _uniform(y: Array, x: Array, seed: int) -> Array:
    """Return a number in [0, 1) for each place: the same however the land is cut (after Steele et al. 2014, SplitMix64)."""
    with np.errstate(over="ignore"):
        z = (
            (y.astype(np.uint64) << np.uint64(32))
            ^ x.astype(np.uint64)
            ^ (np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15))
        )
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) / 2**53

"""The labelled pixels of a chip store: where they lie, and their values as rows of numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pipeline.imagery.statistics import Moments, Statistics
from pipeline.samples.folds import TRAIN
from pipeline.samples.labels import IGNORE

if TYPE_CHECKING:
    from pipeline.samples.chips import ChipStore

Array = np.ndarray[Any, Any]
_T = TypeVar("_T")

# Chips that are looked at together, and that one Dask task reads for statistics.
_PER_TASK = 32
# Values of a patch up to which a forest is shown all of them.
_FOREST_VALUES = 1024


@dataclass(frozen=True, slots=True)
class Places:
    """Labelled pixels.

    Attributes
    ----------
    rows, columns : (N,) int64
        Where they are on the grid; of samples of a table, their number and zero.
    target : (N,) int64
        Their class indices.
    period : (N,) int64
        Number of the period in which their labels hold.
    """

    rows: Array
    columns: Array
    target: Array
    period: Array

    def at(self, which: Array) -> Places:
        """Return some of the places, by their numbers."""
        return Places(self.rows[which], self.columns[which], self.target[which], self.period[which])


def places_of(store: ChipStore, round_: int | str, role: int) -> Places:
    """Return where the labelled pixels with a role in a round lie, and their classes."""
    chips = store.indices(round_, role)
    if store.size == 1:
        target = store.targets_of(store.truth[:], round_, role)[chips, 0, 0]
        where = store.origins[chips].astype(np.int64)
        return Places(where[:, 0], where[:, 1], target.astype(np.int64), store.period[chips].astype(np.int64))
    rows, columns, classes, period = [], [], [], []
    for i in chips:
        found = store.targets(int(i), round_, role)
        y, x = np.nonzero(found != IGNORE)
        rows.append(y + int(store.origins[i, 0]))
        columns.append(x + int(store.origins[i, 1]))
        classes.append(found[y, x].astype(np.int64))
        period.append(np.full(len(y), store.period[i], np.int64))
    if not rows:
        none = np.zeros(0, np.int64)
        return Places(none, none, none, none)
    return Places(*(np.concatenate(parts) for parts in (rows, columns, classes, period)))


def numbers_of(store: ChipStore, round_: int | str, role: int) -> Array:
    """Return the numbers of the labelled pixels with a role in a round, (N,) float64, in the order of `places_of`."""
    found = [np.zeros(0)]
    if store.size == 1:
        chips = store.indices(round_, role)
        return store.read_numbers(chips)[:, 0, 0].astype(np.float64)
    for i in store.indices(round_, role):
        (stated,) = store.read_numbers(np.array([i]))
        found.append(stated[store.targets(int(i), round_, role) != IGNORE].astype(np.float64))
    return np.concatenate(found)


def labelled(store: ChipStore, round_: int | str, role: int, chips: Array) -> tuple[Array, Array]:
    """Return the values (n, T, C) float32, NaN where invalid, and class indices (n,) of labelled pixels of chips."""
    values, target = [], []
    for some in (chips[i : i + _PER_TASK] for i in range(0, len(chips), _PER_TASK)):
        cubes, truth = store.read(some)
        of = store.targets_of(truth, round_, role)
        n, y, x = np.nonzero(of != IGNORE)
        values.append(cubes[n, :, :, y, x])
        target.append(of[n, y, x].astype(np.int64))
    if not values:
        times, bands = store.values.shape[1:3]
        return np.zeros((0, times, bands), np.float32), np.zeros(0, np.int64)
    return np.concatenate(values), np.concatenate(target)


def _all_labelled(store: ChipStore, round_: int | str, role: int) -> tuple[Array, Array]:
    """As `labelled`, over all chips; single pixels are read at once."""
    chips = store.indices(round_, role)
    if store.size > 1:
        return labelled(store, round_, role, chips)
    target = store.targets_of(store.truth[:], round_, role)[:, 0, 0]
    keep = target != IGNORE
    return np.asarray(store.values[:])[keep][..., 0, 0], target[keep].astype(np.int64)


def moments_of(store: ChipStore, round_: int | str) -> Moments:
    """Return the moments per band of the labelled pixels that train in a round, computed by Dask."""
    parts = _of_training(store, round_, lambda values: Moments.of(values.T))
    return functools.reduce(Moments.combine, parts, Moments.none(int(store.values.shape[2])))


def covariance_of(store: ChipStore, round_: int | str, statistics: Statistics) -> Array:
    """Return the covariance (C, C) of the normalised bands of the labelled pixels that train in a round, by Dask.

    Its zero is the mean of ``statistics``, those of the same pixels: nothing else needs to be known to add up parts.
    """

    def products(values: Array) -> tuple[int, Array]:
        normal = (values.astype(np.float64) - statistics.mean) / statistics.std
        return len(normal), normal.T @ normal

    parts = _of_training(store, round_, products)
    bands = int(store.values.shape[2])
    return np.asarray(sum((p for _, p in parts), np.zeros((bands, bands))) / max(sum(n for n, _ in parts) - 1, 1))


def _of_training(store: ChipStore, round_: int | str, function: Callable[[Array], _T]) -> tuple[_T, ...]:
    """Return what a function makes of the valid values (n, C) of labelled training pixels, a part of them at a time."""
    import dask

    bands = int(store.values.shape[2])

    def of(values: Array) -> _T:
        flat = values.reshape(-1, bands)
        return function(flat[np.isfinite(flat).all(1)])

    if store.size == 1:
        return (of(_all_labelled(store, round_, TRAIN)[0]),)
    chips = store.indices(round_, TRAIN)
    part = dask.delayed(lambda some: of(labelled(store, round_, TRAIN, some)[0]))
    parts = [part(chips[i : i + _PER_TASK]) for i in range(0, len(chips), _PER_TASK)]
    # The same order on every machine: the last bits of a sum depend on it.
    found: tuple[_T, ...] = dask.compute(*parts, scheduler="threads")
    return found


def pixels_of(store: ChipStore, round_: int | str, role: int, limit: int | None, seed: int = 0) -> tuple[Array, Array]:
    """Return labelled samples for a model that takes rows of numbers.

    From imagery these are the values of labelled pixels. Patches that stand by themselves are shown as the network is shown
    them, every pixel; of large ones, mean and standard deviation of each band.

    Returns
    -------
    values : (n, T * C * F) float32
        F is 1, S * S, or 2. What is invalid holds the mean of the valid values, which says nothing.
    target : (n,) int64
    """
    if store.standalone and store.kind == "patches":
        chips = store.indices(round_, role)
        chips = chips[_drawn(len(chips), limit, seed)]
        parts = [_described(store, chips[i : i + _PER_TASK]) for i in range(0, len(chips), _PER_TASK)]
        values = np.concatenate(parts)
        target = store.chip_counts(round_, role)[chips].argmax(1)
    else:
        values, target = _all_labelled(store, round_, role)
        drawn = _drawn(len(target), limit, seed)
        values, target = values[drawn][..., None], target[drawn]
    good = np.isfinite(values)
    mean = np.where(good, values, 0).sum((0, 1)) / np.maximum(good.sum((0, 1)), 1)
    filled = np.where(good, values, mean.astype(np.float32))
    return filled.reshape(len(target), -1), target


def _described(store: ChipStore, chips: Array) -> Array:
    """Return all values of patches, or figures of large ones, (n, T, C, F) float32, NaN where invalid."""
    values = store.read(chips)[0]
    values = values.reshape(*values.shape[:3], -1)
    if values[0].size <= _FOREST_VALUES:
        return values
    good = np.isfinite(values)
    n = good.sum(-1)
    with np.errstate(invalid="ignore"):
        mean = np.where(good, values, 0).sum(-1) / n
        spread = np.sqrt((np.where(good, values - mean[..., None], 0) ** 2).sum(-1) / n)
    return np.stack([mean, spread], -1).astype(np.float32)


def _drawn(n: int, limit: int | None, seed: int) -> Array:
    """Return which of n things are taken, in order."""
    if limit is None or n <= limit:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, limit, replace=False))

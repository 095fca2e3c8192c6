"""The chip store: training samples in Zarr, cut once and read a chip at a time."""

from __future__ import annotations

import functools
import io
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import zarr

from pipeline.errors import ReadError
from pipeline.imagery.statistics import Moments, Statistics
from pipeline.samples.folds import TRAIN
from pipeline.samples.labels import IGNORE
from pipeline.samples.legend import Legend

Array = np.ndarray[Any, Any]
Kind = Literal["pixels", "patches", "chips"]
_T = TypeVar("_T")

ALL = "all"
"""The round in which every label trains."""

ROUNDS_PER_PLANE = 8
# Chips that are looked at together, and that one Dask task reads for statistics.
_PER_TASK = 32
# Values of a patch up to which a forest is shown all of them.
_FOREST_VALUES = 1024


def planes(rounds: int) -> int:
    """Return the number of uint16 planes that hold a pixel's class and its role in each round."""
    return 1 + -(-rounds // ROUNDS_PER_PLANE)


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


@dataclass(frozen=True)
class ChipStore:
    """Training samples on disk.

    A chip is a square of pixels with labels, or, with a margin, a smaller square of labels in the middle of a larger one of
    values: a patch has a single label, at its centre.

    Values are kept as float32, NaN where invalid: one read gives values and validity. Class and roles are packed into
    planes of uint16: the class plus one, then two bits for the role in each round.

    Attributes
    ----------
    path : Path
        Where it is.
    attrs : dict
        Bands, periods, legend, names of folds, notes, and the table of what was cut.
    """

    path: Path
    attrs: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> ChipStore:
        """Open a store."""
        return cls(path, dict(zarr.open_group(path, mode="r").attrs))

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "attrs": self.attrs}

    @functools.cached_property
    def _group(self) -> Any:
        return zarr.open_group(self.path, mode="r")

    @functools.cached_property
    def values(self) -> Any:
        """(N, T, C, S, S) float32, NaN where invalid."""
        return self._group["values"]

    @functools.cached_property
    def truth(self) -> Any:
        """(N, P, S, S) uint16: class plus one, and roles."""
        return self._group["truth"]

    @functools.cached_property
    def _numbers(self) -> Any:
        """(N, S, S) float32, NaN where there is none."""
        return self._group["numbers"]

    def read_numbers(self, chips: Array) -> Array:
        """Return the numbers that labels of chips state, (n, S, S) float32, NaN where there is none; see `read`."""
        if self.size == 1:
            return np.asarray(np.asarray(self._numbers[:])[chips])
        return self._chunks(self._numbers, chips)

    def numbers(self, round_: int | str, role: int) -> Array:
        """Return the numbers of the labelled pixels with a role in a round, (N,) float64, in the order of `places`."""
        found = [np.zeros(0)]
        if self.size == 1:
            chips = self.indices(round_, role)
            return self.read_numbers(chips)[:, 0, 0].astype(np.float64)
        for i in self.indices(round_, role):
            (stated,) = self.read_numbers(np.array([i]))
            found.append(stated[self.targets(int(i), round_, role) != IGNORE].astype(np.float64))
        return np.concatenate(found)

    def read(self, chips: Array) -> tuple[Array, Array]:
        """Return values (n, T, C, S, S) float32, NaN where invalid, and packed truth (n, P, S, S) uint16 of chips.

        A chunk that is not compressed is a file of the values of its chips, one after another (Zarr 3, codec `bytes`): read
        straight into the batch, they take a fifth of the time that Zarr's own reader needs for many small reads.

        Raises
        ------
        ReadError
            If a chip is missing or cut short; names the file.
        """
        if self.size == 1:
            return np.asarray(self.values[:])[chips], np.asarray(self.truth[:])[chips]
        return self._chunks(self.values, chips), self._chunks(self.truth, chips)

    def _chunks(self, array: Any, chips: Array) -> Array:
        made = np.empty((len(chips), *array.shape[1:]), array.dtype.newbyteorder("<"))
        tail = "/0" * (array.ndim - 1)
        together = array.chunks[0]
        for chunk, places in itertools.groupby(
            np.argsort(chips, kind="stable"), key=lambda k: int(chips[k]) // together
        ):
            file = self.path / array.basename / f"c/{chunk}{tail}"
            # One that is missing is as one that is cut short.
            with file.open("rb", buffering=0) if file.is_file() else io.BytesIO() as stream:
                for k in places:
                    stream.seek(int(chips[k]) % together * made[k].nbytes)
                    got = stream.readinto(made[k])
                    if got != made[k].nbytes:
                        raise ReadError(
                            f"{file}: a chip is damaged, {got} of {made[k].nbytes} bytes are there; cut the chips anew with "
                            "--overwrite"
                        )
        return made

    @functools.cached_property
    def _counts(self) -> Array:
        return np.asarray(self._group["counts"][:])

    @functools.cached_property
    def origins(self) -> Array:
        """Row and column of each chip's first pixel on the grid, (N, 2) int32."""
        return np.asarray(self._group["origin"][:])

    @functools.cached_property
    def period(self) -> Array:
        """Number of the period of each chip's labels, (N,) int32."""
        return np.asarray(self._group["period"][:])

    @functools.cached_property
    def time(self) -> Array:
        """Day of each date of each chip, counted from the first day of its period, (N, T) float32."""
        return np.asarray(self._group["time"][:])

    @functools.cached_property
    def legend(self) -> Legend:
        """The classes."""
        return Legend.from_json(self.attrs["legend"])

    def __len__(self) -> int:
        return int(self.values.shape[0])

    @property
    def size(self) -> int:
        """Side of a chip in pixels, margins included."""
        return int(self.values.shape[-1])

    @property
    def margin(self) -> int:
        """Pixels on each side of a chip that hold values and no labels."""
        return int(self.attrs["margin"])

    @property
    def numeric(self) -> bool:
        """Whether labels state numbers; their classes are ranges of them."""
        return "numbers" in self._group

    @property
    def standalone(self) -> bool:
        """Whether the samples are all there is: they were cut from no imagery."""
        return bool(self.attrs["standalone"])

    @property
    def kind(self) -> Kind:
        """What a sample is: a labelled pixel, a patch with one label at its centre, or a chip with many."""
        if self.size == 1:
            return "pixels"
        return "patches" if self.size == 2 * self.margin + 1 else "chips"

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return int(self.attrs["rounds"])

    @property
    def buffer(self) -> int:
        """Pixels that labels of different roles are kept apart."""
        return int(self.attrs["buffer"])

    @property
    def notes(self) -> list[str]:
        """What was left out while cutting."""
        return list(self.attrs["notes"])

    def table(self) -> list[dict[str, Any]]:
        """Return a row per class: features, pixels, pixels per fold, training labels lost to the buffer."""
        return list(self.attrs["table"])

    def _round(self, round_: int | str) -> int:
        return self.rounds if round_ == ALL else int(round_)

    def targets_of(self, truth: Array, round_: int | str, role: int) -> Array:
        """Return class indices (..., S, S) int16 of packed truth (..., P, S, S); `IGNORE` outside the role."""
        codes = truth[..., 0, :, :].astype(np.int16) - np.int16(1)
        if round_ == ALL:
            return codes if role == TRAIN else np.full_like(codes, IGNORE)
        return np.where(self.roles_of(truth, int(round_)) == role, codes, np.int16(IGNORE))

    def roles_of(self, truth: Array, round_: int) -> Array:
        """Return roles (..., S, S) in a round of packed truth (..., P, S, S)."""
        plane, place = divmod(round_, ROUNDS_PER_PLANE)
        return np.asarray((truth[..., 1 + plane, :, :] >> np.uint16(2 * place)) & np.uint16(3))

    def targets(self, i: int, round_: int | str, role: int) -> Array:
        """Return the class indices of chip ``i``, (S, S) int16; `IGNORE` where a pixel has not this role in this round."""
        return self.targets_of(self.truth[i], round_, role)

    def counts(self, round_: int | str, role: int) -> Array:
        """Return labelled pixels per class, (K,) int64."""
        return np.asarray(self._counts[:, self._round(round_), role].sum(0, dtype=np.int64))

    def chip_counts(self, round_: int | str, role: int) -> Array:
        """Return labelled pixels per chip and class, (N, K) int32."""
        return np.asarray(self._counts[:, self._round(round_), role])

    def indices(self, round_: int | str, role: int) -> Array:
        """Return the chips that hold a pixel with this role, (n,) int64."""
        return np.flatnonzero(self._counts[:, self._round(round_), role].any(1))

    def places(self, round_: int | str, role: int) -> Places:
        """Return where the labelled pixels with a role in a round lie, and their classes."""
        chips = self.indices(round_, role)
        if self.size == 1:
            target = self.targets_of(self.truth[:], round_, role)[chips, 0, 0]
            where = self.origins[chips].astype(np.int64)
            return Places(where[:, 0], where[:, 1], target.astype(np.int64), self.period[chips].astype(np.int64))
        rows, columns, classes, period = [], [], [], []
        for i in chips:
            found = self.targets(int(i), round_, role)
            y, x = np.nonzero(found != IGNORE)
            rows.append(y + int(self.origins[i, 0]))
            columns.append(x + int(self.origins[i, 1]))
            classes.append(found[y, x].astype(np.int64))
            period.append(np.full(len(y), self.period[i], np.int64))
        if not rows:
            none = np.zeros(0, np.int64)
            return Places(none, none, none, none)
        return Places(*(np.concatenate(parts) for parts in (rows, columns, classes, period)))

    def labelled(self, round_: int | str, role: int, chips: Array) -> tuple[Array, Array]:
        """Return the values (n, T, C) float32, NaN where invalid, and class indices (n,) of labelled pixels of chips."""
        values, target = [], []
        for some in (chips[i : i + _PER_TASK] for i in range(0, len(chips), _PER_TASK)):
            cubes, truth = self.read(some)
            of = self.targets_of(truth, round_, role)
            n, y, x = np.nonzero(of != IGNORE)
            values.append(cubes[n, :, :, y, x])
            target.append(of[n, y, x].astype(np.int64))
        if not values:
            times, bands = self.values.shape[1:3]
            return np.zeros((0, times, bands), np.float32), np.zeros(0, np.int64)
        return np.concatenate(values), np.concatenate(target)

    def _all_labelled(self, round_: int | str, role: int) -> tuple[Array, Array]:
        """As `labelled`, over all chips; single pixels are read at once."""
        chips = self.indices(round_, role)
        if self.size > 1:
            return self.labelled(round_, role, chips)
        target = self.targets_of(self.truth[:], round_, role)[:, 0, 0]
        keep = target != IGNORE
        return np.asarray(self.values[:])[keep][..., 0, 0], target[keep].astype(np.int64)

    def moments(self, round_: int | str) -> Moments:
        """Return the moments per band of the labelled pixels that train in a round, computed by Dask."""
        parts = self._of_training(round_, lambda values: Moments.of(values.T))
        return functools.reduce(Moments.combine, parts, Moments.none(int(self.values.shape[2])))

    def covariance(self, round_: int | str, statistics: Statistics) -> Array:
        """Return the covariance (C, C) of the normalised bands of the labelled pixels that train in a round, by Dask.

        Its zero is the mean of ``statistics``, those of the same pixels: nothing else needs to be known to add up parts.
        """

        def products(values: Array) -> tuple[int, Array]:
            normal = (values.astype(np.float64) - statistics.mean) / statistics.std
            return len(normal), normal.T @ normal

        parts = self._of_training(round_, products)
        bands = int(self.values.shape[2])
        return np.asarray(sum((p for _, p in parts), np.zeros((bands, bands))) / max(sum(n for n, _ in parts) - 1, 1))

    def _of_training(self, round_: int | str, function: Callable[[Array], _T]) -> tuple[_T, ...]:
        """Return what a function makes of the valid values (n, C) of labelled training pixels, a part of them at a time."""
        import dask

        bands = int(self.values.shape[2])

        def of(values: Array) -> _T:
            flat = values.reshape(-1, bands)
            return function(flat[np.isfinite(flat).all(1)])

        if self.size == 1:
            return (of(self._all_labelled(round_, TRAIN)[0]),)
        chips = self.indices(round_, TRAIN)
        part = dask.delayed(lambda some: of(self.labelled(round_, TRAIN, some)[0]))
        parts = [part(chips[i : i + _PER_TASK]) for i in range(0, len(chips), _PER_TASK)]
        # The same order on every machine: the last bits of a sum depend on it.
        found: tuple[_T, ...] = dask.compute(*parts, scheduler="threads")
        return found

    def pixels(self, round_: int | str, role: int, limit: int | None, seed: int = 0) -> tuple[Array, Array]:
        """Return labelled samples for a model that takes rows of numbers.

        From imagery these are the values of labelled pixels. Patches that stand by themselves are shown as the network is shown
        them, every pixel; of large ones, mean and standard deviation of each band.

        Returns
        -------
        values : (n, T * C * F) float32
            F is 1, S * S, or 2. What is invalid holds the mean of the valid values, which says nothing.
        target : (n,) int64
        """
        if self.standalone and self.kind == "patches":
            chips = self.indices(round_, role)
            chips = chips[_drawn(len(chips), limit, seed)]
            parts = [self._described(chips[i : i + _PER_TASK]) for i in range(0, len(chips), _PER_TASK)]
            values = np.concatenate(parts)
            target = self.chip_counts(round_, role)[chips].argmax(1)
        else:
            values, target = self._all_labelled(round_, role)
            drawn = _drawn(len(target), limit, seed)
            values, target = values[drawn][..., None], target[drawn]
        good = np.isfinite(values)
        mean = np.where(good, values, 0).sum((0, 1)) / np.maximum(good.sum((0, 1)), 1)
        filled = np.where(good, values, mean.astype(np.float32))
        return filled.reshape(len(target), -1), target

    def _described(self, chips: Array) -> Array:
        """Return all values of patches, or figures of large ones, (n, T, C, F) float32, NaN where invalid."""
        values = self.read(chips)[0]
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

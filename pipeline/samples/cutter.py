"""What happens to one block of land: labels and folds rasterised, the buffer applied, chips cut. Pure; knows no store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import maximum_filter

from pipeline.grid import Window
from pipeline.imagery.cube import Cube
from pipeline.samples.chips import ROUNDS_PER_PLANE, planes
from pipeline.samples.folds import NONE, TEST, TRAIN, VAL, Folds
from pipeline.samples.labels import IGNORE, Labels

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Survey:
    """What a block of land holds, known from its labels alone.

    Attributes
    ----------
    origins : (N, 2) int64
        Row and column of the first pixel of each chip.
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

    Attributes
    ----------
    exempt : (R, 4, K) bool
        Per round, role and class: labels that are kept inside the buffer, because it would take them all.
    quota : (F, K) float
        Share of labelled pixels kept, per fold and class; for samples of one pixel.
    """

    cube: Cube
    labels: Labels
    folds: Folds
    size: int
    seed: int
    exempt: Array
    quota: Array

    def survey(self, land: Window) -> Survey:
        """Find the chips of a block of land, and count labels per round, role and class, before and after the buffer."""
        codes, fold, before, after = self.truth(land)
        classes = len(self.labels.legend.classes)
        labelled = codes != IGNORE
        per_fold = np.zeros((len(self.folds.names), classes), np.int64)
        np.add.at(per_fold, (fold[labelled], codes[labelled]), 1)
        y, x = np.nonzero(labelled)
        origins = np.unique(np.stack([y // self.size, x // self.size], 1), axis=0) * self.size
        return Survey(
            origins + np.array((land.y, land.x)),
            plain=np.stack([_count(codes, r, classes) for r in before]),
            kept=np.stack([_count(codes, r, classes) for r in after]),
            per_fold=per_fold,
        )

    def truth(self, land: Window) -> tuple[Array, Array, list[Array], list[Array]]:
        """Return class indices and folds of a block of land, and its roles per round, before and after the buffer."""
        pad = self.folds.buffer
        padded = land.pad(pad)
        tile = self.labels.read(padded)
        fold = self.folds.read(padded, tile)
        codes = tile.codes
        codes[fold < 0] = IGNORE
        inner = (slice(pad, pad + land.height), slice(pad, pad + land.width))
        before, after = [], []
        for number, round_ in enumerate(self.folds.rounds):
            role = np.where(codes == IGNORE, np.int8(NONE), round_.roles[fold, codes])
            before.append(role[inner])
            after.append(buffered(role, codes, pad, self.exempt[number])[inner])
        codes, fold = codes[inner].copy(), fold[inner].copy()
        if self.size == 1 and (self.quota < 1).any():
            labelled = codes != IGNORE
            y, x = np.nonzero(labelled)
            out = _uniform(y + land.y, x + land.x, self.seed) >= self.quota[fold[labelled], codes[labelled]]
            codes[y[out], x[out]] = IGNORE
            for roles in (*before, *after):
                roles[y[out], x[out]] = NONE
        return codes, fold, before, after

    def cut(self, land: Window, origins: Array) -> dict[str, Array]:
        """Return the chips of a block of land: values (N, T, C, S, S), truth (N, P, S, S), counts (N, R + 1, 4, K)."""
        codes, _, _, after = self.truth(land)
        tile = self.cube.read(land)
        good = tile.valid.any(0)
        codes[~good] = IGNORE
        after = [np.where(good, r, np.int8(NONE)) for r in after]
        stack = self._stack(codes, after)
        values = np.where(tile.valid[:, None], tile.values, np.float32(np.nan))
        places = (origins - np.array((land.y, land.x))) // self.size
        all_train = np.where(codes == IGNORE, np.int8(NONE), np.int8(TRAIN))
        return {
            "values": self._chips(values, places),
            "truth": self._chips(stack, places),
            "counts": self._counts(codes, [*after, all_train], places),
            "origin": origins.astype(np.int32),
        }

    def _chips(self, land: Array, places: Array) -> Array:
        """Return the squares (N, ..., S, S) at lattice places (N, 2) of a block of land (..., h, w)."""
        s = self.size
        *leading, height, width = land.shape
        lattice = land.reshape(*leading, height // s, s, width // s, s)
        # Indices with a slice between them come first: (N, ..., S, S).
        return np.ascontiguousarray(lattice[..., places[:, 0], :, places[:, 1], :])

    def _counts(self, codes: Array, roles: list[Array], places: Array) -> Array:
        """Return labelled pixels per chip, round, role and class, (N, R + 1, 4, K) int32."""
        s = self.size
        number = np.zeros((codes.shape[0] // s, codes.shape[1] // s), np.int64)
        number[places[:, 0], places[:, 1]] = np.arange(len(places))
        counts = np.zeros((len(places), len(roles), 4, len(self.labels.legend.classes)), np.int32)
        y, x = np.nonzero(codes != IGNORE)
        for r, role in enumerate(roles):
            np.add.at(counts[:, r], (number[y // s, x // s], role[y, x], codes[y, x]), 1)
        return counts

    def _stack(self, codes: Array, roles: list[Array]) -> Array:
        """Pack class (plus one, zero for none) and roles (two bits a round) into planes, (P, h, w) uint16."""
        stack = np.zeros((planes(len(roles)), *codes.shape), np.uint16)
        stack[0] = codes + 1
        for r, role in enumerate(roles):
            plane, place = divmod(r, ROUNDS_PER_PLANE)
            stack[1 + plane] |= role.astype(np.uint16) << np.uint16(2 * place)
        return stack


def _count(codes: Array, role: Array, classes: int) -> Array:
    """Return labelled pixels per role and class, (4, K)."""
    known = codes != IGNORE
    index = role[known].astype(np.int64) * classes + codes[known]
    return np.bincount(index, minlength=4 * classes).reshape(4, classes)


def buffered(role: Array, codes: Array, buffer: int, exempt: Array) -> Array:
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
    """
    if not buffer:
        return role
    side = 2 * buffer + 1
    near_test = maximum_filter(role == TEST, side)
    near_val = maximum_filter(role == VAL, side)
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

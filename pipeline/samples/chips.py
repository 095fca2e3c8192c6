"""The chip store: training samples in Zarr, cut once and read a chip at a time."""

from __future__ import annotations

import functools
import io
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr

from pipeline.errors import ReadError
from pipeline.samples.folds import TRAIN
from pipeline.samples.labels import IGNORE
from pipeline.samples.legend import Legend
from pipeline.samples.truth import roles_of

Array = np.ndarray[Any, Any]
Kind = Literal["pixels", "patches", "chips"]

ALL = "all"
"""The round in which every label trains."""


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
        return np.where(roles_of(truth, int(round_)) == role, codes, np.int16(IGNORE))

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

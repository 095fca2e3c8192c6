"""Samples that stand by themselves, without imagery: what they have in common, their folds, and their store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from pipeline.errors import LabelError
from pipeline.imagery.dates import Period
from pipeline.samples.chips import ChipStore
from pipeline.samples.cutter import counted
from pipeline.samples.findings import Findings, table
from pipeline.samples.folds import Folds, by_field
from pipeline.samples.legend import Legend
from pipeline.samples.rounds import FEW, Units, divide
from pipeline.samples.store import new_store
from pipeline.samples.truth import packed
from pipeline.settings import FoldSettings, LabelSettings

Array = np.ndarray[Any, Any]

# Blocks of land across the extent, in each direction, when their size is not given; halved so often at most.
_BLOCKS_ACROSS, _HALVINGS = 8, 3
# Values that are read and written at once, and samples: chunks of single pixels hold as many.
_VALUES, _SAMPLES = 1 << 22, 4096


@dataclass(frozen=True, eq=False, kw_only=True)
class Samples(ABC):
    """N labelled samples of C bands that come with their values: no imagery has to be looked at.

    Attributes
    ----------
    what : str
        What people call them.
    legend : Legend
        The classes.
    bands : tuple of str
        Names of the bands.
    target : (N,) int64
        Class indices.
    frame : DataFrame
        What else is known of each sample, a row each.
    places : (N, 2) float or None
        Longitude and latitude, or x and y; NaN where there is none.
    periods : tuple of Period or None
        When labels hold; a single None where they state no period.
    period : (N,) int64
        Number of the period of each sample.
    notes : list of str
        What was found or left out.
    rows : list of dict
        Per label value: class and samples.
    fold : str or None
        Column of `frame` with the folds into which the samples came divided.
    """

    what: ClassVar[str]

    legend: Legend
    bands: tuple[str, ...]
    target: Array
    frame: pd.DataFrame
    places: Array | None
    periods: tuple[Period | None, ...]
    period: Array
    notes: list[str]
    rows: list[dict[str, Any]]
    fold: str | None = None

    def __len__(self) -> int:
        return len(self.target)

    @property
    @abstractmethod
    def dates(self) -> int:
        """Most dates of a sample, T."""

    @property
    @abstractmethod
    def reach(self) -> int:
        """Pixels that a sample has on every side of the one with the label."""

    @property
    def scaling(self) -> dict[str, Any]:
        """What new imagery must share with the samples: scale, offset and nodata per band, as far as they are known."""
        return {}

    @abstractmethod
    def read(self, some: slice, radius: int) -> tuple[Array, Array]:
        """Return values and days of some samples.

        Parameters
        ----------
        some : slice
            Which samples.
        radius : int
            Pixels around the one with the label; `reach` at most.

        Returns
        -------
        values : (n, T, C, S, S) float32
            NaN where invalid; S is 2 * radius + 1.
        time : (n, T) float32
            Days since the first day.
        """

    @abstractmethod
    def spoken(self) -> list[tuple[str, str]]:
        """Return what there is, for people: a few facts with their names."""

    def report(self) -> list[dict[str, Any]]:
        """Return a row per label value: what it matched."""
        return self.rows


def divide_samples(samples: Samples, settings: FoldSettings, labels: LabelSettings) -> Folds:
    """Divide samples: by their own folds, by blocks of land, or each by itself.

    Raises
    ------
    LabelError
        If they cannot be divided as asked; says what to change.
    """
    notes: list[str] = []
    names = [c.name for c in samples.legend.classes]
    weights = np.zeros((len(samples), len(names)))
    weights[np.arange(len(samples)), samples.target] = 1
    column = settings.field or labels.fold or samples.fold
    method = settings.method
    if method == "auto":
        method = "field" if column else "features" if samples.places is None else "blocks"
        said = {
            "field": "as the samples came divided"
            if column == samples.fold
            else f"by the field '{column}' of the samples",
            "blocks": "blocks of land, so that no sample is tested beside one that trains",
            "features": f"{samples.what} at random, stratified by class: they have no coordinates, so neighbours may be divided, "
            "and figures are optimistic",
        }
        notes.append(f"folds: {said[method]}")
    if method == "field":
        division = by_field(
            samples.frame, samples.legend, weights, column or "fold", settings.seed, notes, what=samples.what
        )
        return Folds(method, division.names, division.rounds, 0, notes, of_feature=division.fold)
    if method == "features":
        unit = _together(samples)
        of_unit = np.zeros((int(unit.max()) + 1, len(names)))
        np.add.at(of_unit, unit, weights)
        division = divide(Units(of_unit, names, samples.what), settings, notes)
        return Folds(method, division.names, division.rounds, 0, notes, of_feature=division.fold[unit])
    if samples.places is None:
        raise LabelError(
            "folds.method: blocks of land need the samples' coordinates: columns longitude and latitude, or x and y"
        )
    bare = ~np.isfinite(samples.places).all(1)
    if bare.any():
        first = samples.frame[labels.id].to_numpy()[bare][0]
        raise LabelError(
            f"folds.method: blocks of land need the samples' coordinates, and {int(bare.sum())} samples have none (first: "
            f"{first}); add them, or use folds.method: features"
        )
    block, of_block = _blocks(samples.places, weights, settings, notes)
    division = divide(Units(of_block, names, "blocks of land"), settings, notes)
    return Folds(method, division.names, division.rounds, 0, notes, of_feature=division.fold[block])


def _together(samples: Samples) -> Array:
    """Return the number of the place of each sample, (N,): samples of several periods at one place stay together."""
    if samples.places is None:
        return np.arange(len(samples))
    alone = np.where(np.isfinite(samples.places).all(1), 0, np.arange(1, len(samples) + 1))
    _, unit = np.unique(np.column_stack([np.nan_to_num(samples.places), alone]), axis=0, return_inverse=True)
    return np.asarray(unit.reshape(-1))


def _blocks(places: Array, weights: Array, settings: FoldSettings, notes: list[str]) -> tuple[Array, Array]:
    """Return the number of each sample's block of land, (N,), and what blocks hold of each class, (n, K)."""
    extents = np.ptp(places, axis=0)
    # Of samples on a line, its length.
    extent = float(extents.min() or extents.max())
    side = settings.size or max(extent / _BLOCKS_ACROSS, 1e-9)
    for _ in range(_HALVINGS + 1):
        _, block = np.unique(np.floor(places / side).astype(np.int64), axis=0, return_inverse=True)
        block = block.reshape(-1)
        held = np.zeros((int(block.max()) + 1, weights.shape[1]))
        np.add.at(held, block, weights)
        if settings.size is not None or (held > 0).sum(0).min() >= FEW:
            break
        side /= 2
    if settings.size is None:
        notes.append(f"folds: blocks of land of {side:.3g} in units of the coordinates; set folds.size to change it")
    return block, held


def _shown(samples: Samples, radius: int) -> list[str]:
    """Return a sentence where a network is not shown all that there is around a label."""
    if radius == samples.reach:
        return []
    if not radius:
        return [f"the network looks at single pixels: of the {samples.what} it is shown the pixel at the centre alone"]
    side = 2 * radius + 1
    return [f"of the {samples.what} the {side} x {side} px around the centre are used, all that the network sees"]


def store_samples(samples: Samples, folds: Folds, *, radius: int, path: Path, key: str) -> ChipStore:
    """Write samples into a chip store of single pixels, or of patches with the label at the centre; whole or absent.

    Parameters
    ----------
    samples, folds
        What is written, and its division.
    radius : int
        Pixels that are kept around each label.
    path : Path
        The store; one that is there is replaced.
    key : str
        What the samples were made from.

    Raises
    ------
    LabelError
        If a fold that is needed is empty, or a class has no labels to learn from.
    """
    n, size = len(samples), 2 * radius + 1
    classes = len(samples.legend.classes)
    assert folds.of_feature is not None
    codes = samples.target[:, None].astype(np.int16)
    roles = [r.roles[folds.of_feature, samples.target][:, None].astype(np.int8) for r in folds.rounds]
    places = np.stack([np.arange(n), np.zeros(n, np.int64)], 1)
    counts = counted(codes, roles, places, 1, classes)
    per_role = counts[:, :-1].sum(0, dtype=np.int64)
    per_fold = np.zeros((len(folds.names), classes), np.int64)
    np.add.at(per_fold, (folds.of_feature, samples.target), 1)
    step = min(max(_VALUES // (samples.dates * len(samples.bands) * size**2), 1), _SAMPLES)
    with new_store(
        path,
        (n, samples.dates, len(samples.bands), size),
        margin=radius,
        standalone=True,
        together=step,
        key=key,
        bands=samples.bands,
        periods=samples.periods,
        legend=samples.legend,
        folds=folds,
        table=table(samples.legend, None, folds, Findings(per_role, per_role, per_fold)),
        notes=_shown(samples, radius),
    ) as arrays:
        truth = np.moveaxis(packed(codes, roles), 0, 1)[..., None]
        margin = [(0, 0), (0, 0), (radius, radius), (radius, radius)]
        for some in (slice(i, min(i + step, n)) for i in range(0, n, step)):
            arrays["values"][some], arrays["time"][some] = samples.read(some, radius)
            arrays["truth"][some] = np.pad(truth[some], margin)
        arrays["counts"][:] = counts
        arrays["origin"][:] = (places - radius).astype(np.int32)
        arrays["period"][:] = samples.period.astype(np.int32)
    return ChipStore.open(path)

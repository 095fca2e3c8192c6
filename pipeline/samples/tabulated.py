"""Samples of a table of series: divided among folds, and written as a chip store of single pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import LabelError
from pipeline.samples.chips import ChipStore
from pipeline.samples.cutter import counted, packed
from pipeline.samples.findings import Findings, table
from pipeline.samples.folds import Folds, by_field
from pipeline.samples.rounds import FEW, Units, divide
from pipeline.samples.series import SeriesTable
from pipeline.samples.store import new_store
from pipeline.settings import FoldSettings, LabelSettings

Array = np.ndarray[Any, Any]

# Blocks of land across the extent, in each direction, when their size is not given; halved so often at most.
_BLOCKS_ACROSS, _HALVINGS = 8, 3


def divide_samples(samples: SeriesTable, settings: FoldSettings, labels: LabelSettings) -> Folds:
    """Divide the samples of a table: by its own folds, by blocks of land, or each by itself.

    Raises
    ------
    LabelError
        If they cannot be divided as asked; says what to change.
    """
    notes: list[str] = []
    names = [c.name for c in samples.legend.classes]
    weights = np.zeros((len(samples), len(names)))
    weights[np.arange(len(samples)), samples.target] = 1
    column = settings.field or labels.fold
    method = settings.method
    if method == "auto":
        method = "field" if column else "features" if samples.places is None else "blocks"
        said = {
            "field": f"by the field '{column}' of the samples",
            "blocks": "blocks of land, so that no sample is tested beside one that trains",
            "features": "samples at random, stratified by class: they have no coordinates, so neighbours may be divided, "
            "and figures are optimistic",
        }
        notes.append(f"folds: {said[method]}")
    if method == "field":
        division = by_field(samples.frame, samples.legend, weights, column or "fold", notes)
        return Folds(method, division.names, division.rounds, 0, notes, of_feature=division.fold)
    if method == "features":
        unit = _together(samples)
        of_unit = np.zeros((int(unit.max()) + 1, len(names)))
        np.add.at(of_unit, unit, weights)
        division = divide(Units(of_unit, names, "samples"), settings, notes)
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


def _together(samples: SeriesTable) -> Array:
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


def store_series(samples: SeriesTable, folds: Folds, *, path: Path, key: str) -> ChipStore:
    """Write the samples of a table into a chip store of single pixels, which is whole or absent.

    Raises
    ------
    LabelError
        If a fold that is needed is empty, or a class has no labels to learn from.
    """
    n, dates, bands = samples.values.shape
    classes = len(samples.legend.classes)
    assert folds.of_feature is not None
    codes = samples.target[:, None].astype(np.int16)
    roles = [r.roles[folds.of_feature, samples.target][:, None].astype(np.int8) for r in folds.rounds]
    places = np.stack([np.arange(n), np.zeros(n, np.int64)], 1)
    counts = counted(codes, roles, places, 1, classes)
    per_role = counts[:, :-1].sum(0, dtype=np.int64)
    per_fold = np.zeros((len(folds.names), classes), np.int64)
    np.add.at(per_fold, (folds.of_feature, samples.target), 1)
    with new_store(
        path,
        (n, dates, bands, 1),
        key=key,
        bands=samples.bands,
        periods=samples.periods,
        legend=samples.legend,
        folds=folds,
        table=table(samples.legend, None, folds, Findings(per_role, per_role, per_fold)),
        notes=[],
    ) as arrays:
        arrays["values"][:] = samples.values[..., None, None]
        arrays["truth"][:] = np.moveaxis(packed(codes, roles), 0, 1)[..., None]
        arrays["counts"][:] = counts
        arrays["origin"][:] = places.astype(np.int32)
        arrays["period"][:] = samples.period.astype(np.int32)
        arrays["time"][:] = samples.time
    return ChipStore.open(path)

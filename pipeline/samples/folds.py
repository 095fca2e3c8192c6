"""Folds: which labelled places train, which stop the training, and which are kept for the test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import LabelError, nearest
from pipeline.grid import Window
from pipeline.samples.labels import IGNORE, Labels, LabelTile
from pipeline.samples.legend import Legend, text_of
from pipeline.samples.rounds import (
    NONE,
    SPLIT,
    TEST,
    TRAIN,
    VAL,
    Division,
    Round,
    Units,
    divide,
    divide_by_field,
)
from pipeline.samples.shapes import VectorLabels
from pipeline.samples.units import blocks_of_land, feature_weights, together
from pipeline.samples.unlabelled import Unlabelled
from pipeline.settings import FoldSettings

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NONE", "SPLIT", "TEST", "TRAIN", "VAL", "Folds", "Round", "by_field", "make_folds"]

Array = np.ndarray[Any, Any]

# So many features are no longer a handful: neighbours among them would be divided between folds.
_MANY_FEATURES, _MANY_POINTS = 500, 60


@dataclass(frozen=True)
class Folds:
    """The division of labelled places.

    Attributes
    ----------
    method : str
        ``features``, ``blocks`` or ``field``.
    names : tuple of str
        Names of the folds.
    rounds : tuple of Round
        One for a single split, k for cross-validation.
    buffer : int
        Pixels (Chebyshev) that labels of different roles are kept apart.
    notes : list of str
        What was chosen, and why.
    of_feature : (n,) int8 or None
        Fold of each feature, or of each sample of a table.
    of_block : (rows, columns) int8 or None
        Fold of each block of land, of those around all labels; -1 where there are no labels.
    first : (int, int)
        Row and column, among the blocks of the whole grid, of the first of them.
    side : int
        Side of a block of land in pixels.
    """

    method: str
    names: tuple[str, ...]
    rounds: tuple[Round, ...]
    buffer: int
    notes: list[str]
    of_feature: Array | None = None
    of_block: Array | None = None
    first: tuple[int, int] = (0, 0)
    side: int = 1

    @property
    def k(self) -> int:
        """Number of folds that are cross-validated; 0 for one split."""
        return len(self.rounds) if len(self.rounds) > 1 else 0

    def read(self, window: Window, tile: LabelTile) -> Array:
        """Return the fold of each labelled pixel, (h, w) int8; -1 where there is no label."""
        if self.of_feature is not None:
            fold = np.append(self.of_feature, np.int8(-1))[tile.feature]
        else:
            assert self.of_block is not None
            spans = (window.y, window.bottom), (window.x, window.right)
            # Beyond these blocks, where any fold will do, nothing is labelled.
            places = [
                np.clip(np.arange(*span) // self.side - first, 0, n - 1)
                for span, first, n in zip(spans, self.first, self.of_block.shape, strict=True)
            ]
            fold = self.of_block[np.ix_(*places)]
        return np.where(tile.codes == IGNORE, np.int8(-1), fold).astype(np.int8)


def make_folds(labels: Labels, settings: FoldSettings, halo: int) -> Folds:
    """Divide labelled places.

    Parameters
    ----------
    labels : Labels
        The reference data.
    settings : FoldSettings
        The job's wishes; what they leave open is chosen from the data and said in the notes.
    halo : int
        The network's context: labels of different roles are kept so far apart.

    Raises
    ------
    LabelError
        If the labels cannot be divided as asked; says what to change.
    """
    notes: list[str] = []
    method = _method(labels, settings, notes)
    buffer = halo if settings.buffer is None else settings.buffer
    names = [c.name for c in labels.legend.classes]
    if method == "field":
        assert isinstance(labels, VectorLabels)
        weights = feature_weights(labels)
        division = by_field(labels.frame, labels.legend, weights, settings.field or "fold", settings.seed, notes)
        return _folds(division, method, buffer, notes, of_feature=division.fold)
    if method == "features":
        assert isinstance(labels, VectorLabels)
        unit = together(labels)
        weights = np.zeros((int(unit.max()) + 1, len(names)))
        np.add.at(weights, unit, feature_weights(labels))
        if len(weights) < len(unit):
            notes.append(
                f"folds: {len(unit)} labels lie on {len(weights)} places; what is one place in several periods stays together"
            )
        division = divide(Units(weights, names, "features"), settings, notes)
        return _folds(division, method, buffer, notes, of_feature=division.fold[unit])
    side, cells, weights = blocks_of_land(labels, settings, halo, notes)
    division = divide(Units(weights, names, "blocks of land"), settings, notes)
    first = cells.min(0)
    grid = np.full(cells.max(0) - first + 1, -1, np.int8)
    grid[*(cells - first).T] = division.fold
    return _folds(division, method, buffer, notes, of_block=grid, first=tuple(first.tolist()), side=side)


def _folds(division: Division, method: str, buffer: int, notes: list[str], **places: Any) -> Folds:
    return Folds(method, division.names, division.rounds, buffer, notes, **places)


def by_field(
    frame: pd.DataFrame,
    legend: Legend,
    weights: Array,
    name: str,
    seed: int,
    notes: list[str],
    *,
    what: str = "features",
) -> Division:
    """Divide labels as a column of theirs says; see `divide_by_field`.

    Parameters
    ----------
    frame : DataFrame
        A row per feature or sample.
    legend : Legend
        The classes.
    weights : (n, K) float
        What each row holds of each class.
    name : str
        The column.
    seed : int
        Seed of what is kept to stop by, where the column names no val.
    notes : list of str
        Is added to.
    what : str
        What people call a row.

    Raises
    ------
    LabelError
        If there is no such column, or its values are no folds.
    """
    if name not in frame.columns:
        columns = [str(c) for c in frame.columns if c not in ("geometry", "class_index", "period_index")]
        raise LabelError(
            f"folds.field: the labels have no field '{name}'{nearest(name, columns)} They have {', '.join(columns)}"
        )
    column = frame[name]
    values = ["" if missing else text_of(v) for v, missing in zip(column, column.isna(), strict=True)]
    return divide_by_field(Units(weights, [c.name for c in legend.classes], what), values, name, seed, notes)


def _method(labels: Labels, settings: FoldSettings, notes: list[str]) -> str:
    vector = isinstance(labels, VectorLabels)
    if settings.method != "auto":
        if settings.method in ("features", "field") and not vector:
            what = "land without labels" if isinstance(labels, Unlabelled) else "a label raster"
            raise LabelError(f"folds.method: {what} has no features; use blocks, not {settings.method}")
        return settings.method
    if not isinstance(labels, VectorLabels):
        what = "samples are drawn over the whole image" if isinstance(labels, Unlabelled) else "the labels are a raster"
        notes.append(f"folds: blocks of land, for {what}")
        return "blocks"
    if settings.field or "fold" in labels.frame.columns:
        notes.append(f"folds: by the field '{settings.field or 'fold'}' of the labels")
        return "field"
    alone = _alone(labels)
    if alone is not None:
        notes.append(f"folds: blocks of land, for class {alone!r} is one feature, which only blocks can divide")
        return "blocks"
    n = len(labels.frame)
    if n > (_MANY_POINTS if labels.points else _MANY_FEATURES):
        what = "points" if labels.points else "features"
        notes.append(f"folds: blocks of land, for {n} {what} are too many to lie apart")
        return "blocks"
    notes.append(f"folds: whole features, stratified by class ({n} features)")
    return "features"


def _alone(labels: VectorLabels) -> str | None:
    """Return the name of a class that has but one feature, if there is one."""
    count = np.bincount(labels.feature_class, minlength=len(labels.legend.classes))
    return next((c.name for c, n in zip(labels.legend.classes, count, strict=True) if n == 1), None)

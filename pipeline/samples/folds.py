"""Folds: which labelled places train, which stop the training, and which are kept for the test."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.errors import LabelError, nearest
from pipeline.grid import Window
from pipeline.samples.labels import IGNORE, Labels, LabelTile, VectorLabels
from pipeline.samples.legend import natural, text_of
from pipeline.samples.stratify import assign
from pipeline.samples.units import FEW, blocks_of_land, feature_weights
from pipeline.settings import FoldSettings

Array = np.ndarray[Any, Any]

NONE, TRAIN, VAL, TEST = 0, 1, 2, 3
"""Roles of a labelled pixel in a round."""

SPLIT = ("train", "val", "test")
# A fold for the test and one to stop by are taken from few labels: of ten folds eight still train.
_K = 10
# So many features are no longer a handful: neighbours among them would be divided between folds.
_MANY_FEATURES, _MANY_POINTS = 500, 60
# Most folds; a field with more values says something else.
_MOST = 16
_ALIASES = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}


@dataclass(frozen=True, slots=True)
class Round:
    """One division: the role of each fold, per class.

    Attributes
    ----------
    roles : (F, K) int8
        `TRAIN`, `VAL` or `TEST` for the labels of a class in a fold.
    """

    roles: Array

    @classmethod
    def everything(cls, folds: int, classes: int) -> Round:
        """Return the round in which every label trains."""
        return cls(np.full((folds, classes), TRAIN, np.int8))


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
        Fold of each feature.
    of_block : (rows, columns) int8 or None
        Fold of each block of land; -1 where there are no labels.
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
            rows = np.clip(np.arange(window.y, window.bottom) // self.side, 0, self.of_block.shape[0] - 1)
            columns = np.clip(np.arange(window.x, window.right) // self.side, 0, self.of_block.shape[1] - 1)
            fold = self.of_block[np.ix_(rows, columns)]
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
    if method == "field":
        return _by_field(labels, settings, buffer, notes)
    if method == "features":
        assert isinstance(labels, VectorLabels)
        weights = feature_weights(labels)
        k = _k(labels, weights, settings, method, notes)
        fold = _assigned(weights, k, settings)
        return _made(labels, weights, fold, k, method, buffer, notes, of_feature=fold)
    side, cells, weights = blocks_of_land(labels, settings, halo, notes)
    k = _k(labels, weights, settings, method, notes)
    fold = _assigned(weights, k, settings)
    grid = np.full((-(-int(labels.geobox.shape.y) // side), -(-int(labels.geobox.shape.x) // side)), -1, np.int8)
    grid[cells[:, 0], cells[:, 1]] = fold
    return _made(labels, weights, fold, k, method, buffer, notes, of_block=grid, side=side)


def _assigned(weights: Array, k: int, settings: FoldSettings) -> Array:
    shares = np.full(k, 1 / k) if k else np.array(settings.fractions) / sum(settings.fractions)
    return assign(weights, shares, settings.seed)


def _made(
    labels: Labels, weights: Array, fold: Array, k: int, method: str, buffer: int, notes: list[str], **places: Any
) -> Folds:
    names = tuple(f"fold {i + 1}" for i in range(k)) if k else SPLIT
    for f, purpose in ((1, "stop by"), (2, "be measured by")) if not k else ():
        lacking = [c.name for c, w in zip(labels.legend.classes, weights[fold == f].T, strict=True) if not w.any()]
        if lacking:
            notes.append(
                f"folds: no labels to {purpose} for {', '.join(map(repr, lacking))}; folds.k would give them some"
            )
    return Folds(method, names, _rounds(weights, fold, k, labels), buffer, notes, **places)


def _method(labels: Labels, settings: FoldSettings, notes: list[str]) -> str:
    vector = isinstance(labels, VectorLabels)
    if settings.method != "auto":
        if settings.method in ("features", "field") and not vector:
            raise LabelError(f"folds.method: a label raster has no features; use blocks, not {settings.method}")
        return settings.method
    if not isinstance(labels, VectorLabels):
        notes.append("folds: blocks of land, for the labels are a raster")
        return "blocks"
    if settings.field or "fold" in labels.frame.columns:
        notes.append(f"folds: by the field '{settings.field or 'fold'}' of the labels")
        return "field"
    alone = _alone(labels)
    if alone is not None:
        notes.append(f"folds: blocks of land, for class {alone!r} is one feature, which only blocks can divide")
        return "blocks"
    n = len(labels.frame)
    points = bool((labels.frame.geometry.geom_type == "Point").mean() > 0.5)
    if n > (_MANY_POINTS if points else _MANY_FEATURES):
        notes.append(f"folds: blocks of land, for {n} {'points' if points else 'features'} are too many to lie apart")
        return "blocks"
    notes.append(f"folds: whole features, stratified by class ({n} features)")
    return "features"


def _alone(labels: VectorLabels) -> str | None:
    """Return the name of a class that has but one feature, if there is one."""
    count = np.bincount(labels.feature_class, minlength=len(labels.legend.classes))
    return next((c.name for c, n in zip(labels.legend.classes, count, strict=True) if n == 1), None)


def _k(labels: Labels, weights: Array, settings: FoldSettings, method: str, notes: list[str]) -> int:
    """Return the number of folds to be cross-validated; 0 is one split."""
    units = (weights > 0).sum(0)
    rarest = int(units.argmin())
    name, fewest = labels.legend.classes[rarest].name, int(units.min())
    what = "features" if method == "features" else "blocks of land"
    if fewest < 2:
        raise LabelError(
            f"class {name!r} has labels in {fewest} of the {what}: what trains could not be tested; "
            + (
                "add features of it, or use folds.method: blocks"
                if method == "features"
                else "add labels of it elsewhere"
            )
            + ("" if method == "features" else ", or make folds.size smaller")
        )
    if settings.k in (1, 2):
        raise LabelError(
            f"folds.k: found {settings.k}; one fold trains, one stops, one tests, so 3 at least; 0 is one split"
        )
    if settings.k is not None:
        if settings.k > len(weights):
            raise LabelError(f"folds.k: found {settings.k}, but there are only {len(weights)} {what} to divide")
        return settings.k
    if fewest < FEW:
        # No more folds than there are places to fill them.
        k = max(3, min(_K, len(weights)))
        notes.append(f"folds: cross-validated with {k} folds, for class {name!r} has labels in only {fewest} {what}")
        return k
    return 0


def _rounds(weights: Array, fold: Array, k: int, labels: Labels) -> tuple[Round, ...]:
    """Return the rounds of a division of units, from what they hold (n, K) and their folds (n,)."""
    classes = weights.shape[1]
    have = np.stack([(weights[fold == f] > 0).any(0) for f in range(k or len(SPLIT))])
    if not k:
        _check_split(have, labels)
        return (Round(np.repeat(np.array([[TRAIN], [VAL], [TEST]], np.int8), classes, axis=1)),)
    return tuple(_round(i, have) for i in range(k))


def _round(test: int, have: Array) -> Round:
    """Return the round that tests a fold and stops by the next one, from the classes each fold has (F, K)."""
    k, classes = have.shape
    for step in range(1, k):
        val = (test + step) % k
        # A class never loses its last training labels to validation: it would be tested without having been seen.
        spared = np.delete(have, [test, val], axis=0).any(0)
        if (have[val] & spared).any():
            roles = np.full((k, classes), TRAIN, np.int8)
            roles[test] = TEST
            roles[val, spared] = VAL
            return Round(roles)
    raise LabelError(
        "there are too few labelled places to cross-validate: with one fold kept for the test, no class can spare labels "
        "to stop the training by; label each class in three places at least"
    )


def _check_split(have: Array, labels: Labels) -> None:
    advice = "use folds.k: 5, a smaller folds.size, or other folds.fractions, or add labels"
    for f, name in enumerate(SPLIT):
        if not have[f].any():
            raise LabelError(f"the {name} fold is empty: the labels lie in too few places for three folds; {advice}")
    missing = [c.name for c, there in zip(labels.legend.classes, have[0], strict=True) if not there]
    if missing:
        raise LabelError(
            f"no training labels for {', '.join(map(repr, missing))}: all lie in the folds that stop and test; {advice}"
        )


def _by_field(labels: Labels, settings: FoldSettings, buffer: int, notes: list[str]) -> Folds:
    assert isinstance(labels, VectorLabels)
    name = settings.field or "fold"
    if name not in labels.frame.columns:
        columns = [str(c) for c in labels.frame.columns if c not in (labels.frame.geometry.name, "class_index")]
        raise LabelError(
            f"folds.field: the labels have no field '{name}'{nearest(name, columns)} They have {', '.join(columns)}"
        )
    column = labels.frame[name]
    values = ["" if missing else text_of(v).lower() for v, missing in zip(column, column.isna(), strict=True)]
    allowed = "allowed are train, val and test, or 3 to 16 folds to be cross-validated"
    if "" in values:
        raise LabelError(f"folds.field: {values.count('')} labels have no value of '{name}'; {allowed}")
    values = [_ALIASES.get(v, v) for v in values]
    weights = feature_weights(labels)
    found = sorted(set(values), key=natural)
    if set(found) <= set(SPLIT):
        missing = [v for v in SPLIT if v not in found]
        if missing:
            raise LabelError(
                f"folds.field: no label has '{missing[0]}' in '{name}'; train, val and test are all needed"
            )
        fold = np.array([SPLIT.index(v) for v in values], dtype=np.int8)
        return _made(labels, weights, fold, 0, "field", buffer, notes, of_feature=fold)
    if not 3 <= len(found) <= _MOST:
        shown = ", ".join(found[:6]) + (", ..." if len(found) > 6 else "")
        raise LabelError(
            f"folds.field: '{name}' holds {len(found)} values ({shown}); {allowed}. If it says something else, set "
            "folds.method: features"
        )
    fold = np.array([found.index(v) for v in values], dtype=np.int8)
    for i, c in enumerate(labels.legend.classes):
        if len(set(fold[weights[:, i] > 0])) < 2:
            raise LabelError(
                f"folds.field: all labels of class {c.name!r} are in one fold of '{name}': what trains could not be tested"
            )
    notes.append(f"folds: cross-validated over the {len(found)} values of '{name}'")
    made = _made(labels, weights, fold, len(found), "field", buffer, notes, of_feature=fold)
    return replace(made, names=tuple(found))

"""Folds: which labelled places train, which stop the training, and which are kept for the test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import LabelError
from pipeline.grid import Window
from pipeline.samples.labels import IGNORE, Labels, LabelTile, VectorLabels
from pipeline.samples.stratify import assign
from pipeline.settings import FoldSettings

Array = np.ndarray[Any, Any]

NONE, TRAIN, VAL, TEST = 0, 1, 2, 3
"""Roles of a labelled pixel in a round."""

SPLIT = ("train", "val", "test")
# A fold for the test and one to stop by are taken from few labels: of ten folds eight still train.
_K = 10
# With fewer units of a class than this, three folds measure luck.
_FEW = 5
# So many features are no longer a handful: neighbours among them would be divided between folds.
_MANY_FEATURES, _MANY_POINTS = 500, 60
# Blocks of land across the extent, in each direction, when their size is not given.
_BLOCKS_ACROSS = 8


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
    side = 1
    if method == "features":
        assert isinstance(labels, VectorLabels)
        weights = _feature_weights(labels)
        cells = None
    else:
        side = _side(labels, settings, halo, notes)
        cells, weights = _block_weights(labels, side)
    k = _k(labels, weights, settings, method, notes)
    shares = np.full(k, 1 / k) if k else np.array(settings.fractions) / sum(settings.fractions)
    fold = assign(weights, shares, settings.seed)
    names = tuple(f"fold {i + 1}" for i in range(k)) if k else SPLIT
    rounds = _rounds(weights, fold, k, labels)
    if method == "features":
        return Folds(method, names, rounds, buffer, notes, of_feature=fold)
    assert cells is not None
    grid = np.full((-(-int(labels.geobox.shape.y) // side), -(-int(labels.geobox.shape.x) // side)), -1, np.int8)
    grid[cells[:, 0], cells[:, 1]] = fold
    return Folds(method, names, rounds, buffer, notes, of_block=grid, side=side)


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
    n = len(labels.frame)
    points = bool((labels.frame.geometry.geom_type == "Point").mean() > 0.5)
    if n > (_MANY_POINTS if points else _MANY_FEATURES):
        notes.append(f"folds: blocks of land, for {n} {'points' if points else 'features'} are too many to lie apart")
        return "blocks"
    notes.append(f"folds: whole features, stratified by class ({n} features)")
    return "features"


def _feature_weights(labels: VectorLabels) -> Array:
    """Return the size of each feature in pixels under its class, (n, K)."""
    pixel = abs(float(labels.geobox.resolution.x * labels.geobox.resolution.y))
    size = np.maximum(labels.frame.geometry.area.to_numpy() / pixel, 1.0)
    weights = np.zeros((len(size), len(labels.legend.classes)))
    weights[np.arange(len(size)), labels.feature_class] = size
    return weights


def _block_weights(labels: Labels, side: int) -> tuple[Array, Array]:
    """Return the blocks of land with labels, (n, 2) row and column, and their labelled pixels per class, (n, K)."""
    cells, weights = [], []
    for window in labels.windows(side):
        codes = labels.read(window).codes
        count = np.bincount(codes[codes != IGNORE].astype(np.int64), minlength=len(labels.legend.classes))
        if count.any():
            cells.append((window.y // side, window.x // side))
            weights.append(count)
    return np.array(cells, dtype=np.int64).reshape(-1, 2), np.array(weights, dtype=np.float64)


def _side(labels: Labels, settings: FoldSettings, halo: int, notes: list[str]) -> int:
    resolution = abs(float(labels.geobox.resolution.x))
    if settings.size is not None:
        side = round(settings.size / resolution)
        if side < 1:
            raise LabelError(f"folds.size: {settings.size:g} is less than a pixel ({resolution:g})")
        return side
    extent = min(int(labels.geobox.shape.y), int(labels.geobox.shape.x))
    side = max(extent // _BLOCKS_ACROSS, 2 * halo, 1)
    notes.append(
        f"folds: blocks of land of {side} px ({side * resolution:g} in map units); set folds.size to change it"
    )
    return side


def _k(labels: Labels, weights: Array, settings: FoldSettings, method: str, notes: list[str]) -> int:
    units = (weights > 0).sum(0)
    rarest = int(units.argmin())
    what = "features" if method == "features" else "blocks of land"
    name = labels.legend.classes[rarest].name
    if units.min() < 2:
        raise LabelError(
            f"class {name!r} has labels in {int(units.min())} of the {what}: nothing would be left to test it; "
            + ("add features of it, or use folds.method: blocks" if method == "features" else "make folds.size smaller")
        )
    if settings.k in (1, 2):
        raise LabelError("folds.k: one fold trains, one stops, one tests: 3 at least; 0 is one split")
    if settings.k is not None:
        return settings.k
    if units.min() < _FEW:
        notes.append(
            f"folds: cross-validated with {_K} folds, for class {name!r} has labels in only {int(units.min())} {what}"
        )
        return _K
    return 0


def _rounds(weights: Array, fold: Array, k: int, labels: Labels) -> tuple[Round, ...]:
    classes = weights.shape[1]
    folds = k or len(SPLIT)
    have = np.zeros((folds, classes), bool)
    for f in range(folds):
        have[f] = (weights[fold == f] > 0).any(0)
    if not k:
        roles = np.repeat(np.array([[TRAIN], [VAL], [TEST]], np.int8), classes, axis=1)
        _check_split(have, labels)
        return (Round(roles),)
    made = []
    for i in range(k):
        roles = np.full((k, classes), TRAIN, np.int8)
        roles[i] = TEST
        val = (i + 1) % k
        rest = np.delete(have, [i, val], axis=0).any(0)
        # A class never loses its last training labels to validation: it would be tested without having been seen.
        roles[val, rest] = VAL
        made.append(Round(roles))
    return tuple(made)


def _check_split(have: Array, labels: Labels) -> None:
    for f, name in enumerate(SPLIT):
        if not have[f].any():
            raise LabelError(
                f"the {name} fold is empty: the labels lie in too few places for three folds; "
                "use folds.k: 5, a smaller folds.size, or other folds.fractions"
            )
    missing = [c.name for i, c in enumerate(labels.legend.classes) if not have[0, i]]
    if missing:
        raise LabelError(
            f"no training labels for {', '.join(map(repr, missing))}: all lie in other folds; use folds.k: 5 or add labels"
        )


def _by_field(labels: Labels, settings: FoldSettings, buffer: int, notes: list[str]) -> Folds:
    assert isinstance(labels, VectorLabels)
    name = settings.field or "fold"
    if name not in labels.frame.columns:
        columns = ", ".join(c for c in labels.frame.columns if c not in ("geometry", "class_index"))
        raise LabelError(f"folds.field: the labels have no field '{name}'; they have {columns}")
    values = [str(v).strip().lower() for v in labels.frame[name]]
    aliases = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}
    values = [aliases.get(v, v) for v in values]
    weights = _feature_weights(labels)
    if set(values) <= set(SPLIT):
        fold = np.array([SPLIT.index(v) for v in values], dtype=np.int8)
        return Folds("field", SPLIT, _rounds(weights, fold, 0, labels), buffer, notes, of_feature=fold)
    names = sorted(set(values))
    if not 3 <= len(names) <= 16:
        raise LabelError(
            f"folds.field: '{name}' holds {len(names)} values ({', '.join(names[:6])}); allowed are train, val and test, or "
            "3 to 16 folds to be cross-validated"
        )
    notes.append(f"folds: cross-validated over the {len(names)} values of '{name}'")
    fold = np.array([names.index(v) for v in values], dtype=np.int8)
    return Folds("field", tuple(names), _rounds(weights, fold, len(names), labels), buffer, notes, of_feature=fold)

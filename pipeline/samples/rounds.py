"""Rounds: which folds train, stop and test, and how units are divided among folds. Knows units and classes, no land."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import LabelError
from pipeline.samples.legend import natural
from pipeline.samples.stratify import assign
from pipeline.settings import FoldSettings

Array = np.ndarray[Any, Any]

NONE, TRAIN, VAL, TEST = 0, 1, 2, 3
"""Roles of a labelled pixel in a round."""

SPLIT = ("train", "val", "test")
FEW = 5
"""With fewer units of a class than this, three folds measure luck."""

# A fold for the test and one to stop by are taken from few labels: of ten folds eight still train.
_K = 10
# The share of labels that stop the training: of fewer folds than ten a part of one will do.
_VAL_PARTS = 10
# Most folds; a field with more values says something else.
_MOST = 16
ALIASES = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}


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


@dataclass(frozen=True, slots=True)
class Units:
    """What is divided: features, samples, or blocks of land.

    Attributes
    ----------
    weights : (n, K) float
        What each holds of each class.
    names : sequence of str
        Names of the classes.
    what : str
        What people call them, for messages.
    """

    weights: Array
    names: Sequence[str]
    what: str


@dataclass(frozen=True, slots=True)
class Division:
    """Units divided among folds.

    Attributes
    ----------
    fold : (n,) int8
        Fold of each unit.
    names : tuple of str
        Names of the folds.
    rounds : tuple of Round
        One for a single split, k for cross-validation.
    """

    fold: Array
    names: tuple[str, ...]
    rounds: tuple[Round, ...]


def divide(units: Units, settings: FoldSettings, notes: list[str]) -> Division:
    """Divide units among folds so that every fold has its share of every class.

    Raises
    ------
    LabelError
        If they cannot be divided as asked; says what to change.
    """
    k = _k(units, settings, notes)
    if not k:
        shares = np.array(settings.fractions) / sum(settings.fractions)
        return _made(units, assign(units.weights, shares, settings.seed), 0, 1, notes, SPLIT)
    # Where folds are few and large, each is made of parts, of which one is enough to stop by: more is left to train.
    parts = max(1, min(round(_VAL_PARTS / k), len(units.weights) // k))
    fold = assign(units.weights, np.full(k, 1 / k), settings.seed) * np.int8(parts)
    for i in range(k) if parts > 1 else ():
        of = np.flatnonzero(fold == i * parts)
        fold[of] += assign(units.weights[of], np.full(parts, 1 / parts), settings.seed + i)
    letters = [""] if parts == 1 else [chr(ord("a") + i) for i in range(parts)]
    names = tuple(f"fold {i + 1}{letter}" for i in range(k) for letter in letters)
    return _made(units, fold, k, parts, notes, names)


def _made(units: Units, fold: Array, k: int, parts: int, notes: list[str], names: tuple[str, ...]) -> Division:
    for f, purpose in ((1, "stop by"), (2, "be measured by")) if not k else ():
        lacking = [name for name, w in zip(units.names, units.weights[fold == f].T, strict=True) if not w.any()]
        if lacking:
            notes.append(
                f"folds: no labels to {purpose} for {', '.join(map(repr, lacking))}; folds.k would give them some"
            )
    return Division(fold, names, _rounds(units, fold, k, parts, notes))


def _k(units: Units, settings: FoldSettings, notes: list[str]) -> int:
    """Return the number of folds to be cross-validated; 0 is one split."""
    count = (units.weights > 0).sum(0)
    rarest = int(count.argmin())
    name, fewest = units.names[rarest], int(count.min())
    if fewest < 2 and not settings.k:
        advice = (
            "add labels of it elsewhere, or make folds.size smaller"
            if units.what == "blocks of land"
            else f"add {units.what} of it, or use folds.method: blocks"
        ) + "; with folds.k: 5 it goes on, and counts its labels as mistakes"
        raise LabelError(
            f"class {name!r} has labels in {fewest} of the {units.what}: what trains could not be tested; {advice}"
        )
    if settings.k in (1, 2):
        raise LabelError(
            f"folds.k: found {settings.k}; one fold trains, one stops, one tests, so 3 at least; 0 is one split"
        )
    if settings.k is not None:
        if settings.k > len(units.weights):
            raise LabelError(
                f"folds.k: found {settings.k}, but there are only {len(units.weights)} {units.what} to divide"
            )
        return settings.k
    if fewest < FEW:
        # No more folds than there are places to fill them.
        k = max(3, min(_K, len(units.weights)))
        notes.append(
            f"folds: cross-validated with {k} folds, for class {name!r} has labels in only {fewest} {units.what}"
        )
        return k
    return 0


def _rounds(units: Units, fold: Array, k: int, parts: int, notes: list[str]) -> tuple[Round, ...]:
    classes = units.weights.shape[1]
    have = np.stack([(units.weights[fold == f] > 0).any(0) for f in range(k * parts or len(SPLIT))])
    if not k:
        _check_split(have, units.names)
        return (Round(np.repeat(np.array([[TRAIN], [VAL], [TEST]], np.int8), classes, axis=1)),)
    rounds = tuple(_round(i, parts, have) for i in range(k))
    for i, name in enumerate(units.names):
        if any(not (r.roles[have[:, i], i] == TRAIN).any() for r in rounds):
            notes.append(
                f"folds: class {name!r} lies in one fold alone: the round that tests it has learned nothing of it, and all of "
                "its labels count as mistakes"
            )
    return rounds


def _round(number: int, parts: int, have: Array) -> Round:
    """Return the round that tests a fold and stops by a part of another, from the classes each part has (F, K)."""
    f, classes = have.shape
    test = [number * parts + i for i in range(parts)]
    for step in range(1, f - parts + 1):
        val = (test[-1] + step) % f
        # A class never loses its last training labels to validation: it would be tested without having been seen.
        spared = np.delete(have, [*test, val], axis=0).any(0)
        if (have[val] & spared).any():
            roles = np.full((f, classes), TRAIN, np.int8)
            roles[test] = TEST
            roles[val, spared] = VAL
            return Round(roles)
    raise LabelError(
        "there are too few labelled places to cross-validate: with one fold kept for the test, no class can spare labels "
        "to stop the training by; label each class in three places at least"
    )


def _check_split(have: Array, names: Sequence[str]) -> None:
    advice = "use folds.k: 5, a smaller folds.size, or other folds.fractions, or add labels"
    for f, name in enumerate(SPLIT):
        if not have[f].any():
            raise LabelError(f"the {name} fold is empty: the labels lie in too few places for three folds; {advice}")
    missing = [name for name, there in zip(names, have[0], strict=True) if not there]
    if missing:
        raise LabelError(
            f"no training labels for {', '.join(map(repr, missing))}: all lie in the folds that stop and test; {advice}"
        )


def divide_by_field(units: Units, values: Sequence[str], name: str, seed: int, notes: list[str]) -> Division:
    """Divide units as a field of theirs says; where it names train and test alone, a part of train is kept to stop by.

    Parameters
    ----------
    units : Units
        Features or samples.
    values : sequence of str
        The field's value of each; empty where there is none.
    name : str
        The field, for messages.
    seed : int
        Seed of what is kept to stop by.
    notes : list of str
        Is added to.

    Raises
    ------
    LabelError
        If values are missing, or are neither train, val and test nor 3 to 16 folds.
    """
    allowed = "allowed are train, val and test, or 3 to 16 folds to be cross-validated"
    values = [ALIASES.get(v, v) for v in (v.lower() for v in values)]
    if "" in values:
        raise LabelError(f"folds.field: {values.count('')} labels have no value of '{name}'; {allowed}")
    found = sorted(set(values), key=natural)
    if set(found) <= set(SPLIT):
        for v in ("train", "test"):
            if v not in found:
                raise LabelError(f"folds.field: no label has '{v}' in '{name}'; both train and test are needed")
        fold = np.array([SPLIT.index(v) for v in values], dtype=np.int8)
        if "val" not in found:
            fold = _stopped_by(units, fold, seed, notes)
        return _made(units, fold, 0, 1, notes, SPLIT)
    if not 3 <= len(found) <= _MOST:
        shown = ", ".join(found[:6]) + (", ..." if len(found) > 6 else "")
        raise LabelError(
            f"folds.field: '{name}' holds {len(found)} values ({shown}); {allowed}. If it says something else, set "
            "folds.method: features"
        )
    fold = np.array([found.index(v) for v in values], dtype=np.int8)
    for i, label in enumerate(units.names):
        if len(set(fold[units.weights[:, i] > 0])) < 2:
            raise LabelError(
                f"folds.field: all labels of class {label!r} are in one fold of '{name}': what trains could not be tested"
            )
    notes.append(f"folds: cross-validated over the {len(found)} values of '{name}'")
    return _made(units, fold, len(found), 1, notes, tuple(found))


def _stopped_by(units: Units, fold: Array, seed: int, notes: list[str]) -> Array:
    """Return the folds of units with a part of those that train kept to stop by, drawn so that each class has its share."""
    of = np.flatnonzero(fold == SPLIT.index("train"))
    kept = of[assign(units.weights[of], np.array([1 - 1 / _VAL_PARTS, 1 / _VAL_PARTS]), seed) == 1]
    notes.append(
        f"folds: there is no val, so {len(kept):,} of the {len(of):,} {units.what} of train are kept to stop by, drawn with "
        "folds.seed, stratified by class"
    )
    made = fold.copy()
    made[kept] = SPLIT.index("val")
    return made

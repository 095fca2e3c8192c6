"""What a cutting found: counts, the classes that the buffer would empty, sentences and the table for the user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.samples.cutter import Survey
from pipeline.samples.folds import TRAIN, VAL, Folds
from pipeline.samples.legend import Legend

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Findings:
    """Labels of all blocks of land together.

    Attributes
    ----------
    plain, kept : (R, 4, K) int64
        Labels per round, role and class, before and after the buffer.
    per_fold : (F, K) int64
        Labels per fold and class.
    """

    plain: Array
    kept: Array
    per_fold: Array

    @classmethod
    def of(cls, surveys: Sequence[Survey], rounds: int, folds: int, classes: int) -> Findings:
        """Add up surveys."""
        plain, kept = np.zeros((rounds, 4, classes), np.int64), np.zeros((rounds, 4, classes), np.int64)
        per_fold = np.zeros((folds, classes), np.int64)
        for survey in surveys:
            plain += survey.plain
            kept += survey.kept
            per_fold += survey.per_fold
        return cls(plain, kept, per_fold)

    def exempt(self) -> Array:
        """Return what must be kept inside the buffer, (R, 4, K) bool.

        A class whose training labels would all go could be tested, but not learned; a round whose validation labels
        would all go could not tell when to stop. Test labels never go.
        """
        exempt = np.zeros(self.plain.shape, bool)
        exempt[:, TRAIN] = (self.plain[:, TRAIN] > 0) & (self.kept[:, TRAIN] == 0)
        blind = self.plain[:, VAL].any(1) & ~self.kept[:, VAL].any(1)
        exempt[blind, VAL] = True
        return exempt

    def quota(self, most: int) -> Array:
        """Return the share of labels that leaves ``most`` of a class in a fold, (F, K)."""
        return np.minimum(1.0, most / np.maximum(self.per_fold, 1))


def notes(legend: Legend, folds: Folds, found: Findings, exempt: Array, quota: Array) -> list[str]:
    """Return what the user is told of labels left out, kept inside the buffer, or drawn."""
    said = []
    total, left = int(found.plain[:, TRAIN].sum()), int(found.kept[:, TRAIN].sum())
    if left < total:
        rounds = "over all rounds, " if len(found.plain) > 1 else ""
        said.append(
            f"buffer of {folds.buffer} px between folds: {rounds}{total - left} of {total} training labels are left out"
        )
    said.extend(
        f"class {legend.classes[i].name!r} keeps its training labels inside the buffer"
        f"{_rounds(exempt[:, TRAIN, i])}: none would be left; its figures are somewhat optimistic"
        for i in np.flatnonzero(exempt[:, TRAIN].any(0))
    )
    blind = np.asarray(exempt[:, VAL].any(1))
    if blind.any():
        said.append(f"validation keeps its labels inside the buffer{_rounds(blind)}: none would be left to stop by")
    for i in np.flatnonzero((quota < 1).any(0)):
        drawn = round(float((quota * found.per_fold)[:, i].sum()))
        said.append(
            f"class {legend.classes[i].name!r}: about {drawn} of {int(found.per_fold[:, i].sum())} labelled pixels "
            "are drawn"
        )
    return said


def _rounds(which: Array) -> str:
    return f" (round {', '.join(str(r + 1) for r in np.flatnonzero(which))})" if len(which) > 1 else ""


def table(legend: Legend, features: Array | None, folds: Folds, found: Findings) -> list[dict[str, Any]]:
    """Return a row per class: its label values, features, pixels, pixels per fold, training labels lost to the buffer.

    Parameters
    ----------
    legend : Legend
        The classes.
    features : (n,) int or None
        Class index of each feature, where labels are features.
    folds, found
        The division, and what was found.
    """
    rows = []
    for i, c in enumerate(legend.classes):
        row: dict[str, Any] = {"class": c.name, "labels": ", ".join(c.values)}
        if features is not None:
            row["features"] = int((features == i).sum())
        row["pixels"] = int(found.per_fold[:, i].sum())
        row |= {name: int(found.per_fold[f, i]) for f, name in enumerate(folds.names)}
        row["in buffer"] = int((found.plain - found.kept)[:, TRAIN, i].sum())
        rows.append(row)
    return rows

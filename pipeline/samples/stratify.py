"""Divide units (features, or blocks of land) among folds so that every fold has its share of every class."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def assign(weights: Array, shares: Array, seed: int) -> Array:
    """Return the fold of each unit.

    Units are taken in turn, those of the rarest classes first and the heaviest of them first; each goes where the
    classes it holds fall shortest of their share. Ties go to the fold with fewest units, then by the seed.

    Parameters
    ----------
    weights : (n, K) float
        Labelled pixels of each class in each unit.
    shares : (F,) float
        Share of each fold; they add to one.
    seed : int
        Seed of the order of equals.

    Returns
    -------
    (n,) int8
    """
    n, classes = weights.shape
    folds = len(shares)
    rng = np.random.default_rng(seed)
    total = np.maximum(weights.sum(0), 1e-9)
    units = (weights > 0).sum(0)
    rank = np.argsort(np.argsort(units, kind="stable"), kind="stable")
    rarest = np.where(weights > 0, rank, classes).min(1)
    order = np.lexsort((rng.permutation(n), -weights.sum(1), rarest))
    have = np.zeros((folds, classes))
    count = np.zeros(folds)
    preference = rng.permutation(folds)
    fold = np.zeros(n, np.int8)
    for i in order:
        of = weights[i] > 0
        # Shortfall in the unit's own classes, each as a part of the class; a class of one unit counts as one of many.
        short = (shares[:, None] - have[:, of] / total[of]).mean(1)
        best = max(range(folds), key=lambda f: (round(float(short[f]), 9), -count[f], -preference[f]))
        fold[i] = best
        have[best] += weights[i]
        count[best] += 1
    return fold

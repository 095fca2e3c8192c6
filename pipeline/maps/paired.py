"""Maps compared on the same labelled pixels: how far a difference in macro-F1 can be believed."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Array = np.ndarray[Any, Any]

# More groups make a standard error hardly better, and hold a matrix each.
_GROUPS = 1000


def patches(rows: Array, columns: Array) -> Array:
    """Return the number of the patch of each pixel, (N,) int64: pixels that touch, also at a corner, are one.

    The pixels of a polygon are right or wrong together: they are one observation, and not a hundred.

    Parameters
    ----------
    rows, columns : (N,) int64
        Where the pixels are, from 0.
    """
    if not len(rows):
        return np.zeros(0, np.int64)
    span = int(columns.max()) + 3
    # With an empty column at both ends no pixel touches the next row's first.
    keys, back = np.unique(rows * span + columns + 1, return_inverse=True)
    pairs = []
    for step in (1, span - 1, span, span + 1):
        at = np.searchsorted(keys, keys + step).clip(max=len(keys) - 1)
        a = np.flatnonzero(keys[at] == keys + step)
        pairs.append(np.stack([a, at[a]]))
    a, b = np.concatenate(pairs, axis=1)
    links = coo_array((np.ones(len(a)), (a, b)), shape=(len(keys), len(keys)))
    _, patch = connected_components(links, directed=False)
    return np.asarray(patch[back], dtype=np.int64)


def macro_f1(matrices: Array) -> Array:
    """Return the mean F1 of the classes that map or reference hold, (...,), of confusion matrices (..., K, K)."""
    hit = np.diagonal(matrices, axis1=-2, axis2=-1)
    half = (matrices.sum(-1) + matrices.sum(-2)) / 2
    f1 = np.divide(hit, half, out=np.zeros_like(half), where=half > 0)
    return np.asarray(f1.sum(-1) / np.maximum((half > 0).sum(-1), 1))


def left_out(reference: Array, predicted: Array, patch: Array, classes: int) -> Array:
    """Return the macro-F1 without each group of patches in turn, (G,) float64.

    Parameters
    ----------
    reference, predicted : (N,) int64
        Class indices.
    patch : (N,) int64
        As `patches` returns them. More than a thousand are put together to groups.
    classes : int
        K.
    """
    _, group = np.unique(patch % _GROUPS, return_inverse=True)
    groups = int(group.max()) + 1
    cell = (group * classes + reference) * classes + predicted
    counts = np.bincount(cell, minlength=groups * classes**2).reshape(groups, classes, classes)
    return macro_f1(counts.sum(0) - counts)


def standard_error(values: Array) -> float | None:
    """Return the jackknife's standard error of a figure from its values without each group, (G,); None of one group.

    Of a difference between two maps, with the differences: groups are left out of both at once, so what is hard for both
    does not count (Efron and Stein 1981; with groups: Kott 2001).
    """
    n = len(values)
    return float(np.sqrt((n - 1) / n * ((values - values.mean()) ** 2).sum())) if n > 1 else None

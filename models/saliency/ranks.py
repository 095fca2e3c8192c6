"""Rank correlation of many short rows at once."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def spearman(one: Array, other: Array, counts: Array) -> Array:
    """Return the rank correlation of each row of two tables (Spearman 1904), ties at their mean rank.

    Parameters
    ----------
    one, other : (N, n) float
        Values.
    counts : (N, n) bool
        Those that are compared.

    Returns
    -------
    (N,) float64
        NaN where either is the same everywhere, or fewer than two are compared.
    """
    # Takes a second to load, and every command passes here.
    from scipy.stats import rankdata

    n = counts.sum(1)
    ranks = []
    for values in (one, other):
        # Behind all others, what does not count leaves their ranks alone.
        found = rankdata(np.where(counts, values, np.inf), axis=1) if values.shape[1] else np.zeros(values.shape)
        ranks.append(np.where(counts, found - (n[:, None] + 1) / 2, 0.0))
    a, b = ranks
    size = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    result: Array = np.divide((a * b).sum(1), size, out=np.full(len(n), np.nan), where=size > 0)
    return result

"""The random forest that is trained beside every network: did the network earn its cost?"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.ensemble import RandomForestClassifier

Array = np.ndarray[Any, Any]

_TREES = 200


class Forest:
    """A random forest (Breiman 2001) on the values of single pixels, with scikit-learn's defaults and balanced classes.

    Parameters
    ----------
    seed : int
        Seed of the trees.
    """

    def __init__(self, *, seed: int) -> None:
        self._forest = RandomForestClassifier(
            n_estimators=_TREES, class_weight="balanced", n_jobs=-1, random_state=seed
        )

    def fit(self, values: Array, target: Array) -> Self:
        """Train on values (N, T * C) and class indices (N,)."""
        self._forest.fit(values, target)
        return self

    def predict(self, values: Array) -> Array:
        """Return the class indices (N,) of values (N, T * C)."""
        if not len(values):
            return np.zeros(0, dtype=np.int64)
        return np.asarray(self._forest.predict(values))

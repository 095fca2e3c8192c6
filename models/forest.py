"""The random forest that every network is compared with."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

Array = np.ndarray[Any, Any]


class Forest:
    """A random forest (Breiman 2001) on the values of single pixels.

    Parameters
    ----------
    trees : int
        Number of trees; more never hurt, but by time.
    seed : int
        Seed of the bootstrap and of the splits.
    jobs : int
        Threads; -1: all cores. The result does not depend on it.
    """

    def __init__(self, *, trees: int = 200, seed: int = 0, jobs: int = -1) -> None:
        from sklearn.ensemble import RandomForestClassifier

        self._model = RandomForestClassifier(
            n_estimators=trees, class_weight="balanced_subsample", random_state=seed, n_jobs=jobs
        )

    def fit(self, values: Array, target: Array) -> Self:
        """Learn class indices (N,) from values (N, T * C)."""
        self._model.fit(values, target)
        return self

    def predict(self, values: Array) -> Array:
        """Return class indices (N,) int64 of values (N, T * C)."""
        if not len(values):
            return np.zeros(0, dtype=np.int64)
        return np.asarray(self._model.predict(values), dtype=np.int64)

    def importance(self) -> Array:
        """Return the mean decrease in impurity of each value, (T * C,) float64; they add up to 1."""
        return np.asarray(self._model.feature_importances_, dtype=np.float64)


class ForestRegressor:
    """A random forest (Breiman 2001) that estimates a number from the values of single pixels; see `Forest`."""

    def __init__(self, *, trees: int = 200, seed: int = 0, jobs: int = -1) -> None:
        from sklearn.ensemble import RandomForestRegressor

        # Leaves of a few pixels: single ones would be learnt by heart, and take a gigabyte where pixels are many.
        self._model = RandomForestRegressor(n_estimators=trees, min_samples_leaf=3, random_state=seed, n_jobs=jobs)

    def fit(self, values: Array, numbers: Array) -> Self:
        """Learn numbers (N,) from values (N, T * C)."""
        self._model.fit(values, numbers)
        return self

    def predict(self, values: Array) -> Array:
        """Return the numbers (N,) float64 of values (N, T * C)."""
        return np.asarray(self._model.predict(values), dtype=np.float64) if len(values) else np.zeros(0)

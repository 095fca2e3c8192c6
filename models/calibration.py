"""Probabilities that can be believed: temperature scaling, and how to measure whether it worked."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax

from models.network import ModelError

Array = np.ndarray[Any, Any]

# Beyond these a temperature says more about the sample than about the network.
_LOWEST, _HIGHEST = 0.05, 100.0


def fit_temperature(scores: Array, target: Array) -> float:
    """Return the temperature T for which softmax(scores / T) is most likely, given the labels.

    After Guo et al. (2017). The likelihood has one maximum in 1 / T, which is found by bisection of its derivative. As
    in Platt (1999) labels are not taken for certain: with all of n labels hit, the hit rate is known to be no better
    than (n + 1) / (n + 2); so a perfect, small validation fold does not make every confidence 1.

    Parameters
    ----------
    scores : (N, K) float
        Scores of the validation fold.
    target : (N,) int
        Class indices.

    Raises
    ------
    ModelError
        If there are no pixels, or scores are not finite.
    """
    z = np.asarray(scores, dtype=np.float64)
    if not len(z):
        raise ModelError("confidence cannot be calibrated: the validation fold has no labelled pixels")
    if not np.isfinite(z).all():
        raise ModelError("confidence cannot be calibrated: scores of the validation fold are not finite")
    n, classes = z.shape
    miss = 1.0 / (n + 2)
    wanted = np.full((n, classes), miss / (classes - 1))
    wanted[np.arange(n), target] = 1.0 - miss
    # d/db of the mean negative log likelihood at b = 1 / T is E_p[z] - E_wanted[z]; it grows with b.
    expected = float((wanted * z).sum(1).mean())

    def slope(log_b: float) -> float:
        return float((softmax(z * np.exp(log_b), axis=1) * z).sum(1).mean()) - expected

    low, high = -np.log(_HIGHEST), -np.log(_LOWEST)
    for _ in range(60):
        middle = 0.5 * (low + high)
        if slope(middle) < 0:
            low = middle
        else:
            high = middle
        if high - low < 1e-9:
            break
    return float(np.exp(-0.5 * (low + high)))


def negative_log_likelihood(scores: Array, target: Array, temperature: float = 1.0) -> float:
    """Return the mean negative log likelihood of labels (N,) under scores (N, K)."""
    log = log_softmax(np.asarray(scores, dtype=np.float64) / temperature, axis=1)
    return float(-log[np.arange(len(log)), target].mean())


def reliability(probabilities: Array, target: Array, bins: int = 15) -> list[dict[str, float]]:
    """Return how often the map is right, by confidence; bins without pixels are left out.

    Parameters
    ----------
    probabilities : (N, K) float
    target : (N,) int
    bins : int
        Number of bins of equal width between 0 and 1.

    Returns
    -------
    list of dict
        ``low``, ``high``, ``n``, ``confidence`` (mean), ``accuracy``; from low to high.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    confidence = p.max(1)
    right = p.argmax(1) == target
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    found = []
    for i in np.unique(index):
        of = index == i
        found.append(
            {
                "low": float(i / bins),
                "high": float((i + 1) / bins),
                "n": int(of.sum()),
                "confidence": float(confidence[of].mean()),
                "accuracy": float(right[of].mean()),
            }
        )
    return found


def expected_calibration_error(probabilities: Array, target: Array, bins: int = 15) -> float:
    """Return the mean distance between confidence and accuracy over bins of confidence, weighted by pixels.

    Parameters are those of `reliability`. After Naeini et al. (2015).

    Raises
    ------
    ModelError
        If there are no pixels.
    """
    if not len(target):
        raise ModelError("the calibration error of no pixels is not defined")
    rows = reliability(probabilities, target, bins)
    return float(sum(r["n"] * abs(r["confidence"] - r["accuracy"]) for r in rows) / len(target))

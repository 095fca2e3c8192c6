"""Probabilities that mean what they say: temperature scaling, and how far they can be believed."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

Array = np.ndarray[Any, Any]

# Temperatures outside this range mean that the validation fold says nothing, not that the network is so wrong.
_LOWEST, _HIGHEST = 0.05, 20.0


def fit_temperature(scores: Array, target: Array) -> float:
    """Return the temperature that makes the labels of the validation fold likeliest (Guo et al. 2017).

    Parameters
    ----------
    scores : (N, K) float
        Logits on the validation fold.
    target : (N,) int
        Class indices.

    Notes
    -----
    Classes weigh as they occur: probabilities are to be right over the labelled places as they are.
    """
    if not len(target):
        return 1.0
    z = np.asarray(scores, dtype=np.float64)
    rows = np.arange(len(target))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(z / np.exp(log_temperature), axis=1)[rows, target].mean())

    found = minimize_scalar(loss, bounds=(np.log(_LOWEST), np.log(_HIGHEST)), method="bounded")
    return float(np.exp(found.x))


def probabilities(scores: Array, temperature: float) -> Array:
    """Return calibrated probabilities (N, K) of scores (N, K)."""
    return np.asarray(softmax(np.asarray(scores, dtype=np.float64) / temperature, axis=1))


def reliability(probability: Array, target: Array, bins: int = 15) -> list[dict[str, float]]:
    """Return, per bin of confidence that holds pixels, its mean confidence, its accuracy and its number of pixels."""
    confidence = probability.max(1)
    right = probability.argmax(1) == target
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {"confidence": float(confidence[of].mean()), "accuracy": float(right[of].mean()), "n": int(of.sum())}
        for b in range(bins)
        if (of := index == b).any()
    ]


def expected_calibration_error(probability: Array, target: Array, bins: int = 15) -> float:
    """Return the mean distance of confidence from accuracy, weighted by pixels (Naeini et al. 2015)."""
    if not len(target):
        return 0.0
    rows = reliability(probability, target, bins)
    return float(sum(r["n"] * abs(r["confidence"] - r["accuracy"]) for r in rows) / len(target))

"""Losses and figures by their definitions, which the real ones are compared with."""

from __future__ import annotations

from typing import Any

import numpy as np


def reconstruction_loss_by_hand(reconstruction, cube, wanted):  # type: ignore[no-untyped-def]
    """Return the sum of squared errors of the wanted values (B, T, C, H, W), one after another, and their number."""
    total, count = 0.0, 0
    for place in np.ndindex(*cube.shape):
        if wanted[place]:
            total += (float(reconstruction[place]) - float(cube[place])) ** 2
            count += 1
    return total, count


def divergence_by_hand(means, log_variances):
    """Return KL(q || N(0, 1)) of independent normal distributions, by integrating q (log q - log p) along a line."""
    total = 0.0
    for mean, log_variance in zip(means, log_variances, strict=True):
        deviation = np.exp(0.5 * log_variance)
        x = np.linspace(mean - 12 * deviation, mean + 12 * deviation, 20001)
        log_q = -0.5 * ((x - mean) / deviation) ** 2 - np.log(deviation)  # both but for the same constant
        log_p = -0.5 * x**2
        density = np.exp(log_q) / np.sqrt(2 * np.pi)
        total += float(np.trapezoid(density * (log_q - log_p), x))
    return total


def focal_by_hand(scores, target, weights, smoothing, gamma):  # type: ignore[no-untyped-def]
    """Sum the focal loss pixel by pixel and class by class; gamma 0 is cross-entropy. Return sum and weight."""
    total = weight = 0.0
    k = len(weights)
    for z, y in zip(np.asarray(scores, np.float64), np.asarray(target), strict=True):
        p = np.exp(z) / np.exp(z).sum()
        for c in range(k):
            share = smoothing / k + (1 - smoothing) * (c == y)
            total -= float(weights[y]) * share * (1 - p[c]) ** gamma * np.log(p[c])
        weight += float(weights[y])
    return total, weight


def dice_by_hand(scores, target, weights):  # type: ignore[no-untyped-def]
    """Return one minus the weighted mean overlap of the classes that are there."""
    p = np.exp(np.asarray(scores, np.float64))
    p /= p.sum(1, keepdims=True)
    up = down = 0.0
    for c in sorted(set(np.asarray(target).tolist())):
        both = sum(p[i, c] for i in range(len(p)) if target[i] == c)
        either = sum(p[i, c] + (target[i] == c) for i in range(len(p)))
        up += float(weights[c]) * 2 * both / float(either)
        down += float(weights[c])
    return 1 - up / down


def adversarial_loss_by_hand(real, made):
    """Return -log p(not made up) of real and -log p(made up) of other patches, of a softmax over K + 1 classes.

    The score of the last class, made up, is 0.
    """
    terms = []
    for rows, is_real in ((real, True), (made, False)):
        costs = []
        for row in rows:
            exponentials = np.exp(np.append(np.asarray(row, np.float64), 0.0))
            probabilities = exponentials / exponentials.sum()
            costs.append(-np.log(probabilities[:-1].sum() if is_real else probabilities[-1]))
        terms.append(np.mean(costs))
    return sum(terms)


def patches_by_flood(rows: np.ndarray[Any, Any], columns: np.ndarray[Any, Any]) -> list[set[tuple[int, int]]]:
    """Return the patches of touching pixels, found by walking from neighbour to neighbour."""
    left = set(zip(rows.tolist(), columns.tolist(), strict=True))
    found = []
    while left:
        waiting, patch = [left.pop()], set()
        while waiting:
            y, x = waiting.pop()
            patch.add((y, x))
            near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            waiting += near
        found.append(patch)
    return found


def jackknife_of_f1(
    reference: np.ndarray[Any, Any], one: np.ndarray[Any, Any], other: np.ndarray[Any, Any], patch: np.ndarray[Any, Any]
) -> float:
    """Return the standard error of a difference in macro-F1, a patch left out at a time, with scikit-learn's F1."""
    from sklearn.metrics import f1_score

    differences = []
    for left in np.unique(patch):
        kept = patch != left
        a, b = (f1_score(reference[kept], p[kept], average="macro") for p in (one, other))
        differences.append(a - b)
    n = len(differences)
    mean = sum(differences) / n
    return float(np.sqrt((n - 1) / n * sum((d - mean) ** 2 for d in differences)))


def nearest_centre(embedding: np.ndarray[Any, Any], centres: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the number of the nearest centre (k, E) of each pixel (E, h, w), one by one."""
    _, height, width = embedding.shape
    found = np.empty((height, width), int)
    for y in range(height):
        for x in range(width):
            found[y, x] = np.argmin([np.linalg.norm(embedding[:, y, x] - c) for c in centres])
    return found


def goodness_by_hand(truth: np.ndarray[Any, Any], found: np.ndarray[Any, Any], inputs: int) -> dict[str, float]:
    """Return the figures of a regression, by their definitions."""
    n = len(truth)
    errors = [float(f - t) for t, f in zip(truth, found, strict=True)]
    mean = sum(truth) / n
    r2 = 1 - sum(e * e for e in errors) / sum((t - mean) ** 2 for t in truth)
    return {
        "rmse": (sum(e * e for e in errors) / n) ** 0.5,
        "mae": sum(abs(e) for e in errors) / n,
        "bias": sum(errors) / n,
        "r2": r2,
        "adjusted_r2": 1 - (1 - r2) * (n - 1) / (n - inputs - 1),
    }

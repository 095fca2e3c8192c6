"""Whether explanations add up, and whether methods that ask another way give the same answer."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from models.saliency.ranks import spearman

if TYPE_CHECKING:
    from models.settings import Method
    from workflows.subject import Subject

Array = np.ndarray[Any, Any]

METHODS: tuple[Method, ...] = (
    "gradient", "gradient_input", "smoothgrad", "integrated_gradients", "occlusion_band", "occlusion_date"
)  # fmt: skip


def completeness(subject: Subject) -> dict[str, Any]:
    """Return how far the attributions of integrated gradients are from adding up to what they share out.

    They should sum to the score of the target less that at the baseline (Sundararajan et al. 2017); what is missing is
    the error of the integral.

    Returns
    -------
    dict
        ``mean`` and ``largest`` size of what is missing, ``change``: mean size of what is shared out, all in units of the scores;
        ``relative``: the mean by the change, None where there is no change; ``steps``.
    """
    subject = subject.by("integrated_gradients")
    total = torch.cat([part.double().sum((1, 2, 3, 4)) for _, part in subject.attributions()]).cpu().numpy()
    cube = subject.windows.cube
    change = subject.scores(cube) - subject.scores(subject.baseline.expand_as(cube))
    missing, size = np.abs(total - change), float(np.abs(change).mean())
    return {
        "mean": float(missing.mean()),
        "largest": float(missing.max()),
        "change": size,
        "relative": float(missing.mean() / size) if size else None,
        "steps": subject.explainer.settings.steps,
    }


def agreement(subject: Subject) -> dict[str, dict[str, Any] | None]:
    """Return how alike methods share their attribution out over bands, and over dates.

    Of each place: the sum of sizes per band (date), as a share of all; compared by rank (Spearman) over all places and bands
    (dates), between each two methods that tell them apart.

    Returns
    -------
    dict
        Of ``band`` and ``date``: ``methods``, ``matrix``: the correlations, None where a method says the same of all; ``mean`` of
        all pairs, and ``least``: the pair that differs most. None where there is but one band (date).
    """
    shares: dict[str, dict[str, Array]] = {"band": {}, "date": {}}
    number = {"band": subject.network.bands, "date": subject.windows.cube.shape[1]}
    for method in METHODS:
        asked = subject.by(method)
        axes = [axis for axis in asked.explainer.axes if number[axis] > 1]
        if not axes:
            continue
        parts = [part.double().abs().sum((3, 4)).cpu().numpy() for _, part in asked.attributions()]
        sizes = np.concatenate(parts)  # (N, T or 1, C or 1)
        for axis in axes:
            total = sizes.sum(1 if axis == "band" else 2)
            whole = total.sum(1, keepdims=True)
            shares[axis][method] = np.divide(total, whole, out=np.full_like(total, np.nan), where=whole > 0)
    return {axis: _matrix(found) if found else None for axis, found in shares.items()}


def _matrix(shares: dict[str, Array]) -> dict[str, Any]:
    names = list(shares)
    matrix: list[list[float | None]] = [[1.0 if a == b else None for b in names] for a in names]
    pairs = []
    for (i, a), (j, b) in itertools.combinations(enumerate(names), 2):
        one, other = shares[a].ravel()[None], shares[b].ravel()[None]
        value = float(spearman(one, other, np.isfinite(one) & np.isfinite(other))[0])
        if np.isfinite(value):
            matrix[i][j] = matrix[j][i] = value
            pairs.append((value, a, b))
    if not pairs:
        return {"methods": names, "matrix": matrix, "mean": None, "least": None}
    value, a, b = min(pairs)
    return {
        "methods": names,
        "matrix": matrix,
        "mean": float(np.mean([v for v, _, _ in pairs])),
        "least": {"methods": [a, b], "correlation": value},
    }

"""Areas with their error, from a confusion matrix and the mapped areas: design-based estimation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Half width of a 95 % interval of the normal distribution, in standard errors.
_Z95 = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with the half width of its 95 % interval."""

    value: float
    margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AdjustedAreas:
    """Areas per class, corrected by what the samples say of the map's errors.

    Attributes
    ----------
    areas : tuple of Estimate or None
        Area of each class in the unit of the mapped areas; None if no stratum could be estimated.
    users, producers : tuple of Estimate or None
        User's accuracy of each class and producer's accuracy, weighted by area; None where not defined.
    overall : Estimate or None
        Overall accuracy, weighted by area.
    unsampled : tuple of int
        Classes that the map shows but that fewer than two samples fell on. Nothing can be said of their error, so
        their mapped area is left out of all estimates.
    unsampled_area : float
        How much that is.
    """

    areas: tuple[Estimate | None, ...]
    users: tuple[Estimate | None, ...]
    producers: tuple[Estimate | None, ...]
    overall: Estimate | None
    unsampled: tuple[int, ...]
    unsampled_area: float


def adjusted_areas(matrix: np.ndarray[Any, Any], mapped: Sequence[float]) -> AdjustedAreas:
    """Estimate the area of each class, with a 95 % interval, from a stratified sample (strata = map classes).

    The intervals hold for a probability sample. Labels that someone chose to draw are not one; whoever shows the
    figures must say so.

    Parameters
    ----------
    matrix : (K, K) int
        Confusion matrix, rows = reference, columns = map.
    mapped : sequence of K floats
        Mapped area of each class, in any unit.

    Returns
    -------
    AdjustedAreas
        In the unit of ``mapped``.

    References
    ----------
    Olofsson et al. (2014), Good practices for estimating area and assessing accuracy of land change, Remote Sensing
    of Environment 148, equations 2 and 5 to 11.
    """
    k = len(matrix)
    area = np.asarray(mapped, dtype=np.float64)
    if area.shape != (k,) or (area < 0).any() or not np.isfinite(area).all():
        raise ValueError(f"expected {k} mapped areas of at least zero, got {list(mapped)}")
    # From here on as in the paper: row i = stratum (map class), column j = reference class.
    counts = np.asarray(matrix, dtype=np.float64).T
    samples = counts.sum(axis=1)
    known = (samples >= 2) & (area > 0)
    missing = (samples < 2) & (area > 0)
    total = float(area[known].sum())
    none: tuple[None, ...] = (None,) * k
    unsampled = tuple(int(i) for i in np.flatnonzero(missing))
    if not total:
        return AdjustedAreas(
            areas=none,
            users=none,
            producers=none,
            overall=None,
            unsampled=unsampled,
            unsampled_area=float(area[missing].sum()),
        )
    weight = np.where(known, area, 0) / total
    size = np.where(known, samples, 2)
    share = np.where(known[:, None], counts / size[:, None], 0)
    within = share * (1 - share) / (size - 1)[:, None]
    proportion = weight @ share
    error = np.sqrt((weight**2) @ within)
    users = np.diag(share)
    users_variance = np.diag(within)
    return AdjustedAreas(
        areas=tuple(
            Estimate(value=float(p) * total, margin=_Z95 * float(e) * total)
            for p, e in zip(proportion, error, strict=True)
        ),
        users=tuple(
            Estimate(value=float(users[i]), margin=_Z95 * float(users_variance[i]) ** 0.5) if known[i] else None
            for i in range(k)
        ),
        producers=tuple(_producers(j, np.where(known, area, 0), share, within) for j in range(k)),
        overall=Estimate(value=float(weight @ users), margin=_Z95 * float(np.sqrt((weight**2) @ users_variance))),
        unsampled=unsampled,
        unsampled_area=float(area[missing].sum()),
    )


def _producers(
    j: int, area: np.ndarray[Any, Any], share: np.ndarray[Any, Any], within: np.ndarray[Any, Any]
) -> Estimate | None:
    """Return the producer's accuracy of class j (equation 7 of the paper, with areas for pixel counts)."""
    reference = float(area @ share[:, j])
    if not reference:
        return None
    value = float(area[j] * share[j, j]) / reference
    others = area**2 * within[:, j]
    others[j] = 0
    variance = (float(area[j]) ** 2 * (1 - value) ** 2 * within[j, j] + value**2 * float(others.sum())) / reference**2
    return Estimate(value=value, margin=_Z95 * float(variance) ** 0.5)

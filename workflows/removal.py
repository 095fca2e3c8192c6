"""Does what an explanation names decide? Parts of the input are taken away, and put back, in the order it gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from workflows.subject import Subject

Array = np.ndarray[Any, Any]

_STEPS = 20
_ORDERS = 10
# Squares along each side of a window, at least.
_SQUARES = 3


def effort(subject: Subject) -> int:
    """Return the forward passes of the check."""
    return (2 + _ORDERS) * (min(_STEPS, int(_parts(subject).max()) + 1) + 1)


def removed(subject: Subject) -> dict[str, Any] | None:
    """Return the curves of deletion and insertion, and what lies below them; None where there is but one part to take away.

    After Samek et al. (2017) and Petsiuk et al. (2018). Parts are what the method tells apart: bands of a date, over the whole
    window; bands; dates; or squares of pixels. They are replaced by the baseline, the one that speaks most for the target
    first (that of largest size, where the method has no sign), or put back in that order where all were replaced. Followed is
    the mean calibrated probability of the target, against the share of parts. Of a regression it is
    the nearness to the value of the whole input: one less the distance to it, where the mean distance of the baseline is one;
    parts of either sign move a value away, so there the largest size comes first.

    Returns
    -------
    dict
        ``shares``: of the parts. ``deletion``, ``insertion``, ``random``: the curves, the last of parts taken away; put back at
        random, its mirror image. ``areas``: below the first two, the mean of random orders, and its standard error over
        orders. ``differences``: of deletion below random and insertion above it, mean and standard error over places.
    """
    parts = _parts(subject)
    number = int(parts.max()) + 1
    if number < 2:
        return None
    strength, present = _strength(subject, parts, number)
    steps = min(_STEPS, number)
    curve = _Curves(subject, parts, present, np.linspace(0.0, 1.0, steps + 1))
    deletion, insertion = curve.taken(_places_in_order(strength, present)), curve.put_back(strength)
    rng = np.random.default_rng(0)
    drawn = rng.random((_ORDERS, *strength.shape))
    random = np.stack([curve.taken(_places_in_order(order, present)) for order in drawn])
    if subject.target.temperature is None:
        whole, blank = deletion[0], deletion[-1]
        span = float(np.abs(blank - whole).mean())
        if span == 0:
            return None
        deletion, insertion, random = (1 - np.abs(v - whole) / span for v in (deletion, insertion, random))
    areas = [np.trapezoid(v, curve.shares, axis=-2) for v in (deletion, insertion, random)]
    by_order = areas[2].mean(-1)
    return {
        "parts": number,
        "shares": curve.shares.tolist(),
        "deletion": deletion.mean(1).tolist(),
        "insertion": insertion.mean(1).tolist(),
        "random": random.mean((0, 2)).tolist(),
        "areas": {
            "deletion": float(areas[0].mean()),
            "insertion": float(areas[1].mean()),
            "random": float(by_order.mean()),
            "random_error": float(by_order.std(ddof=1) / len(by_order) ** 0.5),
        },
        "differences": {
            "deletion": _mean_and_error(areas[2].mean(0) - areas[0]),
            "insertion": _mean_and_error(areas[1] - areas[2].mean(0)),
        },
        "orders": _ORDERS,
    }


class _Curves:
    """What is left of the target of each place, as parts are taken away."""

    def __init__(self, subject: Subject, parts: Tensor, present: Array, shares: Array) -> None:
        self.subject, self.parts, self.present, self.shares = subject, parts, present, shares

    def taken(self, order: Array) -> Array:
        """Return the amounts (steps, N) with the parts of lowest place in an order (N, P) taken away."""
        windows = self.subject.windows
        here = self.present.sum(1, keepdims=True)
        found = []
        for share in self.shares:
            # A part that was seen nowhere is no part: its place in the order lies behind all others.
            gone = torch.from_numpy(order < np.round(share * here)).to(windows.cube.device)
            changed = torch.where(gone[:, self.parts], self.subject.baseline, windows.cube)
            found.append(self.subject.amounts(changed))
        return np.stack(found)

    def put_back(self, strength: Array) -> Array:
        """Return the amounts (steps, N) with all taken away, and the strongest put back."""
        return self.taken(_places_in_order(-strength, self.present))[::-1]


def _parts(subject: Subject) -> Tensor:
    """Return the number of the part of each input value, as far as the method tells them apart, (T or 1, C or 1, S or 1, ...)."""
    _, dates, bands, side, _ = subject.windows.cube.shape
    axes = subject.explainer.axes
    if not axes:
        square = min(subject.explainer.settings.patch, -(-side // _SQUARES))
        line = torch.arange(side) // square
        return (line[:, None] * (int(line.max()) + 1) + line)[None, None].to(subject.windows.cube.device)
    shape = (dates if "date" in axes else 1, bands if "band" in axes else 1)
    return torch.arange(shape[0] * shape[1], device=subject.windows.cube.device).reshape(*shape, 1, 1)


def _strength(subject: Subject, parts: Tensor, number: int) -> tuple[Array, Array]:
    """Return how much each part counts, and whether anything of it is seen, (N, P) each."""
    signed, classes = subject.explainer.signed, subject.target.temperature is not None
    found, seen = [], []
    for some, attribution in subject.attributions():
        total = _by_part((attribution if signed else attribution.abs()).double(), parts, number)
        found.append(total if classes else total.abs())
        seen.append(_by_part(subject.windows.valid[some][:, :, None].double(), parts, number) > 0)
    return torch.cat(found).cpu().numpy(), torch.cat(seen).cpu().numpy()


def _by_part(values: Tensor, parts: Tensor, number: int) -> Tensor:
    """Return the mean of (N, A, B, S, S) over each part, (N, P)."""
    shape = np.broadcast_shapes(tuple(values.shape[1:]), tuple(parts.shape))
    flat, of = values.expand(len(values), *shape).flatten(1), parts.expand(shape).flatten()
    total = torch.zeros(len(values), number, dtype=values.dtype, device=values.device).index_add_(1, of, flat)
    return total / torch.bincount(of, minlength=number)


def _places_in_order(strength: Array, present: Array) -> Array:
    """Return the place of each part in the order, the strongest first and the absent last, (N, P)."""
    order = np.argsort(np.where(present, -strength, np.inf), axis=1, kind="stable")
    return np.argsort(order, axis=1)


def _mean_and_error(values: Array) -> dict[str, float | None]:
    error = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
    return {"mean": float(values.mean()), "standard_error": error}

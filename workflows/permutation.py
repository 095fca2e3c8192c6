"""The accuracy that is lost when a band, or a date, of test places is replaced by that of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from models.cost import flop_per_pixel
from pipeline.maps.accuracy import Accuracy, confusion
from workflows.answers import answers, batches, own_scores, replaced
from workflows.windows import window_side

if TYPE_CHECKING:
    from models.network import Network
    from pipeline.maps.layers import LegendEntry
    from workflows.scoring import Scorer
    from workflows.windows import Windows

Array = np.ndarray[Any, Any]

DRAWS = 5
"""How often the places that lend their values are drawn."""

# Places, of networks of single pixels and of others; and the work for all of them, in floating point operations.
_PIXELS, _WINDOWS, _LEAST, _WORK = 2000, 500, 60, 3e11


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """What replacing one band, or one date, costs.

    Attributes
    ----------
    axis, name : str
        ``band`` or ``date``, and which.
    figures : dict of (float, float)
        Mean and standard deviation over draws of what is lost, by the name of the figure: ``overall`` and ``macro_f1``
        (before minus after), or ``rmse`` (after minus before, in the units of the labels).
    """

    axis: str
    name: str
    figures: dict[str, tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Permutation:
    """What was measured.

    Attributes
    ----------
    places, draws : int
        Test places, and how often each got the values of another.
    before : dict of float
        The figures of the same places untouched.
    lost : list of Lost
        A row per band, then per date.
    """

    places: int
    draws: int
    before: dict[str, float]
    lost: list[Lost]


def places_for(network: Network) -> int:
    """Return how many places are looked at: so few that the work stays within seconds, where the network is a large one."""
    pixelwise = network.pixelwise
    passes = DRAWS * sum(n for n in (network.bands, network.dates) if n > 1)
    each = max(1, passes) * flop_per_pixel(network) * (1 if pixelwise else window_side(network) ** 2)
    return min(_PIXELS if pixelwise else _WINDOWS, max(_LEAST, int(_WORK / max(each, 1.0))))


def permute(
    held_out: Sequence[tuple[Scorer, Windows]],
    bands: Sequence[str],
    dates: Sequence[str],
    classes: Sequence[LegendEntry],
) -> Permutation | None:
    """Return the accuracy that is lost when each band, and each date, is replaced; None where there are no two places.

    After Breiman (2001). The values of a band (on all dates) or of a date (of all bands) come from another place of the same
    test fold, context and all; see `workflows.answers.replaced` for what is valid then. Each place lends once and borrows once:
    the values as a whole stay what they were. One draw of lenders serves all bands and dates, which makes these comparable.
    Of several rounds, each place is scored by the network that has not seen it, and all are pooled.

    Where bands tell the same, replacing one costs little: the others stand in for it.

    Parameters
    ----------
    held_out : sequence of (Scorer, Windows)
        As `workflows.windows.held_out_windows` gives them.
    bands, dates : sequence of str
        Names. An axis with a single name is left out: replacing it would leave nothing of the place.
    classes : sequence of LegendEntry
        The legend; empty of a regression.
    """
    pairs = [(scorer, windows) for scorer, windows in held_out if len(windows) > 1]
    if not pairs:
        return None
    items = [(axis, i, name) for axis, names in (("band", bands), ("date", dates)) for i, name in enumerate(names)
             if len(names) > 1]  # fmt: skip
    truth = np.concatenate([w.truth for _, w in pairs])
    before = _figures(truth, np.concatenate([_said(s, w) for s, w in pairs]), classes)
    lost: dict[tuple[str, str], list[dict[str, float]]] = {(axis, name): [] for axis, _, name in items}
    for draw in range(DRAWS):
        partners = [lenders(len(w), (draw, r)) for r, (_, w) in enumerate(pairs)]
        for axis, i, name in items:
            said = [_said(s, w, p, axis, i) for (s, w), p in zip(pairs, partners, strict=True)]
            after = _figures(truth, np.concatenate(said), classes)
            # An error grows where an accuracy falls.
            lost[axis, name].append({k: (v - before[k]) * (1 if k == "rmse" else -1) for k, v in after.items()})
    return Permutation(
        places=len(truth),
        draws=DRAWS,
        before=before,
        lost=[
            Lost(axis=axis, name=name, figures={k: _spread([d[k] for d in draws]) for k in before})
            for (axis, name), draws in lost.items()
        ],
    )


def lenders(n: int, seed: tuple[int, int]) -> Array:
    """Return for each of n places another one, (n,) int64: all in one ring, drawn at random, so that none gets its own."""
    ring = np.random.default_rng(seed).permutation(n)
    found = np.empty(n, np.int64)
    found[ring] = np.roll(ring, -1)
    return found


def _said(scorer: Scorer, windows: Windows, partner: Array | None = None, axis: str = "", i: int = 0) -> Array:
    """Return what the network says of places, with a band or date of another where there are partners."""
    found = []
    with scorer.turn():
        for some in batches(windows):
            if partner is None:
                tensors = windows.cube[some], windows.valid[some], windows.time[some]
            else:
                tensors = replaced(windows, some, partner, axis, i)
            found.append(answers(scorer, own_scores(scorer.network, *tensors, windows.own[some])))
    return np.concatenate(found)


def _figures(truth: Array, said: Array, classes: Sequence[LegendEntry]) -> dict[str, float]:
    if not classes:
        return {"rmse": float(np.sqrt(np.mean((said - truth) ** 2)))}
    found = Accuracy.of(confusion(truth.astype(np.int64), said, len(classes)), classes)
    return {"overall": found.overall or 0.0, "macro_f1": found.macro_f1 or 0.0}


def _spread(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1))

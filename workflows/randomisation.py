"""Does an explanation hang on what the network has learnt? Its weights are drawn anew, layer by layer."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from models.inference import prepare
from models.saliency.randomise import anew, layers, replace
from models.saliency.ranks import spearman

if TYPE_CHECKING:
    from torch import Tensor

    from models.network import Network
    from workflows.subject import Subject

Array = np.ndarray[Any, Any]

# Layers, or groups of neighbours where a network has more; so few where each place costs much.
_STAGES = (3, 8)
_DRAWS = (10, 100)
_PLACES = 4  # at least
# Forward passes times pixels that the check may cost; one with a gradient counts as three.
_BUDGET = 20_000_000


@dataclass(frozen=True, slots=True)
class Effort:
    """How many layers are drawn anew in turn, how often, and at how many places that is looked at."""

    stages: int
    draws: int
    places: int


def effort(subject: Subject, trained: Network) -> Effort:
    """Return what the check does: many draws where they cost little; fewer places, then fewer stages, where they cost much.

    Decided by counting, not by the clock: the figures are the same on every machine. Nothing is done where a place has a single
    value, which has no rank.
    """
    network = subject.network
    if _counts(subject.at(slice(1))).shape[1] < 2:
        return Effort(0, 0, 0)
    stages = len(layers(trained, _STAGES[1]))
    passes = subject.explainer.passes(network, network.bands, network.dates)
    one = (passes.forward + 3 * passes.gradient) * subject.windows.own[0].numel() * _DRAWS[0]
    places = min(len(subject.windows), max(_PLACES, _BUDGET // (one * stages)))
    if places * one * stages > _BUDGET:
        stages = int(np.clip(_BUDGET // (places * one), min(stages, _STAGES[0]), stages))
    draws = int(np.clip(_DRAWS[0] * _BUDGET // (places * one * stages), *_DRAWS))
    return Effort(stages, draws, places)


def randomised(subject: Subject, trained: Network) -> dict[str, Any] | None:
    """Return how much of the attribution is left as layers are drawn anew, from the scores to the inputs, each to stay so.

    After Adebayo et al. (2018). Compared is the attribution of each place with that of the trained network, by rank over its
    valid input values, for the class that the trained network picked. Means over places, then mean and standard error over
    draws: with few inputs, one draw says little.

    Parameters
    ----------
    subject : Subject
        The trained network at places.
    trained : Network
        The same network, not prepared.

    Returns
    -------
    dict or None
        None where a place has but one value. ``layers``: of each stage the innermost layer, the correlation, its standard
        error, and the correlation of sizes. ``draws``, ``places``. ``constant``: share of places and draws, all layers drawn
        anew, that had no correlation, for all values were the same.
    """
    plan = effort(subject, trained)
    if plan.stages == 0:
        return None
    stages, draws = layers(trained, plan.stages), plan.draws
    few = subject.at(slice(plan.places))
    counts = _counts(few)
    before = _values(few)
    found, sizes, constant = [], [], []
    for draw in range(draws):
        network, other = copy.deepcopy(trained).cpu().eval(), anew(trained, draw)
        row = []
        for names in stages:
            replace(network, other, names)
            after = _values(few.on(prepare(network).to(few.windows.cube.device)))
            row.append((spearman(before, after, counts), spearman(abs(before), abs(after), counts)))
        found.append([_mean(signed) for signed, _ in row])
        sizes.append([_mean(size) for _, size in row])
        constant.append(float(np.isnan(row[-1][0]).mean()))
    signed, size = np.array(found), np.array(sizes)
    return {
        "layers": [
            {
                "layer": names[-1] or network.name,
                **_over_draws(signed[:, i]),
                "sizes": _over_draws(size[:, i])["correlation"],
            }
            for i, names in enumerate(stages)
        ],
        "draws": draws,
        "places": plan.places,
        "constant": float(np.mean(constant)),
    }


def _mean(values: Array) -> float:
    told = values[np.isfinite(values)]
    return float(told.mean()) if len(told) else float("nan")


def _over_draws(values: Array) -> dict[str, float | None]:
    told = values[np.isfinite(values)]
    if len(told) < 2:
        return {"correlation": None, "standard_error": None}
    return {"correlation": float(told.mean()), "standard_error": float(told.std(ddof=1) / len(told) ** 0.5)}


def _own(values: Tensor, subject: Subject) -> Tensor:
    """Return of (N, A, B, S, S) what is to be compared, (N, n): the own pixel where nothing else can count."""
    if subject.network.pixelwise or subject.explainer.method in ("occlusion_band", "occlusion_date"):
        return values.permute(0, 3, 4, 1, 2)[subject.windows.own].flatten(1)
    return values.flatten(1)


def _values(subject: Subject) -> Array:
    return np.asarray(_own(subject.attribution(), subject).double().cpu().numpy())


def _counts(subject: Subject) -> Array:
    """Return which of them are valid input, (N, n) bool."""
    n, dates, bands, side, _ = subject.windows.cube.shape
    axes = subject.explainer.axes
    valid = subject.windows.valid[:, :, None]
    if "date" not in axes:
        valid = valid.any(1, keepdim=True)
    shape = (n, dates if "date" in axes else 1, bands if "band" in axes else 1, side, side)
    return np.asarray(_own(valid.expand(shape), subject).cpu().numpy())

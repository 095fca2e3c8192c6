"""Trainings compared on the same pixels: means, spreads, and which differences are more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.maps.accuracy import Accuracy, confusion
from pipeline.maps.paired import left_out, patches, standard_error
from workflows.console import quantity
from workflows.entrant import FOREST, Entrant

Array = np.ndarray[Any, Any]

# A difference of so many standard errors is taken for one.
_SURE = 2.0


@dataclass(frozen=True, slots=True)
class _Entry:
    """A class without the colour and code that no figure needs."""

    name: str
    code: int
    color: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Standing:
    """A network among the others.

    Attributes
    ----------
    name : str
        The network.
    entrants : list of Entrant
        Its trainings, one a seed.
    accuracies : list of Accuracy
        On the pixels that all were tested on.
    macro_f1, overall : float
        Means over the seeds.
    spread : float or None
        Standard deviation of the macro-F1 over the seeds; None of one.
    behind : float
        Macro-F1 that it lies behind the first.
    error : float or None
        Standard error of that difference; None for the first, and where it cannot be told.
    """

    name: str
    entrants: list[Entrant]
    accuracies: list[Accuracy]
    macro_f1: float
    overall: float
    spread: float | None
    behind: float
    error: float | None

    @property
    def level(self) -> bool:
        """Whether it cannot be told from the first."""
        return self.error is not None and self.behind <= _SURE * self.error

    def mean(self, figure: str) -> float:
        """Return the mean of a figure of its entrants."""
        return float(np.mean([getattr(e, figure) for e in self.entrants]))


@dataclass(frozen=True, kw_only=True, eq=False)
class Contest:
    """What a comparison came to: the networks, the best first; the pixels all were tested on, and the patches these make."""

    standings: list[Standing]
    classes: list[str]
    pixels: int
    left: int
    patches: int
    verdict: list[str]


def contest(entrants: Mapping[str, Sequence[Entrant]], classes: Sequence[str], *, tabulated: bool = False) -> Contest:
    """Compare trainings on the test pixels that all have in common.

    Two networks differ where the difference of their mean macro-F1 is more than two standard errors. The error holds what
    other test places would change (a jackknife over patches of touching pixels, paired) and what other seeds would
    (the spread of each). Other training labels are not in it: all learned from the same.

    Parameters
    ----------
    entrants : mapping
        Trainings by network, one a seed.
    classes : sequence of str
        Names of the classes.
    tabulated : bool
        Whether test pixels are samples of a table, which touch none.
    """
    everyone = [e for some in entrants.values() for e in some]
    common = _common(everyone)
    first = everyone[0]
    place = first.place[common[0]]
    patch = np.arange(len(place)) if tabulated else patches(place[:, 1], place[:, 2])
    entries = tuple(_Entry(name, code) for code, name in enumerate(classes))
    found: dict[str, tuple[list[Accuracy], Array]] = {}
    of = iter(common)
    for name, some in entrants.items():
        accuracies, without = [], []
        for entrant in some:
            i = next(of)
            target, predicted = entrant.target[i], entrant.predicted[i]
            accuracies.append(Accuracy.of(confusion(target, predicted, len(classes)), entries))
            without.append(left_out(target, predicted, patch, len(classes)))
        found[name] = accuracies, np.mean(without, axis=0)
    standings = _standings(entrants, found)
    return Contest(
        standings=standings,
        classes=list(classes),
        pixels=len(place),
        left=max(len(e.target) for e in everyone) - len(place),
        patches=int(patch.max()) + 1,
        verdict=verdict(standings),
    )


def _common(entrants: Sequence[Entrant]) -> list[Array]:
    """Return, for each training, which of its test pixels all others have too, in the same order for all."""
    top = np.max([e.place.max(0) for e in entrants], axis=0) + 1
    keys = [np.ravel_multi_index(tuple(e.place.T), tuple(top)) for e in entrants]
    shared = keys[0]
    for key in keys[1:]:
        shared = np.intersect1d(shared, key)
    shared = np.unique(shared)
    return [np.argsort(key)[np.searchsorted(np.sort(key), shared)] for key in keys]


def _standings(
    entrants: Mapping[str, Sequence[Entrant]], found: Mapping[str, tuple[list[Accuracy], Array]]
) -> list[Standing]:
    figures = {name: [a.macro_f1 or 0.0 for a in accuracies] for name, (accuracies, _) in found.items()}
    order = sorted(found, key=lambda name: -float(np.mean(figures[name])))
    spread = {name: float(np.std(f, ddof=1)) if len(f) > 1 else None for name, f in figures.items()}
    best = order[0]
    made = []
    for name in order:
        accuracies, without = found[name]
        error = None
        if name != best and (sampling := standard_error(found[best][1] - without)) is not None:
            seeds = sum((s or 0.0) ** 2 / len(figures[name]) for s in (spread[name], spread[best]))
            error = float(np.sqrt(sampling**2 + seeds))
        made.append(
            Standing(
                name=name,
                entrants=list(entrants[name]),
                accuracies=accuracies,
                macro_f1=float(np.mean(figures[name])),
                overall=float(np.mean([a.overall or 0.0 for a in accuracies])),
                spread=spread[name],
                behind=float(np.mean(figures[best]) - np.mean(figures[name])),
                error=error,
            )
        )
    return made


def verdict(standings: Sequence[Standing]) -> list[str]:
    """Return which network to use, and how sure that is, as sentences."""
    best, rest = standings[0], standings[1:]
    level = [s for s in rest if s.level]
    networks = [s for s in (best, *level) if s.name != FOREST]
    said = [_lead(best, rest, level)]
    if not networks:
        other = next(s for s in rest if s.name != FOREST)
        said.append(
            f"No network reaches the forest here: more labels, or `landweave tune`, may help. Of the networks use {other.name}, "
            "the best of them."
        )
        return said
    use = max(networks, key=lambda s: s.mean("speed"))
    if len(networks) > 1:
        said.append(
            f"Use {use.name}: of {_listed([s.name for s in networks])}, which these figures do not tell apart, it maps fastest "
            f"({quantity(use.mean('speed'))}px/s)."
        )
    else:
        said.append(f"Use {use.name}.")
    if FOREST in [s.name for s in (best, *level)]:
        said.append("A random forest does as well: the networks have not shown that they earn their cost here.")
    if len(best.entrants) < 2:
        said.append("With one seed it is not known how much of a difference is the luck of a training: give --seeds 3.")
    return said


def _lead(best: Standing, rest: Sequence[Standing], level: Sequence[Standing]) -> str:
    second = rest[0]
    start = f"{best.name} has the highest macro-F1, {best.macro_f1:.3f}"
    if second.error is None:
        return f"{start}; the test places are too few to say whether that is more than chance."
    ahead = f"{second.behind:.3f} ahead of {second.name}, with a standard error of {second.error:.3f}"
    if not level:
        return f"{start}, {ahead}: more than chance, of the test places and of the seeds."
    return f"{start}, {ahead}. That may be chance: it cannot be told from {_listed([s.name for s in level])}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

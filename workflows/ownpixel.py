"""What decided one pixel of a map: the map's own network, its answer there, and the attribution of that pixel alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from models.saliency.reduce import reduce
from workflows.windows import windows_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from models.bundle import Bundle
    from models.saliency.methods import Explainer
    from models.settings import Method
    from pipeline.imagery.cube import Cube
    from pipeline.samples.points import Point
    from workflows.scoring import Scorer
    from workflows.windows import Windows

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parts:
    """How much each band, or each date, has to do with a pixel.

    Attributes
    ----------
    names : tuple of str
        The n bands or dates.
    value : (n,) float64
        Sum of the attributions over the window: with their signs where the method has them, else of their sizes.
    """

    names: tuple[str, ...]
    value: Array

    @property
    def share(self) -> Array:
        """Sizes of the values, of their sum: (n,) float64. Zero where nothing counts at all."""
        sizes = np.abs(self.value)
        return np.asarray(sizes / sizes.sum()) if sizes.any() else sizes

    @property
    def order(self) -> list[int]:
        """Places of those that count anything, the largest share first."""
        return [i for i in np.argsort(-self.share, kind="stable").tolist() if self.share[i] > 0]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reason:
    """What one method says of one pixel.

    Attributes
    ----------
    method : str
        Its name.
    signed : bool
        Whether values speak for the target (positive) or against it.
    target, unit : str
        What is explained, in words, and in what it is measured.
    pixel : (S, S) float64
        The attribution over the window: per pixel the largest over bands and dates. NaN where nothing was seen. Of a
        method that replaces bands or dates everywhere at once only the pixel itself has a value.
    here : float
        Share of the sizes of all attributions that lies on the pixel itself; the rest lies on its surroundings.
    parts : dict
        ``band`` and ``date``, as far as the method tells them apart.
    """

    method: Method
    signed: bool
    target: str
    unit: str
    pixel: Array
    here: float
    parts: dict[str, Parts]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PixelStory:
    """A pixel of a map, with all that the network saw to decide it, and why it decided so.

    Attributes
    ----------
    point : Point
        Who asked.
    period : str
        The period whose map this is, in words; empty where all images are mapped together.
    ranking : tuple of (str, float)
        Classes and their calibrated probabilities, the winning one first; of a regression the quantity and its estimate.
    values : (T, C, S, S) float64
        The window in the units of the imagery; NaN where invalid.
    own : (int, int)
        Row and column of the pixel in the window.
    dates : tuple of (str or None)
        Dates in ISO form.
    reasons : tuple of Reason
        One per method.
    """

    point: Point
    period: str
    ranking: tuple[tuple[str, float], ...]
    values: Array
    own: tuple[int, int]
    dates: tuple[str | None, ...]
    reasons: tuple[Reason, ...]


def story_of(
    scorer: Scorer, bundle: Bundle, explainers: Sequence[Explainer], cube: Cube, point: Point, period: str
) -> PixelStory | None:
    """Return what decided the pixel of a point; None where nothing was seen there, so that nothing is mapped.

    Exact: the window holds all that the score of the pixel hangs on, so the attribution is that of the whole image.
    """
    here = np.array([point.row]), np.array([point.column]), np.zeros(1, np.int64)
    windows = windows_of(scorer, [cube], *here, np.full(1, np.nan))
    if not bool((windows.valid & windows.own[:, None]).any()):
        return None
    _, row, column = (int(v) for v in windows.own.nonzero()[0])
    dates = tuple(None if d is None else d.isoformat() for d in cube.dates[: scorer.network.dates])
    ranking: tuple[tuple[str, float], ...] = ()
    reasons = []
    for explainer in explainers:
        with scorer.turn():
            attribution, found = explainer(
                scorer.network, windows.cube, windows.valid, windows.time, windows.own, windows.origins
            )
        scores = found[0, :, row, column].double()
        ranking = _ranking(bundle, scores)
        named = {"band": tuple(bundle.bands), "date": _named(dates)}
        reasons.append(
            Reason(
                method=explainer.method,
                signed=explainer.signed,
                target=_target(explainer, bundle, ranking),
                unit=_unit(explainer, bundle),
                pixel=_over_window(explainer, attribution, windows),
                here=_share_here(attribution, windows),
                parts={axis: _parts(attribution, axis, named[axis], explainer.signed) for axis in explainer.axes},
            )
        )
    return PixelStory(
        point=point,
        period=period,
        ranking=ranking,
        values=_real(bundle, windows),
        own=(row, column),
        dates=dates,
        reasons=tuple(reasons),
    )


def _ranking(bundle: Bundle, scores: Tensor) -> tuple[tuple[str, float], ...]:
    if not bundle.classifies:
        task = bundle.task
        return ((task["quantity"], float(scores[0]) * task["std"] + task["mean"]),)
    shares = torch.softmax(scores / bundle.temperature, 0)
    # As the map does it: of equal scores the first class wins.
    order = torch.argsort(scores, descending=True, stable=True).tolist()
    return tuple((str(bundle.legend[i]["name"]), float(shares[i])) for i in order)


def _target(explainer: Explainer, bundle: Bundle, ranking: Sequence[tuple[str, float]]) -> str:
    if explainer.target.kind == "margin":
        return f"{ranking[0][0]} against {ranking[1][0]}"
    if explainer.target.kind == "output" and bundle.classifies:
        return str(bundle.legend[explainer.target.index]["name"])
    return ranking[0][0]


def _unit(explainer: Explainer, bundle: Bundle) -> str:
    if explainer.method.startswith("occlusion"):
        return "probability" if bundle.classifies else "standard deviations of the labels"
    of = "score" if bundle.classifies else "standard deviations of the labels"
    return of if explainer.signed else f"{of} per standard deviation of the band"


def _over_window(explainer: Explainer, attribution: Tensor, windows: Windows) -> Array:
    pixel = reduce(attribution, "pixel", signed=explainer.signed)[0].double()
    return pixel.masked_fill(~windows.valid[0].any(0), torch.nan).cpu().numpy()


def _share_here(attribution: Tensor, windows: Windows) -> float:
    sizes = attribution.double().abs().sum((1, 2))
    total = float(sizes.sum())
    return float(sizes[windows.own].sum()) / total if total > 0 else 0.0


def _parts(attribution: Tensor, axis: str, names: tuple[str, ...], signed: bool) -> Parts:
    """Return the parts of an axis of an attribution (1, T, C, S, S): sums over the other axis and the window."""
    along = (1, 3, 4) if axis == "band" else (2, 3, 4)
    values = attribution.double()
    return Parts(names=names, value=(values if signed else values.abs()).sum(along)[0].cpu().numpy())


def _named(dates: Sequence[str | None]) -> tuple[str, ...]:
    """Return what dates are called; of several those without any are counted."""
    return tuple(d or (f"step {i}" if len(dates) > 1 else "undated") for i, d in enumerate(dates, 1))


def _real(bundle: Bundle, windows: Windows) -> Array:
    mean, std = (np.asarray(v)[:, None, None] for v in (bundle.mean, bundle.std))
    values = windows.cube[0].double().cpu().numpy() * std + mean
    return np.asarray(np.where(windows.valid[0].cpu().numpy()[:, None], values, np.nan))

"""Which bands and dates count for which class: shares of an attribution, over a map or over samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio

from models.saliency.methods import SIGNED
from models.saliency.reduce import reduce
from workflows.answers import answers, batches
from workflows.explainers import explainers_of, layer_name
from workflows.lattice import even_sample

if TYPE_CHECKING:
    from models.saliency.methods import Explainer
    from models.settings import SaliencySettings
    from pipeline.samples.legend import Legend
    from workflows.scoring import Scorer
    from workflows.windows import Windows

Array = np.ndarray[Any, Any]

ALL = "all"
"""The class of everything, where there are no classes."""

AXES = ("band", "date")


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How much one band, or one date, counts for the pixels of one class.

    Attributes
    ----------
    period : str
        Name of the map's period; empty of a single map, and of samples.
    method : str
        The method of explanation.
    of : str
        Name of the class that is mapped there; `ALL` where there are none.
    axis, name : str
        ``band`` or ``date``, and which.
    mean, low, high : float
        Of the share |v_i| / sum over i of |v_i| at each pixel: mean, 10th and 90th percentile over pixels.
    value : float or None
        Mean of the value with its sign; None where the method has none.
    pixels : int
        Pixels, or samples, that it is a mean over: those of the class at which anything counts.
    """

    period: str
    method: str
    of: str
    axis: str
    name: str
    mean: float
    low: float
    high: float
    value: float | None
    pixels: int


def shares(
    values: Array, of: Array, classes: Sequence[str], names: Sequence[str], *, method: str, axis: str, period: str = ""
) -> list[Share]:
    """Return a row per class that has pixels, and name.

    Parameters
    ----------
    values : (N, n) float
        A layer per band, or per date, at N pixels; NaN where there is nothing.
    of : (N,) int
        Index of the class of each pixel; below 0 where it has none.
    classes, names : sequence of str
        Of the classes, and of the n bands or dates.
    method, axis, period : str
        As `Share` has them.
    """
    size = np.abs(values.astype(np.float64))
    total = size.sum(1)
    # Where nothing counts there is nothing to share out; NaN is not above zero either.
    good = (total > 0) & (of >= 0)
    values, part, of = values[good], size[good] / total[good, None], of[good]
    found = []
    for k, name_of in enumerate(classes):
        own = of == k
        if not own.any():
            continue
        mean, signed = part[own].mean(0), values[own].astype(np.float64).mean(0)
        low, high = np.percentile(part[own], (10, 90), axis=0)
        found += [
            Share(
                period=period, method=method, of=name_of, axis=axis, name=name, mean=float(mean[i]), low=float(low[i]),
                high=float(high[i]), value=float(signed[i]) if method in SIGNED else None, pixels=int(own.sum()),
            )
            for i, name in enumerate(names)
        ]  # fmt: skip
    return found


def shares_of_map(
    folder: Path, settings: SaliencySettings, legend: Legend | None, period: str = ""
) -> tuple[list[Share], list[str]]:
    """Return the shares that the layers of a map show, and what must be said beside them.

    Of a large map an even sample is looked at, always the same: see `even_sample`.

    Parameters
    ----------
    folder : Path
        Where the layers lie.
    settings : SaliencySettings
        Names the methods.
    legend : Legend or None
        The classes of ``classes.tif``; None of a regression.
    period : str
        As `Share` has it.
    """
    found: list[Share] = []
    notes: list[str] = []
    for method in settings.methods:
        for axis in AXES:
            name = layer_name(settings, method, "band" if axis == "band" else "date")
            path, classes = folder / f"{name}.tif", folder / "classes.tif"
            if not path.is_file():
                continue
            with rasterio.open(path) as raster:
                made_by, named = raster.tags().get("method"), [str(d) for d in raster.descriptions]
            if made_by != method:
                notes.append(f"{path.name} was made by {made_by}, not by {method}: it is left out of the summary")
                continue
            # Of a single one the share is always the whole; "none" is a date that longer periods have.
            there = [i for i, n in enumerate(named) if n != "none"]
            if len(there) < 2:
                continue
            by_class = legend is not None and classes.is_file()
            sampled = even_sample(path, classes if by_class else None)
            found += shares(
                sampled.values[there].T,
                _index(sampled.classes, legend.codes) if legend and by_class else np.zeros(len(sampled.classes), int),
                [c.name for c in legend.classes] if legend and by_class else [ALL],
                [named[i] for i in there],
                method=method,
                axis=axis,
                period=period,
            )
            if not sampled.whole:
                notes.append(
                    f"shares of {path.name} are those of {len(sampled.classes):,} pixels, an even sample: every {sampled.step}th "
                    f"row and column of {sampled.tiles} tiles of {sampled.of_tiles}"
                )
    return found, notes


def shares_of_samples(
    held_out: Sequence[tuple[Scorer, Windows]], settings: SaliencySettings, dates: Sequence[str]
) -> list[Share]:
    """Return the shares by the own pixel of samples, pooled over rounds: what decided the class each is given.

    Parameters
    ----------
    held_out : sequence of (Scorer, Windows)
        As `workflows.windows.held_out_windows` gives them.
    settings : SaliencySettings
        The methods and how they work.
    dates : sequence of str
        Names of the dates.
    """
    found: list[Share] = []
    bundle = held_out[0][0].product.bundle
    classes = [c["name"] for c in bundle.legend] if bundle.classifies else [ALL]
    explained = [(windows, explainers_of(settings, scorer.product.bundle), scorer) for scorer, windows in held_out]
    for i, method in enumerate(settings.methods):
        parts = [_own(scorer, windows, explainers[i]) for windows, explainers, scorer in explained]
        of = np.concatenate([p[0] for p in parts])
        for axis, names in (("band", bundle.bands), ("date", dates)):
            if axis in explained[0][1][i].axes and len(names) > 1:
                values = np.concatenate([p[1][axis] for p in parts])
                found += shares(values, of, classes, names, method=method, axis=axis)
    return found


def _own(scorer: Scorer, windows: Windows, explainer: Explainer) -> tuple[Array, dict[str, Array]]:
    """Return the class each place is given, (N,) int64, and what bands and dates count for it, (N, n) by axis."""
    of, values = [], {axis: [np.zeros((0, 0))] for axis in explainer.axes}
    for some in batches(windows):
        part = windows.at(some)
        with scorer.turn():
            found, outputs = explainer(scorer.network, part.cube, part.valid, part.time, part.own, part.origins)
        own = answers(scorer, outputs.permute(0, 2, 3, 1)[part.own])
        of.append(own if scorer.product.bundle.classifies else np.zeros(len(own), np.int64))
        for axis in explainer.axes:
            # All that decided the place: of a network that looks around, what lies around counts too.
            layer = reduce(found, axis, signed=explainer.signed).sum((-2, -1))
            values[axis].append(layer.cpu().numpy())
    return np.concatenate(of), {axis: np.concatenate(v[1:]) for axis, v in values.items()}


def _index(codes: Array, known: Array) -> Array:
    """Return the place of each code among those known, -1 of any other."""
    table = np.full(max(int(known.max()), int(codes.max(initial=0))) + 1, -1, np.int64)
    table[known] = np.arange(len(known))
    return np.asarray(table[codes])

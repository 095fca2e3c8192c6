"""Which bands and dates matter: what the layers of saliency say, class by class, and what replacing them costs."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.samples.chips import ChipStore
from pipeline.samples.legend import Legend
from workflows.evaluate import spoken
from workflows.explainers import layer_name
from workflows.permutation import permute, places_for
from workflows.shares import Share, shares_of_map, shares_of_samples
from workflows.tables import write_lost_csv, write_shares_csv
from workflows.windows import held_out_windows

if TYPE_CHECKING:
    from models.bundle import Bundle
    from workflows.context import Context
    from workflows.output import Output
    from workflows.permutation import Permutation
    from workflows.scoring import Scorer
    from workflows.windows import Windows

Array = np.ndarray[Any, Any]

# Names of bands or dates in a cell of the table on the console.
_SHOWN = 3


def summarise(context: Context, bundle: Bundle) -> dict[str, Any]:
    """Say which bands and dates matter: write saliency.csv and permutation.csv, and print the ones that count most.

    Shares are taken from the layers of the maps, as far as they are made; of a job without imagery, from samples of the test
    fold. What replacing a band or a date costs is measured on the test fold.

    Parameters
    ----------
    context : Context
        The job, trained.
    bundle : Bundle
        Its model.

    Returns
    -------
    dict
        Plain values, which the report is made from: ``shares`` and ``lost`` (rows as `Share` and `Lost` have them), ``places``,
        ``draws`` and ``before`` of the permutation, ``days`` (day of each date, by period, the empty one being that of the
        permutation), ``pixelwise``, ``mapped`` (whether shares are of a map, not of samples) and ``notes``.
    """
    output, console = context.output, context.console
    console.stage("importance: bands and dates")
    key = _key(context, bundle)
    # Figures of other layers, or of another model, are of no use to anybody: they are made again, and nobody need agree.
    if output.fresh("importance", key, overwrite=True) and (output.report / "saliency.csv").is_file():
        console.note("up to date")
        return _left(output)
    output.begin("importance", key)
    store = ChipStore.open(output.chips)
    held_out = held_out_windows(context, store, places_for(bundle.network))
    dates, days = _dates(context, held_out)
    legend = Legend.from_json(bundle.legend) if bundle.classifies else None
    shares, notes = _shares(context, legend, held_out, dates)
    lost = permute(held_out, bundle.bands, dates, legend.classes if legend is not None else ())
    if lost is None:
        notes.append("the test fold holds no two places: what replacing a band or a date costs is not known")
    write_shares_csv(output.report / "saliency.csv", shares)
    write_lost_csv(output.report / "permutation.csv", [] if lost is None else lost.lost)
    output.finish(
        "importance",
        key,
        shares=[dataclasses.asdict(row) for row in shares],
        lost=[] if lost is None else [dataclasses.asdict(row) for row in lost.lost],
        places=0 if lost is None else lost.places,
        draws=0 if lost is None else lost.draws,
        before={} if lost is None else lost.before,
        days={"": days} | _days_of_maps(context),
        pixelwise=bundle.network.pixelwise,
        mapped=context.samples is None,
        notes=notes,
    )
    _show(context, shares, lost)
    console.notes(notes)
    return _left(output)


def _left(output: Output) -> dict[str, Any]:
    """Return the plain values that the stage left."""
    state = output.state("importance")
    assert state is not None
    return dict(state["left"])


def _shares(
    context: Context, legend: Legend | None, held_out: Sequence[tuple[Scorer, Windows]], dates: Sequence[str]
) -> tuple[list[Share], list[str]]:
    settings = context.job.saliency
    if context.samples is not None:
        return (shares_of_samples(held_out, settings, dates) if held_out else []), []
    found: list[Share] = []
    notes: list[str] = []
    for _, output in context.maps:
        rows, said = shares_of_map(output.maps, settings, legend, output.period)
        found += rows
        notes += said
    if not found and (len(dates) > 1 or len(context.cube.bands) > 1):
        notes.append(
            "no layer says what each band or date counts on the map: shares are left out (saliency.per, predict)"
        )
    return found, notes


def _key(context: Context, bundle: Bundle) -> dict[str, Any]:
    """Return what the figures hang on: the model, how it is explained, and the layers that are there."""
    settings = context.job.saliency
    layers: dict[str, list[int]] = {}
    for _, output in [] if context.samples is not None else context.maps:
        names = [layer_name(settings, method, per) for method in settings.methods for per in ("band", "date")]
        for path in (output.maps / f"{name}.tif" for name in (*names, "classes")):
            if path.is_file():
                layers[f"{output.period}/{path.name}"] = [path.stat().st_size, path.stat().st_mtime_ns]
    return {"model": bundle.checksum, "saliency": settings.model_dump(mode="json"), "layers": layers}


def _dates(context: Context, held_out: Sequence[tuple[Scorer, Windows]]) -> tuple[list[str], dict[str, float]]:
    """Return the name of each date that the network sees, and its day, counted from the start of the period.

    A date that is another in each period, or sample, is called by its day in most of them.
    """
    if not held_out:
        return [], {}
    time = np.concatenate([w.time.cpu().numpy() for _, w in held_out])
    seen = np.concatenate([w.valid.any(-1).any(-1).cpu().numpy() for _, w in held_out])
    days = [float(np.median(time[seen[:, t], t])) if seen[:, t].any() else np.nan for t in range(time.shape[1])]
    cubes = context.imaged
    if len(cubes) == 1 and all(d is not None for d in cubes[0].dates):
        names = [str(d) for d in cubes[0].dates][: len(days)]
    else:
        names = ["never seen" if np.isnan(d) else f"day {d:.0f}" for d in days]
    if len(set(names)) < len(names):
        names = [f"{name} ({t})" for t, name in enumerate(names, 1)]
    return names, {name: day for name, day in zip(names, days, strict=True) if not np.isnan(day)}


def _days_of_maps(context: Context) -> dict[str, dict[str, float]]:
    """Return the day of each date of each map, by the map's period."""
    if context.samples is not None:
        return {}
    found = {}
    for period, output in context.maps:
        cube = context.cube_of(period)
        dated = [(d, t) for d, t in zip(cube.dates, cube.time.tolist(), strict=True) if d is not None]
        found[output.period] = {d.isoformat(): float(t) for d, t in dated}
    return found


def most_important(shares: Sequence[Share], axis: str) -> dict[str, list[tuple[str, float]]]:
    """Return the names on an axis with their mean shares, those that count most first, by class."""
    found: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for row in shares:
        if row.axis == axis:
            found[row.of].append((row.name, row.mean))
    return {of: sorted(named, key=lambda pair: -pair[1]) for of, named in found.items()}


def _show(context: Context, shares: Sequence[Share], lost: Permutation | None) -> None:
    """Print the bands and dates that count most for each class, and those that cost most: of several maps for the last."""
    last = shares[-1].period if shares else ""
    for method in context.job.saliency.methods:
        of = [row for row in shares if row.method == method and row.period == last]
        by_axis = {axis: top for axis in ("band", "date") if (top := most_important(of, axis))}
        classes = dict.fromkeys(row.of for row in of)
        rows = [(name, *(_named(by_axis[axis].get(name, [])) for axis in by_axis)) for name in classes]
        if rows:
            where = "test samples" if context.samples is not None else f"the map{f' of {spoken(last)}' if last else ''}"
            context.console.table(
                f"  what counts most by {method}, share over {where}", ("class", *(f"{a}s" for a in by_axis)), rows
            )
    if lost is None or not lost.lost:
        return
    figure = next(iter(lost.before))
    what = "error (RMSE) added" if figure == "rmse" else "overall accuracy lost"
    rows = []
    for axis in dict.fromkeys(row.axis for row in lost.lost):
        ranked = sorted((row for row in lost.lost if row.axis == axis), key=lambda row: -row.figures[figure][0])
        rows += [(axis, row.name, *(f"{v:.3f}" for v in row.figures[figure])) for row in ranked[:_SHOWN]]
    context.console.table(
        f"  {what} when replaced by another place's, of {lost.before[figure]:.3f} on {lost.places:,} test places",
        ("", "replaced", "mean", "+-"),
        rows,
    )


def _named(ranked: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in ranked[:_SHOWN])

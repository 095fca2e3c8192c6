"""Open everything a job names, print what will be done, and find what would fail: nothing is written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from models.cost import flop_per_pixel, parameters
from models.network import EncodingNetwork
from pipeline.grid import Window, crs_name, whole
from pipeline.samples.folds import TEST
from workflows.choose import plan_of
from workflows.console import quantity
from workflows.explainers import planned
from workflows.explanations import explanations_of
from workflows.fitting import begin_with, imagery_facts
from workflows.outlay import spoken_costs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.network import Network
    from models.settings import SaliencySettings
    from pipeline.imagery.cube import Cube
    from pipeline.samples.standalone import Samples
    from workflows.context import Context
    from workflows.plan import Plan

# So many dates are listed one by one.
_DATES = 12


def check(context: Context) -> None:
    """Print grid, bands, dates, labels, folds, blocks, memory and disk of a job.

    Raises
    ------
    LandweaveError
        The first thing that would fail.
    """
    job, console = context.job, context.console
    console.stage(f"check: {job.name}")
    if context.samples is not None:
        _check_samples(context, context.samples)
        return
    cube = context.cube
    box = cube.geobox
    height, width = int(box.shape.y), int(box.shape.x)
    console.table(
        "  imagery",
        ("", ""),
        [
            ("grid", f"{width} x {height} px, {crs_name(box)}, {abs(box.resolution.x):g} x {abs(box.resolution.y):g}"),
            ("bands", ", ".join(cube.bands)),
            ("dates", spoken_dates(cube)),
            *([("", str(cube.series))] if cube.series is not None else []),
            ("files", len({s.path for s in cube.sources})),
        ],
    )
    context.check_predict()
    _read_corners(context)
    labels = context.labels
    rows = labels.report()
    if rows:
        columns = list(rows[0])
        console.table("  labels", columns, [[r[c] for c in columns] for r in rows])
    folds = context.folds
    network = context.network()
    if context.pretrained is not None:
        begin_with(network, context.pretrained, cube.bands, imagery_facts(cube))
    mapped = context.seen(TEST)[0] if job.task == "forecast" else context.cube_of(context.mapped[0])
    explainers = planned(job.saliency) if "saliency" in job.predict.layers else ()
    stored = layer_bytes(network, mapped, job.predict.layers, job.saliency)
    plan = plan_of(network, mapped, job.predict, job.compute, explainers, stored=stored)
    console.table(
        "  plan",
        ("", ""),
        [
            ("folds", f"{folds.method}, {len(folds.names)} ({', '.join(folds.names)}), buffer {folds.buffer} px"),
            ("network", f"{job.model.name}: {parameters(network):,} parameters"),
            ("", f"halo {network.halo} px, stride {network.stride} px, {quantity(flop_per_pixel(network))}FLOP/px"),
            (
                "chips",
                f"{context.chip_size} x {context.chip_size} px"
                + (f", one around each {'labelled' if job.labels else 'drawn'} pixel" if context.chip_margin else ""),
            ),
            *([("forecast", spoken_horizon(context))] if job.task == "forecast" else []),
            ("maps", spoken_periods(context)),
            *planned_rows(plan, stored, len(context.maps), job.folder),
        ],
    )
    console.notes(["of each map:"] * (len(context.maps) > 1))
    console.notes(spoken_costs(plan, network, mapped, explainers, stored=stored))
    console.note("nothing was written")


def _check_samples(context: Context, samples: Samples) -> None:
    """Print what samples that stand by themselves hold, and how they will be used."""
    console, network, folds = context.console, context.network(), context.folds
    console.table(f"  {samples.what}", ("", ""), samples.spoken())
    rows = samples.report()
    console.table("  labels", list(rows[0]), [list(r.values()) for r in rows])
    console.table(
        "  plan",
        ("", ""),
        [
            ("folds", f"{folds.method}, {len(folds.names)} ({', '.join(folds.names)})"),
            ("network", f"{network.name}: {parameters(network):,} parameters"),
            ("", f"is shown {context.chip_size} x {context.chip_size} px, the label at their centre"),
            ("maps", "none: `landweave apply` maps rasters with the trained model"),
        ],
    )
    console.note("nothing was written")


def spoken_dates(cube: Cube) -> str:
    """Return the dates of a cube as people read them: all of a few, the first and the last of many."""
    dates = ["undated" if d is None else d.isoformat() for d in cube.dates]
    return ", ".join(dates) if len(dates) <= _DATES else f"{dates[0]} to {dates[-1]}, {len(dates)} dates"


def planned_rows(plan: Plan, stored: float, maps: int, folder: Path) -> list[tuple[str, object]]:
    """Return a plan as a table, with the disk that so many maps take whose layers take ``stored`` bytes per pixel."""
    box = plan.blocks.geobox
    # Parts lie beside the map that is made of them.
    disk = 2.0 * maps * plan.share * int(box.shape.y) * int(box.shape.x) * stored
    return plan.rows(disk, shutil.disk_usage(_existing(folder)).free)


def layer_bytes(network: Network, cube: Cube, layers: Sequence[str], saliency: SaliencySettings) -> float:
    """Return the bytes per pixel that the layers of a map take before compression."""
    outputs = network.outputs
    explanations = explanations_of(planned(saliency), saliency, bands=len(cube.bands), dates=network.dates)
    size = {"pixel": 4, "band": 4 * len(cube.bands), "date": 4 * network.dates, "dominant_band": 1, "dominant_date": 1}
    taken: dict[str, float] = {
        "classes": 1, "confidence": 2, "probabilities": 2 * outputs,
        "saliency": sum(size[per] for e in explanations for per in e.names),
        "value": 4, "reconstruction_error": 4, "anomaly": 2, "forecast": 4 * outputs, "surprise": 4 * outputs, "change": 4,
        "embedding": 4 * network.features if isinstance(network, EncodingNetwork) else 0,
    }  # fmt: skip
    return sum(taken[name] for name in layers)


def spoken_horizon(context: Context) -> str:
    """Return what is forecast from what, and which dates are kept to stop by and to test."""
    horizon, dates = context.horizon, context.cube.dates
    seen, steps = horizon.history, horizon.steps
    kept = (dates[start + seen : start + seen + steps] for start in (horizon.validated, horizon.tested))
    stops, tests = (f"{d[0]}" + (f" to {d[-1]}" if steps > 1 else "") for d in kept)
    bands = ", ".join(context.cube.bands[b] for b in horizon.bands)
    return f"{bands} on {steps} date{'s' * (steps > 1)} from the {seen} before; stops by {stops}, is tested by {tests}"


def spoken_periods(context: Context) -> str:
    """Return what is mapped."""
    periods = [str(p) for p in context.mapped if p is not None]
    return f"{len(periods)}: {'; '.join(periods)}" if periods else "1, of all images"


def _read_corners(context: Context) -> None:
    """Read the first and the last window of the grid: a truncated file opens, and fails only at its end.

    Raises
    ------
    ReadError
        If a file cannot be read there; names it.
    """
    cube = context.cube
    full = whole(cube.geobox)
    side = 256
    for y, x in ((0, 0), (max(0, full.height - side), max(0, full.width - side))):
        window = Window(y=y, x=x, height=min(side, full.height), width=min(side, full.width))
        if not cube.read(window).valid.any():
            context.console.note(f"no valid pixel in {window}")


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder

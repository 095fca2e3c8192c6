"""Gather what a run has left and write its report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.cost import flop_per_pixel, parameters
from models.files import RANGE_TEST
from pipeline.errors import RequestError
from pipeline.grid import crs_name
from pipeline.imagery.paths import file_name
from pipeline.maps.areas import AreaRow
from pipeline.samples.chips import ChipStore
from pipeline.samples.legend import Legend
from workflows import estimates, forecasts, reasons, sanity, unlabelled
from workflows.console import quantity
from workflows.evaluate import measured, spoken
from workflows.output import now
from workflows.report import PeriodChange, PeriodMap, ReportData, write_report
from workflows.seasons import seasons_of
from workflows.train import trained

if TYPE_CHECKING:
    from models.bundle import Bundle
    from workflows.context import Context
    from workflows.sections import Section

LAYERS = (
    "classes", "confidence", "probabilities", "value",
    "reconstruction_error", "anomaly", "embedding", "forecast", "surprise", "change",
)  # fmt: skip


EXPLAINING = ("saliency", "dominant_band", "dominant_date")
"""What the names of layers that explain begin with."""


def report(context: Context) -> Path:
    """Write ``report/index.html`` from what training, prediction and evaluation left.

    Raises
    ------
    RequestError
        If the job has not been trained or evaluated.
    """
    output = context.output
    context.console.stage("report")
    bundle = trained(context)
    evaluated = output.state("evaluate")
    if evaluated is None or not (output.report / "accuracy.json").is_file():
        raise RequestError(
            f"{output.report} holds no accuracy yet; `landweave evaluate` or `landweave run` measures it"
        )
    if evaluated["key"] != measured(context, bundle):
        raise RequestError(
            f"{output.report} was measured with another model, or on maps of other periods; `landweave evaluate` measures these"
        )
    accuracy = json.loads((output.report / "accuracy.json").read_text(encoding="utf-8"))
    store = ChipStore.open(output.chips)
    context.say(store.notes)
    histories = json.loads((output.rounds / "histories.json").read_text(encoding="utf-8"))
    range_tests = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(output.rounds.glob(f"*/{RANGE_TEST}"))]
    # Of several periods the last is shown at length.
    maps = context.maps if context.imaged else []
    shown = maps[-1][1].maps if maps else output.maps
    layers = {name: path for name in LAYERS if (path := shown / f"{name}.tif").is_file()}
    # Of several methods, each has layers by its own name.
    layers |= {path.stem: path for kind in EXPLAINING for path in sorted(shown.glob(f"{kind}*.tif"))}
    task = context.job.task
    classified = task == "classification"
    claim, sections = ({}, []) if classified else _SHOWN[task](accuracy, layers)
    rows = {name: [AreaRow(**row) for row in found] for name, found in evaluated["left"]["areas"].items()}
    data = ReportData(
        name=context.job.name,
        settings=context.job.dump(),
        software=context.software,
        run_id=bundle.checksum[:12],
        legend=Legend.from_json(bundle.legend).classes,
        accuracy=accuracy if classified else None,
        forest=accuracy["forest"] if classified else None,
        evaluated=_how(context),
        claim=claim,
        sections=sections,
        reasons=_reasons(context, bundle, layers),
        facts=_facts(context, bundle),
        rounds=accuracy["rounds"] if classified else (),
        areas=list(rows.values())[-1] if rows else (),
        periods=[
            PeriodMap(name=spoken(o.period), classes=o.maps / "classes.tif", areas=rows[o.period])
            for _, o in maps
            if o.period in rows and o.period
        ],
        changes=[
            PeriodChange(before=spoken(a), after=spoken(b), hectares=hectares)
            for a, b, hectares in evaluated["left"]["changes"]
        ],
        seasons=seasons_of(store) if classified else None,
        histories=histories,
        range_tests=range_tests,
        labels=store.table() if context.job.labels else (),
        notes=list(dict.fromkeys([*context.notes, *accuracy["notes"]])),
        calibration=accuracy["calibration"] if classified else None,
        layers=layers,
        created=now(),
    )
    return write_report(output.report / "index.html", data)


_SHOWN = {"regression": estimates.shown, "reconstruction": unlabelled.shown, "forecast": forecasts.shown}


def _reasons(context: Context, bundle: Bundle, layers: dict[str, Path]) -> list[Section]:
    """Return the sections on what the network looked at, as far as that was asked of this model."""
    found: list[Section] = []
    state = context.output.state("importance")
    if state is not None and state["done"] and state["key"]["model"] == bundle.checksum:
        classes = Legend.from_json(bundle.legend).classes if bundle.classifies else ()
        found += reasons.shown(state["left"], classes, layers)
    path = context.output.report / "sanity.json"
    checked = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if checked.get("model") == bundle.checksum:
        found += sanity.shown(checked)
    return found


def _how(context: Context) -> str:
    folds = context.folds
    whole = "whole features" if context.samples is None else f"{context.samples.what} drawn at random"
    what = {"features": whole, "blocks": "blocks of land", "field": "the folds given"}[folds.method]
    if folds.k:
        return f"Cross-validated over {folds.k} folds of {what}: each pixel was scored by a network that had not seen its fold."
    return f"The test fold holds {what} kept aside from the start."


def _facts(context: Context, bundle: Bundle) -> dict[str, str]:
    network = bundle.network
    own = {
        "Network": f"{network.name}, {parameters(network):,} parameters, {quantity(flop_per_pixel(network))}FLOP per pixel, "
        f"halo {network.halo} px",
        "Epochs": ", ".join(str(e) for e in bundle.training["epochs"]),
    }
    if context.samples is not None:
        return {name.capitalize(): text for name, text in context.samples.spoken()} | own
    cube = context.cube
    box = cube.geobox
    dates = [d.isoformat() for d in cube.dates if d]
    files: dict[str, Any] = dict.fromkeys(file_name(s.path) for s in cube.sources)
    shown = ", ".join(list(files)[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
    return {
        "Imagery": shown,
        "Bands": ", ".join(cube.bands),
        "Dates": f"{dates[0]} to {dates[-1]} ({len(dates)})" if dates else "undated",
        "Grid": f"{int(box.shape.x)} x {int(box.shape.y)} pixels of {abs(box.resolution.x):g}, {crs_name(box)}",
    } | own

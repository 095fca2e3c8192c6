"""What a forecast is worth: measured on the last dates, which no training window holds, beside the year before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.cluster import dask_client
from pipeline.files import write_json
from pipeline.samples.chips import ChipStore
from pipeline.samples.folds import TEST
from workflows.assess import assess
from workflows.evaluate import measured
from workflows.finishing import MEASURED
from workflows.horizons import window_of
from workflows.products.forecast import Forecast
from workflows.products.product import product_of
from workflows.sections import RampFigure, Section
from workflows.train import round_bundle, trained

if TYPE_CHECKING:
    from workflows.context import Context

Array = np.ndarray[Any, Any]


def evaluate_forecast(context: Context) -> dict[str, Any]:
    """Measure the forecast of the last dates on land of the test fold, write accuracy.json, and print the table."""
    output, console, horizon = context.output, context.console, context.horizon
    console.stage("evaluate: the last dates, on the test fold")
    bundle = trained(context)
    store = ChipStore.open(output.chips)
    parts = []
    with dask_client(context.job.compute, context.console.note) as client:
        for i in range(len(context.folds.rounds)):
            own, folder = round_bundle(context, i)
            most = MEASURED["forecast"]
            found = assess(own, folder, store, i, TEST, context.seen(TEST), client, most=most).scores
            parts.append(_as_forecast(own).parts(found))
    expected, came, naive = (np.concatenate(p) for p in zip(*parts, strict=True))
    # Only where all three are known, so that they are compared on the same values.
    both = np.isfinite(came) & np.isfinite(naive)
    scale = np.asarray([bundle.std[b] for b in horizon.bands])
    days = [str(d) for d in window_of(context.cube, horizon, horizon.tested).dates[horizon.history :]]
    figures: dict[str, Any] = {
        "task": "forecast",
        "n": int(both.all((1, 2)).sum()),
        "values": int(both.sum()),
        "days": days,
        "bands": {
            name: {
                "network": _rmse((expected - came)[:, :, b] * scale[b], both[:, :, b]),
                "naive": _rmse((naive - came)[:, :, b] * scale[b], both[:, :, b]),
            }
            for b, name in enumerate(bundle.task["bands"])
        },
        "by_day": [
            {
                "day": day,
                "network": _rmse((expected - came)[:, s], both[:, s]),
                "naive": _rmse((naive - came)[:, s], both[:, s]),
            }
            for s, day in enumerate(days)
        ],
        "network": _rmse(expected - came, both),
        "naive": _rmse(naive - came, both),
        "notes": [
            f"forecast of {days[0]} to {days[-1]} from the {horizon.history} dates before; windows that trained end before "
            f"{context.cube.dates[horizon.validated + horizon.history]}"
        ],
    }
    figures["skill"] = 1 - (figures["network"] / figures["naive"]) ** 2 if figures["naive"] else None
    if not both.any():
        figures["notes"].append(
            "no place of the test fold has both the last dates and those before: nothing was measured"
        )
    write_json(output.report / "accuracy.json", figures)
    output.finish("evaluate", measured(context, bundle), areas={}, changes=[])
    console.table(
        "  root mean square error of the forecast",
        ("", "network", "naive (the year before)"),
        [
            *((name, v["network"], v["naive"]) for name, v in figures["bands"].items()),
            ("all, in standard deviations", figures["network"], figures["naive"]),
        ],
    )
    context.say(figures["notes"])
    return figures


def shown(figures: dict[str, Any], layers: dict[str, Path]) -> tuple[dict[str, Any], list[Section]]:
    """Return what the report claims, and its sections."""
    skill = figures["skill"]
    claim = {
        "figure": None if skill is None else f"{100 * skill:.0f}\u00a0%",
        "headline": "Nothing was measured."
        if skill is None
        else "less squared error than the same season of the year before."
        if skill > 0
        else "is what the network gains over the same season of the year before: it has not earned its cost.",
        "sentences": [
            f"Measured on {figures['values']:,} values of dates and places that the network had not seen.",
            *(f"{n[0].upper()}{n[1:]}." for n in figures["notes"]),
        ],
    }
    ramps = []
    if "change" in layers:
        caption = (
            "Root mean square, over days and bands, of what came minus what was to be expected, in standard deviations of the "
            "validation error. Far above 1: the land did not do what it used to do."
        )
        ramps.append(RampFigure.of(layers["change"], "Change", caption, colors="magma"))
    if "forecast" in layers:
        caption = f"{figures['days'][0]}, first band. The file holds a band for each day and band."
        ramps.append(RampFigure.of(layers["forecast"], "Forecast", caption))
    rows = [(name, v["network"], v["naive"]) for name, v in figures["bands"].items()]
    rows.append(("all, in standard deviations", figures["network"], figures["naive"]))
    made = [
        Section(
            title="How good the forecast is",
            text="Root mean square errors on the last dates, per band in its own units. The naive forecast is what was seen on "
            "the nearest date of the year before.",
            columns=("Band", "Network", "The year before"), rows=rows, ramps=ramps,
        ),
        Section(
            title="Day by day",
            text="Root mean square error over all bands, in standard deviations.",
            columns=("Day", "Network", "The year before"),
            rows=[(d["day"], d["network"], d["naive"]) for d in figures["by_day"]],
        ),
    ]  # fmt: skip
    return claim, made


def _as_forecast(bundle: Any) -> Forecast:
    product = product_of(bundle)
    assert isinstance(product, Forecast)
    return product


def _rmse(error: Array, known: Array) -> float | None:
    return float(np.sqrt((error[known] ** 2).mean())) if known.any() else None

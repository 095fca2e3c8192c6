"""What an estimated number is worth: measured on places that no step before has seen, with a forest beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.forest import ForestRegressor
from pipeline.cluster import dask_client
from pipeline.files import write_json
from pipeline.samples.chips import ChipStore
from pipeline.samples.folds import TEST, TRAIN
from pipeline.samples.pixels import numbers_of, pixels_of
from workflows.assess import assess
from workflows.charts import agreement_chart
from workflows.evaluate import FOREST_PIXELS, measured
from workflows.products.product import product_of
from workflows.products.value import Value
from workflows.sections import RampFigure, Section
from workflows.train import round_bundle, trained

if TYPE_CHECKING:
    from workflows.context import Context

Array = np.ndarray[Any, Any]

# Pairs that are drawn in the report.
_SHOWN = 2_000


def evaluate_regression(context: Context) -> dict[str, Any]:
    """Measure the error of a trained regression on the test fold, write accuracy.json, and print the table."""
    output, console = context.output, context.console
    console.stage("evaluate: the test fold")
    bundle = trained(context)
    store = ChipStore.open(output.chips)
    stated, found, beside = [], [], []
    with dask_client(context.job.compute, context.console.note) as client:
        for i in range(len(context.folds.rounds)):
            own, folder = round_bundle(context, i)
            product = product_of(own)
            assert isinstance(product, Value)
            found.append(product.real(assess(own, folder, store, i, TEST, context.imaged, client).scores[:, 0]))
            stated.append(numbers_of(store, i, TEST))
            beside.append(_forest(context, store, i))
    truth, network, forest = (np.concatenate(v).astype(np.float64) for v in (stated, found, beside))
    inputs = bundle.network.dates * bundle.network.bands
    task = bundle.task
    figures: dict[str, Any] = {
        "task": "regression",
        "quantity": task["quantity"],
        "units": task["units"],
        **goodness(truth, network, inputs),
        "forest": goodness(truth, forest, inputs),
        "always_the_mean": goodness(truth, np.full(len(truth), task["mean"]), inputs),
        "rounds": [
            {"network": goodness(t, n, inputs), "forest": goodness(t, f, inputs)}
            for t, n, f in zip(stated, found, beside, strict=True)
        ],
        "pairs": _pairs(truth, network),
        "notes": [
            "the labels are no random sample of the map: figures hold for places like those labelled, and are optimistic for "
            "the map as a whole"
        ],
    }
    write_json(output.report / "accuracy.json", figures)
    output.finish("evaluate", measured(context, bundle), areas={}, changes=[])
    unit = f" in {task['units']}" if task["units"] else ""
    console.table(f"  error on the test fold{unit} ({figures['n']:,} pixels)", _COLUMNS, error_rows(figures))
    context.say(figures["notes"])
    return figures


_COLUMNS = ("", "RMSE", "MAE", "bias", "R2", "adjusted R2")


def goodness(truth: Array, found: Array, inputs: int) -> dict[str, Any]:
    """Return the usual figures of a regression; those that are not defined are None.

    Parameters
    ----------
    truth, found : (n,) float
        Stated and estimated numbers.
    inputs : int
        Numbers that an estimate is made from at least (dates times bands of one pixel), for the adjusted R2.

    Returns
    -------
    dict
        ``n``, ``rmse``, ``mae``, ``bias`` (mean of estimated minus stated), ``r2`` (1 minus the ratio of squared errors to
        those around the mean of the stated numbers), ``adjusted_r2``.
    """
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    n = len(truth)
    r2 = float(r2_score(truth, found)) if n > 1 and np.ptp(truth) > 0 else None
    free = n - inputs - 1
    return {
        "n": n,
        "rmse": float(root_mean_squared_error(truth, found)),
        "mae": float(mean_absolute_error(truth, found)),
        "bias": float((found - truth).mean()),
        "r2": r2,
        "adjusted_r2": None if r2 is None or free < 1 else 1 - (1 - r2) * (n - 1) / free,
    }


def error_rows(figures: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return the rows of the table of errors: the network, the forest, the mean."""
    named = {"network": figures, "random forest": figures["forest"], "always the mean": figures["always_the_mean"]}
    return [(name, *(of[key] for key in ("rmse", "mae", "bias", "r2", "adjusted_r2"))) for name, of in named.items()]


def shown(figures: dict[str, Any], layers: dict[str, Path]) -> tuple[dict[str, Any], list[Section]]:
    """Return what the report claims, and its sections."""
    unit = f" {figures['units']}" if figures["units"] else ""
    forest = figures["forest"]["rmse"]
    ratio = figures["rmse"] / forest if forest else 1.0
    beside = (
        "about as good, so the network has not shown that it earns its cost here"
        if abs(ratio - 1) < 0.02
        else f"the network's is {abs(1 - ratio):.0%} {'smaller' if ratio < 1 else 'larger'}"
    )
    claim = {
        "figure": f"{figures['rmse']:.3g}{unit}",
        "headline": f"is the root mean square error of {figures['quantity']} in places never seen.",
        "sentences": [
            f"Measured on {figures['n']:,} labelled pixels in places that the network had not seen.",
            *(
                []
                if figures["r2"] is None
                else [f"R² is {figures['r2']:.2f}: the share of the variance that is explained."]
            ),
            f"On average the map is {abs(figures['bias']):.3g}{unit} too {'high' if figures['bias'] > 0 else 'low'}.",
            f"A random forest on the same samples has an error of {forest:.3g}{unit}: {beside}.",
        ],
    }
    ramps = []
    if "value" in layers:
        caption = (
            f"{figures['quantity']}{f' in{unit}' if unit else ''}. The colours span the 2nd to the 98th percentile."
        )
        ramps.append(RampFigure.of(layers["value"], f"The map of {figures['quantity']}", caption))
    return claim, [
        Section(
            title="The map",
            text="A small picture of value.tif: figures on this page come from the full resolution, not from this picture.",
            ramps=ramps,
        ),
        Section(
            title="How far it is off",
            text=f"On the test fold{f', in{unit}' if unit else ''}. Bias is the mean of estimated minus stated.",
            columns=("Model", *_COLUMNS[1:]),
            rows=error_rows(figures),
            charts=[agreement_chart(figures["pairs"], figures["quantity"], figures["units"])],
        ),
    ]


def _forest(context: Context, store: ChipStore, round_: int) -> Array:
    values, _ = pixels_of(store, round_, TRAIN, None)
    numbers = numbers_of(store, round_, TRAIN)
    if len(numbers) > FOREST_PIXELS:
        drawn = np.random.default_rng(0).choice(len(numbers), FOREST_PIXELS, replace=False)
        values, numbers = values[drawn], numbers[drawn]
    model = ForestRegressor(seed=context.job.training.seed).fit(values, numbers)
    return model.predict(pixels_of(store, round_, TEST, None)[0])


def _pairs(truth: Array, found: Array) -> list[list[float]]:
    some = np.random.default_rng(0).permutation(len(truth))[:_SHOWN]
    return [[float(a), float(b)] for a, b in zip(truth[some], found[some], strict=True)]

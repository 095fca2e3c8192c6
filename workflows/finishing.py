"""What the validation fold says of a trained network's outputs, written into its bundle."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from models.calibration import expected_calibration_error, fit_temperature
from pipeline.errors import RequestError
from pipeline.samples.legend import Legend, LegendClass, palette
from workflows.assess import Assessed, probabilities
from workflows.products.forecast import Forecast
from workflows.products.product import product_of

if TYPE_CHECKING:
    from models.bundle import Bundle
    from workflows.console import Console

Array = np.ndarray[Any, Any]

MEASURED = {"reconstruction": 50_000, "forecast": 50_000}
"""Most places at which outputs of a task without labels are looked at."""

# Errors are kept as so many quantiles; between them lies less than a ten-thousandth of the places.
_QUANTILES = 10_001
# What never changes, and is forecast so, would else make any change infinitely surprising.
_LEAST = 1e-3


def calibrated(bundle: Bundle, validated: list[Assessed], console: Console) -> Bundle:
    """Return the bundle with the temperature that makes its confidence true on the validation folds."""
    scores = np.concatenate([v.scores for v in validated])
    target = np.concatenate([v.places.target for v in validated])
    temperature = fit_temperature(scores, target)
    before = expected_calibration_error(probabilities(scores, 1.0), target)
    after = expected_calibration_error(probabilities(scores, temperature), target)
    console.note(
        f"calibrated on {len(target)} validation pixels: temperature {temperature:.2f}, "
        f"calibration error {before:.3f} -> {after:.3f}"
    )
    found = {"n": len(target), "temperature": temperature, "before": before, "after": after}
    return dataclasses.replace(bundle, temperature=float(temperature), figures={"calibration": found})


def clustered(bundle: Bundle, validated: list[Assessed], trained: Assessed, clusters: int, console: Console) -> Bundle:
    """Return the bundle with the quantiles of its error, and with clusters of its embedding for classes.

    Clusters are k-means (Lloyd 1982; scikit-learn) on the embedding of training places, the largest first.

    Raises
    ------
    RequestError
        If there are fewer different places than clusters.
    """
    from sklearn.cluster import KMeans

    errors = np.concatenate([v.scores[:, 0] for v in validated])
    errors = errors[np.isfinite(errors)].astype(np.float64)
    embedding = trained.scores[:, 2:].astype(np.float64)
    embedding = embedding[np.isfinite(embedding).all(1)]
    different = len(np.unique(embedding, axis=0))
    if different < clusters:
        raise RequestError(
            f"reconstruction.clusters: {clusters} clusters need as many different places, and the samples hold {different}; "
            "ask for fewer clusters or draw more samples (chips.samples)"
        )
    model = KMeans(clusters, n_init=4, random_state=0).fit(embedding)
    size = np.bincount(model.labels_, minlength=clusters)
    order = np.argsort(-size, kind="stable")
    names = [f"cluster {i + 1}" for i in range(clusters)]
    legend = Legend(
        tuple(
            LegendClass(name=name, code=i + 1, color=color, values=(name,))
            for i, (name, color) in enumerate(zip(names, palette(names), strict=True))
        )
    )
    console.note(
        f"{clusters} clusters of {len(embedding):,} places, from {size.max() / len(embedding):.0%} to "
        f"{size.min() / len(embedding):.1%} of them each"
    )
    quantiles = np.quantile(errors, np.linspace(0, 1, _QUANTILES))
    task = bundle.task | {"errors": quantiles.tolist(), "centres": model.cluster_centers_[order].tolist()}
    return dataclasses.replace(bundle, task=task, legend=legend.to_json())


def spread(bundle: Bundle, validated: list[Assessed], days: Sequence[datetime.date | None]) -> Bundle:
    """Return the bundle with the standard deviation of its error on the validation window, per date and band.

    Raises
    ------
    RequestError
        If a date of that window, named in ``days``, has no valid value.
    """
    forecast = product_of(bundle)
    assert isinstance(forecast, Forecast)
    expected, came, _ = forecast.parts(np.concatenate([v.scores for v in validated]))
    # The error around zero, not around its mean: a forecast that is always too high has been wrong, not sure.
    squares = (came - expected) ** 2
    unseen = ~np.isfinite(squares).any((0, 2))
    if unseen.any():
        raise RequestError(
            f"forecast: no place of the validation fold has a valid value on {days[int(unseen.argmax())]}, by which it is told "
            "how far a forecast is usually off; leave that image out, or bring the images to wider steps (temporal.every)"
        )
    found = np.sqrt(np.nanmean(squares, axis=0))
    return dataclasses.replace(bundle, task=bundle.task | {"spread": np.maximum(found, _LEAST).tolist()})

"""What a reconstruction is worth: measured on land that the network has not seen, beside plain principal components."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.network import EncodingNetwork
from pipeline.cluster import dask_client
from pipeline.files import write_json
from pipeline.maps.areas import AreaRow, count_areas
from pipeline.samples.chips import ChipStore
from pipeline.samples.folds import TEST, TRAIN
from pipeline.samples.legend import Legend
from workflows.assess import assess
from workflows.evaluate import measured
from workflows.finishing import MEASURED
from workflows.sections import RampFigure, Section
from workflows.tables import write_areas_csv
from workflows.train import round_bundle, trained

if TYPE_CHECKING:
    from models.bundle import Bundle
    from workflows.context import Context

Array = np.ndarray[Any, Any]

# The silhouette takes the square of this many distances.
_SILHOUETTE = 2_000


def evaluate_reconstruction(context: Context) -> dict[str, Any]:
    """Measure the error on the test fold, write accuracy.json and areas.csv, and print the table.

    The error is in standard deviations of the bands; 1 is that of an answer that is always the mean.
    """
    output, console = context.output, context.console
    console.stage("evaluate: the test fold")
    bundle = trained(context)
    store = ChipStore.open(output.chips)
    found, beside = [], []
    with dask_client(context.job.compute, context.console.note) as client:
        for i in range(len(context.folds.rounds)):
            own, folder = round_bundle(context, i)
            one = assess(own, folder, store, i, TEST, context.imaged, client, most=MEASURED["reconstruction"])
            found.append(one.scores)
            if store.size == 1:
                beside.append(_components(own, store, i))
    errors = np.concatenate([f[:, :2] for f in found]).astype(np.float64)
    errors = errors[np.isfinite(errors).all(1)]
    mean = float(np.sqrt((errors[:, 1] ** 2).mean()))
    rmse = float(np.sqrt((errors[:, 0] ** 2).mean()))
    figures: dict[str, Any] = {
        "task": "reconstruction",
        "n": len(errors),
        "rmse": rmse,
        "explained": 1 - (rmse / mean) ** 2,
        "rmse_of_the_mean": mean,
        "rmse_of_principal_components": float(np.sqrt(np.mean(beside))) if beside else None,
        "embedding": _features(bundle),
        "silhouette": _silhouette(bundle, found[-1][:, 2:]) if len(found) == 1 else None,
        "clusters": [],
        "notes": ["no labels: what the clusters are on the ground is for you to say"],
    }
    path = context.maps[-1][1].maps / "classes.tif"
    if path.is_file():
        rows = _clusters(bundle, path)
        write_areas_csv(output.report / "areas.csv", {"": rows})
        figures["clusters"] = [{"name": r.name, "code": r.code, "pixels": r.pixels, "ha": r.counted_ha} for r in rows]
    write_json(output.report / "accuracy.json", figures)
    output.finish("evaluate", measured(context, bundle), areas={}, changes=[])
    console.table("  error on the test fold, in standard deviations", ("", "error", "explained"), error_rows(figures))
    if figures["clusters"]:
        console.table(
            "  areas (ha)", ("cluster", "counted"), [(c["name"], f"{c['ha']:.1f}") for c in figures["clusters"]]
        )
    context.say(figures["notes"])
    return figures


def error_rows(figures: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Return the rows of the table of errors: the network, principal components, the mean."""
    named = {
        "network": figures["rmse"],
        f"{figures['embedding']} principal components": figures["rmse_of_principal_components"],
        "always the mean": figures["rmse_of_the_mean"],
    }
    of_mean = figures["rmse_of_the_mean"]
    return [(name, value, 1 - (value / of_mean) ** 2) for name, value in named.items() if value is not None]


def shown(figures: dict[str, Any], layers: dict[str, Path]) -> tuple[dict[str, Any], list[Section]]:
    """Return what the report claims, and its sections."""
    beside = figures["rmse_of_principal_components"]
    sentences = [f"Measured on {figures['n']:,} pixels of land that the network had not seen, in an embedding of "
                 f"{figures['embedding']} numbers."]  # fmt: skip
    if beside is not None:
        better = figures["rmse"] < beside
        sentences.append(
            f"As many principal components leave an error of {beside:.3f}, the network {figures['rmse']:.3f}: it "
            f"{'gives back more' if better else 'has not shown that it earns its cost'}."
        )
    sentences += [f"{n[0].upper()}{n[1:]}." for n in figures["notes"]]
    claim = {
        "figure": f"{100 * figures['explained']:.1f}\u00a0%",
        "headline": "of the variance of the imagery is given back.",
        "sentences": sentences,
    }
    ramps = []
    if "reconstruction_error" in layers:
        caption = "What the network could not give back, root mean square over dates and bands, in standard deviations."
        ramps.append(RampFigure.of(layers["reconstruction_error"], "Reconstruction error", caption, colors="magma"))
    if "anomaly" in layers:
        caption = "Share of the validation samples that were given back better. Look first where it is nearly 1."
        ramps.append(RampFigure.of(layers["anomaly"], "Anomaly", caption, colors="inferno", span=(0.0, 1.0)))
    text = (
        "Errors in standard deviations of the bands, on the test fold; what is explained is the share of the variance."
    )
    made = [
        Section(
            title="What the code holds", text=text, columns=("Model", "Error", "Explained"), rows=error_rows(figures),
            ramps=ramps,
        )
    ]  # fmt: skip
    if figures["clusters"]:
        total = sum(c["ha"] for c in figures["clusters"]) or 1.0
        silhouette = figures["silhouette"]
        apart = (
            ""
            if silhouette is None
            else f" Mean silhouette on the test fold: {silhouette:.2f} (1: far apart; 0: touching)."
        )
        made.append(
            Section(
                title="Clusters",
                text="K-means on the embedding of training samples; colours mean nothing but likeness." + apart,
                columns=("Cluster", "Code", "Pixels", "Counted, ha", "Share, %"),
                rows=[(c["name"], c["code"], c["pixels"], c["ha"], 100 * c["ha"] / total) for c in figures["clusters"]],
            )
        )  # fmt: skip
    return claim, made


def _components(bundle: Bundle, store: ChipStore, round_: int) -> float:
    """Return the mean squared error of principal components, as many as the code has numbers, on the test fold.

    As the network, they are shown the mean where a date is not valid, and such values do not count.
    """
    from sklearn.decomposition import PCA

    def normal(role: int) -> Array:
        chips = store.indices(round_, role)
        values = store.read(chips[:: -(-len(chips) // MEASURED["reconstruction"])])[0][..., 0, 0]
        normalised: Array = (values - np.asarray(bundle.mean)) / np.asarray(bundle.std)
        return normalised.reshape(len(values), -1)

    x, y = normal(TRAIN), normal(TEST)
    model = PCA(min(_features(bundle), *x.shape), random_state=0).fit(np.nan_to_num(x))
    found = model.inverse_transform(model.transform(np.nan_to_num(y)))
    # Of each pixel the mean over what is valid there, as of the network's.
    return float(np.nanmean((found - y) ** 2, axis=1).mean())


def _features(bundle: Bundle) -> int:
    assert isinstance(bundle.network, EncodingNetwork)
    return bundle.network.features


def _silhouette(bundle: Bundle, embedding: Array) -> float | None:
    from sklearn.metrics import silhouette_score

    z = embedding[np.isfinite(embedding).all(1)].astype(np.float64)
    # All over the land: they come in its order.
    z = z[:: -(-len(z) // _SILHOUETTE)]
    centres = np.asarray(bundle.task["centres"])
    nearest = ((z[:, None] - centres) ** 2).sum(2).argmin(1)
    return float(silhouette_score(z, nearest)) if 1 < len(np.unique(nearest)) < len(z) else None


def _clusters(bundle: Bundle, path: Path) -> list[AreaRow]:
    counted = count_areas(path)
    rows = []
    for c in Legend.from_json(bundle.legend).classes:
        of = counted.get(c.code)
        rows.append(
            AreaRow(
                code=c.code, name=c.name, color=c.color, pixels=of.pixels if of else 0, samples=0,
                counted_ha=of.square_metres / 1e4 if of else 0.0, adjusted_ha=None, interval_ha=None, note="no labels",
            )
        )  # fmt: skip
    return rows

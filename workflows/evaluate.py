"""Accuracy on places that no step before has seen, with a random forest beside it, and the areas of the map."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from models.calibration import expected_calibration_error, reliability
from models.forest import Forest
from pipeline.engine import dask_client
from pipeline.files import write_json
from pipeline.maps.accuracy import Accuracy, confusion
from pipeline.maps.areas import AreaRow, areas, count_areas
from pipeline.samples.chips import ChipStore
from pipeline.samples.folds import TEST, TRAIN
from workflows.assess import Assessed, assess, probabilities
from workflows.report import write_areas_csv
from workflows.train import round_bundle, trained

if TYPE_CHECKING:
    from distributed import Client

    from models.bundle import Bundle
    from workflows.context import Context

Array = np.ndarray[Any, Any]

# A forest learns no more from a million pixels than from this many, and is trained once per fold.
_FOREST_PIXELS = 50_000


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was measured on the test fold.

    Attributes
    ----------
    network, forest : Accuracy
        Pooled over the folds.
    rounds : list of (Accuracy, Accuracy)
        The network and the forest, fold by fold.
    areas : list of AreaRow
        Counted and error-adjusted areas; empty where there is no map yet.
    calibration : dict
        Temperature, calibration error on the test fold before and after, reliability bins.
    notes : list of str
        What must be said beside the figures.
    """

    network: Accuracy
    forest: Accuracy
    rounds: list[tuple[Accuracy, Accuracy]]
    areas: list[AreaRow]
    calibration: dict[str, Any]
    notes: list[str]


def evaluate(context: Context) -> Evaluation:
    """Measure the accuracy of a trained job, write accuracy.json and areas.csv, and print the table.

    Every labelled pixel of the test fold is scored as the map scores it. With k folds each pixel is scored by the
    network that has not seen its fold, and all are pooled into one matrix.

    Raises
    ------
    RequestError
        If the job has not been trained.
    StaleError
        If it was trained from other inputs.
    """
    output, console = context.output, context.console
    console.stage("evaluate: the test fold")
    bundle = trained(context)
    store = ChipStore.open(output.chips)
    legend = context.legend
    rounds = range(len(context.folds.rounds))
    with dask_client(context.job.compute) as client:
        found = [_round(context, store, i, client) for i in rounds]
    legends = list(legend.classes)
    accuracies = [(Accuracy.of(c, legends), Accuracy.of(f, legends)) for c, f, _ in found]
    network = Accuracy.of(np.sum([c for c, _, _ in found], axis=0), legends)
    forest = Accuracy.of(np.sum([f for _, f, _ in found], axis=0), legends)
    notes = _notes(context, network)
    rows: list[AreaRow] = []
    classes = output.maps / "classes.tif"
    if classes.is_file():
        rows = areas(network.confusion, count_areas(classes), legends)
        write_areas_csv(output.report / "areas.csv", rows)
        if len(found) == 1:
            notes.append(_agreement(context, found[0][2]))
    else:
        notes.append("there is no map yet: areas are left out")
    evaluation = Evaluation(
        network=network,
        forest=forest,
        rounds=accuracies,
        areas=rows,
        calibration=_calibration(bundle, [a for _, _, a in found]),
        notes=notes,
    )
    write_json(
        output.report / "accuracy.json",
        network.to_json()
        | {
            "forest": forest.to_json(),
            "rounds": [{"network": n.to_json(), "forest": f.to_json()} for n, f in accuracies],
            "calibration": evaluation.calibration,
            "notes": notes,
        },
    )
    output.finish("evaluate", {"model": bundle.checksum}, areas=[dataclasses.asdict(row) for row in rows])
    _show(context, evaluation)
    return evaluation


def _round(context: Context, store: ChipStore, i: int, client: Client) -> tuple[Array, Array, Assessed]:
    """Return the confusion of the network and of the forest on the test fold of one round."""
    classes = len(context.legend.classes)
    bundle, folder = round_bundle(context, i)
    assessed = assess(bundle, folder, store, i, TEST, context.imaged, client)
    mine = confusion(assessed.places.target, assessed.scores.argmax(1), classes)
    x, y = store.pixels(i, TRAIN, _FOREST_PIXELS)
    forest = Forest(seed=context.job.training.seed).fit(x, y)
    x, y = store.pixels(i, TEST, None)
    return mine, confusion(y, forest.predict(x), classes), assessed


def _calibration(bundle: Bundle, assessed: list[Assessed]) -> dict[str, Any]:
    """Return how far confidence can be believed, measured on the test fold."""
    scores = np.concatenate([a.scores for a in assessed]).astype(np.float64)
    target = np.concatenate([a.places.target for a in assessed])

    after = probabilities(scores, bundle.temperature)
    return {
        "n": len(target),
        "temperature": bundle.temperature,
        "error_before": expected_calibration_error(probabilities(scores, 1.0), target),
        "error_after": expected_calibration_error(after, target),
        "bins": reliability(after, target),
    }


def _agreement(context: Context, assessed: Assessed) -> str:
    """Compare the finished map with the scores of the test fold: two paths to the same classes."""
    import rasterio

    codes = np.asarray(context.labels.legend.codes)[assessed.scores.argmax(1)]
    where = assessed.places
    with rasterio.open(context.output.maps / "classes.tif") as raster:
        height, width = raster.block_shapes[0]
        mapped = np.zeros(len(codes), dtype=np.int64)
        tile = (where.rows // height) * (raster.width // width + 1) + where.columns // width
        for t in np.unique(tile):
            of = np.flatnonzero(tile == t)
            y, x = int(where.rows[of[0]] // height * height), int(where.columns[of[0]] // width * width)
            values = raster.read(1, window=((y, min(y + height, raster.height)), (x, min(x + width, raster.width))))
            mapped[of] = values[where.rows[of] - y, where.columns[of] - x]
    return f"{int((mapped == codes).sum())} of {len(codes)} test pixels read back from classes.tif hold the class scored here"


def _notes(context: Context, network: Accuracy) -> list[str]:
    notes = []
    folds = context.folds
    if len(folds.rounds) > 1:
        notes.append(
            f"cross-validated over {len(folds.rounds)} folds: every labelled pixel was scored by a network that had not "
            "seen its fold; the network that maps has learned from all of them"
        )
    absent = [c["name"] for c in network.to_json()["classes"] if not c["support"]]
    if absent:
        notes.append(f"no test pixels of {', '.join(absent)}: these classes have no figures")
    notes.append(
        "the labels are no random sample of the map: figures and intervals hold for places like those labelled, and are "
        "optimistic for the map as a whole"
    )
    return notes


def _show(context: Context, evaluation: Evaluation) -> None:
    console = context.console
    mine, forest = evaluation.network.to_json(), evaluation.forest.to_json()
    rows = [
        (a["name"], a["support"], a["precision"], a["recall"], a["f1"], a["iou"], b["f1"])
        for a, b in zip(mine["classes"], forest["classes"], strict=True)
    ]
    console.table("  accuracy on the test fold", ("class", "n", "precision", "recall", "F1", "IoU", "forest F1"), rows)
    console.table(
        "",
        ("", "overall", "kappa", "macro-F1"),
        [
            (context.job.model.name, mine["overall"], mine["kappa"], mine["macro_f1"]),
            ("random forest", forest["overall"], forest["kappa"], forest["macro_f1"]),
        ],
    )
    if evaluation.areas:
        console.table(
            "  areas (ha)",
            ("class", "counted", "adjusted", "+- 95 %"),
            [
                (r.name, f"{r.counted_ha:.1f}", _hectares(r.adjusted_ha), _hectares(r.interval_ha))
                for r in evaluation.areas
            ],
        )
    context.say(evaluation.notes)


def _hectares(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}"

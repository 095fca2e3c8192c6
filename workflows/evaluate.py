"""Accuracy on places that no step before has seen, with a random forest beside it, and the areas of the map."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.calibration import expected_calibration_error, reliability
from models.forest import Forest
from pipeline.cluster import dask_client
from pipeline.files import write_json
from pipeline.maps.accuracy import Accuracy, confusion
from pipeline.maps.areas import AreaRow, areas, count_areas
from pipeline.maps.change import Change, change
from pipeline.samples.chips import ChipStore
from pipeline.samples.folds import TEST, TRAIN
from pipeline.samples.pixels import pixels_of
from workflows.assess import Assessed, assess, probabilities
from workflows.tables import write_areas_csv, write_changes_csv
from workflows.train import round_bundle, trained

if TYPE_CHECKING:
    from distributed import Client

    from models.bundle import Bundle
    from workflows.context import Context

Array = np.ndarray[Any, Any]

# A forest learns no more from a million pixels than from this many, and is trained once per fold.
FOREST_PIXELS = 50_000


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was measured on the test fold.

    Attributes
    ----------
    network, forest : Accuracy
        Pooled over the folds.
    rounds : list of (Accuracy, Accuracy)
        The network and the forest, fold by fold.
    areas : dict of lists of AreaRow
        Counted and error-adjusted areas of each map, by the name of its period, which is empty for a single one.
    changes : dict of Change
        What became of what, from each period that is mapped to the next, by the names of both.
    calibration : dict
        Temperature, calibration error on the test fold before and after, reliability bins.
    notes : list of str
        What must be said beside the figures.
    """

    network: Accuracy
    forest: Accuracy
    rounds: list[tuple[Accuracy, Accuracy]]
    areas: dict[str, list[AreaRow]]
    changes: dict[tuple[str, str], Change]
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
    with dask_client(context.job.compute, context.console.note) as client:
        found = [_round(context, store, i, client) for i in rounds]
    legends = list(legend.classes)
    accuracies = [(Accuracy.of(c, legends), Accuracy.of(f, legends)) for c, f, _ in found]
    network = Accuracy.of(np.sum([c for c, _, _ in found], axis=0), legends)
    forest = Accuracy.of(np.sum([f for _, f, _ in found], axis=0), legends)
    notes = _notes(context, network)
    maps = {o.period: o.maps / "classes.tif" for _, o in context.maps} if context.imaged else {}
    made = {name: path for name, path in maps.items() if path.is_file()}
    rows = {name: areas(network.confusion, count_areas(path), legends) for name, path in made.items()}
    changes = {(a, b): change(made[a], made[b], legends) for a, b in itertools.pairwise(made)}
    if rows:
        write_areas_csv(output.report / "areas.csv", rows)
    if changes:
        write_changes_csv(output.report / "changes.csv", changes, legends)
    else:
        # Of several maps that an earlier run made.
        (output.report / "changes.csv").unlink(missing_ok=True)
    if made and len(found) == 1:
        notes += _agreement(context, found[0][2])
    if not context.imaged:
        notes.append("the job has no imagery and maps nothing: there are no areas")
    elif len(made) < len(maps):
        notes.append(f"there is no map yet{' of some periods' if made else ''}: areas are left out")
    evaluation = Evaluation(
        network=network,
        forest=forest,
        rounds=accuracies,
        areas=rows,
        changes=changes,
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
    output.finish(
        "evaluate",
        measured(context, bundle),
        areas={name: [dataclasses.asdict(row) for row in found] for name, found in rows.items()},
        changes=[[a, b, c.hectares.tolist()] for (a, b), c in changes.items()],
    )
    _show(context, evaluation)
    return evaluation


def _round(context: Context, store: ChipStore, i: int, client: Client) -> tuple[Array, Array, Assessed]:
    """Return the confusion of the network and of the forest on the test fold of one round."""
    classes = len(context.legend.classes)
    bundle, folder = round_bundle(context, i)
    assessed = assess(bundle, folder, store, i, TEST, context.imaged, client)
    mine = confusion(assessed.places.target, assessed.scores.argmax(1), classes)
    x, y = pixels_of(store, i, TRAIN, FOREST_PIXELS)
    forest = Forest(seed=context.job.training.seed).fit(x, y)
    x, y = pixels_of(store, i, TEST, None)
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


def _agreement(context: Context, assessed: Assessed) -> list[str]:
    """Compare the finished maps with the scores of the test fold: two paths to the same classes."""
    codes = np.asarray(context.legend.codes)[assessed.scores.argmax(1)]
    where = assessed.places
    same = total = 0
    for period, output in context.maps:
        path = output.maps / "classes.tif"
        held = context.labels.periods
        # A label says what is there in its own period; where it holds at any time, any map shows it.
        of = np.flatnonzero(where.period == held.index(period)) if period in held else np.arange(0)
        if path.is_file() and len(of):
            same += int((_read_back(path, where.rows[of], where.columns[of]) == codes[of]).sum())
            total += len(of)
    return [f"{same} of {total} test pixels read back from classes.tif hold the class scored here"] if total else []


def _read_back(path: Path, rows: Array, columns: Array) -> Array:
    """Return the values of a raster at pixels, (N,) int64, read tile by tile."""
    import rasterio

    found = np.zeros(len(rows), dtype=np.int64)
    with rasterio.open(path) as raster:
        height, width = raster.block_shapes[0]
        tile = (rows // height) * (raster.width // width + 1) + columns // width
        for t in np.unique(tile):
            of = np.flatnonzero(tile == t)
            y, x = int(rows[of[0]] // height * height), int(columns[of[0]] // width * width)
            values = raster.read(1, window=((y, min(y + height, raster.height)), (x, min(x + width, raster.width))))
            found[of] = values[rows[of] - y, columns[of] - x]
    return found


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
    for period, areas_ in evaluation.areas.items():
        console.table(
            f"  areas (ha){' ' + spoken(period) if period else ''}",
            ("class", "counted", "adjusted", "+- 95 %"),
            [(r.name, f"{r.counted_ha:.1f}", _hectares(r.adjusted_ha), _hectares(r.interval_ha)) for r in areas_],
        )
    names = [c.name for c in context.legend.classes]
    for (before, after), found in evaluation.changes.items():
        console.table(
            f"  from {spoken(before)} (rows) to {spoken(after)} (columns), ha; {100 * found.changed:.1f} % changed",
            ("class", *names),
            [(name, *(f"{v:.1f}" for v in row)) for name, row in zip(names, found.hectares, strict=True)],
        )
    context.say(evaluation.notes)


def measured(context: Context, bundle: Bundle) -> dict[str, Any]:
    """Return what figures and areas hang on: the model, and the periods that are mapped."""
    periods = [str(p) for p, _ in context.maps] if context.imaged else []
    return {"model": bundle.checksum, "periods": periods}


def spoken(period: str) -> str:
    """Return the name of a period as people say it."""
    return period.replace("_", " to ")


def _hectares(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}"

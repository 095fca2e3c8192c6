"""All stages of a job, in order; what is up to date is skipped, what is not is resumed."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.cluster import workers_kept
from pipeline.files import write_text
from pipeline.imagery.paths import some
from workflows.context import Context
from workflows.estimates import evaluate_regression
from workflows.evaluate import evaluate
from workflows.explain import map_requests
from workflows.forecasts import evaluate_forecast
from workflows.importance import summarise
from workflows.predict import make_map
from workflows.prepare import prepare
from workflows.reporting import report
from workflows.train import train, trained
from workflows.unlabelled import evaluate_reconstruction

STAGES = ("prepare", "train", "predict", "evaluate", "report")


def run(context: Context, stages: tuple[str, ...] = STAGES) -> list[tuple[str, Path]]:
    """Run stages of a job while holding its output folder; return what was made and where.

    Raises
    ------
    LandweaveError
        Any fault of the request or of the work, as one message.
    """
    output = context.output
    made: list[tuple[str, Path]] = []
    with output.held(), workers_kept():
        write_text(output.job, context.job.to_yaml())
        output.log(software=context.software | {"python": platform.python_version()}, inputs=context.inputs)
        context.check_predict()
        for stage in stages:
            if stage == "predict" and len(stages) > 1 and context.samples is not None:
                context.console.note(
                    f"the {context.samples.what} come without imagery: nothing is mapped (landweave apply maps rasters)"
                )
                continue
            start = time.monotonic()
            made += _STAGES[stage](context)
            output.log(seconds={stage: round(time.monotonic() - start, 2)})
        output.log(notes=context.notes)
    return made


def _prepare(context: Context) -> list[tuple[str, Path]]:
    prepare(context)
    return [("chips", context.output.chips)]


def _train(context: Context) -> list[tuple[str, Path]]:
    train(context)
    return [("model", context.output.model)]


def _predict(context: Context) -> list[tuple[str, Path]]:
    context.console.stage("predict: blocks to maps")
    context.say(_left_over(context))
    made = []
    for output, request in map_requests(context, trained(context)):
        paths = make_map(request, output, context.console, overwrite=context.overwrite)
        made += [("maps", output.maps)] if output.period else [(path.stem, path) for path in paths]
    return made


def _left_over(context: Context) -> list[str]:
    """Return a sentence about maps of other periods that an earlier run left: they are not of this one."""
    folder = context.output.maps
    mine = {output.maps for _, output in context.maps}
    other = [p for p in sorted(folder.glob("*/")) if p not in mine]
    if folder not in mine:
        other += sorted(folder.glob("*.tif"))
    if not other:
        return []
    return [
        f"maps of an earlier run are left as they are, and are not part of this one: {some([p.name for p in other])}"
    ]


def _evaluate(context: Context) -> list[tuple[str, Path]]:
    _EVALUATIONS[context.job.task](context)
    if "saliency" in context.job.predict.layers:
        summarise(context, trained(context))
    return [("accuracy", context.output.report / "accuracy.json")]


def _report(context: Context) -> list[tuple[str, Path]]:
    return [("report", report(context))]


_EVALUATIONS: dict[str, Callable[[Context], object]] = {
    "classification": evaluate,
    "regression": evaluate_regression,
    "reconstruction": evaluate_reconstruction,
    "forecast": evaluate_forecast,
}
_STAGES = {"prepare": _prepare, "train": _train, "predict": _predict, "evaluate": _evaluate, "report": _report}

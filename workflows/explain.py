"""Explain a finished map, without making it again; and what every stage that makes layers begins with."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cluster import workers_kept
from pipeline.errors import RequestError, StaleError
from pipeline.imagery.area import area_on
from workflows.evaluate import measured
from workflows.importance import summarise
from workflows.keys import key_imagery
from workflows.output import Output, differences, plain
from workflows.points import explain_points
from workflows.predict import make_map
from workflows.products.product import OFFERED, product_of
from workflows.reporting import report
from workflows.request import MapRequest
from workflows.sanity import sanity
from workflows.train import trained

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.bundle import Bundle
    from workflows.context import Context


def map_requests(
    context: Context, bundle: Bundle, *, explained: bool = False, area: Path | None = None
) -> Iterator[tuple[Output, MapRequest]]:
    """Yield the maps of a job, one for each period, and where each lies.

    Parameters
    ----------
    context : Context
        The job.
    bundle : Bundle
        Its trained model.
    explained : bool
        Ask for saliency, whatever ``predict.layers`` says.
    area : Path, optional
        Polygons inside which maps are explained.
    """
    predict, product = context.job.predict, product_of(bundle)
    if explained and "saliency" not in predict.layers:
        predict = predict.model_copy(update={"layers": [*predict.layers, "saliency"]})
    for period, output in context.maps:
        if output.period:
            context.console.note(f"period {period}")
        cube = product.cube(context.cube_of(period))
        yield (
            output,
            MapRequest(
                bundle=bundle,
                folder=context.output.model,
                cube=cube,
                predict=predict,
                saliency=context.job.saliency,
                compute=context.job.compute,
                key_imagery=key_imagery(context),
                software=context.software,
                area=None if area is None else area_on(str(area), cube.geobox),
            ),
        )


def explain(
    context: Context, *, area: Path | None = None, at: Path | None = None, sane: bool = False
) -> list[tuple[str, Path]]:
    """Explain what a job has made: its finished maps, single points of them, or whether explanations can be trusted.

    Parameters
    ----------
    context : Context
        The job, trained and mapped.
    area : Path, optional
        Polygons; only inside them is anything written. What the network sees around them counts all the same.
    at : Path, optional
        Points: say what decided their pixels, and leave the layers of the map as they are.
    sane : bool
        Find out whether the explanations can be trusted, and leave the layers as they are.

    Returns
    -------
    list of (str, Path)
        What was made.

    Raises
    ------
    RequestError
        If there is no map yet, or its task has no saliency.
    StaleError
        If the map, or an explanation that is there, was made from other inputs.
    """
    task, output = context.job.task, context.output
    if "saliency" not in OFFERED[task]:
        fit = [name for name, layers in OFFERED.items() if "saliency" in layers]
        raise RequestError(f"a {task} is not explained by saliency; a {' and a '.join(fit)} are")
    start = time.monotonic()
    with output.held(), workers_kept():
        bundle = trained(context)
        made: list[tuple[str, Path]] = []
        if at is not None:
            context.console.stage("explain: what decided these pixels")
            made += explain_points(context, bundle, at)
        if sane:
            sanity(context, bundle)
            made.append(("sanity", output.report / "sanity.json"))
        if at is None and not sane:
            context.console.stage("explain: what the map hangs on")
            made += _maps(context, bundle, area)
            summarise(context, bundle)
            made.append(("summary", output.report / "saliency.csv"))
        state = output.state("evaluate")
        if state is not None and state["done"] and state["key"] == measured(context, bundle) and (sane or at is None):
            made.append(("report", report(context)))
        output.log(seconds={"explain": round(time.monotonic() - start, 2)})
    return made


def _maps(context: Context, bundle: Bundle, area: Path | None) -> list[tuple[str, Path]]:
    """Make the saliency layers of the maps; of samples without imagery there are none."""
    made = []
    if context.samples is not None:
        context.console.note(
            f"the {context.samples.what} come without imagery: there is no map, only their own summary"
        )
        return []
    for output, request in map_requests(context, bundle, explained=True, area=area):
        made += _layers(context, output, request)
    return made


def _layers(context: Context, output: Output, request: MapRequest) -> list[tuple[str, Path]]:
    """Make the saliency layers of one map."""
    state = output.state("predict")
    if state is None or not state["done"]:
        raise RequestError(f"{output.maps} holds no finished map yet; `landweave predict` or `landweave run` makes it")
    # How the map was cut, and which layers it has, is all the same to its explanation.
    mine, found = ({**key, "job": key["job"]["dates"]} for key in (plain(request.key("predict")), state["key"]))
    if mine != found:
        raise StaleError(
            f"{output.maps} holds a map that was made from other inputs:\n  "
            + "\n  ".join(differences(found, mine))
            + "\n`landweave predict` makes this job's."
        )
    paths = make_map(request, output, context.console, overwrite=context.overwrite, stages=("explain",))
    return [("maps", output.maps)] if output.period else [(path.stem, path) for path in paths]

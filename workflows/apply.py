"""Map new imagery with a trained bundle; bands are matched by name."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from models.bundle import Bundle
from models.network import ModelError
from models.settings import SaliencySettings
from pipeline.cluster import workers_kept
from pipeline.errors import BundleError, JobError
from pipeline.files import write_text
from pipeline.imagery.dates import Period
from pipeline.imagery.open import open_cube
from pipeline.settings import ComputeSettings, GridSettings, ImagerySettings, Settings, TemporalSettings
from workflows.check import planned_rows
from workflows.faults import explain
from workflows.fitting import dated, fitted, unlike, with_nodata
from workflows.keys import imagery_files, imagery_key
from workflows.outlay import spoken_costs
from workflows.output import Output
from workflows.overrides import apply_overrides
from workflows.predict import make_map
from workflows.products.product import chosen
from workflows.request import STAGES, MapRequest
from workflows.settings import PredictSettings

if TYPE_CHECKING:
    from pipeline.imagery.cube import Cube
    from workflows.console import Console


class ApplyJob(Settings):
    """What `apply` can be told with ``--set``."""

    imagery: list[ImagerySettings] = Field(min_length=1, description="The rasters to map.")
    grid: GridSettings | None = Field(None, description="The output grid. Default: that of the first source.")
    temporal: TemporalSettings | None = Field(
        None, description="The steps in time to which images are brought. Default: as the model was trained."
    )
    indices: list[str] | None = Field(None, description="Spectral indices. Default: as the model was trained.")
    roles: dict[str, str] | None = Field(None, description="Bands by their role in indices. Default: as trained.")
    area: str | None = Field(None, description="Polygons; only inside them is mapped.")
    predict: PredictSettings = Field(PredictSettings(), description="What is mapped.")
    saliency: SaliencySettings = Field(SaliencySettings(), description="How the map is explained.")
    compute: ComputeSettings = Field(ComputeSettings(), description="Where the work runs.")


def apply(
    folder: Path,
    rasters: list[str],
    output: Output,
    console: Console,
    *,
    overrides: tuple[str, ...] = (),
    overwrite: bool = False,
    dry_run: bool = False,
) -> list[tuple[str, Path]]:
    """Map rasters with the bundle in ``folder``.

    Raises
    ------
    BundleError
        If the bundle cannot be read, or was trained on bands, dates or scales that the imagery does not have.
    """
    bundle = load_bundle(folder)
    raw: dict[str, Any] = {"imagery": [{"path": rasters[0] if len(rasters) == 1 else rasters}]}
    apply_overrides(raw, overrides)
    try:
        job = ApplyJob.model_validate(raw)
    except ValidationError as error:
        raise JobError(explain(error, raw, ApplyJob, "apply")) from error
    console.stage(f"apply: {folder}")
    job = _as_trained(job, bundle)
    layers = chosen(job.predict.layers, bundle.task["name"])
    job = job.model_copy(update={"predict": job.predict.model_copy(update={"layers": layers})})
    cube, notes = open_cube(
        with_nodata(job.imagery, bundle),
        job.grid,
        job.area,
        keep=tuple(bundle.bands),
        temporal=job.temporal,
        indices=job.indices or (),
        roles=job.roles,
    )
    console.notes(notes)
    cube = fitted(cube, bundle, job.imagery)
    if cube.bands != tuple(bundle.bands):
        console.note(
            f"the model knows its bands by numbers alone; they are taken to be, in this order, {', '.join(cube.bands)}"
        )
    files = imagery_files(cube)
    assert job.temporal is not None
    key = imagery_key(job.imagery, job.temporal, {"names": job.indices, "roles": job.roles}, job.grid, files)
    requests = [
        (
            place,
            MapRequest(
                bundle=bundle,
                folder=folder,
                cube=dated(cube if period is None else cube.during(period), bundle),
                predict=job.predict,
                saliency=job.saliency,
                compute=job.compute,
                key_imagery=key,
                software={name: version(name) for name in ("landweave", "torch", "rasterio", "numpy")},
            ),
        )
        for period, place in _maps(job.predict, output)
    ]
    console.notes(_origin(job.predict, cube, bundle))
    for place, request in requests:
        console.notes(unlike(request.cube, bundle))
        if dry_run:
            _say_plan(request, place, console)
    if dry_run:
        return []
    made: list[tuple[str, Path]] = []
    with output.held(), workers_kept():
        write_text(output.folder / "apply.yaml", _yaml(job, folder))
        output.log(inputs={"imagery": files}, bundle={"path": str(folder), "checksum": bundle.checksum}, notes=notes)
        for place, request in requests:
            paths = make_map(request, place, console, overwrite=overwrite)
            made += [("maps", place.maps)] if place.period else [(path.stem, path) for path in paths]
    return made


def _say_plan(request: MapRequest, place: Output, console: Console) -> None:
    """Print what one map would take."""
    layers = [layer for stage in STAGES for layer in request.layers(stage)]
    plan, stored = request.plan(request.explanations, layers), float(sum(layer.stored for layer in layers))
    console.table("  plan", ("", ""), [("maps", place.maps), *planned_rows(plan, stored, 1, place.folder)])
    explainers = [e.explainer for e in request.explanations]
    console.notes(spoken_costs(plan, request.bundle.network, request.cube, explainers, stored=stored))
    console.note("nothing was written")


def _maps(predict: PredictSettings, output: Output) -> list[tuple[Period | None, Output]]:
    """Return the periods to be mapped, and where each map is to lie."""
    if predict.periods == "labels":
        raise JobError(
            "predict.periods: labels: `apply` knows no labels; give the periods as [[first day, last day], ...]"
        )
    if predict.periods is not None:
        periods = [Period(*p) for p in predict.periods]
        return [(p, Output(output.folder, p.name)) for p in periods]
    return [(Period(*predict.period) if predict.period else None, output)]


def _origin(predict: PredictSettings, cube: Cube, bundle: Bundle) -> list[str]:
    """Return a sentence where the model counts days from the start of a period, and none is stated."""
    held = bundle.imagery["periods"]
    if held == [None] or predict.period or predict.periods or cube.dates[0] is None:
        return []
    return [
        f"the model was trained on periods such as {held[-1][0]} to {held[-1][1]}, and counts days from the first of them; no "
        f"period is stated, so they are counted from the first image, {cube.dates[0]} (set predict.period to change it)"
    ]


def _as_trained(job: ApplyJob, bundle: Bundle) -> ApplyJob:
    """Return the job with steps in time and indices as the model was trained, where it says nothing."""
    trained = bundle.imagery
    return job.model_copy(
        update={
            "temporal": job.temporal or TemporalSettings.model_validate(trained["temporal"]),
            "indices": trained["indices"] if job.indices is None else job.indices,
            "roles": trained["roles"] if job.roles is None else job.roles,
        }
    )


def _yaml(job: ApplyJob, folder: Path) -> str:
    import yaml

    return yaml.safe_dump({"bundle": str(folder)} | job.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load_bundle(folder: Path) -> Bundle:
    """Load a bundle; its faults become the user's messages."""
    try:
        return Bundle.load(folder)
    except ModelError as error:
        raise BundleError(str(error)) from error

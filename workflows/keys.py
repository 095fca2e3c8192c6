"""What results depend on, as plain values: a result is up to date as long as these are the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.files import digest_of

if TYPE_CHECKING:
    from pipeline.imagery.cube import Cube
    from pipeline.settings import GridSettings, ImagerySettings, TemporalSettings
    from workflows.context import Context


def imagery_key(
    imagery: list[ImagerySettings],
    temporal: TemporalSettings,
    indices: dict[str, Any],
    grid: GridSettings | None,
    files: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return what a cube's values depend on. Places of files do not count, contents do.

    Parameters
    ----------
    imagery, temporal, grid
        Settings of the cube.
    indices : dict
        Names of spectral indices, and roles of bands in them.
    files : list of dict
        Fingerprints of the files that were read.
    """
    return {
        "settings": [pathless(entry.model_dump(mode="json")) for entry in imagery],
        "temporal": temporal.model_dump(mode="json"),
        "indices": indices,
        "grid": None if grid is None else pathless(grid.model_dump(mode="json")),
        "files": [pathless(f) for f in files],
    }


def key_imagery(context: Context) -> dict[str, Any]:
    """Return what the values of a job's cube depend on."""
    job, inputs = context.job, context.inputs
    indices = {"names": job.indices, "roles": job.roles}
    return imagery_key(job.imagery, job.temporal, indices, job.grid, inputs["imagery"] + inputs["area"])


def key_prepare(context: Context) -> dict[str, Any]:
    """Return what the chips depend on."""
    job = context.job
    return {
        "imagery": key_imagery(context),
        # Of the same labels: numbers, or classes; with land beside them, or without.
        "numeric": job.task == "regression",
        "unlabelled": context.network().semi_supervised,
        "labels": {
            "settings": None if job.labels is None else pathless(job.labels.model_dump(mode="json", by_alias=True)),
            "files": [pathless(f) for f in context.inputs["labels"]],
        },
        "classes": None if job.classes is None else [c.model_dump(mode="json") for c in job.classes],
        "folds": job.folds.model_dump(mode="json"),
        "chips": job.chips.model_dump(mode="json")
        | {"size": context.chip_size, "margin": context.chip_margin, "buffer": context.folds.buffer},
        "software": context.software,
    }


def key_train(context: Context) -> dict[str, Any]:
    """Return what the bundle depends on."""
    training = context.job.training.model_dump(mode="json")
    # Where figures are logged, on what the work is done and how often it is kept does not make another model.
    for name in ("track", "devices", "nodes", "strategy", "compile", "checkpoint_every"):
        training.pop(name, None)
    own = {name: getattr(context.job, name).model_dump(mode="json") for name in ("reconstruction", "forecast")}
    return key_prepare(context) | {
        "task": {"name": context.job.task, "settings": own.get(context.job.task)},
        "model": context.job.model.model_dump(mode="json")
        | {"pretrained": None if context.pretrained is None else context.pretrained.checksum},
        "training": training,
    }


def pathless(value: dict[str, Any]) -> dict[str, Any]:
    """Return settings without their paths: a result does not depend on where its inputs lie."""
    return {
        k: pathless(v) if isinstance(v, dict) else v
        for k, v in value.items()
        if k not in ("path", "series", "samples", "chips", "like", "mtime") or v is None
    }


def imagery_files(cube: Cube) -> list[dict[str, Any]]:
    """Return what identifies the files a cube is read from, masks included, each once."""
    from pipeline.imagery.identity import identity
    from pipeline.imagery.paths import virtual

    paths: dict[str, None] = {}
    for source in cube.sources:
        paths[source.path] = None
        if source.mask is not None:
            paths[source.mask.path] = None
    # What is neither, such as a part of a file of several rasters, has no contents of its own.
    return [identity(p) for p in paths if virtual(p) or Path(p).is_file()]


def run_id(key: dict[str, str]) -> str:
    """Return a short name for a map made from these inputs; the same inputs give the same name."""
    return digest_of(key)[:12]

"""Load a job: read, validated, its defaults written out and its paths resolved."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.errors import JobError, nearest
from pipeline.imagery.paths import virtual
from workflows.faults import explain, without_empty
from workflows.job import Job
from workflows.overrides import Loader, apply_overrides
from workflows.products.product import chosen
from workflows.settings import ModelSettings, TaskName


def load_job(path: Path, overrides: typing.Sequence[str] = ()) -> Job:
    """Read a job file, apply ``--set`` overrides and resolve its paths.

    Parameters
    ----------
    path : Path
        The YAML file. Relative paths in it are relative to its folder.
    overrides : sequence of str
        ``"training.epochs=5"``, ...; the values are read as YAML.

    Raises
    ------
    JobError
        If the file is missing, is no YAML, or holds something that is not allowed; the message names the place,
        what was found and what is allowed.
    """
    if not path.is_file():
        beside = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise JobError(f"{path}: there is no such job file{nearest(path.name, beside)}")
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)  # noqa: S506 - a SafeLoader, made stricter
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise JobError(f"{path} is not a valid YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise JobError(f"{path}: a job file holds `key: value` lines, found {type(raw).__name__}")
    raw.setdefault("name", path.stem)
    return make_job(raw, overrides, base=path.parent, where=str(path))


def make_job(raw: dict[str, Any], overrides: typing.Sequence[str] = (), *, base: Path, where: str = "job") -> Job:
    """Validate a job given as plain values; relative paths are relative to ``base``.

    Raises
    ------
    JobError
        If something in it is not allowed.
    """
    apply_overrides(raw, overrides)
    raw = without_empty(raw, Job)
    try:
        job = Job.model_validate(raw)
    except ValidationError as error:
        raise JobError(explain(error, raw, Job, where)) from error
    job = job.model_copy(update={"model": _complete(job.model, job.task, where)})
    layers = chosen(job.predict.layers, job.task)
    job = job.model_copy(update={"predict": job.predict.model_copy(update={"layers": layers})})
    job = job.model_copy(update={"name": job.name or "job"})
    job = job.model_copy(update={"output": job.output or f"runs/{job.name}"})
    return _resolve_paths(job, base.resolve())


def _complete(model: ModelSettings, task: TaskName, where: str) -> ModelSettings:
    """Validate the network's own settings by the network's own class, and write its defaults out."""
    from models.network import ModelError
    from models.table import network_class

    try:
        _check_task(model.name, task)
        settings = network_class(model.name).Settings
        own = settings(**model.settings).model_dump(mode="json")
        return ModelSettings(name=model.name, pretrained=model.pretrained, **own)
    except ModelError as error:
        raise JobError(f"{where} is not a valid job:\n  model.name: {error}") from error
    except ValidationError as error:
        raise JobError(explain(error, model.settings, settings, where, "model.")) from error


def _check_task(name: str, task: TaskName) -> None:
    """Refuse a network that cannot learn what is asked for.

    Raises
    ------
    ModelError
        If there is no such network, or it is made for another task; names those that are not.
    """
    from models.network import ModelError
    from models.table import NETWORKS, network_class

    kind = network_class(name)
    if task == "reconstruction" and kind.least > 0:
        fit = [n for n in NETWORKS if network_class(n).least == 0]
        raise ModelError(
            f"found {name}, which gives nothing back of what it is shown, as a reconstruction needs; allowed are "
            + ", ".join(fit)
        )
    if task != "classification" and kind.semi_supervised:
        raise ModelError(
            f"found {name}, which learns classes from land without labels too, and a {task} has none; take another network, "
            "such as cnn"
        )


def _resolve_paths(job: Job, base: Path) -> Job:
    def one(path: str) -> str:
        if virtual(path):
            return path
        return str(base / Path(path).expanduser())

    def many(path: str | list[str]) -> str | list[str]:
        return one(path) if isinstance(path, str) else [one(p) for p in path]

    imagery = []
    for entry in job.imagery:
        update: dict[str, Any] = {"path": many(entry.path)}
        if isinstance(entry.dates, str) and entry.dates != "bands":
            update["dates"] = one(entry.dates)
        if entry.mask and entry.mask.path is not None:
            update["mask"] = entry.mask.model_copy(update={"path": many(entry.mask.path)})
        imagery.append(entry.model_copy(update=update))
    update = {
        "imagery": imagery,
        "output": one(job.output),
    }
    if job.labels:
        named = {k: one(v) for k in ("path", "series", "chips", "samples") if (v := getattr(job.labels, k)) is not None}
        update["labels"] = job.labels.model_copy(update=named)
    if job.model.pretrained:
        update["model"] = job.model.model_copy(update={"pretrained": one(job.model.pretrained)})
    if job.area:
        update["area"] = one(job.area)
    if job.compute.scheduler:
        update["compute"] = job.compute.model_copy(update={"scheduler": one(job.compute.scheduler)})
    if job.grid and job.grid.like:
        update["grid"] = job.grid.model_copy(update={"like": one(job.grid.like)})
    return job.model_copy(update=update)

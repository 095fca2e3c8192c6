"""From rasters and labels to a job: what the data say, written as a job file with comments."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pyogrio
from pyogrio.errors import DataSourceError

from pipeline.errors import ImageryError, JobError
from pipeline.files import write_text
from pipeline.imagery.dates import date_in
from pipeline.imagery.paths import expand, stem, virtual
from workflows.console import Console
from workflows.context import Context
from workflows.job import Job
from workflows.jobtext import commented
from workflows.load import make_job

# How dates stand in the names of files, the likeliest first.
_PATTERNS = ("%Y%m%d", "%Y-%m-%d", "%Y_%m_%d", "%Y%j")
# Fields with the first and the last day of a label, as people call them.
_PERIODS = (("from", "to"), ("start_date", "end_date"), ("start", "end"))
# With so many dates a network that is made for series is taken.
_SERIES = 3


def described(rasters: list[str], labels: str, field: str | None, output: str | None = None) -> dict[str, Any]:
    """Return the smallest job for rasters and labels, as plain values; dates in the names of files are found."""
    raw: dict[str, Any] = {
        "imagery": [{"path": rasters[0] if len(rasters) == 1 else rasters}],
        "labels": {"path": labels},
    }
    if field is not None:
        raw["labels"]["field"] = field
    if output is not None:
        raw["output"] = output
    pattern, dates = _dates(rasters)
    if pattern is not None:
        raw["imagery"][0]["date"] = pattern
        if period := _period(Path(labels)):
            raw["labels"] |= dict(zip(("from", "to"), period, strict=True))
        if dates >= _SERIES:
            raw["model"] = {"name": "lstm"}
    return raw


def _dates(rasters: list[str]) -> tuple[str | None, int]:
    """Return how dates stand in the names of several files, and how many there are; None where they do not."""
    stems = [stem(path) for path in expand(list(rasters))]
    for pattern in _PATTERNS if len(stems) > 1 else ():
        with contextlib.suppress(ImageryError):
            found = {date_in(stem, pattern)[0] for stem in stems}
            if len(found) > 1:
                return pattern, len(found)
    return None, 0


def _period(labels: Path) -> tuple[str, str] | None:
    """Return the fields of a label file in which its periods stand, if there are any."""
    if labels.suffix.lower() in (".csv", ".tsv", ".txt") and labels.is_file():
        with labels.open(encoding="utf-8-sig", newline="") as stream:
            line = stream.readline()
        names = [n.strip().strip('"') for n in line.split(max(",;\t", key=line.count))]
    else:
        try:
            names = list(pyogrio.read_info(labels)["fields"])
        except DataSourceError:
            # A raster has none; what else is wrong with the file is said where it is opened.
            return None
    return next((pair for pair in _PERIODS if set(pair) <= set(names)), None)


def init(
    rasters: list[str], labels: str, field: str | None, path: Path, console: Console, *, overrides: tuple[str, ...]
) -> Job:
    """Write a commented job file from what the data say: bands, classes with codes and colours, folds.

    Raises
    ------
    JobError
        If the file is there already.
    """
    if path.exists():
        raise JobError(f"{path} is there already; give another name with -o, or remove it")
    here = Path.cwd()
    raw = described(
        [r if virtual(r) else str((here / r).absolute()) for r in rasters], str((here / labels).absolute()), field
    )
    context = Context(make_job(dict(raw, name=path.stem), overrides, base=here), console)
    filled = _filled(context, raw)
    job = make_job(dict(filled, name=path.stem), overrides, base=path.parent)
    for override in overrides:
        _keep(filled, job, override)
    write_text(path, commented(filled) + "\n")
    return job


def _filled(context: Context, raw: dict[str, Any]) -> dict[str, Any]:
    """Write out what was found, so that an analyst can change it."""
    cube, legend, folds = context.cube, context.labels.legend, context.folds
    entry = dict(raw["imagery"][0])
    if len({s.path for s in cube.sources}) == 1:
        entry["bands"] = {b: i for s in cube.sources for b, i in zip(s.bands, s.indexes, strict=True)}
    return raw | {
        "imagery": [entry],
        "classes": [
            {"name": c.name, "code": c.code, "color": c.color, "labels": list(c.values)} for c in legend.classes
        ],
        "folds": {"method": folds.method, "k": folds.k or 0} | _fold_field(context),
        "model": {"name": context.job.model.name},
    }


def _fold_field(context: Context) -> dict[str, Any]:
    field = context.job.folds.field or ("fold" if context.folds.method == "field" else None)
    return {"field": field} if field else {}


def _keep(raw: dict[str, Any], job: Job, override: str) -> None:
    """Write an overridden value into the job file too."""
    keys = override.partition("=")[0].strip().split(".")
    value: Any = job.dump()
    node: Any = raw
    for i, key in enumerate(keys):
        value = value[int(key)] if isinstance(value, list) else value[key]
        last = i == len(keys) - 1
        if isinstance(node, list):
            if last:
                node[int(key)] = value
            node = node[int(key)]
        else:
            node = node.__setitem__(key, value) if last else node.setdefault(key, {})

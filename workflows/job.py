"""The job file: one YAML document that describes the whole work, validated strictly."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from models.settings import LossName, SaliencySettings, TrainingSettings
from pipeline.errors import JobError, nearest
from pipeline.imagery.paths import virtual
from pipeline.settings import (
    ChipSettings,
    ClassSettings,
    ComputeSettings,
    FoldSettings,
    GridSettings,
    ImagerySettings,
    LabelSettings,
    Settings,
    TemporalSettings,
)
from workflows.faults import explain, without_empty
from workflows.overrides import Loader, apply_overrides
from workflows.products.product import chosen
from workflows.settings import (
    LABELLED,
    ForecastSettings,
    ModelSettings,
    PredictSettings,
    ReconstructionSettings,
    TaskName,
    TuneSettings,
)

# By name, as `models.losses` has them: a job is read without torch.
LOSSES: dict[str, tuple[LossName, ...]] = {
    "classification": ("cross_entropy", "binary_cross_entropy", "focal", "dice"),
    "regression": ("mean_squared", "absolute", "huber"),
    "forecast": ("mean_squared",),
    "reconstruction": ("mean_squared",),
}
"""Losses that fit each task."""


class Job(Settings):
    """One land-cover mapping job, from rasters and labels to maps and a report."""

    name: str = Field("", description="Name of the job. Default: the job file's stem.")
    output: str = Field("", description="Folder for everything that is made. Default: runs/<name>.")
    task: TaskName = Field(
        "classification",
        description="What is learnt. classification: classes of labels; regression: a number that labels state; forecast: the "
        "next dates of a series, which needs no labels; reconstruction: the imagery itself through a narrow code, which needs "
        "none either.",
    )
    imagery: list[ImagerySettings] = Field(
        [],
        description="The rasters; all are put on one grid. Labels that come with their values, a table of series "
        "(labels.series) or a folder of chips (labels.chips), need none.",
    )
    grid: GridSettings | None = Field(None, description="The output grid. Default: that of the first source.")
    temporal: TemporalSettings = Field(TemporalSettings(), description="The steps in time to which images are brought.")
    indices: list[str] = Field(
        [], description="Spectral indices computed on the way and added to the bands: ndvi, ndwi, evi, nbr, ..."
    )
    roles: dict[str, str] = Field(
        {}, description="Bands by their role in indices (red, nir, swir1, ...), where their names do not say it."
    )
    area: str | None = Field(None, description="Polygons; only inside them is trained and mapped. Default: everywhere.")
    labels: LabelSettings | None = Field(
        None, description="The reference data: what is where. A reconstruction and a forecast need none."
    )
    classes: list[ClassSettings] | None = Field(
        None, description="The classes of the map. Default: every value of the label field, sorted, with a palette."
    )
    folds: FoldSettings = Field(FoldSettings(), description="How labelled places are divided for honest figures.")
    chips: ChipSettings = Field(ChipSettings(), description="Training samples.")
    reconstruction: ReconstructionSettings = Field(
        ReconstructionSettings(), description="What is made of an embedding (task: reconstruction)."
    )
    forecast: ForecastSettings = Field(ForecastSettings(), description="What is forecast (task: forecast).")
    model: ModelSettings = Field(default_factory=lambda: ModelSettings(), description="The network and its settings.")
    training: TrainingSettings = Field(TrainingSettings(), description="How the network learns.")
    tune: TuneSettings = Field(TuneSettings(), description="How better settings are looked for.")
    predict: PredictSettings = Field(PredictSettings(), description="What is mapped.")
    saliency: SaliencySettings = Field(SaliencySettings(), description="How the map is explained.")
    compute: ComputeSettings = Field(ComputeSettings(), description="Where the work runs.")

    @model_validator(mode="after")
    def _labels_of_the_task(self) -> typing.Self:
        labelled = self.task in LABELLED
        if labelled and self.labels is None:
            raise ValueError(
                f"a {self.task} needs `labels`, found none; without labels there are task: reconstruction (a network that "
                "encodes, such as autoencoder) and task: forecast"
            )
        if self.task == "regression" and self.classes is not None:
            raise ValueError("a regression estimates numbers, found `classes`: leave them out")
        if self.task == "regression" and self.labels is not None and self.labels.path is None:
            raise ValueError(
                "a regression needs imagery and labels on it (labels.path), found a table or a folder of samples"
            )
        if not labelled and self.labels is not None:
            raise ValueError(f"a {self.task} learns without labels, found `labels`: leave them out")
        if not labelled and self.classes is not None:
            raise ValueError(f"a {self.task} knows no classes, found `classes`: leave them out")
        return self

    @model_validator(mode="after")
    def _training_of_the_task(self) -> typing.Self:
        loss, allowed = self.training.loss, LOSSES[self.task]
        names = [loss.name] if isinstance(loss.name, str) else loss.name
        if strange := [name for name in names if name not in ("auto", *allowed)]:
            raise ValueError(
                f"training.loss.name: found {strange[0]}, which is not made for a {self.task}; allowed are auto, "
                + ", ".join(allowed)
            )
        if self.task != "classification" and loss.class_weights not in ("auto", "none"):
            raise ValueError(
                f"training.loss.class_weights: found {loss.class_weights}, and a {self.task} has no classes to weigh; leave it "
                "out"
            )
        if self.task != "classification" and loss.label_smoothing:
            raise ValueError(
                f"training.loss.label_smoothing: found {loss.label_smoothing:g}, and a {self.task} has no classes over which a "
                "label could be spread; leave it out"
            )
        if self.task == "forecast" and self.temporal.fill != "none":
            raise ValueError(
                f"temporal.fill: found {self.temporal.fill}, which fills gaps from images of later dates: a forecast would be "
                "shown what it is to foretell; leave it out, for networks are told which dates are missing"
            )
        return self

    @model_validator(mode="after")
    def _target_of_the_task(self) -> typing.Self:
        if self.task != "classification" and self.saliency.target != "winner":
            raise ValueError(
                f"saliency.target: found {self.saliency.target}, but a {self.task} has no classes; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _imagery_or_samples(self) -> typing.Self:
        labels = self.labels
        alone = None if labels is None else "series" if labels.series is not None else "chips" if labels.chips else None
        if not self.imagery and alone is None:
            raise ValueError(
                "a job needs `imagery` (rasters, with labels on them), `labels.series` (a table of labelled series) or "
                "`labels.chips` (a folder of labelled chips), found none of them"
            )
        if self.imagery and alone is not None:
            raise ValueError(
                f"labels.{alone} trains without imagery, found both: leave `imagery` out, and map rasters "
                "with the trained model by `landweave apply`"
            )
        return self

    @property
    def folder(self) -> Path:
        """The output folder."""
        return Path(self.output)

    def dump(self) -> dict[str, Any]:
        """Return the job as plain values, every default written out."""
        return self.model_dump(mode="json", by_alias=True)

    def to_yaml(self) -> str:
        """Return the job as YAML, every default written out."""
        return yaml.safe_dump(self.dump(), sort_keys=False, allow_unicode=True)


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

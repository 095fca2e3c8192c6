"""The job file: one YAML document that describes the whole work, validated strictly."""

from __future__ import annotations

import datetime
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.settings import LossName, SaliencySettings, TrainingSettings
from pipeline.errors import JobError, nearest
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
from workflows.products.product import chosen
from workflows.settings import TuneSettings

LABELLED = ("classification", "regression")
"""Tasks that learn from labels."""

# By name, as `models.losses` has them: a job is read without torch.
LOSSES: dict[str, tuple[LossName, ...]] = {
    "classification": ("cross_entropy", "binary_cross_entropy", "focal", "dice"),
    "regression": ("mean_squared", "absolute", "huber"),
    "forecast": ("mean_squared",),
    "reconstruction": ("mean_squared",),
}
"""Losses that fit each task."""

Dates = tuple[datetime.date, datetime.date]
TaskName = Literal["classification", "regression", "forecast", "reconstruction"]
LayerName = Literal[
    "classes", "confidence", "probabilities", "saliency", "value", "reconstruction_error", "anomaly", "embedding",
    "forecast", "surprise", "change",
]  # fmt: skip


class ModelSettings(BaseModel):
    """The network by name, and the network's own settings beside it (`landweave networks` lists them)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field("unet", description="Name of the network; `landweave networks` lists what there is.")
    pretrained: str | None = Field(
        None,
        description="Folder of a trained model of the same network and bands: all but its output layer is where training "
        "begins. An autoencoder that has learnt from land without labels needs fewer of them.",
    )

    @property
    def settings(self) -> dict[str, Any]:
        """The network's own settings."""
        return dict(self.__pydantic_extra__ or {})


class PredictSettings(Settings):
    """What is mapped, and in what pieces."""

    layers: Annotated[list[LayerName], Field(min_length=1)] | Literal["auto"] = Field(
        "auto",
        description="Rasters to make. Of a classification: classes, confidence, probabilities, saliency (auto: all but "
        "probabilities). Of a regression: value, saliency. Of a reconstruction: classes (clusters), "
        "reconstruction_error, anomaly (auto: these three), embedding. Of a forecast: forecast, surprise, change.",
    )
    block: int | Literal["auto"] = Field(
        "auto", description="Side of a block's core in pixels; auto: from the network and the memory budget."
    )
    overviews: Literal["mode", "nearest"] = Field(
        "mode",
        description="How the class map's overviews are made. mode: the commonest class, which shows rare classes less "
        "than they are; nearest: true shares, but speckled.",
    )
    retries: int = Field(2, ge=0, le=10, description="How often a failed block is tried again.")
    period: Dates | None = Field(
        None,
        description="First and last day of the period that is mapped, such as [2021-09-01, 2022-08-31]. Default: where "
        "labels hold for periods, the latest of them; else all images.",
    )
    periods: list[Dates] | Literal["labels"] | None = Field(
        None,
        description="Several periods, a map each (in maps/<first day>_<last day>); labels: those in which labels hold.",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> typing.Self:
        if self.period is not None and self.periods is not None:
            raise ValueError("give `period` for one map or `periods` for several, found both")
        for first, last in [self.period] if self.period else self.periods if isinstance(self.periods, list) else []:
            if last < first:
                raise ValueError(f"a period has its first day first, found [{first}, {last}]")
        return self


class ReconstructionSettings(Settings):
    """What is made of an embedding (task: reconstruction)."""

    clusters: int = Field(8, ge=2, le=254, description="Classes of the map, by k-means on the embedding.")


class ForecastSettings(Settings):
    """What is forecast (task: forecast). The last `steps` dates are kept for the test, those before them to stop by."""

    history: int | None = Field(
        None,
        ge=1,
        description="Dates that the network sees. Default: those of about a year, half of the series at most.",
    )
    steps: int = Field(1, ge=1, description="Dates to come that it forecasts.")
    bands: list[str] | None = Field(None, min_length=1, description="Bands that are forecast. Default: all.")


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


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice: YAML's own rule, which PyYAML does not hold."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key '{key}' is given twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


# Bare dates stay text: `date: 2021-06-30` is a setting like any other, and its own parser gives the better message.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


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
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader, made stricter
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
    from models.network import ModelError, network_class

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
    from models.network import NETWORKS, ModelError, network_class

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


def apply_overrides(raw: dict[str, Any], overrides: typing.Sequence[str]) -> None:
    """Write ``KEY=VALUE`` overrides into a job given as plain values."""
    for override in overrides:
        _override(raw, override)


def _override(raw: dict[str, Any], text: str) -> None:
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise JobError(f"--set {text}: expected KEY=VALUE, such as --set training.epochs=5")
    *parents, last = key.strip().split(".")
    try:
        # A pattern of dates, %Y%m%d, is text; only a YAML file could begin so, with a directive.
        parsed = value if value.startswith("%") else yaml.load(value, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise JobError(f"--set {text}: the value is not valid YAML: {' '.join(str(error).split())}") from error
    node: Any = raw
    for part in parents:
        node = _child(node, part, text)
    if isinstance(node, list):
        node[_index(node, last, text)] = parsed
    else:
        node[last] = parsed


def _child(node: Any, part: str, text: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, part, text)]
    if node.get(part) is None:
        node[part] = {}
    if not isinstance(node[part], dict | list):
        raise JobError(f"--set {text}: '{part}' holds the value {node[part]!r}, which has no parts to be set")
    return node[part]


def _index(node: list[Any], part: str, text: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise JobError(f"--set {text}: '{part}' must be a number from 0 to {len(node) - 1} (a list stands there)")
    return int(part)


def explain(error: ValidationError, raw: Any, model: type[BaseModel], where: str, prefix: str = "") -> str:
    """Return one message for all faults pydantic found: the place, what was found, what is allowed."""
    lines: dict[str, list[str]] = {}
    for fault in error.errors():
        place, parent = _place(fault["loc"], raw, model)
        if fault["type"] == "extra_forbidden":
            allowed = [f.alias or n for n, f in parent.model_fields.items()] if parent else []
            text = f"unknown key{nearest(str(fault['loc'][-1]), allowed)} Allowed here: {', '.join(allowed)}"
        elif fault["type"] == "missing":
            text = "this is required and missing"
        else:
            message = fault["msg"].removeprefix("Value error, ")
            text = message if "found" in message else f"{message}; found {fault['input']!r}"
        lines.setdefault(prefix + place, []).append(text)
    body = [f"  {place}: {' - or: '.join(dict.fromkeys(texts))}" for place, texts in lines.items()]
    return "\n".join([f"{where} is not a valid job:", *body])


def _place(loc: tuple[int | str, ...], raw: Any, model: type[BaseModel]) -> tuple[str, type[BaseModel] | None]:
    """Return the dotted place of a fault, and the section in which it lies."""
    names: list[str] = []
    section: type[BaseModel] | None = model
    holder: type[BaseModel] | None = model
    node = raw
    for part in loc:
        # pydantic adds the branch of a union ("str", "list[str]") to the place; only keys of the file are kept.
        inside = isinstance(node, list) and isinstance(part, int)
        known = isinstance(node, dict) and (part in node or (section is not None and part in _keys(section)))
        if not inside and not known:
            continue
        names.append(str(part))
        holder = section
        if isinstance(node, dict):
            section = _section(section, str(part))
            node = node.get(part)
        elif isinstance(part, int):
            # A list that is too short has no such entry.
            node = node[part] if part < len(node) else None
    return ".".join(names) or "job", holder


def _keys(section: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in section.model_fields.items()}


def _section(section: type[BaseModel] | None, key: str) -> type[BaseModel] | None:
    """Return the model of the section under ``key``, looking through Optional and list."""
    for name, field in (section.model_fields if section else {}).items():
        if key == (field.alias or name):
            return model_in(field.annotation)
    return None


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the settings class inside an annotation such as ``list[X] | None``, or None."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((m for m in map(model_in, typing.get_args(annotation)) if m), None)


def without_empty(raw: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Return plain values without sections that hold nothing: `training:` with all its keys commented out is its default."""
    kept = {}
    for key, value in raw.items():
        section = _section(model, key)
        field = next((f for n, f in model.model_fields.items() if key == (f.alias or n)), None)
        if value is None and section and field and type(None) not in typing.get_args(field.annotation):
            continue
        kept[key] = without_empty(value, section) if section and isinstance(value, dict) else value
    return kept


def _resolve_paths(job: Job, base: Path) -> Job:
    def one(path: str) -> str:
        if path.startswith("/vsi") or "://" in path:
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
    if job.grid and job.grid.like:
        update["grid"] = job.grid.model_copy(update={"like": one(job.grid.like)})
    return job.model_copy(update=update)

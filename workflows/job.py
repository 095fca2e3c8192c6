"""The job file: one YAML document that describes the whole work, validated strictly."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, model_validator

from models.settings import LossName, SaliencySettings, TrainingSettings
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

"""The parts of the job file that only workflows read. Each option is documented at its field, and nowhere else."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.settings import Settings

LABELLED = ("classification", "regression")
"""Tasks that learn from labels."""

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
    engine: Literal["torch", "auto", "torch-bf16", "torch-fp16", "onnx", "onnx-int8"] = Field(
        "torch",
        description="What scores pixels. torch: the exact path, single precision, the same on any machine. The others are "
        "taken only if, before the map is made, 99.9 % of sampled pixels get the same class as on the exact path; else the "
        "exact path is, and it is said. auto: half precision where this machine computes faster in it. torch-bf16, "
        "torch-fp16: half precision. onnx, onnx-int8: ONNX Runtime in single precision or eight bits (needs the extra "
        "`onnx`).",
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
    def _one_of_both(self) -> Self:
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


class RangeSettings(Settings):
    """Numbers from which a trial draws one."""

    low: float = Field(description="The smallest.")
    high: float = Field(description="The largest.")
    log: bool = Field(False, description="Draw evenly over powers, as learning rates want it.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low must be less than high, found {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"with log, low must be more than 0, found {self.low:g}")
        return self


class TuneSettings(Settings):
    """How `landweave tune` looks for better settings; no other command reads it."""

    trials: int = Field(30, ge=1, description="Trainings to be tried, the job as it stands among them.")
    epochs: int | None = Field(
        None, ge=1, description="Most epochs of a trial, under a schedule of that length. Default: as the job trains."
    )
    minutes: float | None = Field(
        None, gt=0, description="Begin no further trial after so many minutes of a call. Default: all trials are run."
    )
    seed: int = Field(0, ge=0, description="Seed of what the trials draw.")
    space: dict[str, RangeSettings | list[Any]] | None = Field(
        None,
        description="What is varied: fields of `model` and `training` by their dotted names, each with {low, high, log} or a "
        "list of values. Default: learning rate, weight decay, and of the network its width and dropout.",
    )

    @field_validator("space", mode="before")
    @classmethod
    def _described(cls, space: Any) -> Any:
        for name, found in space.items() if isinstance(space, dict) else ():
            numbers = isinstance(found, dict) and {"low", "high"} <= set(found) <= {"low", "high", "log"}
            several = isinstance(found, list) and len(found) > 1
            if not numbers and not several:
                raise ValueError(
                    f"{name}: give {{low: ..., high: ...}}, with log: true for powers, or a list of two values or more; "
                    f"found {found!r}"
                )
        if space == {}:
            raise ValueError("nothing to vary; name a field, or leave `space` out for the default; found {}")
        return space

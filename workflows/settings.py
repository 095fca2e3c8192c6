"""The parts of the job file that are about comparing trainings. Each option is documented at its field, and nowhere else."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from pipeline.settings import Settings


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

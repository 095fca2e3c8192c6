"""The parts of the job file that `models` reads. Each option is documented at its field, and nowhere else."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Initialisation = Literal["auto", "kaiming", "xavier", "normal"]
LossName = Literal["cross_entropy", "binary_cross_entropy", "focal", "dice", "mean_squared", "absolute", "huber"]


class _Settings(BaseModel):
    """Base of every section: unknown keys are refused, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class OptimizerSettings(_Settings):
    """How weights follow the gradient."""

    name: Literal["adamw", "adam", "nadam", "sgd", "rmsprop", "adagrad", "adadelta"] = Field(
        "adamw", description="adamw, adam, nadam, sgd, rmsprop, adagrad or adadelta."
    )
    lr: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        0.001,
        description="Learning rate at its highest. sgd wants about 0.01 to 0.1, adadelta about 1. auto: found by a range "
        "test before training, whose curve is in the report.",
    )
    weight_decay: float = Field(0.01, ge=0, description="Pull of the weights towards zero.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum (sgd only).")
    nesterov: bool = Field(True, description="Momentum looks ahead, after Nesterov (sgd only).")


class ScheduleSettings(_Settings):
    """The learning rate over the epochs; the name alone will do: `schedule: step`."""

    name: Literal["cosine", "constant", "step", "one_cycle", "reduce_on_plateau"] = Field(
        "cosine",
        description="cosine: falls smoothly to a hundredth; constant; step: falls at once, every so many epochs; one_cycle: "
        "rises over a third of the training, then falls to nearly nothing; reduce_on_plateau: falls when the loss on the "
        "validation fold has stopped falling.",
    )
    every: int = Field(30, ge=1, description="Epochs from fall to fall (step).")
    factor: float = Field(
        0.1, gt=0, lt=1, description="What is left of the rate at each fall (step, reduce_on_plateau)."
    )
    patience: int = Field(10, ge=0, description="Epochs without a lower loss before a fall (reduce_on_plateau).")


def _by_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class LossSettings(_Settings):
    """What is made small."""

    name: Literal["auto"] | LossName | Annotated[list[LossName], Field(min_length=1)] = Field(
        "auto",
        description="Of classes: cross_entropy; binary_cross_entropy, for two; focal, which dwells on pixels that are hard; "
        "dice, the overlap of each class, whatever its size. Of numbers: mean_squared, absolute or huber. A list is "
        "their sum. auto: cross_entropy or mean_squared, by what is learnt.",
    )
    gamma: float = Field(2.0, ge=0, description="How much less an easy pixel counts (focal); 0: not at all.")
    delta: float = Field(
        1.0, gt=0, description="Error from which a loss is no longer squared (huber), in the units of what is learnt."
    )
    class_weights: Literal["auto", "balanced", "none"] | list[Annotated[float, Field(ge=0)]] = Field(
        "auto",
        description="balanced: classes count alike, whatever their number of labelled pixels; none: pixels count "
        "alike; or a list of weights in the order of the legend. auto: balanced where labels are polygons, whose pixels say "
        "how large somebody drew them; none where they are points, samples of a table or a raster, whose numbers say how "
        "common a class is.",
    )

    def resolved(self, *, drawn: bool) -> LossSettings:
        """Return the settings with ``auto`` decided by whether labels are polygons that somebody drew."""
        if self.class_weights != "auto":
            return self
        return self.model_copy(update={"class_weights": "balanced" if drawn else "none"})

    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of each label that is spread evenly over all classes; tames false labels. Dice knows none.",
    )


class TrainingSettings(_Settings):
    """How the network learns."""

    epochs: int = Field(150, ge=1, description="Most passes over the training labels.")
    batch_size: int | Literal["auto"] = Field(
        "auto",
        description="Chips per step, or pixels for pixel networks. auto: about 16 steps an epoch for chips (2 to 16 "
        "chips each), 32 for pixels (16 to 1024 each).",
    )
    optimizer: OptimizerSettings = Field(OptimizerSettings(), description="How weights follow the gradient.")
    schedule: Annotated[ScheduleSettings, BeforeValidator(_by_name, json_schema_input_type=str | ScheduleSettings)] = (
        Field(ScheduleSettings(), description="The learning rate over the epochs.")
    )
    warmup: int = Field(
        0, ge=0, description="Epochs in which the learning rate rises from a 25th to its height, by each step."
    )
    clip: float | None = Field(
        None, gt=0, description="Largest norm of the gradient; a larger one is shortened to it. null: none is."
    )
    accumulate: int = Field(1, ge=1, description="Batches that make one step together: large steps in little memory.")
    initialisation: Initialisation = Field(
        "auto",
        description="Weights at the start of linear and convolutional layers: kaiming, for relu and its like; xavier, for "
        "tanh and sigmoid; normal, with a deviation of 0.02; auto: what PyTorch gives each layer.",
    )
    loss: LossSettings = Field(LossSettings(), description="What is made small.")
    l1: float = Field(
        0.0,
        ge=0,
        description="Penalty on the sum of absolute weights, added to the loss; makes many of them nearly zero.",
    )
    l2: float = Field(
        0.0, ge=0, description="Penalty on the sum of squared weights, added to the loss; apart from weight_decay."
    )
    early_stopping: int | None = Field(
        30,
        ge=1,
        description="Stop when the loss on the validation fold has not fallen for so many epochs; null: never. The "
        "weights of the best epoch are kept either way.",
    )
    augment: list[Literal["flip", "rotate", "scale", "radiometric", "shift", "drop", "noise"]] = Field(
        ["flip", "rotate"],
        description="Random changes to training samples. Of chips (single pixels have none): flip; rotate, by quarter "
        "turns; scale, 0.8 to 1.25 times as large. Of values: radiometric, a gain of 1 +- 0.1 and an offset of 0 +- 0.1 per "
        "band; noise, of 0.05; both in standard deviations. Of series: shift, all dates by up to 15 days, "
        "for networks that go by the day; drop, a date in five.",
    )
    sampling: Literal["natural", "balanced"] = Field(
        "natural", description="balanced: chips and pixels of rare classes are drawn more often."
    )
    precision: Literal["auto", "32", "bf16", "16"] = Field(
        "auto", description="Arithmetic while training. auto: bf16 on a GPU that has it, else 32."
    )
    devices: int | Literal["auto"] = Field("auto", description="Devices to train on; auto: one GPU, else the CPU.")
    check_batch: bool = Field(
        True,
        description="Before training, see in a few steps whether the network can learn one small batch; say so if not.",
    )
    seed: int = Field(0, ge=0, description="Seed of weights, order and augmentation.")
    track: list[Literal["csv", "tensorboard", "wandb", "mlflow"]] = Field(
        ["csv", "tensorboard"], description="Where the figures of each epoch go. wandb and mlflow need their extras."
    )

    @model_validator(mode="after")
    def _one_rise(self) -> Self:
        if self.warmup and self.schedule.name == "one_cycle":
            raise ValueError("one_cycle has a warm-up of its own: leave out warmup, or take another schedule")
        if self.warmup >= self.epochs and self.warmup:
            raise ValueError(
                f"the warm-up would not end: found {self.warmup} epochs of {self.epochs}; allowed are fewer than epochs"
            )
        return self

    def samples_per_step(self, samples: int, *, single_pixels: bool) -> int:
        """Return the batch size, decided from the number of training samples where it is ``auto``.

        Few samples need small batches: what counts is the number of steps.
        """
        if self.batch_size != "auto":
            return self.batch_size
        if single_pixels:
            return min(max(samples // 32, 16), 1024)
        return min(max(samples // 16, 2), 16)


class SaliencySettings(_Settings):
    """How the map is explained."""

    method: Literal["gradient"] = Field(
        "gradient", description="gradient: how much each input value moves the winning scores of the map around it."
    )
    per: list[Literal["pixel", "band", "date"]] = Field(
        ["pixel", "band", "date"],
        min_length=1,
        description="Layers to be made. pixel: the largest over bands and dates; band: per band, summed over dates; "
        "date: per date, summed over bands.",
    )

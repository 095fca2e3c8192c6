"""The parts of the job file that `models` reads. Each option is documented at its field, and nowhere else."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Settings(BaseModel):
    """Base of every section: unknown keys are refused, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class OptimizerSettings(_Settings):
    """How weights follow the gradient."""

    name: Literal["adamw", "adam", "sgd"] = Field("adamw", description="adamw, adam or sgd.")
    lr: float = Field(0.001, gt=0, description="Learning rate at the start.")
    weight_decay: float = Field(0.01, ge=0, description="Pull of the weights towards zero.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum (sgd only).")


class LossSettings(_Settings):
    """What is made small."""

    name: Literal["cross_entropy"] = Field("cross_entropy", description="cross_entropy.")
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
        0.0, ge=0, lt=1, description="Share of each label that is spread evenly over all classes; tames false labels."
    )


class TrainingSettings(_Settings):
    """How the network learns."""

    epochs: int = Field(150, ge=1, description="Most passes over the training labels.")
    batch_size: int | Literal["auto"] = Field(
        "auto",
        description="Samples per step: chips, patches around a labelled pixel, or pixels for pixel networks. auto: about 16 "
        "steps an epoch for chips (2 to 16 each), 32 for patches (16 to 128 each) and for pixels (16 to 1024 each).",
    )
    optimizer: OptimizerSettings = Field(OptimizerSettings(), description="How weights follow the gradient.")
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="The learning rate over the epochs: cosine falls smoothly to nearly nothing."
    )
    loss: LossSettings = Field(LossSettings(), description="What is made small.")
    early_stopping: int | None = Field(
        30,
        ge=1,
        description="Stop when the loss on the validation fold has not fallen for so many epochs; null: never. The "
        "weights of the best epoch are kept either way.",
    )
    augment: list[Literal["flip", "rotate"]] = Field(
        ["flip", "rotate"], description="Random flips and quarter turns of chips; single pixels have none."
    )
    sampling: Literal["natural", "balanced"] = Field(
        "natural", description="balanced: chips and pixels of rare classes are drawn more often."
    )
    precision: Literal["auto", "32", "bf16", "16"] = Field(
        "auto", description="Arithmetic while training. auto: bf16 on a GPU that has it, else 32."
    )
    devices: int | Literal["auto"] = Field("auto", description="Devices to train on; auto: one GPU, else the CPU.")
    seed: int = Field(0, ge=0, description="Seed of weights, order and augmentation.")
    track: list[Literal["csv", "tensorboard", "wandb", "mlflow"]] = Field(
        ["csv", "tensorboard"], description="Where the figures of each epoch go. wandb and mlflow need their packages."
    )

    def samples_per_step(self, samples: int, kind: Literal["pixels", "patches", "chips"]) -> int:
        """Return the batch size, decided from the number of training samples where it is ``auto``.

        Few samples need small batches: what counts is the number of steps.
        """
        if self.batch_size != "auto":
            return self.batch_size
        steps, least, most = {"pixels": (32, 16, 1024), "patches": (32, 16, 128), "chips": (16, 2, 16)}[kind]
        return min(max(samples // steps, least), most)


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

"""The parts of the job file that `models` reads. Each option is documented at its field, and nowhere else."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class OptimizerSettings(_Settings):
    """How weights follow the gradient."""

    name: Literal["adamw", "adam", "sgd"] = Field("adamw", description="adamw, adam or sgd.")
    lr: float = Field(0.001, gt=0, description="Learning rate at the start.")
    weight_decay: float = Field(0.01, ge=0, description="Pull of the weights towards zero.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Of sgd only.")


class LossSettings(_Settings):
    """What is made small."""

    name: Literal["cross_entropy"] = Field("cross_entropy", description="Cross-entropy over labelled pixels.")
    class_weights: Literal["balanced", "none"] | list[float] = Field(
        "balanced", description="balanced: rare classes count as much as common ones; none; or a number per class."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of certainty taken from the labels.")


class TrainingSettings(_Settings):
    """How the network learns."""

    epochs: int = Field(60, ge=1, description="Passes over the training fold, at most.")
    batch_size: int = Field(16, ge=1, description="Chips per step; pixel networks take 64 times as many pixels.")
    optimizer: OptimizerSettings = Field(OptimizerSettings(), description="How weights follow the gradient.")
    schedule: Literal["constant", "cosine"] = Field("cosine", description="How the learning rate goes on.")
    loss: LossSettings = Field(LossSettings(), description="What is made small.")
    early_stopping: int | None = Field(
        12, ge=1, description="Stop when the validation loss has not fallen for so many epochs; null: never."
    )
    augment: list[Literal["flip", "rotate"]] = Field(
        ["flip", "rotate"], description="Changes that leave the labels true; chips larger than one pixel only."
    )
    sampling: Literal["natural", "balanced"] = Field(
        "natural", description="balanced: chips with rare classes are drawn more often."
    )
    precision: Literal["auto", "32", "bf16-mixed", "16-mixed"] = Field(
        "auto", description="auto: bf16-mixed on a GPU that has it, else 32."
    )
    devices: int | Literal["auto"] = Field("auto", description="GPUs to train on; auto: one, or the CPU where none is.")
    seed: int = Field(0, ge=0, description="Seed of weights, order and augmentation.")
    track: list[Literal["csv", "tensorboard"]] = Field(
        ["csv", "tensorboard"], description="Where learning curves are logged."
    )


class SaliencySettings(_Settings):
    """How the map is explained."""

    method: Literal["gradient"] = Field(
        "gradient", description="gradient: how much each input value moves the map around it (Simonyan et al. 2014)."
    )
    per: list[Literal["pixel", "band", "date"]] = Field(
        ["pixel", "band", "date"], min_length=1, description="Layers: per pixel, per band, per date."
    )

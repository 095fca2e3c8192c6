"""The parts of the job file that `models` reads. Each option is documented at its field, and nowhere else."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Initialisation = Literal["auto", "kaiming", "xavier", "normal"]
LossName = Literal["cross_entropy", "binary_cross_entropy", "focal", "dice", "mean_squared", "absolute", "huber"]


Method = Literal[
    "gradient", "gradient_input", "smoothgrad", "integrated_gradients", "occlusion_band", "occlusion_date", "occlusion_patch"
]  # fmt: skip
Per = Literal["pixel", "band", "date", "dominant_band", "dominant_date"]


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
        description="Samples per step: chips, patches around a labelled pixel, or pixels for pixel networks. auto: about 16 "
        "steps an epoch for chips (2 to 16 each), 32 for patches (16 to 128 each) and for pixels (16 to 1024 each).",
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
    devices: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="GPUs of each node to train on; where there is none, processes on its cores. A step is divided among them "
        "and stays the same. auto: one, or as many as torchrun or srun has started.",
    )
    nodes: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="Machines to train on. Several are started from outside, by torchrun or srun: see docs/training.md. auto: "
        "as many as were started.",
    )
    strategy: Literal["auto", "ddp"] = Field(
        "auto",
        description="How several devices learn together. auto: by ddp, each a part of every step, where there are several; "
        "ddp: the same, and one device alone is refused.",
    )
    compile: bool = Field(
        False,
        description="Compile the network before it is trained (torch.compile): faster steps after a minute or so; needs a C++ "
        "compiler.",
    )
    checkpoint_every: float = Field(
        5.0,
        gt=0,
        description="Minutes between checkpoints within an epoch; one more is written at the end of each epoch, and one when "
        "the run is told to stop (SIGTERM).",
    )
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

    def samples_per_step(self, samples: int, kind: Literal["pixels", "patches", "chips"]) -> int:
        """Return the batch size, decided from the number of training samples where it is ``auto``.

        Few samples need small batches: what counts is the number of steps.
        """
        if self.batch_size != "auto":
            return self.batch_size
        steps, least, most = {"pixels": (32, 16, 1024), "patches": (32, 16, 128), "chips": (16, 2, 16)}[kind]
        return min(max(samples // steps, least), most)


def _no_cam(value: Any) -> Any:
    for name in value if isinstance(value, list) else [value]:
        if isinstance(name, str) and ("cam" in name.lower() or name.lower().startswith("guided")):
            raise ValueError(
                f"{name} cannot be exact on a map: Grad-CAM weighs features by their mean gradient over the whole image, so what "
                "it says of a pixel would change with how the map is cut; and guided backpropagation hardly changes when the "
                "weights are made random (Adebayo et al. 2018)"
            )
    return value


class SaliencySettings(_Settings):
    """How the map is explained."""

    method: Annotated[Method | Annotated[list[Method], Field(min_length=1)], BeforeValidator(_no_cam)] = Field(
        "gradient",
        description="What is measured, one or several (the layers of the first have the plain names). Of each input value: "
        "gradient, how much the target moves with it; gradient_input, the same times the value; smoothgrad, the mean "
        "gradient of noisy copies; integrated_gradients, the share of the target that is due to it, counted from a baseline. "
        "Of what is replaced by the baseline, how much the probability of the target falls: occlusion_band, a band; "
        "occlusion_date, a date; occlusion_patch, a square of pixels.",
    )
    per: list[Per] | Literal["auto"] = Field(
        "auto",
        min_length=1,
        description="Layers to be made. pixel: the largest over bands and dates; band: per band, summed over dates; date: per "
        "date, summed over bands; dominant_band, dominant_date: a class map of the band, or date, that counts most. auto: "
        "all that the method gives (occlusion_band knows no dates), dominant ones where there are two or more.",
    )
    target: str = Field(
        "winner",
        coerce_numbers_to_str=True,  # a class may be called 3, and YAML takes that for a number
        description="What is explained. winner: the class that was mapped; margin: the winning class against the second; or a "
        "class by its name. Of a regression: winner alone, which is the value.",
    )
    baseline: Literal["mean"] | dict[str, float] = Field(
        "mean",
        description="What bands hold where something is taken away (integrated_gradients, occlusion). mean: their mean over the "
        "training fold; or values of some bands by name, in units of the imagery, the others keep their mean.",
    )
    samples: int = Field(16, ge=1, le=1000, description="Noisy copies (smoothgrad).")
    noise: float = Field(
        0.15, gt=0, description="Deviation of the noise, in standard deviations of a band (smoothgrad)."
    )
    steps: int = Field(
        32, ge=1, le=1000, description="Places on the way from the baseline at which the gradient is taken "
        "(integrated_gradients), by Gauss and Legendre."
    )  # fmt: skip
    patch: int = Field(8, ge=1, description="Side of the square that is taken away, in pixels (occlusion_patch).")
    step: int = Field(
        4, ge=1, description="Pixels from one square to the next, no more than its side (occlusion_patch)."
    )
    seed: int = Field(
        0, ge=0, description="Seed of the noise, which hangs on the place and on nothing else (smoothgrad)."
    )

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods, in order."""
        return (self.method,) if isinstance(self.method, str) else tuple(dict.fromkeys(self.method))

    @model_validator(mode="after")
    def _no_gap(self) -> Self:
        if self.step > self.patch:
            raise ValueError(
                f"step: found {self.step} for a patch of {self.patch}: pixels between would never be covered"
            )
        return self

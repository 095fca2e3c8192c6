"""What a search varies: the settings that are worth it by default, and those that cannot be compared refused by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import JobError, nearest
from workflows.settings import RangeSettings
from workflows.variant import changed, value_at, variant

if TYPE_CHECKING:
    from workflows.context import Context
    from workflows.job import Job


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from ``low`` to ``high``, both within; whole ones where ``whole``; even over powers where ``log``."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that must be allowed for all between them to be."""
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)

    def holds(self, value: Any) -> bool:
        """Return whether a value lies within."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high and (not self.whole or value == int(value))

    def place(self, value: float) -> float:
        """Return where a value lies between the ends, from 0 to 1, on the scale on which it was drawn."""
        low, high, at = (math.log(v) if self.log else float(v) for v in (self.low, self.high, value))
        return (at - low) / (high - low)


@dataclass(frozen=True, slots=True)
class Choices:
    """Values of any kind."""

    values: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that must be allowed."""
        return self.values

    def holds(self, value: Any) -> bool:
        """Return whether a value is among them."""
        return value in self.values


Space = dict[str, Range | Choices]


def _scaled(value: Any) -> Choices:
    """Half, as much, and twice as much."""
    if isinstance(value, list):
        return Choices(([max(1, v // 2) for v in value], value, [2 * v for v in value]))
    return Choices((max(1, value // 2), value, 2 * value))


# Settings of networks that are worth a search, by the names that all networks give them.
_WORTH: dict[str, Callable[[Any], Range | Choices]] = {
    "width": _scaled,
    "hidden": _scaled,
    "filters": _scaled,
    "dropout": lambda _: Range(0.0, 0.5),
}

# What may differ from the network with which training begins.
_FREE = "dropout"

_UNFAIR = "it decides what is measured, and figures of different samples cannot be compared"
_SAMPLES = (
    "task",
    "imagery",
    "grid",
    "temporal",
    "indices",
    "roles",
    "area",
    "labels",
    "classes",
    "folds",
    "chips",
    "forecast",
)
_REFUSED = {
    "model.name": "a search is about one network; `landweave bench` compares several",
    "model.pretrained": "it belongs to one network of fixed settings",
    "training.seed": "the best of several seeds is luck, and no setting",
    "training.epochs": "early stopping finds the number of epochs; tune.epochs bounds it",
    "training.track": "it changes no result",
    **dict.fromkeys(
        (f"training.{name}" for name in ("devices", "nodes", "strategy", "compile", "checkpoint_every")),
        "it changes no result",
    ),
}

# What the loss of a task without classes is made of, or is bound to fall with.
_PRICED = ("model.beta", "model.code")


def search_space(job: Job) -> Space:
    """Return what is varied: as the job says, or the default for its network.

    Raises
    ------
    JobError
        If a name is none of a setting of the network or the training, or a value is not allowed there.
    """
    if job.tune.space is None:
        return default_space(job)
    space: Space = {}
    for name, asked in job.tune.space.items():
        _check_name(job, name)
        if isinstance(asked, RangeSettings):
            whole = not isinstance(value_at(job, name), float) and asked.low.is_integer() and asked.high.is_integer()
            space[name] = Range(asked.low, asked.high, asked.log, whole)
            for end in space[name].ends:
                _allowed(job, name, end)
        else:
            # As the job would hold them: YAML takes 1e-4 for a text.
            space[name] = Choices(tuple(_allowed(job, name, value) for value in asked))
    return space


def default_space(job: Job) -> Space:
    """Return the settings that are worth a search, around those of the job."""
    optimizer = job.training.optimizer
    # A rate that each training finds for itself is not searched for.
    space: Space = {}
    if optimizer.lr != "auto":
        space["training.optimizer.lr"] = Range(optimizer.lr / 10, optimizer.lr * 10, log=True)
    if optimizer.name != "sgd":
        space["training.optimizer.weight_decay"] = Range(1e-4, 0.1, log=True)
    for field, value in job.model.settings.items():
        # Without hidden layers there is nothing to scale; and what is pretrained has its size.
        fixed = job.model.pretrained is not None and field != _FREE
        if field not in _WORTH or value == [] or fixed:
            continue
        name, made = f"model.{field}", _WORTH[field](value)
        if isinstance(made, Choices):
            made = Choices(tuple(v for v in made.values if _is_allowed(job, name, v)))
        if len(made.ends) > 1:
            space[name] = made
    return space


def check_space(context: Context, space: Space) -> None:
    """Refuse settings of the network on which the samples depend: all trials learn from the same.

    Raises
    ------
    JobError
        If a value changes the halo, the stride or the chip; says from what to what.
    """
    before = context.network()
    for name, one in space.items():
        for value in one.ends if name.startswith("model.") else ():
            after = variant(context, changed(context.job, {name: value}, f"tune.space.{name}")).network()
            for what in ("halo", "stride", "chip"):
                old, new = getattr(before, what), getattr(after, what)
                if old != new:
                    raise JobError(
                        f"tune.space.{name}: the value {value!r} changes the {what} of the network from {old} to {new} pixels, "
                        "and with it the samples: figures of different samples cannot be compared. Leave it out, and tune a "
                        f"job for each value: --set {name}={value!r}"
                    )


def _check_name(job: Job, name: str) -> None:
    section = name.split(".")[0]
    raw = job.dump()
    reason = _REFUSED.get(name)
    if section in raw and section not in ("model", "training"):
        reason = _UNFAIR if section in _SAMPLES else "it has no part in training"
    elif job.task != "classification" and (name.startswith("training.loss.") or name in _PRICED):
        reason = "trials of this task are compared by the loss, which it changes itself"
    elif job.model.pretrained is not None and section == "model" and name != f"model.{_FREE}":
        reason = reason or "training begins with a trained network (model.pretrained), which has its settings"
    if reason is not None:
        raise JobError(f"tune.space.{name}: this cannot be varied: {reason}")
    known = _leaves("model", raw["model"]) + _leaves("training", raw["training"])
    if name not in known:
        allowed = [k for k in known if k not in _REFUSED]
        raise JobError(
            f"tune.space.{name}: there is no such setting{nearest(name, allowed)} Those of the network '{job.model.name}' and of "
            f"the training are {', '.join(allowed)}"
        )


def _leaves(place: str, value: Any) -> list[str]:
    if not isinstance(value, dict):
        return [place]
    return [leaf for key, inner in value.items() for leaf in _leaves(f"{place}.{key}", inner)]


def _allowed(job: Job, name: str, value: Any) -> Any:
    """Return a value as the job holds it."""
    return value_at(changed(job, {name: value}, f"tune.space.{name}: the value {value!r}"), name)


def _is_allowed(job: Job, name: str, value: Any) -> bool:
    try:
        _allowed(job, name, value)
    except JobError:
        return False
    return True

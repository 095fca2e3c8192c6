"""Watching a training: how large the gradient is in each layer, and where the time goes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import PassThroughProfiler
from torch import Tensor, nn

PREFIX = "grad/"
"""Before the name of a layer, in the figures of an epoch."""

_FADED = 1e-4  # a layer's gradient has vanished below this share of the largest layer's
_EXPLODED = 1e3  # with normalised inputs and a mean loss, gradients are of the order of one


class Gradients(Callback):
    """Publishes ``grad/<layer>`` each epoch: the norm of the gradient of a layer's weights, its mean over the steps.

    A layer is a module with parameters of its own. The norm is taken before clipping, and says what clipping met.

    Parameters
    ----------
    network : Module
        Whose layers are watched.
    """

    def __init__(self, network: nn.Module) -> None:
        found = {name: list(module.parameters(recurse=False)) for name, module in network.named_modules()}
        self.layers = {name or "network": own for name, own in found.items() if own}
        self.total = torch.zeros(len(self.layers))
        self.steps = 0

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint within an epoch keeps."""
        return {"total": self.total.cpu(), "steps": self.steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Add to what a checkpoint kept."""
        self.total, self.steps = state["total"], state["steps"]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002 - a hook
        """Begin anew."""
        self.total, self.steps = torch.zeros(len(self.layers)), 0

    def on_before_optimizer_step(
        self,
        trainer: Trainer,  # noqa: ARG002 - a hook
        pl_module: LightningModule,  # noqa: ARG002 - a hook
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Add the norms of a step of the optimiser that moves the network."""
        moved = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if any(id(p) in moved for own in self.layers.values() for p in own):
            norms = _norms(self.layers.values())
            self.total = self.total.to(norms.device) + norms
            self.steps += 1

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002 - a hook
        """Publish the means."""
        if self.steps:
            means = (self.total / self.steps).unbind()
            pl_module.log_dict({f"{PREFIX}{name}": mean for name, mean in zip(self.layers, means, strict=True)})


def _norms(layers: Any) -> Tensor:
    """Return the norm of each layer's gradient, without waiting for the device."""
    squares = []
    for own in layers:
        given = [p.grad for p in own if p.grad is not None]
        norms = torch._foreach_norm(given) if given else [torch.zeros((), device=own[0].device)]
        squares.append(torch.stack([n.float() for n in norms]).square().sum())
    return torch.stack(squares).sqrt()


def gradient_warnings(history: Sequence[Mapping[str, float]]) -> list[str]:
    """Return what the gradients of a training say against it, in words.

    In a layer they have vanished when in more than half of the epochs they are below a ten-thousandth of those of the
    layer where they are largest; they have exploded when in any epoch they are above a thousand.
    """
    faded: dict[str, int] = {}
    exploded: dict[str, tuple[int, float]] = {}
    for epoch, figures in enumerate(history):
        norms = {name.removeprefix(PREFIX): v for name, v in figures.items() if name.startswith(PREFIX)}
        largest = max(norms.values(), default=0.0)
        for name, norm in norms.items():
            faded[name] = faded.get(name, 0) + (norm < _FADED * largest)
            if norm > _EXPLODED:
                exploded.setdefault(name, (epoch + 1, norm))
    said = []
    gone = [name for name, epochs in faded.items() if 2 * epochs > len(history)]
    if gone:
        said.append(
            f"the gradient vanishes in {_some(gone)}: there it is below a ten-thousandth of what it is elsewhere, and little "
            "is learnt. Fewer layers, a normalisation, another activation (relu) or initialisation may help"
        )
    if exploded:
        name, (epoch, norm) = next(iter(exploded.items()))
        said.append(
            f"the gradient explodes in {_some(list(exploded))} (first in epoch {epoch}: {norm:.3g} in {name}). training.clip, "
            "a smaller training.optimizer.lr or a normalisation may help"
        )
    return said


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more layers" if len(names) > 3 else "")


class Fetching(PassThroughProfiler):
    """Counts the time from when Lightning asks for a training batch until it has it."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self._since = 0.0

    def start(self, action_name: str) -> None:
        """See `Profiler.start`."""
        if action_name.endswith("train_dataloader_next"):
            self._since = time.perf_counter()

    def stop(self, action_name: str) -> None:
        """See `Profiler.stop`."""
        if action_name.endswith("train_dataloader_next"):
            self.seconds += time.perf_counter() - self._since


class Clock(Callback):
    """Counts samples, the time of the epochs' training batches, and the part of it that was spent waiting for data.

    On a GPU steps run behind the program's back: what is not waiting for data holds the waiting for the device.

    Attributes
    ----------
    fetching : Fetching
        The trainer's profiler. Between two batches lies work of the trainer, too: only what it says is waiting.
    """

    def __init__(self) -> None:
        self.samples = 0
        self.seconds = 0.0
        self.fetching = Fetching()
        self._since = 0.0

    def state(self) -> dict[str, float]:
        """Return what a checkpoint keeps."""
        return {"samples": self.samples, "seconds": self.seconds, "waiting": self.fetching.seconds}

    def restore(self, state: Mapping[str, float]) -> None:
        """Count on from what a checkpoint kept."""
        self.samples, self.seconds, self.fetching.seconds = int(state["samples"]), state["seconds"], state["waiting"]

    @property
    def speed(self) -> float:
        """Samples per second."""
        return self.samples / self.seconds if self.seconds else 0.0

    @property
    def waited(self) -> float:
        """Share of the time spent waiting for data."""
        return self.fetching.seconds / self.seconds if self.seconds else 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002 - a hook
        """Begin to wait for the next batch of an epoch that was interrupted."""
        self._since = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002 - a hook
        """Begin to wait for the first batch."""
        self._since = time.perf_counter()

    def on_train_batch_start(
        self,
        trainer: Trainer,  # noqa: ARG002 - a hook
        pl_module: LightningModule,  # noqa: ARG002 - a hook
        batch: dict[str, Tensor],
        batch_idx: int,  # noqa: ARG002 - a hook
    ) -> None:
        """Count the samples, and the time until they were here."""
        self._lap()
        self.samples += len(batch["cube"])

    def on_train_batch_end(self, *_: object) -> None:
        """Count the time of the step; the next batch is waited for."""
        self._lap()

    def _lap(self) -> None:
        """Count the time since the last call."""
        now = time.perf_counter()
        self.seconds, self._since = self.seconds + now - self._since, now

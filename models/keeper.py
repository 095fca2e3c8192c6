"""What a training must not lose: its history, its best weights, and where it was."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from models.files import whole
from models.network import ModelError, Network
from models.settings import TrainingSettings
from models.trackers import write_metrics
from models.watching import Clock

Progress = Callable[[int, int, dict[str, float]], None]

LAST = "last.ckpt"
STATE = "keeper"
"""Where a checkpoint holds what `Keeper` keeps."""

_METRICS = "metrics.csv"
_DIVERGED = 10.0  # a training loss that is so many times that of the first epoch will not come down again


class Keeper(Checkpoint):
    """Keeps history, best weights and the checkpoint, all in one file that is written once an epoch, whole.

    A `ModelCheckpoint` for the best and another for the last would be two files that a kill can leave out of step.
    Subclasses of `Checkpoint` are called after all others, so the figures and early stopping are those of this epoch.

    Parameters
    ----------
    network : Network
        Whose weights are kept.
    folder : Path
        Where the checkpoint is written.
    epochs : int
        Epochs at most.
    settings : TrainingSettings
        Seed and tracking.
    progress : callable or None
        As of `fit`.
    clock : Clock
        Times the epochs.
    notes : list of str
        What the user is to be told of the time before training.
    """

    def __init__(
        self,
        network: Network,
        folder: Path,
        epochs: int,
        settings: TrainingSettings,
        progress: Progress | None,
        clock: Clock,
        notes: list[str],
    ) -> None:
        self.network = network
        self.folder = folder
        self.epochs = epochs
        self.settings = settings
        self.progress = progress
        self.clock = clock
        self.notes = notes
        self.history: list[dict[str, float]] = []
        self.best: dict[str, torch.Tensor] = {}
        self.best_epoch = 0
        self.best_loss = math.inf
        self.resumed_from: int | None = None
        self.before = 0.0
        self.start = time.monotonic()

    @property
    def state_key(self) -> str:
        """Return where a checkpoint holds this."""
        return STATE

    @property
    def seconds(self) -> float:
        """Time of this call and of those before it."""
        return self.before + time.monotonic() - self.start

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "history": self.history,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "best_loss": self.best_loss,
            "seconds": self.seconds,
            "notes": self.notes,
            "clock": self.clock.state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.history = state_dict["history"]
        self.best = state_dict["best"]
        self.best_epoch = state_dict["best_epoch"]
        self.best_loss = state_dict["best_loss"]
        self.before = state_dict["seconds"]
        self.notes = state_dict["notes"]
        self.clock.restore(state_dict["clock"])
        self.resumed_from = len(self.history)
        self.sow(len(self.history))

    def sow(self, epoch: int) -> None:
        """Give an epoch its own seed: a resumed training draws what an undisturbed one would have drawn."""
        torch.manual_seed(self.settings.seed * 1_000_003 + epoch)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002 - a hook
        """Report the epochs that are done."""
        for epoch, figures in enumerate(self.history):
            self._report(epoch + 1, figures)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002 - a hook
        """Keep the figures of the epoch, and its weights where they are the best; stop a training that diverged."""
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        epoch = trainer.current_epoch
        if "train_loss" not in figures:
            raise ModelError("training saw no labelled pixel: there is nothing to learn from")
        broken = self._broken(figures)
        # What is no number stands in no file; an epoch without its loss is one that broke down.
        self.history.append({name: value for name, value in figures.items() if math.isfinite(value)})
        if broken:
            self._stop(trainer, epoch, broken)
        else:
            # Without a validation fold the last epoch is the best that can be had.
            loss = figures.get("val_loss", -math.inf)
            if loss < self.best_loss or loss == -math.inf:
                self.best_epoch, self.best_loss = epoch, loss
                self.best = {k: v.detach().cpu().clone() for k, v in self.network.state_dict().items()}
            trainer.save_checkpoint(self.folder / LAST)
        if "csv" in self.settings.track:
            write_metrics(self.folder / _METRICS, self.history)
        self.sow(epoch + 1)
        self._report(epoch + 1, figures)

    def _broken(self, figures: dict[str, float]) -> str | None:
        """Return what shows that the training has diverged, or None."""
        for name in ("train_loss", "val_loss"):
            if not math.isfinite(figures.get(name, 0.0)):
                return f"{name} is {figures[name]}"
        first = self.history[0]["train_loss"] if self.history else math.inf
        if figures["train_loss"] > _DIVERGED * first > 0:
            return f"train_loss is {figures['train_loss']:.3g}, {_DIVERGED:g} times what it was at first"
        return None

    def _stop(self, trainer: Trainer, epoch: int, broken: str) -> None:
        """End a training that has diverged; what it had learnt until then is kept."""
        advice = f"A smaller training.optimizer.lr than {self.settings.optimizer.lr:g}, training.clip or precision 32 may help"
        if not self.best:
            raise ModelError(f"training broke down in epoch {epoch + 1}: {broken}. {advice}")
        self.notes.append(
            f"training broke down in epoch {epoch + 1} and was stopped: {broken}. The weights of epoch "
            f"{self.best_epoch + 1} are kept. {advice}"
        )
        trainer.should_stop = True

    def _report(self, epoch: int, figures: dict[str, float]) -> None:
        if self.progress is not None:
            self.progress(epoch, self.epochs, figures)


class WholeCheckpointIO(TorchCheckpointIO):
    """Checkpoints are whole or absent."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        """Write beside the place, then move there."""
        if storage_options is not None:
            raise TypeError("checkpoints are plain files; there are no storage options")
        with whole(Path(path)) as temporary:
            torch.save(checkpoint, temporary)

"""What a training must not lose: its history, its best weights, and where it was."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from models.files import whole
from models.learning import LearningTask
from models.network import ModelError
from models.ranks import Company
from models.settings import TrainingSettings
from models.trackers import write_metrics
from models.watching import Clock, Gradients

Progress = Callable[[int, int, dict[str, float]], None]

LAST = "last.ckpt"
STATE = "keeper"
"""Where a checkpoint holds what `Keeper` keeps."""

_METRICS = "metrics.csv"
_DIVERGED = 10.0  # a training loss that is so many times that of the first epoch will not come down again


class Stopped(Exception):  # noqa: N818 - no error: somebody asked for it
    """A training was asked to stop (SIGTERM), and has written where it stopped."""


class Keeper(Checkpoint):
    """Keeps history, best weights and the checkpoint, all in one file that is written whole, at the end of each epoch.

    A `ModelCheckpoint` for the best and another for the last would be two files that a kill can leave out of step.
    Subclasses of `Checkpoint` are called after all others, so the figures and early stopping are those of this epoch.

    It is also written within an epoch: every so many minutes, and when the process is asked to stop (SIGTERM). That needs
    a data module that can begin there, by a method ``begin_at(batch)``: the first epoch that it is asked for lacks so
    many batches. Without it a training goes on at the last epoch's end.

    Parameters
    ----------
    task : LearningTask
        What learns.
    data : LightningDataModule
        What it learns from.
    folder : Path
        Where the checkpoint is written.
    epochs : int
        Epochs at most.
    settings : TrainingSettings
        Seed, tracking and the time between checkpoints.
    progress : callable or None
        As of `fit`.
    clock : Clock
        Times the epochs.
    gradients : Gradients
        Whose sums within an epoch are kept.
    company : Company
        The ranks that train; the first one writes.
    notes : list of str
        What the user is to be told of the time before training.
    """

    def __init__(
        self,
        task: LearningTask,
        data: LightningDataModule,
        folder: Path,
        epochs: int,
        settings: TrainingSettings,
        progress: Progress | None,
        clock: Clock,
        gradients: Gradients,
        company: Company,
        notes: list[str],
    ) -> None:
        self.task = task
        self.network = task.network
        self.data = data
        self.folder = folder
        self.epochs = epochs
        self.settings = settings
        self.progress = progress
        self.clock = clock
        self.gradients = gradients
        self.company = company
        self.notes = notes
        self.asked = self.over = False
        self.step = 0
        self.history: list[dict[str, float]] = []
        self.best: dict[str, torch.Tensor] = {}
        self.best_epoch = 0
        self.best_loss = math.inf
        self.resumed_from: int | None = None
        self.before = 0.0
        self.start = self.saved = time.monotonic()

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
            "over": self.over,
            # Of an epoch that is not whole: batches done, and the sums over them.
            "step": self.step,
            "sums": [float(self.task.train_mean.total), float(self.task.train_mean.weight)],
            "gradients": self.gradients.state(),
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
        step = state_dict["step"]
        if step:
            self.task.train_mean.update(*state_dict["sums"])
            self.gradients.restore(state_dict["gradients"])
            self.data.begin_at(step)  # type: ignore[attr-defined]
        self.sow(len(self.history), step)

    def on_load_checkpoint(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002 - a hook
        checkpoint: dict[str, Any],
    ) -> None:
        """Do nothing more where the training had been stopped early, and was killed before that was written down."""
        trainer.should_stop = bool(checkpoint["callbacks"][STATE]["over"])

    def sow(self, epoch: int, step: int = 0) -> None:
        """Give each step of each rank its own seed: a resumed training draws what an undisturbed one would have drawn."""
        place = (self.settings.seed, epoch, step, self.company.place.rank)
        seed = int(np.random.SeedSequence(place).generate_state(1)[0])
        # Without a GPU torch.manual_seed would keep the seed, with a stack trace of each step, for one that may come.
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(seed)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002 - a hook
        """Listen for SIGTERM, and report the epochs that are done."""
        if threading.current_thread() is threading.main_thread():
            # In the place of Lightning's, which takes it for an error; it puts back what was there before when it ends.
            signal.signal(signal.SIGTERM, self._ask)
        for epoch, figures in enumerate(self.history):
            self._report(epoch + 1, figures)

    def _ask(self, *_: object) -> None:
        self.asked = True

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002 - a hook
        outputs: Any,  # noqa: ARG002 - a hook
        batch: Any,  # noqa: ARG002 - a hook
        batch_idx: int,
    ) -> None:
        """Keep where the training is within the epoch, where it is time; stop where that was asked for.

        Raises
        ------
        Stopped
            In the last case.
        """
        done, epoch = batch_idx + 1, trainer.current_epoch
        self.sow(epoch, done)
        late = time.monotonic() - self.saved > 60 * self.settings.checkpoint_every and self.company.place.rank == 0
        # All ranks do the same, or one would wait for the others for ever.
        asked, due = (v > 0 for v in self.company.sum(self.asked, late))
        # What follows the last step, or belongs to the one that is not yet taken, is waited for.
        if not (asked or due) or done == trainer.num_training_batches or done % trainer.accumulate_grad_batches:
            return
        if hasattr(self.data, "begin_at"):
            self.step = done
            self._save(trainer)
            self.step = 0
        if asked:
            raise Stopped(f"in epoch {epoch + 1}, after step {done} of {trainer.num_training_batches}")

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.folder / LAST)
        self.saved = time.monotonic()

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
            self.over = trainer.should_stop
            self._save(trainer)
        if "csv" in self.settings.track and self.company.place.rank == 0:
            write_metrics(self.folder / _METRICS, self.history)
        self.sow(epoch + 1)
        self._report(epoch + 1, figures)
        (asked,) = self.company.sum(self.asked)
        if asked and epoch + 1 < self.epochs and not trainer.should_stop:
            raise Stopped(f"after epoch {epoch + 1}")

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

"""Run a training to its end: one checkpoint an epoch, resumed where it was killed, best weights kept."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import json
import logging
import math
import pickle
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from lightning.pytorch.plugins.io import TorchCheckpointIO

from models.files import whole
from models.network import ModelError, Network
from models.settings import TrainingSettings

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

    from models.learning import LearningTask

Progress = Callable[[int, int, dict[str, float]], None]

_LAST = "last.ckpt"
_DONE = "done.json"
_METRICS = "metrics.csv"
_STATE = "keeper"  # where a checkpoint holds what `_Keeper` keeps

# What Lightning advises on, and what is so on purpose here.
_ADVICE = (
    ".*across ranks is zero.*",  # no validation fold: all labels train
    ".*LeafSpec.*is deprecated.*",  # Lightning 2.6 on torch 2.13
    ".*does not have many workers.*",  # chips are read in this process: starting others costs more than it saves
    ".*smaller than the logging interval.*",  # figures are logged by epoch
    ".*`training_step` returned `None`.*",  # a batch without labels makes no step
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """What a training left, beside the weights.

    Attributes
    ----------
    best_epoch : int
        Epoch whose weights were kept, from 0; the last one where there is no validation fold.
    history : list of dict
        Figures of each epoch.
    resumed_from : int or None
        Epochs that an earlier, interrupted call had done; None if there was none.
    seconds : float
        Time of this call and of the interrupted ones before it.
    """

    best_epoch: int
    history: list[dict[str, float]]
    resumed_from: int | None
    seconds: float


def fit(
    task: LearningTask,
    data: LightningDataModule,
    folder: Path,
    settings: TrainingSettings,
    *,
    stop_after: int | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> FitResult:
    """Train ``task`` on ``data`` and leave the best weights in its network.

    Where there is a validation fold, training stops early and keeps the weights with the lowest ``val_loss``; where
    there is none, it runs all its epochs and keeps the last. ``folder`` then holds ``metrics.csv``, ``last.ckpt`` and
    a mark that it is done: called again, the weights are read back and nothing is trained.

    Parameters
    ----------
    task, data
        The Lightning module, and the data module that feeds it.
    folder : Path
        Where logs and checkpoints are kept.
    settings : TrainingSettings
        Epochs, early stopping, precision, devices, seed, tracking.
    stop_after : int, optional
        Run only so many epochs, under the schedule of all.
    resume : bool
        Go on after the last whole epoch of an interrupted call, and keep what is done. False starts anew.
    progress : callable, optional
        Called after each epoch, those of an interrupted call included, with (epochs done, epochs at most, figures).

    Raises
    ------
    ModelError
        If the loss is no longer finite, a checkpoint cannot be read, or an option cannot be met on this machine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last, done = folder / _LAST, folder / _DONE
    if not resume:
        done.unlink(missing_ok=True)
        last.unlink(missing_ok=True)
    epochs = stop_after or settings.epochs
    if done.is_file() and last.is_file():
        return _finished(task.network, last, done, epochs, progress)
    keeper = _Keeper(task.network, folder, epochs, settings, progress)
    with _quiet(), _threads(task.network):
        trainer = Trainer(
            max_epochs=epochs,
            accelerator="auto" if torch.cuda.is_available() else "cpu",
            devices=_devices(settings),
            precision=_precision(settings),
            callbacks=[*_early_stopping(settings), keeper],
            logger=_loggers(settings, folder) if settings.track else False,
            plugins=[_WholeCheckpointIO()],
            default_root_dir=folder,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        task.train()  # Lightning leaves every module in the mode it finds
        try:
            trainer.fit(task, data, ckpt_path=last if last.is_file() else None, weights_only=True)
        except (EOFError, pickle.UnpicklingError) as error:
            raise ModelError(_damaged(last, error)) from error
    task.network.load_state_dict(keeper.best)
    result = FitResult(
        best_epoch=keeper.best_epoch,
        history=keeper.history,
        resumed_from=keeper.resumed_from,
        seconds=keeper.before + time.monotonic() - keeper.start,
    )
    with whole(done) as temporary:
        temporary.write_text(
            json.dumps({"best_epoch": result.best_epoch, "history": result.history, "seconds": result.seconds})
        )
    return result


def _finished(network: Network, last: Path, done: Path, epochs: int, progress: Progress | None) -> FitResult:
    """Read back what an earlier call has finished."""
    said = json.loads(done.read_text())
    try:
        state = torch.load(last, map_location="cpu", weights_only=True)
        network.load_state_dict(state["callbacks"][_STATE]["best"])
    except (EOFError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
        raise ModelError(_damaged(last, error)) from error
    if progress is not None:
        for i, figures in enumerate(said["history"]):
            progress(i + 1, epochs, figures)
    return FitResult(resumed_from=len(said["history"]), **said)


def _damaged(last: Path, error: Exception) -> str:
    reason = str(error).partition("\n")[0]
    return f"{last} is damaged or belongs to another network; delete it, or train with --overwrite ({reason})"


class _Keeper(Checkpoint):
    """Keeps history, best weights and the checkpoint, all in one file that is written once an epoch, whole.

    A `ModelCheckpoint` for the best and another for the last would be two files that a kill can leave out of step.
    Subclasses of `Checkpoint` are called after all others, so the figures and early stopping are those of this epoch.
    """

    def __init__(
        self, network: Network, folder: Path, epochs: int, settings: TrainingSettings, progress: Progress | None
    ) -> None:
        self.network = network
        self.folder = folder
        self.epochs = epochs
        self.settings = settings
        self.progress = progress
        self.history: list[dict[str, float]] = []
        self.best: dict[str, torch.Tensor] = {}
        self.best_epoch = 0
        self.best_loss = math.inf
        self.resumed_from: int | None = None
        self.before = 0.0
        self.start = time.monotonic()

    @property
    def state_key(self) -> str:
        return _STATE

    def state_dict(self) -> dict[str, Any]:
        return {
            "history": self.history,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "best_loss": self.best_loss,
            "seconds": self.before + time.monotonic() - self.start,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = state_dict["history"]
        self.best = state_dict["best"]
        self.best_epoch = state_dict["best_epoch"]
        self.best_loss = state_dict["best_loss"]
        self.before = state_dict["seconds"]
        self.resumed_from = len(self.history)
        self.sow(len(self.history))

    def sow(self, epoch: int) -> None:
        """Give an epoch its own seed: a resumed training draws what an undisturbed one would have drawn."""
        torch.manual_seed(self.settings.seed * 1_000_003 + epoch)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002 - a hook
        for epoch, figures in enumerate(self.history):
            self._report(epoch + 1, figures)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002 - a hook
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        epoch = trainer.current_epoch
        if "train_loss" not in figures:
            raise ModelError("training saw no labelled pixel: there is nothing to learn from")
        for name in ("train_loss", "val_loss"):
            if not math.isfinite(figures.get(name, 0.0)):
                raise ModelError(
                    f"training broke down in epoch {epoch + 1}: {name} is {figures[name]}. A smaller "
                    f"training.optimizer.lr than {self.settings.optimizer.lr:g}, or precision 32, may help"
                )
        self.history.append(figures)
        # Without a validation fold the last epoch is the best that can be had.
        loss = figures.get("val_loss", -math.inf)
        if loss < self.best_loss or loss == -math.inf:
            self.best_epoch, self.best_loss = epoch, loss
            self.best = {k: v.detach().cpu().clone() for k, v in self.network.state_dict().items()}
        trainer.save_checkpoint(self.folder / _LAST)
        if "csv" in self.settings.track:
            _write_metrics(self.folder / _METRICS, self.history)
        self.sow(epoch + 1)
        self._report(epoch + 1, figures)

    def _report(self, epoch: int, figures: dict[str, float]) -> None:
        if self.progress is not None:
            self.progress(epoch, self.epochs, figures)


class _WholeCheckpointIO(TorchCheckpointIO):
    """Checkpoints are whole or absent."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        if storage_options is not None:
            raise TypeError("checkpoints are plain files; there are no storage options")
        with whole(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


def _write_metrics(path: Path, history: list[dict[str, float]]) -> None:
    """Write the figures of all epochs; the whole file each time, so a resumed training has no gap in it."""
    names = sorted({name for figures in history for name in figures})
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ["epoch", *names], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"epoch": epoch + 1} | figures for epoch, figures in enumerate(history))
    with whole(path) as temporary:
        temporary.write_text(stream.getvalue())


def _early_stopping(settings: TrainingSettings) -> list[EarlyStopping]:
    if settings.early_stopping is None:
        return []
    # Not strict: where there is no validation fold there is no val_loss, and all epochs are run.
    return [EarlyStopping("val_loss", patience=settings.early_stopping, mode="min", strict=False, verbose=False)]


def _devices(settings: TrainingSettings) -> int:
    if settings.devices not in ("auto", 1):
        raise ModelError(
            f"training.devices: found {settings.devices}; this version trains on one device, so auto and 1 are allowed"
        )
    return 1


def _precision(settings: TrainingSettings) -> Literal["32-true", "bf16-mixed", "16-mixed"]:
    cuda = torch.cuda.is_available()
    if settings.precision == "auto":
        return "bf16-mixed" if cuda and torch.cuda.is_bf16_supported() else "32-true"
    if settings.precision == "16" and not cuda:
        raise ModelError("training.precision: 16 needs a GPU, and there is none here; use auto, 32 or bf16")
    return {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[settings.precision]  # type: ignore[return-value]


def _loggers(settings: TrainingSettings, folder: Path) -> list[Logger]:
    """Return the trackers asked for; ``csv`` is written beside the checkpoint."""
    made: list[Logger] = []
    for name in settings.track:
        if name == "csv":
            continue
        if importlib.util.find_spec(name) is None:
            raise ModelError(
                f"training.track: '{name}' needs the package {name}, which is not installed here; install it, or leave "
                f"'{name}' out"
            )
        from lightning.pytorch import loggers

        if name == "tensorboard":
            made.append(loggers.TensorBoardLogger(folder, name=None, version="tensorboard"))
        elif name == "wandb":
            made.append(loggers.WandbLogger(save_dir=folder, project="landweave"))
        else:
            made.append(loggers.MLFlowLogger(experiment_name="landweave"))
    return made


@contextlib.contextmanager
def _threads(network: Network) -> Iterator[None]:
    """Compute on one thread where steps are tiny: dividing them costs more than it saves, 20-fold on a busy machine."""
    before = torch.get_num_threads()
    if network.pixelwise:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's notes and advice from the user's terminal; the job's own progress stands there."""
    names = ("lightning.pytorch", "lightning.fabric")
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for pattern in _ADVICE:
                warnings.filterwarnings("ignore", pattern)
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)

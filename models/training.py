"""Train a task with Lightning: best weights kept, resumable, the same weights from the same seed."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812 - Lightning's own habit
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from models.settings import TrainingSettings
from models.tasks import ClassificationTask

_DONE = "done.json"
_BEST, _LAST = "best.ckpt", "last.ckpt"


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """What a training did.

    Attributes
    ----------
    best_epoch : int
        Epoch (from 0) whose weights were kept.
    history : list of dict
        Figures of each epoch: ``epoch``, ``train_loss`` and, with a validation fold, ``val_loss``, ``val_macro_f1``, ...
    resumed_from : int or None
        Epochs that were done when this call went on, or None.
    seconds : float
        Time this call took.
    """

    best_epoch: int
    history: list[dict[str, float]]
    resumed_from: int | None
    seconds: float


def fit(
    task: ClassificationTask,
    data: L.LightningDataModule,
    folder: Path,
    *,
    stop_after: int | None = None,
    progress: Callable[[dict[str, float]], None] | None = None,
) -> FitResult:
    """Train a task; its network then holds the best weights.

    Parameters
    ----------
    task, data
        What learns, and from what.
    folder : Path
        Checkpoints and logs. A training that was killed goes on from its last epoch; one that is done is not repeated.
    stop_after : int, optional
        Train for so many epochs of the schedule and keep the last weights; there is no validation fold then.
    progress : callable, optional
        Called after each epoch with its figures.

    Returns
    -------
    FitResult
    """
    start = time.monotonic()
    settings = task.options
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / _DONE
    best = folder / (_LAST if stop_after else _BEST)
    if done.is_file():
        state = json.loads(done.read_text())
        _restore(task, best)
        return FitResult(
            best_epoch=state["best_epoch"], history=state["history"], resumed_from=len(state["history"]), seconds=0.0
        )
    last = folder / _LAST
    resume = last if last.is_file() else None
    recorder = _Recorder(folder / "history.json", progress)
    callbacks: list[Callback] = [recorder]
    if stop_after is None:
        callbacks.append(_checkpoint(folder, "best", "val_loss"))
        if settings.early_stopping:
            callbacks.append(EarlyStopping("val_loss", patience=settings.early_stopping))
    # After the one that keeps the best, for it stores what that one knows.
    callbacks.append(_checkpoint(folder, "last", None))
    L.seed_everything(settings.seed, workers=True, verbose=False)
    with _silence():
        trainer = L.Trainer(
            max_epochs=stop_after or settings.epochs,
            accelerator="auto",
            devices=1 if settings.devices == "auto" else settings.devices,
            precision=_precision(settings.precision),
            callbacks=callbacks,
            logger=_loggers(folder, settings.track),
            default_root_dir=folder,
            deterministic="warn",
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0 if stop_after else 1.0,
            log_every_n_steps=1_000_000,
        )
        # Only tensors and plain values are in the checkpoint: nothing in it is run when it is read.
        trainer.fit(task, data, ckpt_path=resume, weights_only=True)
    history = recorder.history
    best_epoch = len(history) - 1
    if stop_after is None:
        best_epoch = min(range(len(history)), key=lambda i: history[i]["val_loss"])
    _restore(task, best)
    _write(done, {"best_epoch": best_epoch, "history": history})
    return FitResult(
        best_epoch=best_epoch,
        history=history,
        resumed_from=recorder.resumed_from,
        seconds=time.monotonic() - start,
    )


class _Recorder(Callback):
    """Keeps the figures of every epoch, over restarts too."""

    def __init__(self, path: Path, progress: Callable[[dict[str, float]], None] | None) -> None:
        self.path, self.progress = path, progress
        self.history: list[dict[str, float]] = []
        self.resumed_from: int | None = None

    def on_train_start(self, trainer: L.Trainer, _module: L.LightningModule) -> None:
        if trainer.current_epoch and self.path.is_file():
            self.history = json.loads(self.path.read_text())[: trainer.current_epoch]
            self.resumed_from = trainer.current_epoch
            for figures in self.history:
                self._tell(figures)

    def on_train_epoch_end(self, trainer: L.Trainer, _module: L.LightningModule) -> None:
        figures = {k: float(v) for k, v in sorted(trainer.callback_metrics.items())}
        self.history.append({"epoch": trainer.current_epoch} | figures)
        _write(self.path, self.history)
        self._tell(self.history[-1])

    def _tell(self, figures: dict[str, float]) -> None:
        if self.progress:
            self.progress(figures)


class _Checkpoint(ModelCheckpoint):
    """Lightning's checkpoint; a file that is replaced is never lost when the process dies in between."""

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        temporary = f"{filepath}.tmp"
        super()._save_checkpoint(trainer, temporary)
        Path(temporary).replace(filepath)

    def _remove_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        # The one file of this callback was replaced in place.
        pass


def _checkpoint(folder: Path, name: str, monitor: str | None) -> ModelCheckpoint:
    return _Checkpoint(
        folder, filename=name, monitor=monitor, save_top_k=1, enable_version_counter=False, save_on_train_epoch_end=True
    )


def _loggers(folder: Path, track: list[Any]) -> list[Logger]:
    made: list[Logger] = []
    if "csv" in track:
        made.append(CSVLogger(folder, name="", version="csv"))
    if "tensorboard" in track:
        made.append(TensorBoardLogger(folder, name="", version="tensorboard"))
    return made


def _precision(name: str) -> Any:
    if name != "auto":
        return name
    return "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"


def _restore(task: ClassificationTask, path: Path) -> None:
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    task.load_state_dict(state)
    task.eval()


def _write(path: Path, value: Any) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)


class _silence:  # noqa: N801 - used like a function
    """Keep Lightning's advice about this machine from the user, who cannot act on it."""

    _LOGGERS = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")

    def __enter__(self) -> None:
        self._levels = {name: logging.getLogger(name).level for name in self._LOGGERS}
        for name in self._LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*num_workers.*")

    def __exit__(self, *_: object) -> None:
        self._warnings.__exit__(None, None, None)
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)

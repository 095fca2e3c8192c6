"""Run a training to its end: one checkpoint an epoch, resumed where it was killed, best weights kept."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from models.files import RANGE_TEST, whole
from models.keeper import LAST, STATE, Keeper, Progress, Stopped
from models.learning import LearningTask
from models.machine import company_of, compiled, options, threads
from models.memory import DIVISION, Division
from models.network import ModelError, Network
from models.quiet import quiet
from models.ranks import Company
from models.schedules import Rate
from models.settings import TrainingSettings
from models.trackers import loggers
from models.trials import learns_one_batch, range_test
from models.watching import Clock, Gradients, gradient_warnings

_DONE = "done.json"


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
    speed : float
        Samples (chips, or pixels of a pixel network) per second of training, validation left aside.
    waiting : float
        Share of that time spent waiting for data.
    notes : list of str
        What the user should know: a rate that was found, a batch that could not be learnt, gradients that vanish or
        explode, a training that diverged.
    """

    best_epoch: int
    history: list[dict[str, float]]
    resumed_from: int | None
    seconds: float
    speed: float
    waiting: float
    notes: list[str]


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
    there is none, it runs all its epochs and keeps the last. One that diverges is stopped and keeps what was best before.
    ``folder`` then holds ``metrics.csv``, ``last.ckpt`` and a mark that it is done: called again, the weights are read
    back and nothing is trained. Where the device cannot hold a batch, it is halved and as many more make a step.

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
        Go on where an interrupted call had written a checkpoint, and keep what is done. False starts anew.
    progress : callable, optional
        Called after each epoch, those of an interrupted call included, with (epochs done, epochs at most, figures).

    Raises
    ------
    ModelError
        If the loss is no longer finite, a checkpoint cannot be read, or an option cannot be met on this machine.
    KeyboardInterrupt
        If the process was asked to stop (SIGTERM): after the step that was in work, when that is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last, done = folder / LAST, folder / _DONE
    if not resume:
        for path in (done, last, folder / RANGE_TEST, folder / DIVISION):
            path.unlink(missing_ok=True)
    epochs = stop_after or settings.epochs
    if done.is_file() and last.is_file():
        return _finished(task.network, last, done, epochs, progress)
    if not task.automatic_optimization and (settings.clip or settings.accumulate > 1):
        raise ModelError(
            "training.clip and training.accumulate: what is learnt here makes its own steps; leave them out"
        )
    division = Division(data, folder)
    first = copy.deepcopy(task.state_dict())
    keeper = None
    while keeper is None:
        try:
            with quiet(), company_of(settings, task) as company:
                with threads(task.network, company.place):
                    settings, notes = _before(task, data, folder, settings, anew=not last.is_file())
                work = functools.partial(_learn, task, data, folder, division.of(settings), epochs, notes)
                company.lead(work)
                keeper = work(company, progress=progress)
        except torch.OutOfMemoryError as error:
            division.halve(last, error)
            task.load_state_dict(first)
    clock = keeper.clock
    task.network.load_state_dict(keeper.best)
    result = FitResult(
        best_epoch=keeper.best_epoch,
        history=keeper.history,
        resumed_from=keeper.resumed_from,
        seconds=keeper.seconds,
        speed=clock.speed,
        waiting=clock.waited,
        notes=[*keeper.notes, *division.notes(settings), *gradient_warnings(keeper.history)],
    )
    with whole(done) as temporary:
        said = dataclasses.asdict(result)
        del said["resumed_from"]
        temporary.write_text(json.dumps(said))
    return result


def _learn(
    task: LearningTask,
    data: LightningDataModule,
    folder: Path,
    settings: TrainingSettings,
    epochs: int,
    notes: list[str],
    company: Company,
    *,
    progress: Progress | None = None,
) -> Keeper:
    """Do a rank's part of a training; return what was kept of it.

    Raises
    ------
    KeyboardInterrupt
        If it was asked to stop; says where it did.
    """
    last = folder / LAST
    if company.place.size > 1:
        task.company = company
    clock, gradients = Clock(), Gradients(task.network)
    keeper = Keeper(task, data, folder, epochs, settings, progress, clock, gradients, company, notes)
    trainer = Trainer(
        **options(settings, company),
        max_epochs=epochs,
        callbacks=[clock, Rate(settings, keeper), gradients, *_early_stopping(settings), keeper],
        logger=loggers(settings, folder) or False,
        profiler=clock.fetching,
        default_root_dir=folder,
        gradient_clip_val=settings.clip,
        accumulate_grad_batches=settings.accumulate,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )
    task.train()  # Lightning leaves every module in the mode it finds
    if not last.is_file():
        keeper.sow(0)
    try:
        with quiet(), threads(task.network, company.place), compiled(task.network, settings):
            trainer.fit(task, data, ckpt_path=last if last.is_file() else None, weights_only=True)
    except (EOFError, pickle.UnpicklingError) as error:
        raise ModelError(_damaged(last, error)) from error
    except Stopped as stop:
        raise KeyboardInterrupt(f"training was stopped {stop}; the same command goes on from there") from stop
    except SystemExit as stop:
        # So ends Lightning when it is interrupted, Ctrl-C included.
        raise KeyboardInterrupt from stop
    finally:
        task.company = None
    return keeper


def _before(
    task: LearningTask,
    data: LightningDataModule,
    folder: Path,
    settings: TrainingSettings,
    *,
    anew: bool,
) -> tuple[TrainingSettings, list[str]]:
    """Try out the network where that is asked for; return the settings with a rate, and what there is to say."""
    notes = []
    if settings.check_batch and anew and task.automatic_optimization:
        wrong = learns_one_batch(task, data)
        notes += [wrong] if wrong else []
    if settings.optimizer.lr == "auto":
        kept = folder / RANGE_TEST
        if anew or not kept.is_file():
            with whole(kept) as temporary:
                temporary.write_text(json.dumps(range_test(task, data, options(settings)).to_json()))
        rate = float(json.loads(kept.read_text())["suggestion"])
        settings = settings.model_copy(update={"optimizer": settings.optimizer.model_copy(update={"lr": rate})})
        task.settings = settings
        notes.append(f"learning rate {rate:.2g}, found by a range test")
    return settings, notes


def _finished(network: Network, last: Path, done: Path, epochs: int, progress: Progress | None) -> FitResult:
    """Read back what an earlier call has finished."""
    said = json.loads(done.read_text())
    try:
        state = torch.load(last, map_location="cpu", weights_only=True)
        network.load_state_dict(state["callbacks"][STATE]["best"])
    except (EOFError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
        raise ModelError(_damaged(last, error)) from error
    if progress is not None:
        for i, figures in enumerate(said["history"]):
            progress(i + 1, epochs, figures)
    return FitResult(resumed_from=len(said["history"]), **said)


def _damaged(last: Path, error: Exception) -> str:
    reason = str(error).partition("\n")[0]
    return f"{last} is damaged or belongs to another network; delete it, or train with --overwrite ({reason})"


def _early_stopping(settings: TrainingSettings) -> list[EarlyStopping]:
    if settings.early_stopping is None:
        return []
    # Not strict: where there is no validation fold there is no val_loss, and all epochs are run.
    return [EarlyStopping("val_loss", patience=settings.early_stopping, mode="min", strict=False, verbose=False)]

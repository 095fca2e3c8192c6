"""One trial of a search: the job with other settings, trained on the first fold, and judged by its validation labels."""

from __future__ import annotations

import functools
import json
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from models.network import ModelError
from pipeline.samples.chips import ChipStore
from workflows.console import Console
from workflows.context import Context
from workflows.job import Job
from workflows.learn import learn
from workflows.load import make_job
from workflows.variant import changed, variant

if TYPE_CHECKING:
    import optuna

# By what trials are compared: classes count alike, and a loss that is weighted otherwise stays comparable. Where there are no
# classes there is only the loss.
OBJECTIVES: dict[str, tuple[str, Literal["maximize", "minimize"]]] = {"classification": ("val_macro_f1", "maximize")}
_LOSS: tuple[str, Literal["maximize", "minimize"]] = ("val_loss", "minimize")

STUDY = "tune"

# Weights are drawn from a generator that all threads of a process share.
_ALONE = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A trial to be run: its number in the study, its identity in the journal, and the values it was given."""

    number: int
    identity: int
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a trial.

    Attributes
    ----------
    state : str
        ``done``, ``pruned`` (given up, for others were better at that age) or ``failed`` (training broke down).
    value : float or None
        The figure, of the network that would be kept.
    epochs, best_epoch : int
        Run, and the one that is kept, both counted from 1; 0 where none was.
    seconds : float
        Training time.
    error : str
        Why it failed.
    """

    state: Literal["done", "pruned", "failed"]
    value: float | None = None
    epochs: int = 0
    best_epoch: int = 0
    seconds: float = 0.0
    error: str = ""


def objective(job: Job) -> tuple[str, Literal["maximize", "minimize"]]:
    """Return the figure by which trials are compared, and which way is better."""
    return OBJECTIVES.get(job.task, _LOSS)


def epochs_of(job: Job) -> int:
    """Return the most epochs of a trial."""
    return job.tune.epochs or job.training.epochs


def open_study(journal: Path, job: Job, sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    """Return the study that is kept in a journal, or begin one.

    Trials are given up by the median of those that were run to their end (Golovin et al. 2017), after a fifth of the epochs.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    journal.parent.mkdir(parents=True, exist_ok=True)
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(journal))),
        study_name=STUDY,
        direction=objective(job)[1],
        sampler=sampler,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=max(1, epochs_of(job) // 5)),
        load_if_exists=True,
    )


@dataclass
class Follower:
    """Follows a training epoch by epoch, and ends one that lags behind the others at its age.

    What is told is the figure of the network that would be kept if the training ended: that of the lowest loss so far.
    """

    trial: optuna.Trial
    name: str
    reported: set[int]
    tell: Callable[[int], None]
    kept: float = math.nan
    lowest: float = math.inf
    epochs: int = 0
    best_epoch: int = 0

    def __call__(self, epoch: int, epochs: int, figures: dict[str, float]) -> None:  # noqa: ARG002 - as `learn` calls it
        """Take the figures of an epoch.

        Raises
        ------
        optuna.TrialPruned
            If the trial is not worth its time.
        """
        import optuna

        self.epochs = epoch
        if figures["val_loss"] < self.lowest:
            self.lowest, self.kept, self.best_epoch = figures["val_loss"], figures[self.name], epoch
        # A trial that is taken up again has told some already.
        if epoch - 1 not in self.reported:
            self.trial.report(self.kept, epoch - 1)
        self.tell(epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def run_trial(
    context: Context, store: ChipStore, study: optuna.Study, asked: Asked, folder: Path, tell: Callable[[int], None]
) -> Outcome:
    """Train the job with the values of a trial, in a folder of its own; go on where it was interrupted.

    Only the training and the validation fold of the first round are looked at.
    """
    import optuna

    job = trial_job(context.job, asked.values)
    trial = optuna.Trial(study, asked.identity)
    told = study.get_trials(deepcopy=False)[asked.number].intermediate_values
    follower = Follower(trial, objective(job)[0], set(told), tell)
    run = variant(context, job, store=store, console=Console(quiet=True))
    with _ALONE:
        try:
            _, result = learn(run, store, 0, folder, epochs=job.tune.epochs, progress=follower)
        except optuna.TrialPruned:
            return Outcome(state="pruned", value=follower.kept, epochs=follower.epochs, best_epoch=follower.best_epoch)
        except ModelError as error:
            return Outcome(state="failed", epochs=follower.epochs, error=str(error))
    return Outcome(
        state="done",
        value=result.history[result.best_epoch][follower.name],
        epochs=len(result.history),
        best_epoch=result.best_epoch + 1,
        seconds=result.seconds,
    )


def trial_job(job: Job, values: Mapping[str, Any]) -> Job:
    """Return the job of a trial: its values, on one device, and nothing written but what resuming needs."""
    alone = dict.fromkeys(("training.devices", "training.nodes", "training.strategy"), "auto")
    return changed(job, {**values, **alone, "training.track": []}, "a trial of the search")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialTask:
    """Trials as Dask runs them: a pure function of the job and the trial.

    Attributes
    ----------
    job : Job
        The job as it stands.
    chips : Path
        Its samples.
    journal, folder : Path
        The study, and where trainings in work lie; all workers see both.
    """

    job: Job
    chips: Path
    journal: Path
    folder: Path

    def __call__(self, asked: Asked) -> Outcome:
        """Run a trial."""
        import optuna

        quiet()
        # What the trial was given is in the journal: nothing is drawn here.
        study = open_study(self.journal, self.job, optuna.samplers.RandomSampler(seed=0))
        folder = trial_folder(self.folder, asked.number)
        context = _opened(json.dumps(self.job.dump()))
        return run_trial(context, ChipStore.open(self.chips), study, asked, folder, lambda _: None)


def trial_folder(folder: Path, number: int) -> Path:
    """Return where a trial keeps its training while it is in work."""
    return folder / f"trial-{number:04d}"


def quiet() -> None:
    """Keep the library's own lines from the user's terminal."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)


@functools.lru_cache(maxsize=1)
def _opened(text: str) -> Context:
    """Return the run of a job given as JSON; each process opens its imagery and labels once."""
    return Context(make_job(json.loads(text), base=Path()), Console(quiet=True))

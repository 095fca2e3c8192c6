"""Look for better settings: trainings with other values, judged on the validation fold, never on the test fold."""

from __future__ import annotations

import importlib.util
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.cluster import dask_client, workers_kept
from pipeline.engine import run_tasks
from pipeline.errors import RequestError, RunError
from pipeline.samples.folds import VAL
from workflows.context import Context
from workflows.keys import key_train
from workflows.prepare import prepare
from workflows.space import Choices, Range, Space, check_space, search_space
from workflows.trial import Asked, Outcome, TrialTask, epochs_of, open_study, quiet, run_trial, trial_folder
from workflows.tuned import Tried, write_tuned
from workflows.variant import value_at

if TYPE_CHECKING:
    import optuna

    from pipeline.samples.chips import ChipStore


def tune(context: Context) -> list[tuple[str, Path]]:
    """Search the space of a job, and write the best job found beside what was tried.

    The samples are cut once. The first trial is the job as it stands; the others are drawn by a tree-structured Parzen
    estimator (Bergstra et al. 2011). What trial n draws is a function of the seed, of n and of the trials that have ended. So
    with one worker a search that was killed and given again ends as an undisturbed one; but a trial that was killed while it
    was being drawn counts as failed. With several workers trials end in an order that depends on the machine, and later
    ones draw accordingly; and ``tune.minutes`` is time, which no seed repeats.

    Returns
    -------
    list of (str, Path)
        What was made.

    Raises
    ------
    JobError
        If the space holds what cannot be varied.
    RequestError
        If Optuna is missing, or there are no validation labels to judge by.
    StaleError
        If the folder holds a search of another job and overwriting was not asked for.
    RunError
        If no trial could be trained to its end.
    """
    if importlib.util.find_spec("optuna") is None:
        raise RequestError(
            "landweave tune needs the package optuna, which is not installed: pip install 'landweave[tune]'"
        )
    output, job = context.output, context.job
    space = search_space(job)
    with output.held(), workers_kept():
        check_space(context, space)
        store = prepare(context)
        context.console.stage(f"tune: {job.model.name}")
        validation = int(store.counts(0, VAL).sum())
        if not validation:
            raise RequestError(
                "folds: there are no validation labels to judge trials by; give a share of validation (folds.fractions), or more "
                "labels"
            )
        if store.rounds > 1:
            context.console.note(
                f"the job is cross-validated: trials are judged on the validation labels of fold 1 of {store.rounds}. The other "
                "folds test on labels that trials have learned from: figures of the settings found are a little optimistic"
            )
        search = _Search(context, store, space, _fresh_folder(context, space))
        seconds = search.run()
        tried = search.tried()
        if not any(t.state == "done" for t in tried):
            errors = [t.error for t in tried if t.error]
            raise RunError(f"tune: no trial was trained to its end{': ' + errors[0] if errors else ''}")
        return write_tuned(context, space, tried, search.importances(), validation=validation, seconds=seconds)


def _fresh_folder(context: Context, space: Space) -> Path:
    """Return the folder of the study; it is empty where none was begun with this job and space."""
    output, job = context.output, context.job
    folder = output.work / "tune"
    asked = {name: repr(one) for name, one in space.items()}
    key = key_train(context) | {"tune": {"space": asked, "epochs": epochs_of(job), "seed": job.tune.seed}}
    output.fresh("tune", key, overwrite=context.overwrite)
    state = output.state("tune")
    if state is None or state["key"] != json.loads(json.dumps(key)):
        shutil.rmtree(folder, ignore_errors=True)
        output.begin("tune", key)
    return folder


class _Search:
    """The trials of one search, those of interrupted calls included."""

    def __init__(self, context: Context, store: ChipStore, space: Space, folder: Path) -> None:
        import optuna

        quiet()
        self.context = context
        self.store = store
        self.space = space
        self.folder = folder
        self.journal = folder / "journal.log"
        _mend(self.journal)
        self.study = open_study(self.journal, context.job, optuna.samplers.RandomSampler(seed=0))
        self.begun = time.monotonic()

    def run(self) -> float:
        """Run the trials that are missing; return the seconds it took."""
        job, console = self.context.job, self.context.console
        epochs, had = epochs_of(job), len(self.study.trials)
        if had:
            console.note(f"resumed: {min(had, job.tune.trials)} of {job.tune.trials} trials were begun before")
        with console.progress(f"{job.tune.trials} trials", job.tune.trials * epochs, "epochs") as tell:

            def keep(asked: Asked, outcome: Outcome) -> None:
                self._keep(asked, outcome)
                tell(self._ended() * epochs, job.tune.trials * epochs)

            compute = job.compute
            if compute.scheduler is None and compute.workers in ("auto", 1):
                for asked in self._asked():
                    before = self._ended() * epochs
                    folder = trial_folder(self.folder, asked.number)

                    def follow(epoch: int, before: int = before) -> None:
                        tell(before + epoch, job.tune.trials * epochs)

                    keep(asked, run_trial(self.context, self.store, self.study, asked, folder, follow))
            else:
                task = TrialTask(job=job, chips=self.store.path, journal=self.journal, folder=self.folder)
                with dask_client(compute, console.note) as client:
                    failures = run_tasks(task, self._asked(), client=client, on_result=keep, retries=0)
                if failures:
                    raise RunError(f"trial {failures[0].item.number} failed: {failures[0].error}")
        return time.monotonic() - self.begun

    def _asked(self) -> Iterator[Asked]:
        """Yield the trials that are to be run: first those that were interrupted, then new ones."""
        import optuna

        limit = self.context.job.tune.minutes
        for trial in self.study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            if trial.number and set(trial.params) != set(self.space):
                # Killed while it was being drawn: there is nothing to go on with.
                self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
                continue
            yield Asked(number=trial.number, identity=trial._trial_id, values=_decoded(trial.params))
        while len(self.study.trials) < self.context.job.tune.trials:
            if limit is not None and time.monotonic() - self.begun > 60 * limit:
                self.context.console.note(f"tune.minutes: no further trial is begun after {limit:g} minutes")
                return
            yield self._draw(len(self.study.trials))

    def _draw(self, number: int) -> Asked:
        import optuna

        job = self.context.job
        own = {name: value_at(job, name) for name in self.space}
        if number == 0:
            # The job as it stands. Where it lies outside the space, the sampler does not hear of it.
            inside = all(self.space[name].holds(value) for name, value in own.items())
            if inside:
                self.study.enqueue_trial({name: _encoded(self.space[name], value) for name, value in own.items()})
            trial = self.study.ask(_distributions(self.space) if inside else {})
            return Asked(number=trial.number, identity=trial._trial_id, values={})
        # A generator of its own for each trial: what is drawn does not depend on which calls drew the others.
        seed = int(np.random.SeedSequence([job.tune.seed, number]).generate_state(1)[0])
        self.study.sampler = optuna.samplers.TPESampler(seed=seed)
        trial = self.study.ask(_distributions(self.space))
        return Asked(number=trial.number, identity=trial._trial_id, values=_decoded(trial.params))

    def _keep(self, asked: Asked, outcome: Outcome) -> None:
        """Write into the journal how a trial ended, and remove what only resuming it needed."""
        import optuna

        states = {"done": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
        trial = optuna.Trial(self.study, asked.identity)
        for name in ("epochs", "best_epoch", "seconds", "error"):
            trial.set_user_attr(name, getattr(outcome, name))
        value = outcome.value if outcome.state == "done" else None
        self.study.tell(asked.number, value, state=optuna.trial.TrialState[states[outcome.state]])
        shutil.rmtree(trial_folder(self.folder, asked.number), ignore_errors=True)

    def _ended(self) -> int:
        return sum(t.state.is_finished() for t in self.study.get_trials(deepcopy=False))

    def tried(self) -> list[Tried]:
        """Return what was tried, in order."""
        states = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed"}
        return [
            Tried(
                number=t.number,
                state=states[t.state.name],
                value=t.value if t.value is not None else next(reversed(t.intermediate_values.values()), None),
                values=_decoded(t.params) if t.number else {n: value_at(self.context.job, n) for n in self.space},
                epochs=t.user_attrs.get("epochs", 0),
                best_epoch=t.user_attrs.get("best_epoch", 0),
                seconds=t.user_attrs.get("seconds", 0.0),
                error=t.user_attrs.get("error", ""),
            )
            for t in self.study.get_trials()
            if t.state.is_finished()
        ]

    def importances(self) -> dict[str, float]:
        """Return how much of the variation each setting explains (functional ANOVA, Hutter et al. 2014), the largest first.

        Empty where fewer than four trials were run to their end, or all came to the same.
        """
        import optuna
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        done = [t for t in self.study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)) if t.params]
        if len(done) < 4 or len({t.value for t in done}) < 2:
            return {}
        evaluator = FanovaImportanceEvaluator(seed=self.context.job.tune.seed)
        return get_param_importances(self.study, evaluator=evaluator, params=list(self.space))


def _distributions(space: Space) -> dict[str, optuna.distributions.BaseDistribution]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    made: dict[str, Any] = {}
    for name, one in space.items():
        if isinstance(one, Choices):
            made[name] = CategoricalDistribution([_encoded(one, v) for v in one.values])
        elif one.whole:
            made[name] = IntDistribution(int(one.low), int(one.high), log=one.log)
        else:
            made[name] = FloatDistribution(one.low, one.high, log=one.log)
    return made


def _encoded(one: Range | Choices, value: Any) -> Any:
    """Return a value as the journal holds it: choices, which may be lists, as JSON."""
    return json.dumps(value) if isinstance(one, Choices) else value


def _decoded(params: dict[str, Any]) -> dict[str, Any]:
    return {name: json.loads(v) if isinstance(v, str) else v for name, v in params.items()}


def _mend(journal: Path) -> None:
    """Cut off the part of a line that a process killed while writing has left."""
    if not journal.is_file():
        return
    with journal.open("r+b") as stream:
        whole = stream.read().rfind(b"\n") + 1
        stream.truncate(whole)

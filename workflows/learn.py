"""One training: the samples of a round of the folds, a network, and the bundle that comes of them."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from models.adversarial import AdversarialTask
from models.bundle import Bundle
from models.forecasting import ForecastTask
from models.initialisation import initialise
from models.network import ModelError
from models.networks.coding import CodingNetwork
from models.networks.gan import GAN
from models.reconstruction import ReconstructionTask
from models.regression import RegressionTask
from models.tasks import ClassificationTask
from models.training import FitResult, fit
from pipeline.engine import cores
from pipeline.imagery.statistics import Statistics
from pipeline.samples.chips import ALL, ChipStore
from pipeline.samples.datamodule import ChipDataModule
from pipeline.samples.folds import TRAIN
from pipeline.samples.pixels import covariance_of, moments_of, numbers_of
from workflows.console import duration, quantity
from workflows.curves import judge
from workflows.fitting import begin_with, imagery_facts
from workflows.horizons import window_of

if TYPE_CHECKING:
    from models.learning import LearningTask
    from models.network import Network
    from models.settings import TrainingSettings
    from workflows.context import Context

Progress = Callable[[int, int, dict[str, float]], None]


def learn_round(
    context: Context, store: ChipStore, round_: int | str, name: str, epochs: int | None = None
) -> tuple[Bundle, FitResult]:
    """Train the network of one round in the run's own folder, tell how it went, and write its bundle there.

    Parameters
    ----------
    context, store
        The job, and its samples.
    round_ : int or str
        The round; ``"all"`` trains on every label.
    name : str
        What the user is told that this is.
    epochs : int, optional
        Run so many, under a schedule of that length. Default: as the job says.
    """
    folder = context.output.rounds / (ALL if round_ == ALL else f"round-{round_}")
    with context.console.progress(name, context.job.training.epochs, "epochs") as tell:
        bundle, result = learn(context, store, round_, folder, epochs=epochs, progress=lambda i, n, _: tell(i, n))
    if result.resumed_from:
        context.console.note(f"{name}: resumed after epoch {result.resumed_from}")
    best = result.history[result.best_epoch] if result.history else {}
    shown = ", ".join(f"{k} {best[k]:.3f}" for k in ("val_loss", "val_macro_f1") if k in best)
    context.console.note(
        f"{name}: {len(result.history)} epochs in {duration(result.seconds)} ({quantity(result.speed)}samples/s, "
        f"{result.waiting:.0%} of the time waiting for data), "
        + (f"best {result.best_epoch + 1} ({shown})" if shown else "the last kept")
    )
    for said in [*result.notes, *([judge(result.history)[1]] if result.history else [])]:
        context.console.note(f"{name}: {said}")
    bundle.save(folder / "bundle")
    return Bundle.load(folder / "bundle"), result


def learn(
    context: Context,
    store: ChipStore,
    round_: int | str,
    folder: Path,
    *,
    epochs: int | None = None,
    progress: Progress | None = None,
) -> tuple[Bundle, FitResult]:
    """Train a new network on one round, in a folder of its own; resume what was begun there.

    Returns
    -------
    tuple of Bundle and FitResult
        The bundle is not yet written, and not calibrated.
    """
    torch.set_num_threads(cores())
    torch.manual_seed(context.job.training.seed)
    settings = _settings(context, epochs)
    network, before = context.network(), context.pretrained
    bands = Statistics.from_moments(moments_of(store, round_))
    initialise(network, settings.initialisation)
    if before is not None:
        facts = imagery_facts(context.cube) if context.samples is None else context.samples.scaling
        begin_with(network, before, store.attrs["bands"], facts)
        # What has been learnt belongs to values normalised as they were then.
        bands = Statistics(mean=np.asarray(before.mean, np.float32), std=np.asarray(before.std, np.float32))
    if network.components:
        network.project(torch.from_numpy(covariance_of(store, round_, bands)))
    _check_augmentation(settings, network, single_date=store.time.shape[1] == 1)
    data = ChipDataModule(
        store.path,
        round_,
        bands,
        batch_size=settings.samples_per_step(len(store.indices(round_, TRAIN)), store.kind),
        augment=tuple(settings.augment),
        sampling=settings.sampling,
        seed=settings.seed,
        numeric=context.job.task == "regression",
        unlabelled=_beside(context, store) if network.semi_supervised else None,
    )
    task = _task(context, store, round_, network, settings)
    result = fit(task, data, folder, settings, stop_after=epochs, progress=progress)
    return _bundle(context, store, round_, task.network, bands), result


def _beside(context: Context, store: ChipStore) -> Path:
    """Return the store of what is seen without its labels: land, or the samples themselves where there is no imagery."""
    if context.samples is None:
        # Where the samples are: another training may use those of this one.
        return store.path.with_name(context.output.unlabelled.name)
    context.say(
        [
            f"the {context.samples.what} come without imagery: the network '{context.job.model.name}' learns from them alone"
        ]
    )
    return store.path


def _settings(context: Context, epochs: int | None) -> TrainingSettings:
    """Return the job's training, with what depends on the labels decided."""
    training = context.job.training
    drawn = context.samples is None and context.labels.n_features > 0 and not context.labels.points
    update: dict[str, Any] = {"loss": training.loss.resolved(drawn=drawn)}
    # Without a validation fold nothing picks an early state of the network: the schedule runs to its end.
    return training.model_copy(update=update | ({"epochs": epochs} if epochs else {}))


def _check_augmentation(settings: TrainingSettings, network: Network, *, single_date: bool) -> None:
    """Refuse changes of series that would change nothing, or everything."""
    if "shift" in settings.augment and network.fixed_dates:
        raise ModelError(
            f"training.augment: found shift, which moves the days of dates, but the network '{network.name}' takes dates by "
            "their place and never sees the days; leave shift out, or take a network that goes by the day (ltae, lstm)"
        )
    if "drop" in settings.augment and single_date:
        raise ModelError(
            "training.augment: found drop, which leaves dates out, but there is one date only; leave it out"
        )


def _task(
    context: Context, store: ChipStore, round_: int | str, network: Network, settings: TrainingSettings
) -> LearningTask:
    """Return what is learnt."""
    name = context.job.task
    if name == "forecast":
        return ForecastTask(network, settings, context.horizon, centred=store.kind == "patches")
    if name == "regression":
        mean, std = _numbers(store, round_)
        return RegressionTask(network, settings, mean=mean, std=std, centred=store.kind == "patches")
    if name == "reconstruction":
        assert isinstance(network, CodingNetwork)
        return ReconstructionTask(network, settings)
    counts = store.counts(round_, TRAIN).tolist()
    if isinstance(network, GAN):
        return AdversarialTask(network, classes=network.classes, settings=settings, counts=counts)
    return ClassificationTask(
        network, classes=network.classes, settings=settings, counts=counts, centred=store.kind == "patches"
    )


def _numbers(store: ChipStore, round_: int | str) -> tuple[float, float]:
    """Return mean and standard deviation of the numbers that train; a deviation of one where all are the same."""
    numbers = numbers_of(store, round_, TRAIN)
    return float(numbers.mean()), float(numbers.std()) or 1.0


def _meaning(context: Context, store: ChipStore, round_: int | str) -> dict[str, Any]:
    """Return what the outputs of the network mean, as far as that is known before it has learnt."""
    if context.job.task == "forecast":
        horizon = context.horizon
        return {
            "name": "forecast",
            "steps": horizon.steps,
            "bands": [store.attrs["bands"][i] for i in horizon.bands],
        }
    if context.job.task == "regression":
        labels = context.job.labels
        assert labels is not None
        mean, std = _numbers(store, round_)
        return {
            "name": "regression",
            "quantity": labels.field or Path(labels.file).stem,
            "units": labels.units,
            "mean": mean,
            "std": std,
        }
    return {"name": context.job.task}


def _bundle(context: Context, store: ChipStore, round_: int | str, network: Network, bands: Statistics) -> Bundle:
    # Of the last period: what a network that takes dates by place was shown, and what a reader is told.
    last = context.imaged[-1] if context.imaged else None
    if last is not None and context.job.task == "forecast":
        last = window_of(last, context.horizon, context.horizon.tested)
    time, dates = (store.time[0], None) if last is None else (last.time, last.dates)
    seen = network.dates
    return Bundle(
        network=network,
        bands=list(store.attrs["bands"]),
        dates=[d.isoformat() if d else None for d in dates[:seen]] if dates else [None] * seen,
        time=[float(t) for t in time[:seen]],
        mean=[float(v) for v in bands.mean],
        std=[float(v) for v in bands.std],
        task=_meaning(context, store, round_),
        legend=context.legend.to_json() if context.job.task == "classification" else [],
        temperature=1.0,
        figures={},
        training={},
        imagery={
            "bands": imagery_facts(context.cube) if context.samples is None else context.samples.scaling,
            "temporal": context.job.temporal.model_dump(mode="json"),
            "periods": list(store.attrs["periods"]),
            "indices": list(context.job.indices),
            "roles": dict(context.job.roles),
        },
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )

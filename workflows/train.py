"""Train the network of a job: one split, or k folds and then everything; and write the bundle."""

from __future__ import annotations

import dataclasses
import datetime
import shutil
import statistics as numbers
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from models.bundle import Bundle
from models.calibration import expected_calibration_error, fit_temperature
from models.tasks import ClassificationTask
from models.training import FitResult, fit
from pipeline.engine import cores, dask_client
from pipeline.errors import RequestError
from pipeline.files import digest_of, write_json
from pipeline.imagery.statistics import Statistics
from pipeline.samples.chips import ALL, ChipStore
from pipeline.samples.datamodule import ChipDataModule
from pipeline.samples.folds import TRAIN, VAL
from workflows.assess import assess, probabilities
from workflows.console import duration
from workflows.context import Context
from workflows.prepare import prepare

if TYPE_CHECKING:
    from distributed import Client

    from workflows.assess import Assessed


def train(context: Context) -> Bundle:
    """Train, or load what was trained from the same inputs.

    With one split the network learns on the training fold and stops by the validation fold. With k folds, k networks
    do so in turn; the one that maps then learns from all labels, for the median of the epochs that were best.

    Raises
    ------
    StaleError
        If the folder holds a model made from other inputs and overwriting was not asked for.
    """
    output, console = context.output, context.console
    store = prepare(context)
    console.stage(f"train: {context.job.model.name}")
    key = context.key_train()
    if output.fresh("train", key, overwrite=context.overwrite) and (output.model / "bundle.json").is_file():
        console.note("up to date")
        return Bundle.load(output.model)
    mark = output.rounds / "key"
    if output.rounds.is_dir() and (not mark.is_file() or mark.read_text() != digest_of(key)):
        shutil.rmtree(output.rounds)
    output.rounds.mkdir(parents=True, exist_ok=True)
    mark.write_text(digest_of(key))
    output.begin("train", key)
    trainer = _Trainer(context, store)
    with dask_client(context.job.compute) as client:
        bundle = trainer.run(client)
    log = trainer.final / "metrics.csv"
    if log.is_file():
        shutil.copyfile(log, output.model / "metrics.csv")
    output.finish("train", key)
    return bundle


class _Trainer:
    """The trainings of one job."""

    def __init__(self, context: Context, store: ChipStore) -> None:
        self.context = context
        self.store = store
        self.settings = context.job.training
        self.rounds = range(len(context.folds.rounds))
        self.final = context.output.rounds / ("round-0" if len(self.rounds) == 1 else ALL)

    def run(self, client: Client) -> Bundle:
        """Train all rounds, calibrate, and write the bundle."""
        console = self.context.console
        results, validated = [], []
        for i in self.rounds:
            name = f"fold {i + 1} of {len(self.rounds)}" if len(self.rounds) > 1 else "training"
            bundle, result = self._round(i, name, None)
            results.append(result)
            folder = self.context.output.rounds / f"round-{i}" / "bundle"
            validated.append(assess(bundle, folder, self.store, i, VAL, self.context.imaged, client))
        if len(self.rounds) > 1:
            epochs = max(1, round(numbers.median(r.best_epoch + 1 for r in results)))
            console.note(
                f"the network that maps learns from all labels for {epochs} epochs: the median best of the folds"
            )
            bundle, result = self._round(ALL, "all labels", epochs)
            results.append(result)
        return self._finish(bundle, results, validated)

    def _round(self, round_: int | str, name: str, epochs: int | None) -> tuple[Bundle, FitResult]:
        context = self.context
        folder = context.output.rounds / (ALL if round_ == ALL else f"round-{round_}")
        torch.set_num_threads(cores())
        torch.manual_seed(self.settings.seed)
        # Without a validation fold nothing picks an early state of the network: the schedule runs to its end.
        drawn = context.table is None and context.labels.n_features > 0 and not context.labels.points
        update: dict[str, Any] = {"loss": self.settings.loss.resolved(drawn=drawn)}
        settings = self.settings.model_copy(update=update | ({"epochs": epochs} if epochs else {}))
        bands = Statistics.from_moments(self.store.moments(round_))
        network = context.network()
        classes = len(context.legend.classes)
        data = ChipDataModule(
            self.store.path,
            round_,
            bands,
            batch_size=self.settings.samples_per_step(
                len(self.store.indices(round_, TRAIN)), single_pixels=self.store.size == 1
            ),
            augment=tuple(self.settings.augment),
            sampling=self.settings.sampling,
            seed=self.settings.seed,
        )
        task = ClassificationTask(
            network, classes=classes, settings=settings, counts=self.store.counts(round_, TRAIN).tolist()
        )
        with context.console.progress(name, settings.epochs, "epochs") as tell:
            result = fit(task, data, folder, settings, stop_after=epochs, progress=lambda i, n, _: tell(i, n))
        if result.resumed_from:
            context.console.note(f"{name}: resumed after epoch {result.resumed_from}")
        best = result.history[result.best_epoch] if result.history else {}
        shown = ", ".join(f"{k} {best[k]:.3f}" for k in ("val_loss", "val_macro_f1") if k in best)
        context.console.note(
            f"{name}: {len(result.history)} epochs in {duration(result.seconds)}, "
            + (f"best {result.best_epoch + 1} ({shown})" if shown else "the last kept")
        )
        bundle = self._bundle(task.network, bands)
        bundle.save(folder / "bundle")
        return Bundle.load(folder / "bundle"), result

    def _bundle(self, network: Any, bands: Statistics) -> Bundle:
        context = self.context
        # Of the last period: what a network that takes dates by place was shown, and what a reader is told.
        last = context.imaged[-1] if context.imaged else None
        time = self.store.time[0] if last is None else last.time
        return Bundle(
            network=network,
            bands=list(self.store.attrs["bands"]),
            dates=[d.isoformat() if d else None for d in last.dates] if last else [None] * len(time),
            time=[float(t) for t in time],
            mean=[float(v) for v in bands.mean],
            std=[float(v) for v in bands.std],
            legend=context.legend.to_json(),
            temperature=1.0,
            figures={},
            training={},
            imagery={
                "bands": imagery_facts(context.cube) if context.imaged else {},
                "temporal": context.job.temporal.model_dump(mode="json"),
                "periods": list(self.store.attrs["periods"]),
                "indices": list(context.job.indices),
                "roles": dict(context.job.roles),
            },
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )

    def _finish(self, bundle: Bundle, results: list[FitResult], validated: list[Assessed]) -> Bundle:
        context, output = self.context, self.context.output
        scores = np.concatenate([v.scores for v in validated])
        target = np.concatenate([v.places.target for v in validated])
        temperature = fit_temperature(scores, target)
        before = expected_calibration_error(probabilities(scores, 1.0), target)
        after = expected_calibration_error(probabilities(scores, temperature), target)
        context.console.note(
            f"calibrated on {len(target)} validation pixels: temperature {temperature:.2f}, "
            f"calibration error {before:.3f} -> {after:.3f}"
        )
        bundle = dataclasses.replace(
            bundle,
            temperature=float(temperature),
            figures={"calibration": {"n": len(target), "temperature": temperature, "before": before, "after": after}},
            training={
                "settings": context.job.training.model_dump(mode="json"),
                "rounds": len(self.rounds),
                "epochs": [len(r.history) for r in results],
                "best_epochs": [r.best_epoch + 1 for r in results],
            },
        )
        write_json(output.rounds / "histories.json", [r.history for r in results])
        bundle.save(output.model)
        return Bundle.load(output.model)


def imagery_facts(cube: Any) -> dict[str, Any]:
    """Return what new imagery must share with the imagery that was trained on: scales, offsets and nodata per band."""
    facts: dict[str, Any] = {}
    for source in cube.sources:
        for band, scale, offset in zip(source.bands, source.scales, source.offsets, strict=True):
            # What is not a number is never data; and JSON has no sign for it.
            nodata = None if source.nodata is None or np.isnan(source.nodata) else source.nodata
            fact = facts.setdefault(band, {"scaling": [], "nodata": nodata})
            # They may change from date to date, as Sentinel-2's did.
            if [scale, offset] not in fact["scaling"]:
                fact["scaling"].append([scale, offset])
    return facts


def round_bundle(context: Context, round_: int) -> tuple[Bundle, Path]:
    """Return the network of one fold, and its folder."""
    folder = context.output.rounds / f"round-{round_}" / "bundle"
    return Bundle.load(folder), folder


def trained(context: Context) -> Bundle:
    """Return the job's bundle.

    Raises
    ------
    RequestError
        If the job has not been trained; names the command that does it.
    StaleError
        If it was trained from other inputs.
    """
    output = context.output
    done = output.fresh("train", context.key_train(), overwrite=False)
    if not done or not (output.model / "bundle.json").is_file():
        raise RequestError(f"{output.model} holds no trained model yet; `landweave train` or `landweave run` makes it")
    return Bundle.load(output.model)

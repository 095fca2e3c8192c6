"""Train the network of a job: one split, or k folds and then everything; and write the bundle."""

from __future__ import annotations

import dataclasses
import shutil
import statistics as numbers
from pathlib import Path
from typing import TYPE_CHECKING

from models.bundle import Bundle
from models.files import RANGE_TEST
from pipeline.cluster import dask_client
from pipeline.errors import RequestError
from pipeline.files import digest_of, write_json
from pipeline.samples.chips import ALL, ChipStore
from pipeline.samples.folds import TRAIN, VAL
from workflows.assess import assess
from workflows.context import Context
from workflows.finishing import MEASURED, calibrated, clustered, spread
from workflows.keys import key_train
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
    key = key_train(context)
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
    with dask_client(context.job.compute, context.console.note) as client:
        bundle = trainer.run(client)
    for name in ("metrics.csv", RANGE_TEST):
        log = trainer.final / name
        if log.is_file():
            shutil.copyfile(log, output.model / name)
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
        # Lightning takes seconds to load: only where something is learnt.
        from workflows.learn import learn_round

        console = self.context.console
        results, validated = [], []
        task = self.context.job.task
        for i in self.rounds:
            name = f"fold {i + 1} of {len(self.rounds)}" if len(self.rounds) > 1 else "training"
            bundle, result = learn_round(self.context, self.store, i, name)
            results.append(result)
            folder = self.context.output.rounds / f"round-{i}" / "bundle"
            validated.append(
                assess(bundle, folder, self.store, i, VAL, self.context.seen(VAL), client, most=MEASURED.get(task))
            )
        if len(self.rounds) > 1:
            epochs = max(1, round(numbers.median(r.best_epoch + 1 for r in results)))
            console.note(
                f"the network that maps learns from all labels for {epochs} epochs: the median best of the folds"
            )
            bundle, result = learn_round(self.context, self.store, ALL, "all labels", epochs)
            results.append(result)
        bundle = self._finish(bundle, validated, client)
        bundle = dataclasses.replace(
            bundle,
            training={
                "settings": self.settings.model_dump(mode="json"),
                "rounds": len(self.rounds),
                "epochs": [len(r.history) for r in results],
                "best_epochs": [r.best_epoch + 1 for r in results],
            },
        )
        write_json(self.context.output.rounds / "histories.json", [r.history for r in results])
        bundle.save(self.context.output.model)
        return Bundle.load(self.context.output.model)

    def _finish(self, bundle: Bundle, validated: list[Assessed], client: Client) -> Bundle:
        """Return the bundle with what the validation fold says of its outputs."""
        context, task = self.context, self.context.job.task
        if task == "classification":
            return calibrated(bundle, validated, context.console)
        if task == "reconstruction":
            round_ = 0 if len(self.rounds) == 1 else ALL
            trained = assess(
                bundle, self.final / "bundle", self.store, round_, TRAIN, context.imaged, client, most=MEASURED[task]
            )
            return clustered(bundle, validated, trained, context.job.reconstruction.clusters, context.console)
        if task == "forecast":
            return spread(bundle, validated, context.seen(VAL)[0].dates[context.horizon.history :])
        return bundle


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
    done = output.fresh("train", key_train(context), overwrite=False)
    if not done or not (output.model / "bundle.json").is_file():
        raise RequestError(f"{output.model} holds no trained model yet; `landweave train` or `landweave run` makes it")
    return Bundle.load(output.model)

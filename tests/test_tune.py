"""The search for settings: what it varies, what it looks at, and that a kill changes nothing of it."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml
import zarr
from conftest import write_job, write_labels, write_scene
from test_cli import said
from test_run import cli

import workflows.trial
from models.table import NETWORKS
from pipeline.errors import JobError
from pipeline.samples.chips import ChipStore
from pipeline.samples.folds import TEST
from workflows.console import Console
from workflows.context import Context
from workflows.load import load_job
from workflows.space import Choices, Range, check_space, default_space, search_space
from workflows.trial import Asked, Outcome, TrialTask, open_study
from workflows.tuned import Tried, advice
from workflows.variant import value_at

SPACE = {"training.optimizer.lr": {"low": "1e-3", "high": 0.1, "log": True}, "model.hidden": [[4], [8]]}


def begin(folder: Path, **changes: Any) -> Path:
    """Write scene, labels and a job to be tuned."""
    write_scene(folder / "scene.tif", side=60)
    write_labels(folder / "fields.gpkg", side=60)
    settings = {"tune": {"trials": 5, "space": SPACE}, "training": {"epochs": 2, "track": ["csv"]}}
    return write_job(folder / "job.yaml", **(settings | changes))


def trials(folder: Path) -> list[dict[str, str]]:
    """Return the table of trials; what takes time is not the same twice."""
    with (folder / "out" / "tune" / "trials.csv").open() as stream:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream)]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a job was tuned."""
    folder = tmp_path_factory.mktemp("tuned")
    assert cli("tune", begin(folder), "-q") == 0
    return folder


def best_figure(metrics: Path) -> float:
    """Return the macro-F1 of the epoch that is kept."""
    with metrics.open() as stream:
        return float(min(csv.DictReader(stream), key=lambda row: float(row["val_loss"]))["val_macro_f1"])


def test_trials_are_trainings_of_the_job_with_other_values(tuned: Path) -> None:
    rows = trials(tuned)
    assert [row["trial"] for row in rows] == list("01234")
    assert (float(rows[0]["training.optimizer.lr"]), json.loads(rows[0]["model.hidden"])) == (0.001, [8])
    assert len({row["training.optimizer.lr"] for row in rows}) == 5
    best = max((row for row in rows if row["state"] == "done"), key=lambda row: float(row["value"]))
    assert float(best["value"]) > float(rows[0]["value"])
    job = load_job(tuned / "out" / "tune" / "best.yaml")
    assert value_at(job, "training.optimizer.lr") == float(best["training.optimizer.lr"])
    assert value_at(job, "model.hidden") == json.loads(best["model.hidden"])
    assert job.tune == type(job.tune)()
    # Trained by itself, the job and the best job have the figures of their trials, to the last bit.
    for path, row in ((tuned / "job.yaml", rows[0]), (tuned / "out" / "tune" / "best.yaml", best)):
        assert cli("train", path, "-q") == 0
        folder = load_job(path).folder
        assert np.float32(best_figure(folder / "model" / "metrics.csv")) == np.float32(float(row["value"]))
    page = (tuned / "out" / "tune" / "index.html").read_text()
    assert page.count("<svg") == 2
    assert "expect less on the test fold" in page
    assert not list((tuned / "out" / ".landweave" / "tune").glob("trial-*"))


def test_killed_and_extended_it_ends_as_if_undisturbed(
    tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = begin(tmp_path)
    begun: list[int] = []
    real = workflows.trial.Follower.__call__

    def dies(self: Any, epoch: int, epochs: int, figures: dict[str, float]) -> None:
        real(self, epoch, epochs, figures)
        begun.append(self.trial.number)
        if begun.count(2) == 1 and self.trial.number == 2:
            raise RuntimeError("the machine went off")

    monkeypatch.setattr(workflows.trial.Follower, "__call__", dies)
    with pytest.raises(RuntimeError, match="went off"):
        cli("tune", job, "-q")
    # What a killed process had half written.
    with (tmp_path / "out" / ".landweave" / "tune" / "journal.log").open("a") as stream:
        stream.write('{"op_code": 4, "wor')
    assert cli("tune", job, "-q", "--set", "tune.trials=3") == 0
    # The first epoch of trial 2 is told again from its checkpoint, and is not told to the study twice.
    assert begun == [0, 0, 1, 1, 2, 2, 2]
    assert cli("tune", job, "-q") == 0
    assert trials(tmp_path) == trials(tuned)


def test_the_test_fold_changes_nothing(tuned: Path, tmp_path: Path) -> None:
    shutil.copytree(tuned, tmp_path / "spoilt")
    folder = tmp_path / "spoilt"
    store = ChipStore.open(folder / "out" / "chips.zarr")
    tested = store.indices(0, TEST)
    assert len(tested)
    arrays = zarr.open_group(store.path, mode="r+")
    values, truth = arrays["values"][:], arrays["truth"][:]
    values[tested] = 1e6
    truth[tested, 0] = 1 + truth[tested, 0] % 3
    arrays["values"][:], arrays["truth"][:] = values, truth
    shutil.rmtree(folder / "out" / ".landweave" / "tune")
    (folder / "out" / ".landweave" / "tune.json").unlink()
    assert cli("tune", folder / "job.yaml", "-q", "--set", "tune.trials=3") == 0
    assert trials(folder) == trials(tuned)[:3]


def test_a_hopeless_learning_rate_is_given_up(tmp_path: Path) -> None:
    space = {"training.optimizer.lr": [0.03, 1e-9]}
    job = begin(tmp_path, tune={"trials": 9, "epochs": 3, "space": space}, model={"name": "mlp", "hidden": [4]})
    assert cli("tune", job, "-q") == 0
    rows = trials(tmp_path)
    given_up = [row for row in rows if row["state"] == "pruned"]
    assert given_up
    assert {row["training.optimizer.lr"] for row in given_up} == {"1e-09"}
    assert max(int(row["epochs"]) for row in given_up) < 3
    # The job's own rate is not in this space; it is tried first all the same.
    assert (rows[0]["training.optimizer.lr"], rows[0]["state"]) == ("0.001", "done")


def test_a_training_that_breaks_down_is_one_trial_less(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    space = {"training.optimizer.lr": [0.01, 1e38]}
    optimizer = {"optimizer": {"name": "sgd", "lr": 0.01}}
    job = begin(tmp_path, tune={"trials": 4, "space": space}, training={"epochs": 2} | optimizer)
    assert cli("tune", job) == 0
    rows = trials(tmp_path)
    broken = [row for row in rows if row["state"] == "failed"]
    assert broken
    assert all(row["training.optimizer.lr"] == "1e+38" and "broke down" in row["error"] for row in broken)
    assert f"{len(broken)} failed" in capfd.readouterr().err


def test_another_space_is_refused_until_overwritten(tuned: Path, capfd: pytest.CaptureFixture[str]) -> None:
    other = "tune.space={model.dropout: [0.0, 0.3]}"
    message = said(capfd, "tune", tuned / "job.yaml", "--set", other)
    assert "the results of 'tune' were made from other inputs" in message
    assert "model.dropout" in message


def test_trials_run_on_a_cluster_as_they_run_here(tmp_path: Path) -> None:
    from distributed import LocalCluster

    job = begin(tmp_path, tune={"trials": 3, "space": SPACE})
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="inproc://", dashboard_address=None
    ) as cluster:
        assert cli("tune", job, "-q", "--set", f"compute.scheduler={cluster.scheduler_address}") == 0
    away = trials(tmp_path)
    assert [row["state"] for row in away] == ["done"] * 3
    settings = load_job(job)
    # The task is what Dask sends: pickled, and run again, it gives the same figure.
    task = TrialTask(
        job=settings, chips=settings.folder / "chips.zarr", journal=tmp_path / "journal", folder=tmp_path / "work"
    )
    trial = open_study(task.journal, settings, optuna.samplers.RandomSampler(seed=0)).ask()
    values = {name: yaml.safe_load(away[0][name]) for name in SPACE}
    again = pickle.loads(pickle.dumps(task))(Asked(number=0, identity=trial._trial_id, values=values))
    assert isinstance(again, Outcome)
    assert again.value == float(away[0]["value"])


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_has_a_space_that_fits_its_samples(name: str, folder: Path) -> None:
    job = load_job(write_job(folder / "job.yaml", model={"name": name}))
    space = default_space(job)
    assert {"training.optimizer.lr", "training.optimizer.weight_decay"} < set(space)
    assert any(key.startswith("model.") for key in space)
    assert all(space[key].holds(value_at(job, key)) for key in space)
    check_space(Context(job, Console(quiet=True)), space)


def test_the_default_space_lies_around_the_job(folder: Path) -> None:
    model = {"name": "mlp", "hidden": [10, 7]}
    training = {"optimizer": {"name": "sgd", "lr": 0.2}}
    space = default_space(load_job(write_job(folder / "job.yaml", model=model, training=training)))
    assert space == {
        "training.optimizer.lr": Range(0.02, 2.0, log=True),
        "model.hidden": Choices(([5, 3], [10, 7], [20, 14])),
        "model.dropout": Range(0.0, 0.5),
    }


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"folds.seed": [0, 1]}, ["folds.seed", "figures of different samples cannot be compared"]),
        ({"labels.field": ["a", "b"]}, ["labels.field", "figures of different samples cannot be compared"]),
        ({"predict.block": [64, 128]}, ["predict.block", "no part in training"]),
        ({"model.name": ["mlp", "unet"]}, ["model.name", "landweave bench"]),
        ({"training.seed": [0, 1]}, ["training.seed", "luck"]),
        ({"model.droput": [0.1, 0.2]}, ["model.droput", "did you mean 'model.dropout'?", "model.hidden"]),
        ({"model.dropout": [0.1, 1.5]}, ["tune.space.model.dropout: the value 1.5", "less than 1"]),
        (
            {"model.dropout": {"low": 0.5, "high": 0.1}},
            ["model.dropout", "low must be less than high, found 0.5 and 0.1"],
        ),
        ({"training.optimizer.lr": {"low": 0, "high": 1, "log": True}}, ["with log, low must be more than 0, found 0"]),
        ({"model.dropout": {"low": 0.1}}, ["model.dropout: give {low: ..., high: ...}", "found {'low': 0.1}"]),
        ({"model.dropout": 0.1}, ["list of two values or more", "found 0.1"]),
        ({}, ["nothing to vary", "found {}"]),
    ],
)
def test_what_cannot_be_varied_is_refused_by_name(space: dict[str, Any], words: list[str], folder: Path) -> None:
    write_job(folder / "job.yaml", tune={"space": space})
    with pytest.raises(JobError) as caught:
        search_space(load_job(folder / "job.yaml"))
    for word in words:
        assert word in str(caught.value)


def test_a_pretrained_network_keeps_its_size(folder: Path) -> None:
    model = {"name": "mlp", "hidden": [8], "pretrained": "before/model"}
    job = load_job(write_job(folder / "job.yaml", model=model))
    assert {name for name in default_space(job) if name.startswith("model.")} == {"model.dropout"}
    with pytest.raises(JobError, match="training begins with a trained network"):
        search_space(load_job(write_job(folder / "job.yaml", model=model, tune={"space": SPACE})))


def test_values_that_change_the_samples_are_refused(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_job(folder / "job.yaml", model={"name": "unet"}, tune={"space": {"model.depth": {"low": 1, "high": 2}}})
    message = said(capfd, "tune", folder / "job.yaml")
    assert "tune.space.model.depth: the value 2 changes the halo of the network from 10 to 24 pixels" in message
    assert not (folder / "out" / "chips.zarr").exists()


def test_numbers_are_taken_as_the_job_takes_them(folder: Path) -> None:
    space = {"model.dropout": {"low": 0, "high": 0.5}, "training.early_stopping": {"low": 2, "high": 9}} | SPACE
    job = load_job(write_job(folder / "job.yaml", tune={"space": space}))
    assert search_space(job) == {
        "model.dropout": Range(0.0, 0.5),
        "training.early_stopping": Range(2, 9, whole=True),
        "training.optimizer.lr": Range(0.001, 0.1, log=True),
        "model.hidden": Choices(([4], [8])),
    }


def test_without_optuna_it_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'landweave[tune]'" in said(capfd, "tune", folder / "job.yaml")


def tried(number: int, value: float, lr: float) -> Tried:
    values = {"training.optimizer.lr": lr}
    return Tried(number=number, state="done", value=value, values=values, epochs=1, best_epoch=1, seconds=0, error="")


def test_advice_names_the_end_of_a_range_and_a_job_that_needs_nothing(folder: Path) -> None:
    job = load_job(folder / "job.yaml")
    space = {"training.optimizer.lr": Range(1e-4, 1e-2, log=True)}
    said = " ".join(advice(job, space, [tried(0, 0.5, 1e-3), tried(1, 0.7, 9.9e-3)], 100))
    assert "Trial 1 is the best, with macro-F1 0.700; the job as it stands has 0.500" in said
    assert "lies at the high end of its range" in said
    said = " ".join(advice(job, space, [tried(0, 0.7, 1e-3), tried(1, 0.7, 9.9e-3)], 100))
    assert "No trial was better than the job as it stands" in said
    assert "end of its range" not in said

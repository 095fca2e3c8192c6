"""Training: goes on after a kill, whatever the optimiser and the schedule, and is not done twice."""

from __future__ import annotations

import json

import pytest
import torch

from models.network import ModelError
from models.settings import OptimizerSettings
from tests.toys import KilledError, Toy, killer, train, weights

torch.set_num_threads(1)


def test_a_killed_training_goes_on_and_ends_with_the_same_weights(tmp_path):
    options = {"name": "unet", "network": {"width": 4, "depth": 1}, "epochs": 5}
    whole, expected = train(tmp_path / "whole", **options)
    with pytest.raises(KilledError):
        train(tmp_path / "killed", progress=killer(3), **options)
    seen = []
    task, result = train(tmp_path / "killed", progress=lambda *a: seen.append(a[:2]), **options)
    assert result.resumed_from == 3
    assert seen == [(i, 5) for i in range(1, 6)]
    assert result.history == expected.history
    assert result.best_epoch == expected.best_epoch
    assert torch.equal(weights(task), weights(whole))


def test_early_stopping_counts_on_after_a_kill(tmp_path):
    options = {"data": Toy(noise=1.0), "epochs": 40, "early_stopping": 2, "optimizer": OptimizerSettings(lr=0.05)}
    _, expected = train(tmp_path / "whole", **options)
    with pytest.raises(KilledError):
        train(tmp_path / "killed", progress=killer(len(expected.history) - 1), **options)
    _, result = train(tmp_path / "killed", **options)
    assert len(result.history) == len(expected.history)


def test_a_finished_training_is_not_done_again(tmp_path):
    first, expected = train(tmp_path, epochs=2)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    task, result = train(tmp_path, epochs=2)
    assert result.history == expected.history
    assert result.resumed_from == 2
    assert torch.equal(weights(task), weights(first))
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_it_is_done_anew_where_that_is_asked_for(tmp_path):
    train(tmp_path, epochs=2)
    _, result = train(tmp_path, epochs=3, resume=False)
    assert (len(result.history), result.resumed_from) == (3, None)


def test_fewer_epochs_follow_the_schedule_of_all(tmp_path):
    whole, _ = train(tmp_path / "a", data=Toy(val=False), epochs=4, stop_after=2)
    with pytest.raises(KilledError):
        train(tmp_path / "b", data=Toy(val=False), epochs=4, progress=killer(2))
    state = torch.load(tmp_path / "b" / "last.ckpt", weights_only=True)
    best = state["callbacks"]["keeper"]["best"]
    assert torch.equal(weights(whole), torch.cat([v.flatten() for v in best.values()]))


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint"])
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    train(tmp_path, epochs=1)
    (tmp_path / "last.ckpt").write_bytes(damage)
    with pytest.raises(ModelError, match=r"last.ckpt is damaged"):
        train(tmp_path, epochs=1)
    (tmp_path / "done.json").unlink()
    with pytest.raises(ModelError, match=r"last.ckpt is damaged"):
        train(tmp_path, epochs=1)


OPTIMISERS = {
    "adamw": 0.01,
    "adam": 0.01,
    "nadam": 0.01,
    "sgd": 0.05,
    "rmsprop": 0.003,
    "adagrad": 0.02,
    "adadelta": 1.0,
}
EVERY = [
    *[{"optimizer": {"name": name, "lr": lr}} for name, lr in OPTIMISERS.items()],
    {"optimizer": {"name": "sgd", "lr": 0.05, "nesterov": False}, "clip": 0.1, "accumulate": 2},
    {"schedule": "constant", "l1": 1e-4, "l2": 1e-3},
    {"schedule": {"name": "step", "every": 2, "factor": 0.5}, "warmup": 1},
    {"schedule": "one_cycle", "loss": {"name": ["focal", "dice"]}},
    {"schedule": {"name": "reduce_on_plateau", "patience": 0, "factor": 0.3}, "optimizer": {"lr": 0.1}},
    {"optimizer": {"lr": "auto"}},
]


@pytest.mark.parametrize("options", EVERY, ids=lambda o: "-".join(f"{k}={v}" for k, v in o.items()))
def test_every_optimiser_and_schedule_learns_and_survives_a_kill(tmp_path, options):
    data = Toy(12, 8)
    whole, expected = train(tmp_path / "whole", data=data, **options)
    assert expected.history[3]["train_loss"] < expected.history[0]["train_loss"]
    with pytest.raises(KilledError):
        train(tmp_path / "killed", data=data, progress=killer(2), **options)
    task, result = train(tmp_path / "killed", data=data, **options)
    assert result.resumed_from == 2
    assert result.history == expected.history
    assert result.notes == expected.notes
    assert torch.equal(weights(task), weights(whole))


def test_no_temporary_file_is_left(tmp_path):
    train(tmp_path, epochs=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["done.json", "last.ckpt", "metrics.csv"]
    assert json.loads((tmp_path / "done.json").read_text())["best_epoch"] in (0, 1)

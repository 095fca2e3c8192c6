"""Training: learns, keeps the best, repeats."""

from __future__ import annotations

import csv
import math
import re
import time

import pytest
import torch
from pydantic import ValidationError
from torch.utils.data import DataLoader

from models.network import ModelError
from models.optimisers import optimizer
from models.settings import LossSettings, OptimizerSettings, ScheduleSettings, TrainingSettings
from models.table import build
from tests.test_training_resume import OPTIMISERS
from tests.toys import Toy, train, weights

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("name", "network"), [("mlp", {"normalisation": "batch"}), ("unet", {"width": 8, "depth": 1, "dropout": 0.0})]
)
def test_a_network_learns_and_writes_its_figures(name, network, tmp_path):
    _, result = train(
        tmp_path, name=name, data=Toy(48), network=network, epochs=20, optimizer=OptimizerSettings(lr=0.01)
    )
    last = result.history[-1]
    assert last["val_overall"] > 0.85
    assert last["train_loss"] < result.history[0]["train_loss"]
    assert {"val_loss", "val_kappa", "val_macro_f1", "val_iou_0", "val_iou_2"} <= set(last)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    assert [int(r["epoch"]) for r in rows] == list(range(1, 21))
    assert float(rows[-1]["val_loss"]) == pytest.approx(last["val_loss"])


def test_figures_of_validation_do_not_depend_on_batches(tmp_path):
    from sklearn.metrics import cohen_kappa_score, f1_score, jaccard_score

    task, result = train(tmp_path, epochs=1)
    network = task.network.eval()
    items = Toy().items[16:]
    with torch.no_grad():
        stack = {k: torch.stack([i[k] for i in items]) for k in items[0]}
        found = network(stack["cube"], stack["valid"], stack["time"]).argmax(1)
    where = stack["labels"] >= 0
    truth, mapped = stack["labels"][where], found[where]
    figures = result.history[0]
    assert figures["val_overall"] == pytest.approx(float((truth == mapped).float().mean()), abs=1e-6)
    assert figures["val_kappa"] == pytest.approx(cohen_kappa_score(truth, mapped), abs=1e-6)
    assert figures["val_macro_f1"] == pytest.approx(f1_score(truth, mapped, average="macro"), abs=1e-6)
    assert figures["val_iou_1"] == pytest.approx(jaccard_score(truth, mapped, average=None)[1], abs=1e-6)


def test_the_weights_of_the_best_epoch_are_kept_and_training_stops_early(tmp_path):
    # Labels of pure chance: what is learnt from some of them is wrong for others.
    data = Toy(noise=1.0)
    task, result = train(
        tmp_path, data=data, network={"hidden": [256], "dropout": 0.0}, epochs=40, early_stopping=2,
        optimizer=OptimizerSettings(lr=0.05), loss={"class_weights": "none"},
    )  # fmt: skip
    losses = [h["val_loss"] for h in result.history]
    assert result.best_epoch == losses.index(min(losses))
    assert len(losses) == result.best_epoch + 3 < 40
    network = task.network.eval()
    total = n = 0.0
    for batch in data.val_dataloader():
        with torch.no_grad():
            scores = network(batch["cube"], batch["valid"], batch["time"])
        total += float(torch.nn.functional.cross_entropy(scores, batch["labels"], ignore_index=-1, reduction="sum"))
        n += float((batch["labels"] >= 0).sum())
    assert total / n == pytest.approx(min(losses), abs=1e-5)


def test_without_a_validation_fold_all_epochs_are_run_and_the_last_is_kept(tmp_path):
    _, result = train(tmp_path, data=Toy(val=False), epochs=3, early_stopping=1)
    assert (len(result.history), result.best_epoch) == (3, 2)
    assert {name for name in result.history[0] if not name.startswith("grad/")} == {"train_loss"}


def test_the_same_seed_gives_the_same_weights(tmp_path):
    a, b, c = (
        train(tmp_path / str(i), name="unet", network={"width": 4, "depth": 1}, epochs=2, seed=s)[0]
        for i, s in enumerate((0, 0, 1))
    )
    assert torch.equal(weights(a), weights(b))
    assert not torch.equal(weights(a), weights(c))


def test_a_batch_of_one_pixel_makes_no_step(tmp_path):
    _, result = train(tmp_path, data=Toy(9, 1, size=5), network={"normalisation": "batch"}, epochs=1)
    assert result.history


def test_training_that_breaks_down_says_so(tmp_path):
    with pytest.raises(ModelError, match=r"broke down in epoch \d+: \w+_loss is (nan|inf).*lr than 1e\+30"):
        train(tmp_path, optimizer=OptimizerSettings(name="sgd", lr=1e30))


def test_labels_of_nobody_are_refused(tmp_path):
    data = Toy()
    for item in data.items:
        item["labels"][:] = -1
    with pytest.raises(ModelError, match="no labelled pixel"):
        train(tmp_path, data=data, epochs=1)


def test_tensorboard_is_written_and_a_missing_tracker_is_named(tmp_path):
    train(tmp_path / "a", epochs=1, track=["tensorboard"])
    assert list((tmp_path / "a" / "tensorboard").glob("events*"))
    assert not (tmp_path / "a" / "metrics.csv").exists()
    with pytest.raises(
        ModelError, match=r"training.track: 'mlflow' needs the package mlflow, .*`pip install 'landweave\[mlflow\]'`"
    ):
        train(tmp_path / "b", epochs=1, track=["mlflow"])


def test_the_optimiser_is_the_one_that_was_asked_for():
    network = build("mlp", {"normalisation": "batch"}, bands=3, dates=1, classes=3)
    for name in OPTIMISERS:
        made = optimizer(network, OptimizerSettings(name=name, lr=0.5, weight_decay=0.1))
        assert type(made).__name__.lower() == name
        decayed, plain = made.param_groups
        assert {decayed["lr"], plain["lr"]} == {0.5}
        assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0)
        assert {p.ndim for p in plain["params"]} == {1}
        assert len(decayed["params"]) + len(plain["params"]) == len(list(network.parameters()))
    sgd = [
        optimizer(network, OptimizerSettings(name="sgd", nesterov=n, momentum=m))
        for n, m in ((True, 0.9), (False, 0.8))
    ]
    assert [(o.defaults["nesterov"], o.defaults["momentum"]) for o in sgd] == [(True, 0.9), (False, 0.8)]


def test_a_step_is_that_of_the_clipped_mean_gradient_of_the_batches_with_its_penalties(tmp_path):
    # Two batches make one step of plain gradient descent: written out.
    class Whole(Toy):
        def train_dataloader(self):
            return DataLoader(self.items[:8], batch_size=4)

    data, lr, clip, l1, l2 = Whole(12, 8), 0.1, 0.05, 0.002, 0.003
    torch.manual_seed(0)
    network = build("mlp", {"dropout": 0.0}, bands=3, dates=1, classes=3)
    loss = 0.0
    for batch in data.train_dataloader():
        scores = network(batch["cube"], batch["valid"], batch["time"])
        loss += torch.nn.functional.cross_entropy(scores, batch["labels"], ignore_index=-1) / 2
    for value in network.parameters():
        if value.ndim > 1:
            loss += l1 * value.abs().sum() + l2 * (value * value).sum()
    loss.backward()
    norm = sum(float((p.grad**2).sum()) for p in network.parameters()) ** 0.5
    assert norm > clip
    expected = torch.cat([(p - lr * p.grad * clip / norm).detach().flatten() for p in network.parameters()])
    task, result = train(
        tmp_path, data=data, network={"dropout": 0.0}, epochs=1, schedule="constant", clip=clip, accumulate=2, l1=l1, l2=l2,
        optimizer={"name": "sgd", "lr": lr, "momentum": 0, "weight_decay": 0}, loss={"class_weights": "none"},
    )  # fmt: skip
    assert torch.allclose(weights(task), expected, atol=1e-5)
    for i in (0, 3, 6):
        layer = network.layers[i]
        norm = float((layer.weight.grad**2).sum() + (layer.bias.grad**2).sum()) ** 0.5
        assert result.history[0][f"grad/layers.{i}"] == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize(("factor", "words"), [(float("nan"), "is nan"), (1e4, "is .*, 10 times what it was at first")])
def test_a_training_that_diverges_later_keeps_its_best_weights_and_says_so(tmp_path, factor, words):
    class Poisoned(Toy):
        """From the third epoch on, values are no numbers, or far too large."""

        epochs = 0

        def train_dataloader(self):
            return Epochs(self)

    class Epochs(DataLoader):
        def __init__(self, data):
            super().__init__(data.items[:8], batch_size=4)
            self.data = data

        def __iter__(self):
            self.data.epochs += 1
            for batch in super().__iter__():
                yield batch | {"cube": batch["cube"] * (factor if self.data.epochs > 2 else 1)}

    task, result = train(tmp_path, data=Poisoned(), epochs=6, check_batch=False)
    assert len(result.history) == 3
    assert ("train_loss" in result.history[2]) == math.isfinite(factor)
    assert result.best_epoch < 2
    assert weights(task).isfinite().all()
    (note,) = [n for n in result.notes if "broke down" in n]
    assert re.match(
        f"training broke down in epoch 3 and was stopped: train_loss {words}. The weights of epoch {result.best_epoch + 1} ",
        note,
    )
    again, read = train(tmp_path, data=Poisoned(), epochs=6, check_batch=False)
    assert torch.equal(weights(again), weights(task))
    assert read.notes == result.notes


def test_time_is_counted_in_samples_and_waiting(tmp_path):
    class Slow(Toy):
        def train_dataloader(self):
            return SlowLoader(self.items[:8], batch_size=4)

    class SlowLoader(DataLoader):
        def __iter__(self):
            for batch in super().__iter__():
                time.sleep(0.1)
                yield batch

    _, result = train(tmp_path, data=Slow(), epochs=2, check_batch=False)
    assert 0.5 < result.waiting <= 1
    # 16 samples, and 0.4 seconds of sleep at least.
    assert 0 < result.speed < 40


def test_nothing_is_printed(tmp_path, capfd):
    train(tmp_path, epochs=1, track=["csv", "tensorboard"])
    assert capfd.readouterr() == ("", "")


def test_batches_are_sized_by_the_number_of_samples():
    auto = TrainingSettings()
    assert [auto.samples_per_step(n, "chips") for n in (1, 20, 60, 160, 10_000)] == [2, 2, 3, 10, 16]
    assert [auto.samples_per_step(n, "pixels") for n in (1, 1000, 10**6)] == [16, 31, 1024]
    assert [auto.samples_per_step(n, "patches") for n in (1, 1000, 10**6)] == [16, 31, 128]
    assert TrainingSettings(batch_size=5).samples_per_step(1000, "pixels") == 5


def test_settings_are_strict_and_documented():
    with pytest.raises(ValidationError, match="learning_rate"):
        TrainingSettings(optimizer={"learning_rate": 1})
    for section in (TrainingSettings, OptimizerSettings, ScheduleSettings, LossSettings):
        assert all(f.description for f in section.model_fields.values())

"""What is tried before a training: one batch learnt by heart, and the rate."""

from __future__ import annotations

import json
import math

import pytest
import torch

from models.network import ModelError
from models.settings import TrainingSettings
from models.table import build
from models.tasks import ClassificationTask
from models.trials import learns_one_batch, steepest
from tests.toys import Toy, train, weights

torch.set_num_threads(1)


def task(name="mlp", network=None, **options):
    torch.manual_seed(0)
    made = build(name, network or {}, bands=3, dates=1, classes=3)
    return ClassificationTask(made, classes=3, settings=TrainingSettings(**options), counts=[1, 1, 1])


@pytest.mark.parametrize(
    ("name", "network", "options"),
    [
        ("mlp", {}, {}),
        ("mlp", {"hidden": []}, {"loss": {"label_smoothing": 0.8}}),
        ("unet", {"width": 4, "dropout": 0.9}, {"l2": 10.0}),
        ("mlp", {}, {"loss": {"name": ["dice", "focal"]}}),
    ],
)
def test_a_network_that_can_learn_says_nothing(name, network, options):
    assert learns_one_batch(task(name, network, **options), Toy(12, 8)) is None


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """A busy machine must not end what is to be seen."""
    monkeypatch.setattr("models.trials._SECONDS", math.inf)


def test_a_network_that_is_shown_nothing_is_named():
    data = Toy(12, 8)
    for item in data.items:
        item["cube"][:] = 0
    for i, item in enumerate(data.items):
        item["labels"] = (torch.arange(64).reshape(8, 8) + i) % 3
    said = learns_one_batch(task(), data)
    assert said is not None
    assert said.startswith(
        "the network could not learn even one batch of 4 samples: its loss went from 1.1 to no less than 1.1"
    )


def test_a_network_whose_gradient_is_lost_is_named(tmp_path):
    deep = {"hidden": [4] * 30, "activation": "sigmoid", "dropout": 0.0}
    data = Toy(12, 8)
    for item in data.items:
        item["labels"] = item["labels"] % 3
    _, result = train(tmp_path, data=data, network=deep, epochs=1)
    assert any("vanishes" in note for note in result.notes)


def test_trying_a_batch_leaves_weights_and_chance_as_they_were():
    made, data = task("unet", {"width": 4, "normalisation": "batch"}), Toy(12, 8)
    before, state = weights(made).clone(), torch.get_rng_state()
    learns_one_batch(made, data)
    assert torch.equal(weights(made), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert made.training


def test_a_training_is_the_same_whatever_was_tried_before(tmp_path):
    options = {"data": Toy(12, 8), "epochs": 2, "network": {"dropout": 0.5}}
    tried, _ = train(tmp_path / "tried", optimizer={"lr": "auto"}, **options)
    rate = json.loads((tmp_path / "tried" / "lr_find.json").read_text())["suggestion"]
    plain, _ = train(tmp_path / "plain", optimizer={"lr": rate}, check_batch=False, **options)
    assert torch.equal(weights(tried), weights(plain))


def test_a_range_test_finds_a_rate_at_which_a_network_learns(tmp_path):
    data = Toy(24, 8)
    _, found = train(tmp_path / "auto", data=data, epochs=6, optimizer={"lr": "auto"})
    test = json.loads((tmp_path / "auto" / "lr_find.json").read_text())
    assert set(test) == {"lr", "loss", "suggestion"}
    assert len(test["lr"]) == len(test["loss"]) > 50
    ratios = [b / a for a, b in zip(test["lr"], test["lr"][1:], strict=False)]
    assert ratios == pytest.approx([10 ** (7 / 99)] * len(ratios))
    assert test["suggestion"] in test["lr"]
    assert any(f"learning rate {test['suggestion']:.2g}" in note for note in found.notes)
    for i, lr in enumerate((1e-5, 3.0)):
        _, other = train(tmp_path / str(i), data=data, epochs=6, optimizer={"lr": lr})
        assert found.history[-1]["train_loss"] < other.history[-1]["train_loss"]


def test_the_rate_is_where_the_loss_falls_most_steeply():
    lrs = [10 ** (-6 + i / 10) for i in range(60)]
    # Falls around 1e-3, explodes from 1e-1 on; and falls again, more steeply, where it is lost.
    losses = [1 / (1 + math.exp(4 * (math.log10(x) + 3))) + max(0, 3 * (math.log10(x) + 1)) for x in lrs]
    assert steepest(lrs, [*losses[:58], 0.4, 0.3]) == pytest.approx(1e-3, rel=0.3)


@pytest.mark.parametrize("losses", [[1.0, 1.1, 1.2, 1.3], [1.0], []])
def test_a_loss_that_never_falls_is_refused(losses):
    with pytest.raises(ModelError, match="lr: auto found no rate"):
        steepest([1e-3] * len(losses), losses)

"""Gradients that vanish or explode are said; curves are judged in words."""

from __future__ import annotations

import math

import pytest
import torch

from models.watching import gradient_warnings
from tests.toys import Toy, train
from workflows.charts import rate_chart
from workflows.curves import judge

torch.set_num_threads(1)


def test_a_gradient_that_vanishes_is_said(tmp_path):
    deep = {"hidden": [8] * 8, "activation": "sigmoid", "dropout": 0.0}
    _, result = train(tmp_path / "deep", network=deep, epochs=2, check_batch=False)
    (note,) = result.notes
    assert note.startswith("the gradient vanishes in layers.0, layers.3")
    _, result = train(tmp_path / "relu", network=deep | {"activation": "relu", "normalisation": "batch"}, epochs=2)
    assert result.notes == []


def test_a_gradient_that_explodes_is_said(tmp_path):
    data = Toy(12, 8)
    for item in data.items:
        item["cube"] *= 1e5
    _, result = train(tmp_path, data=data, epochs=2, optimizer={"lr": 1e-9}, check_batch=False)
    (note,) = result.notes
    assert note.startswith("the gradient explodes in layers.0, layers.3, layers.6 (first in epoch 1: ")


def test_few_epochs_of_small_gradients_are_no_reason_to_warn():
    history = [{"grad/a": 1.0, "grad/b": 1e-9}] + [{"grad/a": 1.0, "grad/b": 0.1}] * 2
    assert gradient_warnings(history) == []
    # When all is learnt, all gradients are small.
    assert gradient_warnings([{"grad/a": 1e-12, "grad/b": 1e-13}]) == []
    assert gradient_warnings([]) == []


def curve(train, val=None, kappa=None):
    rows = [{"train_loss": t} for t in train]
    for i, row in enumerate(rows):
        row |= {} if val is None else {"val_loss": val[i]}
        row |= {} if kappa is None else {"val_kappa": kappa}
    return rows


EPOCHS = range(40)
DOWN = [0.1 + math.exp(-e / 4) for e in EPOCHS]


@pytest.mark.parametrize(
    ("history", "name"),
    [
        (curve(DOWN[:4], DOWN[:4]), "too short"),
        (curve(DOWN, DOWN), "fine"),
        (curve(DOWN), "fine"),
        (curve([*DOWN[:-3], 0.5, 0.6, 0.7], DOWN), "diverged"),
        # Nearly nothing is not run away from when it is doubled.
        (curve([1.0, 0.3, 0.1, 0.03, *[0.004, 0.012] * 8], [0.5] * 20), "high variance"),
        ([*curve(DOWN, DOWN), {"grad/a": 1.0}], "diverged"),
        ([{"grad/a": 1.0}], "diverged"),
        (curve([1 - e / 50 for e in EPOCHS], [1.1 - e / 50 for e in EPOCHS]), "still falling"),
        (curve(DOWN, [0.4 + (e - 12) ** 2 / 900 for e in EPOCHS]), "high variance"),
        (curve([1 - 0.1 * (e > 3) for e in EPOCHS], [0.95] * 40, kappa=0.1), "high bias"),
        (curve([1 - 0.1 * (e > 3) for e in EPOCHS], [0.95] * 40), "high bias"),
        # Learnt within the first epoch.
        (curve([0.1 - 0.01 * (e > 3) for e in EPOCHS], [0.095] * 40, kappa=0.9), "fine"),
    ],
)
def test_a_training_is_judged_by_its_curves(history, name):
    found, sentence = judge(history)
    assert found == name
    assert sentence.endswith(".")


def test_a_network_that_learns_labels_of_pure_chance_by_heart_is_judged_to_vary(tmp_path):
    data = Toy(9, 8, noise=1.0)
    for i, item in enumerate(data.items):
        item["cube"] = torch.randn(item["cube"].shape, generator=torch.Generator().manual_seed(i))
    _, result = train(
        tmp_path, data=data, network={"hidden": [128, 128], "dropout": 0.0}, epochs=40, early_stopping=None,
        optimizer={"lr": 0.01}, loss={"class_weights": "none"},
    )  # fmt: skip
    assert judge(result.history)[0] == "high variance"


def test_a_range_test_is_drawn():
    drawn = rate_chart([{"lr": [1e-4, 1e-3, 1e-2, 1e-1], "loss": [1.0, 0.8, 0.5, 9.0], "suggestion": 1e-3}])
    assert drawn is not None
    assert "range test" in drawn
    assert "taken" in drawn
    assert rate_chart([]) is None

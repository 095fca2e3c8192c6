"""The learning rate over the epochs: that of torch's schedulers, as a function that needs no state."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from models.schedules import share
from models.settings import TrainingSettings

EPOCHS = 20
LOSSES = [1.0, 0.9, 0.9, 0.95, 0.91, 0.8, 0.79999, 0.79, 0.85, 0.9, 0.9, 0.9, 0.9, 0.9, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6]


def settings(**options):
    return TrainingSettings(epochs=EPOCHS, **options)


def stepped(make, losses=None, steps=EPOCHS):
    """Return the rate before each step of a scheduler of torch."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    found = []
    for i in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(*([losses[i]] if losses else []))
    return found


@pytest.mark.parametrize(
    ("schedule", "make", "losses"),
    [
        ("constant", lambda o: torch.optim.lr_scheduler.ConstantLR(o, factor=1.0), None),
        ({"name": "step", "every": 3, "factor": 0.5}, lambda o: torch.optim.lr_scheduler.StepLR(o, 3, 0.5), None),
        ("cosine", lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, EPOCHS, eta_min=0.01), None),
        (
            {"name": "reduce_on_plateau", "patience": 2, "factor": 0.3},
            lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, factor=0.3, patience=2, eps=0),
            LOSSES,
        ),
    ],
    ids=("constant", "step", "cosine", "reduce_on_plateau"),
)
def test_a_schedule_is_that_of_torch(schedule, make, losses):
    plan = settings(schedule=schedule)
    found = [share(plan, e, 0.0, LOSSES[:e]) for e in range(EPOCHS)]
    assert found == pytest.approx(stepped(make, losses), rel=1e-6)
    assert losses is None or len(set(found)) > 2
    # Within an epoch nothing changes.
    assert [share(plan, e, 0.7, LOSSES[:e]) for e in range(EPOCHS)] == found


def test_one_cycle_is_that_of_torch_step_by_step():
    # torch reaches its last rate at its last step, we behind ours: it has one step more, and the same one is highest.
    steps = EPOCHS * 5
    options = {"max_lr": 1.0, "total_steps": steps + 1, "pct_start": (0.3 * steps + 1) / (steps + 1)}
    expected = stepped(lambda o: torch.optim.lr_scheduler.OneCycleLR(o, cycle_momentum=False, **options), steps=steps)
    found = [share(settings(schedule="one_cycle"), e, i / 5, []) for e in range(EPOCHS) for i in range(5)]
    assert found == pytest.approx(expected, abs=1e-9)


def test_a_warm_up_rises_in_a_straight_line_and_the_schedule_follows():
    plan = settings(warmup=4, schedule={"name": "step", "every": 3, "factor": 0.5})
    rates = [share(plan, i // 2, i % 2 / 2, []) for i in range(8)]
    steps = [b - a for a, b in zip(rates, [*rates[1:], 1.0], strict=True)]
    assert rates[0] == pytest.approx(1 / 25)
    assert steps == pytest.approx([0.96 / 8] * 8)
    assert [share(plan, e, 0.0, []) for e in range(4, 12)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]
    cosine = settings(warmup=4)
    assert share(cosine, 4, 0.0, []) == pytest.approx(1)
    assert share(cosine, 12, 0.0, []) == pytest.approx((1 + 0.01) / 2)


def test_a_schedule_by_its_name_alone_is_the_same():
    assert settings(schedule="step") == settings(schedule={"name": "step"})
    assert settings() == settings(schedule="cosine")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"schedule": "one_cycle", "warmup": 2}, "one_cycle has a warm-up of its own"),
        ({"warmup": EPOCHS}, "would not end: found 20 epochs of 20"),
        ({"schedule": "cosin"}, "schedule.name"),
        ({"schedule": {"name": "step", "every": 0}}, "schedule.every"),
    ],
)
def test_what_cannot_be_is_refused(options, words):
    with pytest.raises(ValidationError, match=words):
        settings(**options)

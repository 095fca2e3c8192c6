"""Networks on time series: they see the order of dates."""

from __future__ import annotations

import pytest
import torch

from models.table import build

torch.set_num_threads(1)


def series(n, dates, seed):
    """Two classes with the same values in opposite order: a saw that rises or falls, at a random phase."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    phase = torch.randint(dates, (n, 1), generator=g)
    steps = (torch.arange(dates) * (1 - 2 * labels[:, None]) + phase) % dates  # (n, T)
    x = steps / dates * 4 - 2 + torch.randn(n, dates, generator=g) * 0.05
    return x[..., None], labels


def as_tiles(network, x):
    """Return series (N, T, C) as tiles of a stride x stride pixels that are all alike."""
    n, t, _ = x.shape
    s = network.stride
    cube = x[..., None, None].expand(-1, -1, -1, s, s)
    return cube, torch.ones(n, t, s, s, dtype=torch.bool), (torch.arange(t) * 30.0).expand(n, t)


def fit(network, x, labels, steps, lr=0.01):
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(network.train().parameters(), lr=lr)
    tile = as_tiles(network, x)
    for _ in range(steps):
        scores = network(*tile).mean((2, 3))
        loss = torch.nn.functional.cross_entropy(scores, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def accuracy(network, x, labels):
    with torch.no_grad():
        found = network.eval()(*as_tiles(network, x)).mean((2, 3)).argmax(1)
    return float((found == labels).float().mean())


LEARNERS = [
    ("mlp", {}),
    ("tempcnn", {"filters": 8, "dense": 16, "dropout": 0.1}),
    ("rnn", {"hidden": 16}),
    ("lstm", {"hidden": 16}),
    ("gru", {"hidden": 16}),
    ("transformer", {"width": 16, "heads": 2, "layers": 2, "feedforward": 32}),
    ("ltae", {"width": 32, "heads": 4, "features": 32, "hidden": [16], "dropout": 0.0}),
    ("convlstm", {"hidden": 12}),
    ("utae", {"width": 8, "heads": 4, "attention": 32, "dropout": 0.0}),
]


@pytest.mark.parametrize(("name", "settings"), LEARNERS)
def test_it_learns_an_order_that_no_mean_over_dates_can_see(name, settings):
    torch.manual_seed(0)
    network = build(name, settings, bands=1, dates=6, classes=2)
    fit(network, *series(192, 6, 1), steps=80)
    assert accuracy(network, *series(400, 6, 2)) > 0.95


def test_a_mean_over_dates_cannot_see_the_order():
    torch.manual_seed(0)
    network = build("mlp", {}, bands=1, dates=1, classes=2)
    train, test = series(192, 6, 1), series(400, 6, 2)
    fit(network, train[0].mean(1, keepdim=True), train[1], steps=80)
    assert 0.4 < accuracy(network, test[0].mean(1, keepdim=True), test[1]) < 0.6


@pytest.mark.parametrize(("name", "settings"), LEARNERS)
def test_it_overfits_one_batch(name, settings):
    torch.manual_seed(0)
    network = build(name, settings | {"dropout": 0.0}, bands=2, dates=4, classes=3)
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (16,), generator=g)
    assert fit(network, torch.randn(16, 4, 2, generator=g), labels, steps=120) < 0.05

"""What explanations say of trained networks: they find what was planted, hold when it is removed, and hang on the weights."""

from __future__ import annotations

import copy

import pytest
import torch
from scipy.stats import spearmanr
from torch.nn import functional as F

from models.inference import prepare, scores
from models.saliency.reduce import dominant, reduce
from models.table import build
from tests.explained import METHODS, everywhere, explainer

torch.set_num_threads(1)

DATES, BANDS, DATE, BAND = 6, 4, 3, 2
NETWORKS = {"mlp": {"hidden": [16]}, "tempcnn": {"filters": 8, "kernel": 3, "layers": 2, "dense": 16}}


def land(side, seed):
    """Return a scene where the class hangs on one band of one date, and on nothing else, and the classes (1, H, W)."""
    g = torch.Generator().manual_seed(seed)
    cube = torch.randn(1, DATES, BANDS, side, side, generator=g)
    return cube, everywhere(cube)[:, None].expand(-1, DATES, -1, -1), (cube[:, DATE, BAND] > 0).long()


@pytest.fixture(scope="module", params=NETWORKS)
def trained(request):
    """A network that has learnt what was planted; more than 0.9 right on land it has not seen."""
    torch.manual_seed(0)
    network = build(request.param, NETWORKS[request.param], bands=BANDS, dates=DATES, classes=2).train()
    time = torch.zeros(1, DATES)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    for i in range(80):
        cube, valid, classes = land(24, 100 + i)
        optimizer.zero_grad()
        F.cross_entropy(network(cube, valid, time), classes).backward()
        optimizer.step()
    ready = prepare(network)
    cube, valid, classes = land(24, 1)
    assert accuracy(ready, cube, valid, classes) > 0.9
    return ready


def accuracy(network, cube, valid, classes):
    found = scores(network, cube, valid, torch.zeros(1, DATES)).argmax(1)
    return float((found == classes).float().mean())


def explained(network, method, cube, valid):
    asked = explainer(method, bands=BANDS, samples=4, steps=4)
    found, _ = asked(network, cube, valid, torch.zeros(1, DATES), everywhere(cube), [(0, 0)])
    return found, asked


def ranked_first(found, asked, per):
    return dominant(reduce(found, per, signed=asked.signed)) - 1


@pytest.mark.parametrize("method", [m for m in METHODS if m != "occlusion_patch"])
def test_the_planted_band_and_date_come_first(trained, method):
    cube, valid, _ = land(24, 1)
    found, asked = explained(trained, method, cube, valid)
    for per, planted in (("band", BAND), ("date", DATE)):
        if per not in asked.axes:
            continue
        mean = reduce(found, per, signed=asked.signed).abs().mean((0, 2, 3))
        assert int(mean.argmax()) == planted
        assert float((ranked_first(found, asked, per) == planted).float().mean()) > 0.7


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("occlusion_patch", "occlusion_band")])
def test_without_the_date_ranked_first_far_more_is_wrong_than_without_a_random_one(trained, method):
    cube, valid, classes = land(24, 2)
    found, asked = explained(trained, method, cube, valid)
    random = torch.randint(DATES, classes.shape, generator=torch.Generator().manual_seed(3))

    def left(which):
        gone = torch.arange(DATES)[:, None, None] == which[:, None]
        return accuracy(trained, cube.masked_fill(gone[:, :, None], 0.0), valid, classes)

    whole, first, other = (
        accuracy(trained, cube, valid, classes),
        left(ranked_first(found, asked, "date")),
        left(random),
    )
    assert whole > 0.9
    assert other > 0.8
    assert first < 0.7


def cascade(network, seed):
    """Yield copies with the weights of one more layer drawn anew, from the last layer to the first."""
    torch.manual_seed(seed)
    network = copy.deepcopy(network)
    for module in reversed([m for m in network.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv1d)]):
        module.reset_parameters()
        yield network.requires_grad_(False)


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients"])
def test_explanations_hang_on_the_weights(trained, method):
    cube, valid, _ = land(8, 4)
    learnt = explained(trained, method, cube, valid)[0].flatten()
    draws = [
        [spearmanr(learnt, explained(n, method, cube, valid)[0].flatten()).statistic for n in cascade(trained, seed)]
        for seed in range(12)
    ]
    per_layer = torch.tensor(draws).mean(0)
    assert len(per_layer) > 1
    assert abs(float(per_layer[-1])) < 0.1

"""Which bands and dates matter: what replacing them costs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from models.inference import prepare, scores
from models.table import build
from tests.explained import LEGEND
from workflows.answers import own_scores, replaced
from workflows.permutation import DRAWS, lenders, permute
from workflows.scoring import Scorer
from workflows.windows import Windows

torch.set_num_threads(1)


def linear(weights: Any, dates: int) -> Scorer:
    """Return a scorer of two classes whose score is weights (T * C) times the pixel."""
    weights = torch.as_tensor(weights, dtype=torch.float32)
    network = build("mlp", {"hidden": []}, bands=len(weights) // dates, dates=dates, classes=2)
    with torch.no_grad():
        network.layers[0].weight[:] = 0
        # Behind the values come the flags of the dates, which count nothing here.
        network.layers[0].weight[:, : len(weights)] = torch.stack([weights, -weights])
        network.layers[0].bias[:] = 0
    product: Any = SimpleNamespace(bundle=SimpleNamespace(classifies=True))
    statistics: Any = None
    ready = prepare(network)
    return Scorer(network=ready, engine=ready, statistics=statistics, product=product, device=torch.device("cpu"))


def places(n: int, dates: int, bands: int, side: int = 1) -> Windows:
    cube = torch.randn(n, dates, bands, side, side, generator=torch.Generator().manual_seed(0))
    own = torch.zeros(n, side, side, dtype=torch.bool)
    own[:, side // 2, side // 2] = True
    valid = torch.ones(n, dates, side, side, dtype=torch.bool)
    time = torch.arange(dates, dtype=torch.float32).expand(n, dates).clone()
    return Windows(cube, valid, time, own, ((0, 0),) * n, np.zeros(n))


@pytest.mark.parametrize("rounds", [1, 2])
def test_what_is_ignored_loses_nothing_and_what_decides_loses_all(rounds):
    # Two dates of three bands, as the MLP takes them: the second band of the second date decides, the third helps.
    scorer = linear([0, 0, 0, 0, 5, 1], dates=2)
    held_out = []
    for r in range(rounds):
        windows = places(200, 2, 3)
        windows.cube.add_(0.1 * r)
        score = windows.cube[:, 1, :, 0, 0] @ torch.tensor([0.0, 5, 1])
        windows.truth[:] = (score < 0).numpy()
        held_out.append((scorer, windows))
    found = permute(held_out, ["a", "b", "c"], ["early", "late"], LEGEND.classes[:2])
    assert found is not None
    assert (found.places, found.draws) == (200 * rounds, DRAWS)
    assert found.before == {"overall": 1.0, "macro_f1": 1.0}
    lost = {row.name: row.figures for row in found.lost}
    assert list(lost) == ["a", "b", "c", "early", "late"]
    for name in ("a", "early"):
        assert lost[name] == {"overall": (0.0, 0.0), "macro_f1": (0.0, 0.0)}
    # Of two classes, half of all go wrong where all that decides is another's.
    assert lost["late"]["overall"][0] == pytest.approx(0.5, abs=0.08)
    assert 0 < lost["c"]["overall"][0] < 0.15 < lost["b"]["overall"][0]
    assert lost["b"]["overall"][1] > 0
    assert permute(held_out, ["a", "b", "c"], ["early", "late"], LEGEND.classes[:2]) == found


def test_an_error_grows_where_a_regression_loses_a_band():
    scorer = linear([2, 0], dates=1)
    product: Any = scorer.product
    product.bundle = SimpleNamespace(classifies=False, task={"mean": 10.0, "std": 3.0})
    windows = places(300, 1, 2)
    windows.truth[:] = 10 + 3 * 2 * windows.cube[:, 0, 0, 0, 0].numpy()
    found = permute([(scorer, windows)], ["a", "b"], ["undated"], ())
    assert found is not None
    assert found.before["rmse"] == pytest.approx(0, abs=1e-5)
    # A single date is no choice. Two independent values differ by the square root of two deviations.
    assert [row.name for row in found.lost] == ["a", "b"]
    deviation = windows.truth.std()
    assert found.lost[0].figures["rmse"][0] == pytest.approx(2**0.5 * deviation, rel=0.1)
    assert found.lost[1].figures["rmse"] == (0.0, 0.0)


def test_one_place_cannot_be_replaced():
    assert permute([(linear([1, 1], dates=1), places(1, 1, 2))], ["a", "b"], ["undated"], LEGEND.classes[:2]) is None


def test_each_place_lends_once_and_never_to_itself():
    for n in (2, 3, 50):
        found = lenders(n, (0, 0))
        assert sorted(found) == list(range(n))
        assert (found != np.arange(n)).all()
    assert not np.array_equal(lenders(50, (0, 0)), lenders(50, (1, 0)))


def test_validity_goes_with_the_values():
    windows = places(4, 3, 2, side=3)
    windows.valid[1, 2, 0, 0] = False
    windows.valid[0, 0, 1, 1] = False
    windows.cube.masked_fill_(~windows.valid[:, :, None], 0)
    windows.time[1, 2] = 77
    cube, valid, time = replaced(windows, slice(0, 1), np.array([1, 2, 3, 0]), "date", 2)
    assert torch.equal(cube[0, 2], windows.cube[1, 2])
    assert torch.equal(valid[0, 2], windows.valid[1, 2])
    assert time[0].tolist() == [0, 1, 77]
    assert torch.equal(cube[0, :2], windows.cube[0, :2])
    cube, valid, time = replaced(windows, slice(0, 1), np.array([1, 2, 3, 0]), "band", 1)
    assert torch.equal(valid, windows.valid[:1])
    assert torch.equal(time, windows.time[:1])
    assert torch.equal(cube[0, :, 0], windows.cube[0, :, 0])
    # Where the other saw nothing, the mean: zero. Nothing of the own value is left.
    assert cube[0, 2, 1, 0, 0] == 0
    assert torch.equal(cube[0, 1, 1], windows.cube[1, 1, 1])


@pytest.mark.parametrize(("name", "place"), [("cnn", None), ("unet", (8, 10)), ("mlp", None)])
def test_the_own_pixel_is_scored_as_on_the_map(name, place):
    torch.manual_seed(0)
    network = prepare(build(name, {}, bands=2, dates=1, classes=3))
    side = network.stride + 2 * network.halo
    windows = places(3, 1, 2, side=side)
    if place is not None:
        windows.own[:] = False
        windows.own[:, *place] = True
    found = own_scores(network, windows.cube, windows.valid, windows.time, windows.own)
    y, x = place or (side // 2, side // 2)
    expected = scores(network, windows.cube, windows.valid, windows.time)[:, :, y, x]
    assert torch.allclose(found, expected, atol=1e-5)

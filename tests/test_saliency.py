"""Gradient saliency: exact, tiled as untiled, and about the model."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from models.inference import prepare
from models.network import build
from models.saliency.gradients import gradient
from models.saliency.reduce import reduce
from tests.oracles import padded_window
from tests.test_networks import made

torch.set_num_threads(1)

PER = ("pixel", "band", "date")


def scene(network, h, w, seed=0):
    g = torch.Generator().manual_seed(seed)
    valid = torch.rand(1, network.dates, h, w, generator=g) < 0.9
    cube = torch.randn(1, network.dates, network.bands, h, w, generator=g) * valid[:, :, None]
    return cube, valid, torch.arange(network.dates, dtype=torch.float32)[None] * 16


def everywhere(cube):
    return torch.ones(cube.shape[0], *cube.shape[3:], dtype=torch.bool)


def window_gradient(network, cube, valid, time, y, x, size, margin):
    """Return the gradient on the core (y, x, size), read with ``margin`` halos; scores within one halo less count."""
    pad = margin * network.halo
    values, flags = padded_window(cube, valid, y - pad, x - pad, size + 2 * pad)
    where = torch.zeros(1, size + 2 * pad, size + 2 * pad, dtype=torch.bool)
    # The target is the map: what lies outside the scene has no class.
    inner = pad - (margin - 1) * network.halo
    h, w = cube.shape[-2:]
    for i in range(inner, size + 2 * pad - inner):
        for j in range(inner, size + 2 * pad - inner):
            where[:, i, j] = 0 <= y - pad + i < h and 0 <= x - pad + j < w
    found, _ = gradient(network, values, flags, time, where)
    return found[..., pad : pad + size, pad : pad + size]


def tiled(network, cube, valid, time, size, margin):
    h, w = cube.shape[-2:]
    result = torch.full_like(cube, torch.nan)
    for y in range(0, h, size):
        for x in range(0, w, size):
            part = result[..., y : y + size, x : x + size]
            found = window_gradient(network, cube, valid, time, y, x, size, margin)
            part[:] = found[..., : part.shape[-2], : part.shape[-1]]
    return result


def test_a_linear_network_gives_its_weights():
    network = prepare(build("mlp", {"hidden": []}, bands=4, dates=1, classes=3))
    cube, valid, time = scene(network, 5, 7)
    found, scores = gradient(network, cube, valid, time, everywhere(cube))
    weight = network.layers[0].weight
    winner = scores.argmax(1)[0]
    expected = weight[winner].permute(2, 0, 1) * valid[0]  # a masked value moves nothing
    assert torch.equal(found[0, 0], expected)
    assert torch.equal(reduce(found, "band")[0], expected.abs())
    assert torch.equal(reduce(found, "pixel")[0], expected.abs().amax(0))


def test_only_the_pixels_that_count_move_it():
    network = prepare(made("mlp", {}))
    cube, valid, time = scene(network, 6, 6)
    where = everywhere(cube)
    where[:, 3:] = False
    found, _ = gradient(network, cube, valid, time, where)
    assert (found[..., 3:, :] == 0).all()
    assert (found[..., :3, :] != 0).any()
    assert (gradient(network, cube, valid, time, torch.zeros_like(where))[0] == 0).all()


@pytest.mark.parametrize(
    ("name", "settings"), [("mlp", {}), ("unet", {"width": 2, "depth": 1}), ("unet", {"width": 2, "depth": 2})]
)
@examples(max_examples=3, deadline=None)
@given(h=st.integers(1, 33), w=st.integers(1, 33), size=st.integers(1, 6), seed=st.integers(0, 9))
def test_saliency_does_not_depend_on_how_a_scene_is_cut(name, settings, h, w, size, seed):
    network = prepare(made(name, settings, dates=2, seed=seed))
    x = scene(network, h, w, seed)
    step = 2 * network.stride
    whole = window_gradient(network, *x, 0, 0, -(-max(h, w) // step) * step, 2)[..., :h, :w]
    found = tiled(network, *x, size * step, 2)
    for per in PER:
        assert torch.allclose(reduce(found, per), reduce(whole, per), atol=1e-5, rtol=0)


def test_one_halo_is_not_enough_for_a_unet():
    network = prepare(made("unet", {"width": 4, "depth": 1}))
    x = scene(network, 40, 40)
    whole = window_gradient(network, *x, 0, 0, 40, 2)
    assert (tiled(network, *x, 20, 2) - whole).abs().max() < 1e-5
    assert (tiled(network, *x, 20, 1) - whole).abs().max() > 1e-4


@pytest.mark.parametrize("masked", [False, True])
def test_slabs_do_not_change_a_gradient(monkeypatch, masked):
    network = prepare(made("lstm", {"hidden": 4}, bands=3, dates=5))
    cube, valid, time = scene(network, 7, 9)
    cube, valid, time = cube.repeat(2, 1, 1, 1, 1), valid.repeat(2, 1, 1, 1), time.repeat(2, 1)
    valid = valid if masked else torch.ones_like(valid)
    where = torch.rand(2, 7, 9, generator=torch.Generator().manual_seed(1)) < 0.5
    whole = gradient(network, cube, valid, time, where)
    monkeypatch.setattr(type(network), "gradient_slab", 10)  # five pixels of both tiles, which end within rows
    for found, expected in zip(gradient(network, cube, valid, time, where), whole, strict=True):
        assert found.shape == expected.shape
        assert torch.allclose(found, expected, atol=1e-6)


def test_an_lstm_takes_smaller_slabs_for_a_gradient_the_more_it_keeps():
    sizes = [made("lstm", {"hidden": h}, dates=t).gradient_slab for h, t in ((32, 12), (32, 24), (64, 24), (1024, 366))]
    assert sizes[0] == 2 * sizes[1] or sizes[0] == 2 * sizes[1] + 1
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 16
    assert made("gru", {}).gradient_slab == made("gru", {}).slab


@pytest.mark.parametrize("name", ["mlp", "unet"])
def test_captum_agrees(name):
    from captum.attr import Saliency

    network = prepare(made(name, {}, bands=3, dates=2))
    cube, valid, time = scene(network, 16, 16)
    found, scores = gradient(network, cube, valid, time, everywhere(cube))
    winner = scores.argmax(1, keepdim=True)

    def target(x):
        return network(x, valid, time).gather(1, winner).sum((1, 2, 3))

    expected = Saliency(target).attribute(cube.clone().requires_grad_(), abs=False)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["mlp", "unet"])
def test_finite_differences_agree(name):
    torch.manual_seed(0)
    network = prepare(made(name, {"activation": "tanh"})).double()
    cube, valid, time = scene(network, 8, 8)
    cube, time = cube.double(), time.double()
    found, scores = gradient(network, cube, valid, time, everywhere(cube))
    winner = scores.argmax(1, keepdim=True)
    for y, x in ((0, 0), (3, 5), (7, 2)):
        sums = []
        for step in (1e-5, -1e-5):
            moved = cube.clone()
            moved[0, 0, 1, y, x] += step
            with torch.no_grad():
                sums.append(network(moved, valid, time).gather(1, winner).sum())
        assert float((sums[0] - sums[1]) / 2e-5) == pytest.approx(float(found[0, 0, 1, y, x]), abs=1e-5)


@pytest.mark.parametrize(("name", "settings"), [("mlp", {}), ("unet", {"width": 8})])
def test_randomised_weights_give_another_map(name, settings):
    from scipy.stats import spearmanr

    torch.manual_seed(3)
    network = made(name, settings, bands=4, dates=2)
    x = scene(network, 64, 64)
    maps = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        for p in network.parameters():
            if p.ndim > 1:
                torch.nn.init.normal_(p, std=1.0 / p[0].numel() ** 0.5)
        found, _ = gradient(prepare(network), *x, everywhere(x[0]))
        # Signed values: where nothing is learnt they have no reason to agree.
        maps.append(found.flatten().numpy())
    assert abs(spearmanr(*maps).statistic) < 0.1


def test_reductions():
    g = torch.tensor([[[1.0, -5.0], [-2.0, 3.0], [0.0, 4.0]]])[..., None, None]  # (1, T 3, C 2, 1, 1)
    assert reduce(g, "pixel").tolist() == [[[5.0]]]
    assert reduce(g, "band").flatten().tolist() == [3.0, 12.0]
    assert reduce(g, "date").flatten().tolist() == [6.0, 5.0, 4.0]
    with pytest.raises(ValueError, match="pixel, band or date"):
        reduce(g, "class")


def test_it_needs_evaluation_mode():
    network = made("unet", {"width": 2})
    cube, valid, time = scene(network, 8, 8)
    with pytest.raises(ValueError, match="evaluation mode"):
        gradient(network.train(), cube, valid, time, everywhere(cube))

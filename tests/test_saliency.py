"""Gradient saliency: exact, tiled as untiled, and about the model."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch.nn import functional as F

from models.inference import prepare, scores
from models.saliency.gradients import gradient
from models.saliency.reduce import dominant, reduce
from models.saliency.target import Target
from models.table import build
from tests.explained import Kernel, Sums, everywhere, explainer, scene, tiled, whole
from tests.test_networks import made

torch.set_num_threads(1)


def test_a_linear_network_gives_its_weights():
    network = prepare(build("mlp", {"hidden": []}, bands=4, dates=1, classes=3))
    cube, valid, time = scene(network, 5, 7)
    found, at = gradient(network, cube, valid, time, everywhere(cube))
    weight = network.layers[0].weight
    winner = at.argmax(1)[0]
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


@pytest.mark.parametrize(("name", "settings"), [("mlp", {}), ("unet", {"width": 2, "depth": 2})])
@examples(max_examples=3, deadline=None)
@given(h=st.integers(1, 33), w=st.integers(1, 33), size=st.integers(1, 6), seed=st.integers(0, 9))
def test_saliency_does_not_depend_on_how_a_scene_is_cut(name, settings, h, w, size, seed):
    network = prepare(made(name, settings, dates=2, seed=seed))
    tile, asked = scene(network, h, w, seed), explainer("gradient")
    expected, found = whole(asked, network, tile), tiled(asked, network, tile, size * 2 * network.stride)
    for per in ("pixel", "band", "date"):
        assert torch.allclose(reduce(found, per), reduce(expected, per), atol=1e-5, rtol=0)


def test_of_a_linear_network_inputs_count_what_they_are_weighed():
    network = prepare(build("mlp", {"hidden": []}, bands=3, dates=2, classes=3))
    cube, valid, time = scene(network, 5, 7)
    weight = network.layers[0].weight[:, :6].view(3, 2, 3)  # what follows weighs whether a date is valid
    winner = scores(network, cube, valid, time).argmax(1)[0]
    own = weight[winner].permute(2, 3, 0, 1) * valid[0, :, None]  # (T, C, H, W)
    start = torch.tensor([0.5, 0.0, -2.0])
    for method, expected in (
        ("gradient_input", own * cube[0]),
        ("smoothgrad", own),
        ("integrated_gradients", own * (cube[0] - start[:, None, None])),
    ):
        asked = explainer(method, baseline=start.tolist(), samples=3, steps=4)
        found, _ = asked(network, cube, valid, time, everywhere(cube), [(0, 0)])
        assert torch.allclose(found[0], expected, atol=1e-6, rtol=0), method


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


def test_integrated_gradients_are_what_each_value_contributes_to_a_sum():
    network = Sums(bands=2, dates=3, classes=3).eval()
    cube, valid, time = scene(network, 5, 6)
    start = torch.tensor([0.4, -0.7])
    parts = [network.parts(x)[..., 1, :, :] for x in (cube.permute(0, 3, 4, 1, 2), start.expand(3, 2))]
    expected = (parts[0] - parts[1]).permute(0, 3, 4, 1, 2) * valid[:, :, None]
    asked = explainer("integrated_gradients", target=Target("output", 1, None), baseline=start.tolist())
    found, _ = asked(network, cube, valid, time, everywhere(cube), [(0, 0)])
    assert torch.allclose(found, expected, atol=1e-5, rtol=0)


def test_integrated_gradients_follow_a_value_to_all_pixels_that_see_it():
    network = Kernel(bands=2, dates=3, classes=3).eval()
    cube, valid, time = scene(network, 8, 9)
    where = everywhere(cube)
    where[:, 5:] = False
    start = torch.tensor([0.4, -0.7])[:, None, None].expand_as(cube)
    # Of each place and kernel, how much of the kernel comes to lie on pixels that count.
    moved = F.conv_transpose2d(where[:, None].float(), network.weight[1].flatten(0, 1)[None], padding=1)
    expected = (network.seen(cube) - network.seen(start)) * moved.view_as(cube) * valid[:, :, None]
    asked = explainer("integrated_gradients", target=Target("output", 1, None), baseline=[0.4, -0.7])
    found, _ = asked(network, cube, valid, time, where, [(0, 0)])
    assert torch.allclose(found, expected, atol=1e-5, rtol=0)
    assert (expected[..., 6:, :] == 0).all()


@pytest.mark.parametrize("target", [Target(), Target("margin"), Target("output", 2)], ids=lambda t: t.kind)
# Smooth functions: what is left is the error of the integral alone.
@pytest.mark.parametrize(
    ("name", "settings"), [("lstm", {"hidden": 4, "pooling": "mean"}), ("mlp", {"activation": "tanh"})]
)
def test_integrated_gradients_add_up_to_what_the_target_has_more_than_at_the_baseline(name, settings, target):
    network = prepare(made(name, settings, dates=3)).double()
    cube, valid, time = (x.double() if x.is_floating_point() else x for x in scene(network, 6, 8))
    start = [0.4, -0.7]
    before = scores(network, torch.tensor(start).double()[:, None, None].expand_as(cube), valid, time)
    asked = explainer("integrated_gradients", target=target, baseline=start, steps=32)
    found, at = asked(network, cube, valid, time, everywhere(cube), [(0, 0)])
    more = float((target.weights(at) * (at - before)).sum())
    assert abs(more) > 0.1
    assert float(found.sum()) == pytest.approx(more, rel=1e-5)


@pytest.mark.parametrize("method", ["gradient", "gradient_input", "smoothgrad", "integrated_gradients"])
def test_what_moves_the_map_is_the_sum_of_what_decides_each_pixel(method):
    network = prepare(made("unet", {"width": 2, "depth": 1}, dates=2))
    cube, valid, time = scene(network, 6, 8)
    asked = explainer(method, samples=2, steps=2, baseline=[0.3, 0.1])
    together, _ = asked(network, cube, valid, time, everywhere(cube), [(-3, 5)])
    # Each pixel by itself, all in one batch.
    own = torch.eye(48, dtype=torch.bool).view(48, 6, 8)
    tiles = (x.expand(48, *x.shape[1:]) for x in (cube, valid, time))
    single, _ = asked(network, *tiles, own, [(-3, 5)] * 48)
    assert torch.allclose(single.sum(0), together[0], atol=1e-5, rtol=0)
    assert not torch.allclose(single[0], together[0], atol=1e-3)


def test_targets_hold_the_classes_that_win():
    found = torch.tensor([[1.0, 3.0], [2.0, -1.0], [-4.0, 2.0]]).view(1, 3, 1, 2)
    weights = {
        "winner": [[0, 1], [1, 0], [0, 0]],
        "margin": [[-1, 1], [1, 0], [0, -1]],
        "output": [[0, 0], [0, 0], [1, 1]],
    }
    for kind, expected in weights.items():
        assert Target(kind, 2).weights(found)[0, :, 0].tolist() == expected
    assert torch.equal(Target(temperature=None).amounts(found), found)
    assert torch.allclose(
        Target(temperature=2.0).amounts(found), (found / 2).exp() / (found / 2).exp().sum(1, keepdim=True)
    )


@pytest.mark.parametrize(("target", "pair"), [(Target("margin"), (0, 1)), (Target("output", 1), (None, 1))])
def test_a_gradient_is_that_of_the_target(target, pair):
    network = prepare(build("mlp", {"hidden": []}, bands=4, dates=1, classes=3))
    cube, valid, time = scene(network, 5, 7, share=1.0)
    found, at = gradient(network, cube, valid, time, everywhere(cube), target)
    order = at.argsort(1, descending=True)[0]  # (K, H, W)
    weight = network.layers[0].weight
    expected = weight[order[0]] - weight[order[1]] if pair[0] == 0 else weight[1].expand(5, 7, -1)
    assert torch.allclose(found[0, 0], expected.permute(2, 0, 1), atol=1e-6, rtol=0)


def test_the_number_of_a_regression_is_explained_in_its_own_units():
    network = prepare(made("mlp", {"hidden": []}, dates=1, classes=1))
    cube, valid, time = scene(network, 5, 7, share=1.0)
    target = Target("output", 0, None)
    found, _ = explainer("occlusion_band", target=target)(network, cube, valid, time, everywhere(cube), [(0, 0)])
    assert torch.allclose(found[0, 0], network.layers[0].weight[0][:, None, None] * cube[0, 0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["mlp", "unet"])
def test_finite_differences_agree(name):
    torch.manual_seed(0)
    network = prepare(made(name, {"activation": "tanh"})).double()
    cube, valid, time = scene(network, 8, 8)
    cube, time = cube.double(), time.double()
    found, at = gradient(network, cube, valid, time, everywhere(cube))
    winner = at.argmax(1, keepdim=True)
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
    assert reduce(g, "pixel", signed=True).tolist() == [[[-5.0]]]
    assert reduce(g, "band", signed=True).flatten().tolist() == [-1.0, 2.0]
    assert reduce(g, "date", signed=True).flatten().tolist() == [-4.0, 1.0, 4.0]
    with pytest.raises(ValueError, match="pixel, band or date"):
        reduce(g, "class")


def test_the_dominant_one_is_that_of_largest_size():
    layer = torch.tensor([[[1.0, 0.0, 2.0]], [[-3.0, 0.0, 2.0]]])[None]  # (1, n 2, 1, 3)
    assert dominant(layer).tolist() == [[[2, 0, 1]]]


def test_it_needs_evaluation_mode():
    network = made("unet", {"width": 2})
    cube, valid, time = scene(network, 8, 8)
    with pytest.raises(ValueError, match="evaluation mode"):
        gradient(network.train(), cube, valid, time, everywhere(cube))

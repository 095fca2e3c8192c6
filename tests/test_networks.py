"""Networks: halo and stride proven, scores independent of tiling, settings checked."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from models.cost import blank_tile, flop_per_pixel, parameters
from models.network import ModelError, Network
from models.table import NETWORKS, build, network_class
from tests.oracles_convolutions import resnet_by_hand
from tests.oracles_tiles import gradient_support, padded_window, seen_from, tiled_scores

torch.set_num_threads(1)

VARIANTS = [
    ("mlp", {}),
    ("mlp", {"hidden": []}),
    ("mlp", {"hidden": [8, 8], "normalisation": "batch", "activation": "tanh"}),
    ("unet", {"width": 3, "depth": 1}),
    ("unet", {"width": 2, "depth": 2, "padding": "reflect"}),
    ("unet", {"width": 2, "depth": 2, "normalisation": "none", "activation": "silu"}),
    ("unet", {"width": 1, "depth": 3, "padding": "replicate"}),
    ("cnn", {"filters": [3, 4]}),
    ("cnn", {"filters": [3], "pool": 1, "patch": 3, "hidden": [], "normalisation": "none", "activation": "tanh"}),
    ("cnn", {"filters": [2, 3, 4], "pool": [2, 1, 2], "patch": 15, "hidden": [4], "pooling": "average"}),
    ("cnn", {"filters": [2, 3], "stride": [2, 1], "pool": [1, 2], "patch": 9, "pooling": "l2"}),
    ("resnet", {"width": 3, "dilations": [1, 2]}),
    ("resnet", {"width": 2, "dilations": [3], "normalisation": "none", "activation": "maxout"}),
    ("spectral", {"filters": [2, 3], "width": 4, "hidden": [3]}),
    ("spectral", {"filters": [2], "kernel": 3, "stride": 1, "width": 3, "hidden": [], "components": 2}),
]


# The same for networks that are made for several dates; the radius of the ConvLSTM grows with them.
TEMPORAL = [
    ("tempcnn", {"filters": 8, "kernel": 3, "layers": 2, "dense": 16}),
    ("tempcnn", {"filters": 6, "normalisation": "none", "activation": "maxout"}),
    ("rnn", {"hidden": 4, "pooling": "mean"}),
    ("lstm", {"hidden": 4}),
    ("lstm", {"hidden": 3, "layers": 2, "direction": "both", "pooling": "last"}),
    ("gru", {"hidden": 4, "direction": "both", "pooling": "attention"}),
    ("transformer", {"width": 8, "heads": 2, "feedforward": 6}),
    ("transformer", {"width": 6, "heads": 3, "layers": 1, "feedforward": 5, "pooling": "attention"}),
    ("ltae", {"width": 8, "heads": 2, "keys": 3, "features": 6, "hidden": [5]}),
    ("ltae", {"width": 6, "heads": 3, "features": 4, "hidden": []}),
    ("convlstm", {"hidden": 3}),
    ("convlstm", {"hidden": 2, "layers": 2}),
    ("utae", {"width": 2, "heads": 2, "attention": 4}),
    ("utae", {"width": 2, "heads": 1, "attention": 3, "depth": 2, "normalisation": "none", "activation": "maxout"}),
]


def made(name: str, settings: dict, *, bands: int = 2, dates: int = 1, classes: int = 3, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    network = build(name, settings, bands=bands, dates=dates, classes=classes)
    if network.components:
        network.project(torch.cov(torch.randn(bands, 9)))
    for module in network.modules():  # statistics as after some training
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


@pytest.mark.parametrize(
    ("name", "settings", "dates"),
    [(*variant, 1) for variant in VARIANTS] + [(*variant, dates) for variant in TEMPORAL for dates in (1, 3)],
)
def test_the_radius_is_exactly_what_an_input_reaches(name, settings, dates):
    network = made(name, settings, dates=dates)
    side = 2 * (network.halo + 2 * network.stride) // network.stride * network.stride + 2 * network.stride
    furthest = 0
    for phase in range(network.stride):
        reached, y, x = seen_from(network, phase, (phase * 3) % network.stride, side)
        rows, columns = torch.nonzero(reached, as_tuple=True)
        furthest = max(furthest, int((rows - y).abs().max()), int((columns - x).abs().max()))
    assert furthest == network.radius
    assert network.halo >= network.radius > network.halo - network.stride
    assert network.halo % network.stride == 0


@pytest.mark.parametrize(
    ("name", "settings", "dates"),
    [
        ("mlp", {}, 1),
        ("lstm", {"hidden": 2}, 2),
        ("unet", {"width": 2, "depth": 1}, 1),
        ("unet", {"width": 1, "depth": 2}, 1),
        ("convlstm", {"hidden": 2}, 3),
        ("convlstm", {"hidden": 2, "layers": 3}, 2),
        ("utae", {"width": 2, "heads": 2, "attention": 4}, 2),
        ("cnn", {"filters": [3, 4]}, 2),
        ("resnet", {"width": 3, "dilations": [1, 2, 4]}, 1),
        ("resnet", {"width": 2, "dilations": [4, 1]}, 2),
        ("spectral", {"filters": [2, 3], "width": 4, "hidden": [3]}, 2),
        ("cnn", {"filters": [2, 3], "stride": [2, 1], "pool": [1, 2], "patch": 9, "pooling": "l2"}, 1),
    ],
)
def test_the_support_of_the_gradient_lies_within_the_halo_and_fills_the_radius(name, settings, dates):
    network = made(name, settings, dates=dates)
    side = 2 * network.halo + 4 * network.stride
    reach = 0
    for phase in range(network.stride):
        y = x = side // 2 + phase
        rows, columns = torch.nonzero(gradient_support(network, y, x, side), as_tuple=True)
        reach = max(reach, int((rows - y).abs().max()), int((columns - x).abs().max()))
    assert reach == network.radius <= network.halo


@pytest.mark.parametrize(("name", "settings"), [v for v in VARIANTS if v[1].get("depth") != 3] + TEMPORAL)
@examples(max_examples=4, deadline=None)
@given(h=st.integers(1, 41), w=st.integers(1, 41), size=st.integers(1, 9), seed=st.integers(0, 9))
def test_scores_do_not_depend_on_how_a_scene_is_cut(name, settings, h, w, size, seed):
    network = made(name, settings, dates=2, seed=seed)
    step = network.stride
    cube, valid = torch.randn(1, 2, 2, h, w), torch.rand(1, 2, h, w) < 0.8
    cube = cube * valid[:, :, None]
    time = torch.tensor([[0.0, 16.0]])
    whole = tiled_scores(network, cube, valid, time, -(-max(h, w) // step) * step)
    tiled = tiled_scores(network, cube, valid, time, size * step)
    assert torch.allclose(tiled, whole, atol=1e-5, rtol=0)


def test_a_smaller_halo_would_not_be_exact():
    network = made("unet", {"width": 4, "depth": 2})
    cube, valid = torch.randn(1, 1, 2, 64, 64), torch.ones(1, 1, 64, 64, dtype=torch.bool)
    time = torch.zeros(1, 1)
    halo = network.halo
    with torch.no_grad():
        right = network(*padded_window(cube, valid, 32 - halo, 32 - halo, 4 + 2 * halo), time)
        wrong = network(*padded_window(cube, valid, 24, 24, 20), time)
    assert not torch.allclose(right[..., halo : halo + 4, halo : halo + 4], wrong[..., 8:12, 8:12], atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_by_name(name):
    network = made(name, {}, bands=4, dates=2, classes=5)
    scores = network(*blank_tile(network, 16 * network.stride))
    assert scores.shape == (1, 5, 16 * network.stride, 16 * network.stride)
    assert flop_per_pixel(network) > 2 * parameters(network) / 16**2
    assert network.chip % network.stride == 0
    assert all(f.description for f in network.Settings.model_fields.values())


def test_without_hidden_layers_the_mlp_is_logistic_regression():
    network = made("mlp", {"hidden": []}, bands=3)
    (linear,) = network.layers
    cube = torch.randn(1, 1, 3, 2, 2)
    expected = torch.einsum("kc,bchw->bkhw", linear.weight, cube[:, 0]) + linear.bias[:, None, None]
    found = network(cube, torch.ones(1, 1, 2, 2, dtype=torch.bool), torch.zeros(1, 1))
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("dilations", [[1], [2, 3, 1]])
def test_a_residual_network_is_its_sums_written_out(dilations):
    network = made("resnet", {"width": 3, "dilations": dilations}, dates=2)
    cube, valid = torch.randn(1, 2, 2, 9, 7), torch.rand(1, 2, 9, 7) < 0.8
    with torch.no_grad():
        found = network(cube, valid, torch.zeros(1, 2))[0]
    expected = torch.from_numpy(resnet_by_hand(network, cube[0].numpy(), valid[0].numpy()))
    assert torch.allclose(found.double(), expected, atol=1e-5, rtol=0)


def test_a_dilated_network_sees_every_pixel_around_and_no_lattice():
    network = made("resnet", {"width": 3, "normalisation": "none"})
    for block in network.blocks:
        for parameter in block.parameters():
            torch.nn.init.constant_(parameter, 0.1)
    side = 2 * network.radius + 1
    support = gradient_support(network, network.radius, network.radius, side, draws=1)
    assert support.all()


@pytest.mark.parametrize(("name", "settings"), [v for v in VARIANTS if v[0] in ("cnn", "resnet", "spectral")])
@pytest.mark.parametrize("classes", [1, 3])
def test_it_overfits_one_batch(name, settings, classes):
    torch.manual_seed(0)
    wide = {"width": 16, "filters": [16] * len(settings.get("filters", [])), "hidden": [16]}
    wide = {key: value for key, value in wide.items() if key in settings}
    network = made(name, settings | wide | {"dropout": 0.0}, classes=classes).train()
    side = network.chip if network.centred else 8
    cube, valid = torch.randn(8, 1, 2, side, side), torch.rand(8, 1, side, side) < 0.9
    inputs = cube, valid, torch.zeros(8, 1)
    found = network.centre(*inputs) if network.centred else network(*inputs)[..., 3, 3]
    target = torch.randn_like(found) if classes == 1 else torch.arange(8) % classes
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=0.0)
    for _ in range(60):
        optimizer.zero_grad()
        found = network.centre(*inputs) if network.centred else network(*inputs)[..., 3, 3]
        loss = F.mse_loss(found, target) if classes == 1 else F.cross_entropy(found, target)
        loss.backward()
        optimizer.step()
    assert loss < 0.05


def test_a_million_parameters_can_be_reached():
    network = build("unet", {"width": 32, "depth": 3}, bands=4, dates=1, classes=8)
    assert parameters(network) > 1e6


def test_an_unknown_network_is_refused_with_the_nearest_name():
    with pytest.raises(ModelError, match=r"no network 'u-net'; did you mean 'unet'\? There are: mlp, cnn, tempcnn, "):
        network_class("u-net")


@pytest.mark.parametrize("normalisation", ["instance", "group", "layer"])
def test_a_normalisation_over_the_tile_is_refused_with_the_reason(normalisation):
    with pytest.raises(ModelError, match=r"over the whole tile, so a map would depend on how it was cut"):
        build("unet", {"normalisation": normalisation}, bands=1, dates=1, classes=2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"depth": 9}, "depth: .*found 9"), ({"with": 3}, "with: .*found 3"), ({"dropout": 1}, "dropout")],
)
def test_a_wrong_setting_is_refused_with_its_place(settings, words):
    with pytest.raises(ModelError, match=words):
        build("unet", settings, bands=1, dates=1, classes=2)


def test_no_class_is_refused():
    with pytest.raises(ModelError, match="at least 1 classes, got 0"):
        build("mlp", {}, bands=1, dates=1, classes=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_one_number_may_be_estimated(name):
    network = made(name, {}, bands=2, dates=2, classes=1)
    side = 2 * network.stride
    assert network(*blank_tile(network, side)).shape == (1, 1, side, side)


@pytest.mark.parametrize("shape", [(1, 1, 2, 6, 8), (1, 1, 3, 8, 8), (1, 2, 2, 8, 8), (2, 8, 8)])
def test_a_cube_of_the_wrong_shape_is_refused(shape):
    network = made("unet", {"width": 1, "depth": 2})
    with pytest.raises(ValueError, match=r"expects a cube \(B, 1, 2, H, W\) with H and W multiples of 4, got"):
        network(torch.zeros(shape), torch.ones(1, 1, 8, 8, dtype=torch.bool), torch.zeros(1, 1))

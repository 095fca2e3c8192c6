"""What a network is made of, and what it starts from: activations and weights."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch

from models.initialisation import initialise
from models.networks.layers import Activation, Maxout, activation
from tests.test_networks import made

torch.set_num_threads(1)

BY_HAND = {
    "relu": lambda x: max(x, 0.0),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": math.tanh,
}


@pytest.mark.parametrize("name", get_args(Activation))
def test_an_activation_is_its_formula(name):
    x = torch.linspace(-3, 3, 14)
    found = activation(name)(x[None].clone())[0].tolist()
    pairs = zip(x[:7].tolist(), x[7:].tolist(), strict=True)
    expected = [max(pair) for pair in pairs] if name == "maxout" else [BY_HAND[name](v) for v in x.tolist()]
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mlp", {"hidden": [5, 4], "normalisation": "batch"}),
        ("unet", {"width": 3}),
        ("tempcnn", {"filters": 3, "dense": 5}),
        ("utae", {"width": 4, "heads": 2, "attention": 4}),
    ],
)
def test_maxout_is_the_larger_of_two_maps_in_every_network(name, settings):
    network = made(name, settings | {"activation": "maxout"}, dates=3)
    seen = []

    def watch(layer, inputs, output):
        (x,) = inputs
        half = x.shape[1] // 2
        expected = torch.stack([torch.where(x[:, i] > x[:, half + i], x[:, i], x[:, half + i]) for i in range(half)], 1)
        assert torch.equal(output, expected)
        seen.append(half)

    for layer in network.modules():
        if isinstance(layer, Maxout):
            layer.register_forward_hook(watch)
    scores = network(torch.randn(2, 3, 2, 4, 4), torch.ones(2, 3, 4, 4, dtype=torch.bool), torch.zeros(2, 3))
    assert scores.shape == (2, 3, 4, 4)
    plain = made(name, settings | {"activation": "relu"}, dates=3)
    assert len(seen) == sum(isinstance(layer, torch.nn.ReLU) for n, layer in plain.named_modules() if "mix" not in n)


@pytest.mark.parametrize("kind", ["kaiming", "xavier", "normal"])
def test_weights_start_with_the_variance_of_the_paper(kind):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(300, 200), torch.nn.Conv2d(40, 60, 3), torch.nn.BatchNorm2d(60))
    initialise(network, kind)
    for layer, inputs, outputs in ((network[0], 300, 200), (network[1], 40 * 9, 60 * 9)):
        variance = {"kaiming": 2 / inputs, "xavier": 2 / (inputs + outputs), "normal": 0.02**2}[kind]
        assert layer.weight.var().item() == pytest.approx(variance, rel=0.03)
        assert layer.weight.mean().item() == pytest.approx(0, abs=0.02 * math.sqrt(variance))
        assert (layer.bias == 0).all()
    assert (network[2].weight == 1).all()


def test_auto_leaves_the_weights_and_chance_as_they_are():
    network = made("unet", {"width": 3})
    before = {k: v.clone() for k, v in network.state_dict().items()}
    state = torch.get_rng_state()
    initialise(network, "auto")
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_same_seed_starts_from_the_same_weights():
    first, again, other = (made("tempcnn", {"filters": 4}, dates=3) for _ in range(3))
    for network, seed in ((first, 1), (again, 1), (other, 2)):
        torch.manual_seed(seed)
        initialise(network, "kaiming")
    assert torch.equal(first.layers[0].weight, again.layers[0].weight)
    assert not torch.equal(first.layers[0].weight, other.layers[0].weight)

"""Networks on time series: equal to independent implementations."""

from __future__ import annotations

import pytest
import torch

from models.network import ModelError
from models.table import build
from tests.oracles_series import (
    convlstm_by_hand,
    light_attention_by_hand,
    recurrent_by_hand,
    tempcnn_by_hand,
    transformer_by_hand,
)
from tests.scenes import irregular
from tests.test_networks import TEMPORAL, made

torch.set_num_threads(1)

RECURRENT = [
    (name, {"hidden": 5, "layers": layers, "direction": direction, "pooling": pooling})
    for name in ("rnn", "lstm", "gru")
    for layers, direction in ((1, "forward"), (2, "both"))
    for pooling in ("max", "mean", "last", "attention")
]


@pytest.mark.parametrize(("name", "settings"), RECURRENT)
def test_recurrent_networks_are_their_cells_over_valid_dates(name, settings):
    network = made(name, settings, dates=5)
    cube, valid, time = irregular(network)
    pixels = cube.permute(0, 3, 4, 1, 2).flatten(0, 2), valid.permute(0, 2, 3, 1).flatten(0, 2)
    with torch.no_grad():
        found = network(cube, valid, time).permute(0, 2, 3, 1).flatten(0, 2)
        expected = recurrent_by_hand(network, *pixels, time.repeat_interleave(16, 0))
    assert torch.allclose(found, expected, atol=1e-5, rtol=0)


def test_an_lstm_starts_with_open_forget_gates():
    network = made("lstm", {"hidden": 4, "layers": 2})
    for layer in network.forwards:
        assert (layer.bias_ih_l0 + layer.bias_hh_l0)[4:8].tolist() == [1.0] * 4


@pytest.mark.parametrize(("kernel", "activation"), [(3, "relu"), (5, "relu"), (3, "maxout")])
def test_a_tempcnn_is_its_sums(kernel, activation):
    network = made("tempcnn", {"filters": 4, "dense": 7, "kernel": kernel, "activation": activation}, dates=6)
    g = torch.Generator().manual_seed(0)
    x, valid = torch.randn(9, 6, 2, generator=g), torch.rand(9, 6, generator=g) < 0.7
    with torch.no_grad():
        found = network.pixels(x, valid, torch.zeros(9, 6))
        assert torch.allclose(found, tempcnn_by_hand(network, x, valid), atol=1e-5)


@pytest.mark.parametrize(("name", "settings"), [v for v in TEMPORAL if v[0] == "transformer"])
def test_a_transformer_is_its_sums_over_valid_dates(name, settings):
    network = made(name, settings, dates=5)
    cube, valid, time = irregular(network)
    pixels = cube.permute(0, 3, 4, 1, 2).flatten(0, 2), valid.permute(0, 2, 3, 1).flatten(0, 2)
    with torch.no_grad():
        found = network(cube, valid, time).permute(0, 2, 3, 1).flatten(0, 2)
        expected = transformer_by_hand(network, *pixels, time.repeat_interleave(16, 0))
    assert torch.allclose(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("heads", "width"), [(1, 5), (3, 12), (4, 4)])
def test_light_attention_is_its_sums_head_by_head(heads, width):
    network = made("ltae", {"width": width, "heads": heads, "keys": 3}, dates=5).attention
    g = torch.Generator().manual_seed(0)
    x, valid = torch.randn(7, 5, 2, generator=g), torch.rand(7, 5, generator=g) < 0.6
    valid[0] = False
    time = (torch.rand(7, 5, generator=g) * 90).cumsum(1)
    with torch.no_grad():
        found, _ = network(x, valid, time)
        seen = light_attention_by_hand(network, x, valid, time)
        assert torch.allclose(found, network.norm(network.mix(seen)), atol=1e-5, rtol=0)


def test_a_convlstm_is_its_sums():
    network = made("convlstm", {"hidden": 3}, dates=4)
    cube, valid, time = irregular(network)
    with torch.no_grad():
        assert torch.allclose(network(cube, valid, time), convlstm_by_hand(network, cube, valid, time), atol=1e-5)


def test_a_convlstm_keeps_its_state_where_a_date_is_masked():
    network = made("convlstm", {"hidden": 3}, dates=4)
    cube, valid, time = irregular(network, share=1.0)
    valid[:, 2:] = False
    with torch.no_grad():
        assert torch.equal(network(cube, valid, time), network(cube[:, :2], valid[:, :2], time[:, :2]))


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("transformer", {"width": 10, "heads": 4}, "width must be a multiple of heads, got a width of 10 and 4 heads"),
        ("ltae", {"width": 10, "heads": 4}, "width must be a multiple of heads, got a width of 10 and 4 heads"),
        ("utae", {"width": 10, "heads": 4}, "width must be a multiple of heads, got 10 channels and 4 heads"),
        ("utae", {"attention": 10, "heads": 4}, "attention must be a multiple of heads, got 10 channels and 4 heads"),
    ],
)
def test_channels_that_the_heads_cannot_share_are_refused(name, settings, words):
    with pytest.raises(ModelError, match=words):
        build(name, settings, bands=1, dates=2, classes=2)

"""Prediction: prepared networks say the same, in bounded memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from models.inference import activation_bytes, prepare, scores, slabs
from tests.test_networks import VARIANTS, made

torch.set_num_threads(1)


def tile(network, h, w, b=1):
    cube = torch.randn(b, network.dates, network.bands, h, w)
    return cube, torch.rand(b, network.dates, h, w) < 0.9, torch.zeros(b, network.dates)


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_a_prepared_network_gives_the_same_scores(name, settings):
    network = made(name, settings, dates=2)
    before = copy.deepcopy(network.state_dict())
    ready = prepare(network)
    x = tile(network, 64, 48, b=2)
    with torch.no_grad():
        expected = network(*x)
    assert torch.allclose(scores(ready, *x), expected, atol=1e-5)
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in ready.modules())
    assert not any(p.requires_grad for p in ready.parameters())
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items()), "the original is left alone"


def test_pixel_networks_run_in_slabs():
    network = made("mlp", {})
    cube, valid, time = tile(network, 301, 67)
    pieces = list(slabs(cube, network.slab))
    assert [i for s in pieces for i in range(s.start, s.stop)] == list(range(301 * 67))
    assert max(s.stop - s.start for s in pieces) == network.slab
    with torch.no_grad():
        assert torch.allclose(scores(network, cube, valid, time), network(cube, valid, time), atol=1e-6)


def test_slabs_count_the_pixels_of_all_tiles_and_may_end_within_a_row():
    sizes = [s.stop - s.start for s in slabs(torch.zeros(3, 1, 2, 5, 7), 30)]
    assert sizes == [10, 10, 10, 5]
    assert [s.stop - s.start for s in slabs(torch.zeros(9, 1, 2, 1, 2), 4)] == [1, 1]


@pytest.mark.parametrize("name", ["mlp", "unet"])
def test_the_memory_of_a_gradient_is_more_than_that_of_scores(name):
    network = made(name, {}, bands=4)
    plain, explained = activation_bytes(network, gradient=False), activation_bytes(network, gradient=True)
    assert explained > plain > 4 * (4 + 3)


def test_the_memory_of_a_unet_grows_with_its_width():
    narrow, wide = (activation_bytes(made("unet", {"width": w}), gradient=False) for w in (8, 32))
    assert 3 < wide / narrow < 4.5
    # At the least one skip, and what is made from it, live at full resolution.
    assert wide > 3 * 32 * 4

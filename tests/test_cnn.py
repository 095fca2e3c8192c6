"""The classifier of patches: a map of it is every patch classified by itself, and settings that do not fit are refused."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from models.cost import blank_tile, flop_per_pixel
from models.inference import prepare, scores
from models.network import ModelError
from models.table import build
from tests.oracles_convolutions import patch_by_hand
from tests.oracles_tiles import every_patch
from tests.test_networks import made

torch.set_num_threads(1)

PATCHES = [
    {"filters": [4], "pool": 1, "patch": 3, "hidden": []},
    {"filters": [3], "kernel": 2, "pool": 2, "patch": 3, "hidden": [4]},
    {"filters": [3], "pool": 2, "patch": 5, "hidden": [4], "pooling": "l2"},
    {"filters": [3, 4], "pool": 1, "patch": 5, "activation": "maxout"},
    {"filters": [3, 4], "stride": [2, 1], "pool": 1, "patch": 9, "hidden": [5, 4], "normalisation": "none"},
    {"filters": [3, 4], "patch": 9, "hidden": [5], "pooling": "average", "activation": "tanh"},
    {"filters": [3, 4, 5], "pool": [2, 2, 1], "patch": 15, "hidden": [5], "kernel": [4, 3, 2], "pooling": "l2"},
    {"filters": [3, 4, 5], "pool": [1, 3, 1], "stride": [2, 1, 1], "patch": 15, "hidden": [], "kernel": [7, 3, 1]},
    {"filters": [2, 3, 4], "pool": [2, 1, 2], "patch": 15, "hidden": [4], "pooling": "average"},
]  # fmt: skip


def scene(network, h, w, b=1):
    """A scene with masked pixels whose values are no numbers."""
    valid = torch.rand(b, network.dates, h, w) < 0.8
    valid[..., : h // 2, : w // 3] = False
    cube = torch.randn(b, network.dates, network.bands, h, w)
    return cube.masked_fill(~valid[:, :, None], torch.nan), valid, torch.zeros(b, network.dates)


@pytest.mark.parametrize("settings", PATCHES)
def test_a_map_is_every_patch_by_itself(settings):
    network = made("cnn", settings, dates=2)
    tile = scene(network, 11, 18, b=2)
    expected = every_patch(network, *tile)
    with torch.no_grad():
        assert torch.allclose(network(*tile), expected, atol=1e-5, rtol=0)
    assert torch.allclose(scores(prepare(network), *tile), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("settings", [s for s in PATCHES if s.get("activation", "relu") == "relu"])
def test_the_score_of_a_patch_is_its_sums_written_out(settings):
    network = made("cnn", settings, dates=2)
    cube, valid, time = scene(network, network.chip, network.chip)
    with torch.no_grad():
        found = network.centre(cube, valid, time)[0]
    expected = patch_by_hand(network, cube[0].numpy(), valid[0].numpy())
    assert torch.allclose(found.double(), torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_of_a_larger_patch_the_middle_is_looked_at():
    network = made("cnn", {"patch": 7})
    cube, valid, time = scene(network, 11, 11)
    with torch.no_grad():
        assert torch.equal(
            network.centre(cube, valid, time), network.centre(cube[..., 2:9, 2:9], valid[..., 2:9, 2:9], time)
        )
    for side in (5, 8):
        with pytest.raises(ModelError, match=rf"patches of 7 x 7 pixels or a larger odd number, got {side} x {side}"):
            network.centre(cube[..., :side, :side], valid[..., :side, :side], time)


def test_the_gradient_of_l2_pooling_is_finite_where_all_is_zero():
    network = made("cnn", {"pooling": "l2", "normalisation": "none"}).train()
    cube, valid, time = scene(network, 9, 9)
    network.centre(cube, torch.zeros_like(valid), time).sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_learning_from_patches_and_from_the_map_is_the_same():
    # Without batch normalisation, whose mean is over what is looked at, the gradient of one pixel's loss is that of its patch.
    network = made("cnn", PATCHES[4] | {"dropout": 0.0}).train()
    cube, valid, time = scene(network, 9, 9)
    gradients = []
    for found in (network.centre(cube, valid, time), network(cube, valid, time)[:, :, 4, 4]):
        network.zero_grad()
        F.cross_entropy(found, torch.tensor([1])).backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))
    assert any((a != 0).any() for a in gradients[0])


def test_it_overfits_a_batch_of_patches_and_one_number():
    torch.manual_seed(0)
    network = build("cnn", {"dropout": 0.0}, bands=2, dates=1, classes=1)
    cube, valid, time = scene(network, 9, 9, b=16)
    target = torch.randn(16, 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.mse_loss(network.centre(cube, valid, time), target)
        loss.backward()
        optimizer.step()
    assert loss < 0.02


def test_a_map_costs_a_fraction_of_every_patch():
    network = build("cnn", {}, bands=10, dates=1, classes=8)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval().centre(*blank_tile(network, network.chip))
    assert counter.get_total_flops() > 8 * flop_per_pixel(network)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"patch": 8}, r"patch: .*its side is odd: 7 or 9, found 8"),
        (
            {"patch": 3},
            r"patch: .*convolution 2 \(3 x 3, stride 1\) finds 1 x 1 values.*smallest patch.*is 7;.*found 3",
        ),
        ({"patch": 5}, r"patch: .*the pooling behind convolution 2 \(2 x 2\) finds 1 x 1 values.*is 7;"),
        ({"patch": 9, "pool": 3}, r"convolution 2 \(3 x 3, stride 1\) finds 2 x 2 values.*is 17;"),
        (
            {"patch": 13, "pool": 4, "filters": [8]},
            r"read 10 of the 13 .* 11 is the same network, 15 the next larger one",
        ),
        ({"padding": "same"}, r"padding: .*zeros at its own border.*found 'same', allowed is valid"),
        ({"filters": [4, 4, 4]}, r"pool: .*3 convolutions \(filters\) and 2 numbers here; give one number, or 3"),
        ({"filters": []}, r"filters: "),
        ({"normalisation": "instance"}, r"over the whole tile"),
    ],
)
def test_settings_that_do_not_fit_are_refused_with_what_would(settings, words):
    with pytest.raises(ModelError, match=words):
        build("cnn", settings, bands=1, dates=1, classes=2)


@pytest.mark.parametrize("settings", [{"pool": 3}, {"kernel": [5, 2]}, {"stride": 2, "pool": [2, 1]}])
def test_the_smallest_patch_that_is_named_is_the_smallest(settings):
    def refused(patch):
        try:
            build("cnn", settings | {"patch": patch}, bands=1, dates=1, classes=2)
        except ModelError as error:
            return str(error)
        return None

    smallest = next(patch for patch in range(3, 99, 2) if refused(patch) is None)
    assert smallest > 3
    assert all(f"the smallest patch for these layers is {smallest};" in refused(p) for p in range(3, smallest, 2))

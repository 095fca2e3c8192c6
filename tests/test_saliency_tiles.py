"""Every method, for every network: independent of how a scene is cut, and within the memory that is counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.inference import _LiveBytes, prepare
from models.saliency.noise import noise
from models.table import NETWORKS
from tests.explained import METHODS, everywhere, explainer, scene, tiled, whole
from tests.test_networks import made

torch.set_num_threads(1)

TINY = {
    "mlp": {"hidden": [5]},
    "cnn": {"filters": [3, 4]},
    "tempcnn": {"filters": 6, "kernel": 3, "layers": 2, "dense": 8},
    "rnn": {"hidden": 4, "pooling": "mean"},
    "lstm": {"hidden": 4},
    "gru": {"hidden": 4, "direction": "both", "pooling": "attention"},
    "transformer": {"width": 8, "heads": 2, "feedforward": 6},
    "ltae": {"width": 8, "heads": 2, "keys": 3, "features": 6, "hidden": [5]},
    "unet": {"width": 3, "depth": 1},
    "resnet": {"width": 3, "dilations": [1, 2]},
    "spectral": {"filters": [2, 3], "width": 4, "hidden": [3]},
    "convlstm": {"hidden": 3},
    "utae": {"width": 2, "heads": 2, "attention": 4},
    "autoencoder": {"looks_at": "land", "width": 2},
    "vae": {"code": 2},
    "gan": {"filters": [2, 3]},
}
DEEP = ("unet", {"width": 2, "depth": 2})
SETTINGS = {"samples": 2, "steps": 2, "baseline": [0.3, -0.2]}


def close(found, expected):
    """Whether they differ by no more than 1e-5, and by 1e-5 of the largest where that is more than probabilities resolve."""
    size = float(expected.abs().max())
    allowed = min(1e-5, 1e-6 + 1e-5 * size)
    return size > 10 * allowed and float((found - expected).abs().max()) < allowed


def test_there_is_a_tiny_one_of_every_network():
    assert set(TINY) == set(NETWORKS)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "occlusion_patch"])
@pytest.mark.parametrize(("name", "settings"), [*TINY.items(), DEEP])
def test_layers_do_not_depend_on_how_a_scene_is_cut(name, settings, method):
    network = prepare(made(name, settings, dates=2))
    tile = scene(network, 7, 9, seed=3)
    asked = explainer(method, **SETTINGS)
    expected = whole(asked, network, tile)
    found = tiled(asked, network, tile, 5 if network.stride == 1 else 3 * network.stride)
    assert close(found, expected)
    assert found.shape[1:3] == (1 + ("date" in asked.axes), 1 + ("band" in asked.axes))


@pytest.mark.parametrize(
    ("name", "patch", "step"),
    [(name, 5, 5) for name in TINY if name not in ("utae", "autoencoder")]
    + [("mlp", 5, 2), ("cnn", 4, 3), ("resnet", 4, 3), ("unet", 8, 6)],
)
def test_patches_do_not_depend_on_how_a_scene_is_cut(name, patch, step):
    network = prepare(made(name, TINY[name], dates=2))
    tile = scene(network, 9, 11, seed=4)
    asked = explainer("occlusion_patch", patch=patch, step=step, **SETTINGS)
    assert close(tiled(asked, network, tile, 7 if network.stride == 1 else 6), whole(asked, network, tile))


def test_patches_do_not_depend_on_how_a_scene_is_cut_with_two_poolings():
    network = prepare(made(*DEEP))
    tile = scene(network, 19, 22, seed=5)
    asked = explainer("occlusion_patch", patch=18, step=16, **SETTINGS)
    assert close(tiled(asked, network, tile, 12), whole(asked, network, tile))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["unet", "cnn", "resnet", "convlstm"])
def test_a_smaller_reach_would_not_be_exact(name, method):
    network = prepare(made(name, TINY[name], dates=2))
    tile = scene(network, 12, 20, seed=6)
    # Patches of a whole number of strides, and one pixel: none of their reach is rounding.
    asked = explainer(method, patch=5, step=3, **SETTINGS)
    expected = whole(asked, network, tile)
    # What a U-Net with random weights sees furthest, it sees so faintly that less of it would not show.
    less = tiled(asked, network, tile, 10, asked.reach(network) - (1 if network.stride == 1 else 8))
    assert not close(less, expected)


@pytest.mark.parametrize("method", METHODS)
def test_tiles_of_a_batch_are_explained_as_alone(method):
    network = prepare(made("unet", TINY["unet"], dates=2))
    asked = explainer(method, patch=5, step=4, **SETTINGS)
    tiles = [scene(network, 14, 12, seed) for seed in range(3)]
    cube, valid, time = (torch.cat(parts) for parts in zip(*tiles, strict=True))
    where = valid.any(1)
    origins = [(-7, 3), (0, 0), (121, -64)]
    found, _ = asked(network, cube, valid, time, where, origins)
    for i in range(3):
        one = slice(i, i + 1)
        alone, _ = asked(network, cube[one], valid[one], time[one], where[one], origins[one])
        assert close(found[one], alone)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("name", "settings", "dates", "classes"), [("unet", {"width": 4}, 2, 8), ("lstm", {"hidden": 1}, 4, 5)]
)
def test_memory_grows_with_the_tile_as_is_counted(name, settings, dates, classes, method):
    network = prepare(made(name, settings, bands=8, dates=dates, classes=classes))
    network.slab = 64
    asked = explainer(method, bands=8, samples=2, steps=2, patch=32, step=32)
    peaks = []
    for height in (8, 16):
        with _LiveBytes() as counter:
            cube, valid = torch.randn(1, dates, 8, height, 64), torch.ones(1, dates, height, 64, dtype=torch.bool)
            asked(network, cube, valid, torch.zeros(1, dates), everywhere(cube), [(0, 0)])
        peaks.append(counter.peak)
    # What does not grow is what lies between the layers of a pixel network: that is bounded by its slab.
    per_pixel = (peaks[1] - peaks[0]) / (8 * 64)
    assert 0.4 < per_pixel / asked.bytes_per_pixel(network) <= 1.0


def test_the_same_place_has_the_same_noise_on_every_tile():
    whole = noise((1, 2, 3, 200, 150), [(-90, -70)], copy=3, seed=5)
    for top, left in ((-90, -70), (-64, -64), (-1, 0), (13, -20)):
        y, x = top + 90, left + 70
        part = noise((1, 2, 3, 70, 20), [(top, left)], copy=3, seed=5)
        assert torch.equal(part, whole[..., y : y + 70, x : x + 20])
    both = noise((2, 2, 3, 8, 9), [(0, 0), (-5, 40)], copy=3, seed=5)
    assert torch.equal(both[0], whole[0, ..., 90:98, 70:79])
    assert torch.equal(both[1], whole[0, ..., 85:93, 110:119])


def test_noise_is_standard_normal_and_other_noise_everywhere_else():
    from scipy.stats import kstest

    first = noise((1, 1, 2, 130, 130), [(0, 0)], copy=0, seed=0)
    assert kstest(first.flatten().numpy(), "norm").pvalue > 0.01
    others = {
        "another copy": noise((1, 1, 2, 130, 130), [(0, 0)], copy=1, seed=0),
        "another seed": noise((1, 1, 2, 130, 130), [(0, 0)], copy=0, seed=1),
        "the next cell": noise((1, 1, 2, 130, 130), [(0, 64)], copy=0, seed=0),
        "across the diagonal": first.transpose(3, 4),
        "the other band": first.flip(2),
    }
    for what, other in others.items():
        # Where one is the other's mirror image, pixels on the diagonal are the same.
        apart = ~torch.eye(130, dtype=torch.bool)
        r = np.corrcoef(first[..., apart].flatten(), other[..., apart].flatten())[0, 1]
        assert abs(r) < 0.03, what


def test_smoothgrad_takes_its_noise_from_the_place():
    network = prepare(made("mlp", TINY["mlp"]))
    cube, valid, time = scene(network, 6, 6)
    asked = explainer("smoothgrad", samples=2)
    args = network, cube, valid, time, everywhere(cube)
    first = asked(*args, [(0, 0)])[0]
    assert torch.equal(asked(*args, [(0, 0)])[0], first)
    assert not torch.allclose(asked(*args, [(0, 1)])[0], first)
    assert not torch.allclose(explainer("smoothgrad", samples=2, seed=1)(*args, [(0, 0)])[0], first)

"""Occlusion: known contributions come out, and patches that are tested together are as each by itself."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from models.inference import prepare
from models.saliency.occlusion import spacing
from models.saliency.target import Target
from tests.explained import Kernel, Sums, everywhere, explainer, scene
from tests.oracles_explanations import patch_occlusion_by_hand
from tests.test_networks import made

torch.set_num_threads(1)

BASELINE = [0.4, -0.7]
OUTPUT = Target("output", 1, None)


def contributions(network, cube, valid):
    """Return what each value of a `Sums` contributes to output 1, more than the baseline would; (B, T, C, H, W)."""
    start = torch.tensor(BASELINE)[:, None, None].expand_as(cube)
    parts = [network.parts(x.permute(0, 3, 4, 1, 2))[..., 1, :, :] for x in (cube, start)]
    return (parts[0] - parts[1]).permute(0, 3, 4, 1, 2) * valid[:, :, None]


@pytest.mark.parametrize(("method", "axis"), [("occlusion_band", 1), ("occlusion_date", 2)])
def test_what_bands_and_dates_contribute_to_a_sum_comes_out(method, axis):
    network = Sums(bands=2, dates=3, classes=3).eval()
    cube, valid, time = scene(network, 7, 9)
    asked = explainer(method, target=OUTPUT, baseline=BASELINE)
    found, _ = asked(network, cube, valid, time, everywhere(cube), [(0, 0)])
    assert torch.allclose(found, contributions(network, cube, valid).sum(axis, keepdim=True), atol=1e-5, rtol=0)


def test_what_patches_contribute_to_a_sum_comes_out():
    network = Sums(bands=2, dates=3, classes=3).eval()
    cube, valid, time = scene(network, 12, 16)
    asked = explainer("occlusion_patch", target=OUTPUT, baseline=BASELINE, patch=4, step=4)
    found, _ = asked(network, cube, valid, time, everywhere(cube), [(0, 0)])
    sums = F.avg_pool2d(contributions(network, cube, valid).sum((1, 2), keepdim=True)[:, 0], 4, divisor_override=1)
    expected = sums.repeat_interleave(4, -2).repeat_interleave(4, -1)
    assert torch.allclose(found[:, 0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("method", "axis"), [("occlusion_band", 1), ("occlusion_date", 2)])
def test_the_context_of_a_pixel_is_taken_away_with_it(method, axis):
    network = Kernel(bands=2, dates=3, classes=3).eval()
    cube, valid, time = scene(network, 8, 8)
    one = torch.zeros(1, 8, 8, dtype=torch.bool)
    one[:, 2, 5] = True
    start = torch.tensor(BASELINE)[:, None, None].expand_as(cube)
    more = (network.seen(cube) - network.seen(start)) * valid[:, :, None]  # (1, T, C, H, W)
    expected = (more[0, :, :, 1:4, 4:7] * network.weight[1]).sum((-2, -1))  # (T, C)
    asked = explainer(method, target=OUTPUT, baseline=BASELINE)
    found, _ = asked(network, cube, valid, time, one, [(0, 0)])
    assert torch.allclose(found[0, ..., 2, 5], expected.sum(axis - 1, keepdim=True), atol=1e-5, rtol=0)
    assert int((found != 0).sum()) == expected.shape[2 - axis]
    # Other pixels that are explained as well change nothing.
    every, _ = asked(network, cube, valid, time, everywhere(cube), [(0, 0)])
    assert torch.equal(every[..., 2, 5], found[..., 2, 5])


@pytest.mark.parametrize("target", [Target(), Target("margin", 0, 1.7), OUTPUT], ids=lambda t: t.kind)
@pytest.mark.parametrize(
    ("name", "settings", "patch", "step", "origin"),
    [
        ("mlp", {}, 3, 2, (0, 0)),
        ("mlp", {}, 4, 3, (-7, 5)),
        ("unet", {"width": 2, "depth": 1}, 5, 5, (0, 0)),
        ("unet", {"width": 2, "depth": 1}, 8, 7, (-13, 24)),
        ("cnn", {"filters": [2, 3]}, 6, 4, (11, -2)),
    ],
)
def test_patches_tested_together_are_as_each_by_itself(name, settings, patch, step, origin, target):
    network = prepare(made(name, settings, dates=2))
    cube, valid, time = scene(network, 22, 26)
    where = everywhere(cube)
    where[:, :2] = False
    asked = explainer("occlusion_patch", target=target, baseline=BASELINE, patch=patch, step=step)
    found, _ = asked(network, cube, valid, time, where, [origin])
    args = target, torch.tensor(BASELINE), origin, patch, step
    expected = patch_occlusion_by_hand(network, cube, valid, time, where, *args)
    assert float(expected.abs().max()) > 1e-3
    assert float((found[0, 0, 0] - expected).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("patch", "step", "radius", "apart"), [(8, 4, 0, 8), (5, 3, 0, 6), (8, 4, 46, 100), (3, 2, 9, 22)]
)
def test_patches_lie_as_far_apart_as_a_pixel_sees(patch, step, radius, apart):
    class Seeing:
        pass

    network = Seeing()
    network.radius = radius
    assert spacing(network, patch, step) == apart


@pytest.mark.parametrize(
    ("method", "name", "text"),
    [
        ("gradient", "unet", "1 pass forward and backward"),
        ("smoothgrad", "unet", "1 pass forward, 16 passes forward and backward"),
        ("integrated_gradients", "mlp", "1 pass forward, 32 passes forward and backward"),
        ("occlusion_band", "unet", "3 passes forward"),
        ("occlusion_date", "mlp", "4 passes forward"),
        ("occlusion_patch", "mlp", "2 passes forward"),
        ("occlusion_patch", "cnn", "17 passes forward"),
    ],
)
def test_the_passes_that_are_told_are_those_that_are_run(method, name, text):
    network = prepare(made(name, {}, dates=3))
    asked = explainer(method, patch=8, step=4)
    passes = asked.passes(network, 2, 3)
    # With a radius of 4, patches of 8 lie 16 apart: 4 lattices to each side.
    assert str(passes) == text
    seen = []
    network.register_forward_pre_hook(lambda _, x: seen.append(x[0].requires_grad))
    cube, valid, time = scene(network, 32, 32)
    asked(network, cube, valid, time, everywhere(cube), [(0, 0)])
    assert (seen.count(False), seen.count(True)) == (passes.forward, passes.gradient)

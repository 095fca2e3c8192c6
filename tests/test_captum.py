"""Captum says the same on single tiles: an independent implementation of every method that both have."""

from __future__ import annotations

import captum.attr
import pytest
import torch

from models.inference import prepare
from models.saliency.noise import noise
from models.saliency.target import WINNER
from tests.explained import everywhere, explainer, scene
from tests.test_networks import made

torch.set_num_threads(1)

BASELINE = [0.4, -0.7]
SIDE = 10


class Case:
    """A network and a tile, and what is explained as a function of the cube alone, with the winning classes held fixed."""

    def __init__(self, name):
        settings = {"mlp": {}, "unet": {"width": 3}, "lstm": {"hidden": 4}}[name]
        self.network = prepare(made(name, settings, dates=2))
        self.tile = scene(self.network, SIDE, SIDE)
        cube, valid, time = self.tile
        with torch.no_grad():
            winner = self.network(*self.tile).argmax(1, keepdim=True)
        self.blank = torch.tensor(BASELINE)[:, None, None].expand_as(cube)

        def scores(x):
            n = len(x)
            flags, days = valid.expand(n, -1, -1, -1), time.expand(n, -1)
            return self.network(x, flags, days), winner.expand(n, -1, -1, -1)

        def score(x):
            found, fixed = scores(x)
            return found.gather(1, fixed).sum((1, 2, 3))

        def probabilities(x):
            found, fixed = scores(x)
            return found.softmax(1).gather(1, fixed).flatten(1)

        self.score, self.probabilities = score, probabilities

    def ours(self, method, **settings):
        asked = explainer(method, target=WINNER, baseline=BASELINE, **settings)
        return asked(self.network, *self.tile, everywhere(self.tile[0]), [(0, 0)])[0]

    def agrees(self, found, expected):
        assert float(found.abs().max()) > 1e-3
        assert float((found - expected).abs().max()) < 1e-5


@pytest.fixture(params=["mlp", "unet", "lstm"])
def case(request):
    return Case(request.param)


def test_gradient(case):
    cube = case.tile[0].clone().requires_grad_()
    case.agrees(case.ours("gradient"), captum.attr.Saliency(case.score).attribute(cube, abs=False))


def test_gradient_input(case):
    cube = case.tile[0].clone().requires_grad_()
    case.agrees(case.ours("gradient_input"), captum.attr.InputXGradient(case.score).attribute(cube).detach())


def test_smoothgrad(case, monkeypatch):
    cube = case.tile[0].clone().requires_grad_()
    copies = torch.cat([noise(cube.shape, [(0, 0)], copy=i, seed=0) for i in range(4)])
    # Its noise is of its own drawing; this is how it asks for it.
    monkeypatch.setattr(torch, "normal", lambda mean, std: mean + std * copies)
    tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(case.score))
    expected = tunnel.attribute(cube, nt_type="smoothgrad", nt_samples=4, stdevs=0.15, abs=False)
    case.agrees(case.ours("smoothgrad", samples=4, noise=0.15), expected.detach())


def test_integrated_gradients(case):
    method = captum.attr.IntegratedGradients(case.score)
    cube = case.tile[0].clone().requires_grad_()
    expected = method.attribute(cube, baselines=case.blank, n_steps=8, method="gausslegendre").detach()
    case.agrees(case.ours("integrated_gradients", steps=8), expected)


@pytest.mark.parametrize(("method", "axis"), [("occlusion_band", 2), ("occlusion_date", 1)])
def test_bands_and_dates_one_by_one(case, method, axis):
    shape = [1] * 5
    shape[axis] = -1
    number = torch.arange(2).reshape(shape).expand_as(case.tile[0])

    def flat(x):  # all pixels at once: as many outputs as there are pixels, whatever the batch
        return case.probabilities(x)[0]

    ablated = captum.attr.FeatureAblation(flat).attribute(case.tile[0], baselines=case.blank, feature_mask=number)
    per_pixel = ablated.reshape(SIDE, SIDE, *case.tile[0].shape[1:])  # of each output, what each value counts
    expected = per_pixel.select(2 if axis == 2 else 3, 0)[..., 0, 0]  # (H, W, 2): a mask's values are the same all over
    case.agrees(case.ours(method).squeeze(3 - axis)[0], expected.permute(2, 0, 1))


def test_patches(case):
    def total(x):
        return case.probabilities(x).sum(1)

    dates, bands = case.tile[0].shape[1:3]
    # Its windows begin at the tile's corner and must end at its border; ours go on beyond, as patches of a larger map.
    windows = (dates, bands, 4, 4)
    occlusion = captum.attr.Occlusion(total)
    expected = occlusion.attribute(case.tile[0], windows, strides=(1, 1, 3, 3), baselines=case.blank)[0, 0, 0]
    found = case.ours("occlusion_patch", patch=4, step=3)[0, 0, 0]
    # Only pixels on which no patch lies that begins beyond the border.
    inner = slice(1, 9)
    case.agrees(found[inner, inner], expected[inner, inner])

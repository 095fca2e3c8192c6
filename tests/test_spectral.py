"""Networks of many bands: equal to their sums written out, components those of another implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from models.bundle import Bundle
from models.inference import prepare, scores
from models.network import ModelError
from models.saliency.gradients import gradient
from models.table import build
from tests.oracles_convolutions import spectral_by_hand
from tests.test_bundle import bundle
from tests.test_networks import made

torch.set_num_threads(1)


def tile(network, side=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    cube = torch.randn(1, network.dates, network.bands, side, side, generator=g)
    valid = torch.rand(1, network.dates, side, side, generator=g) < 0.7
    return cube.masked_fill(~valid[:, :, None], torch.nan), valid, torch.zeros(1, network.dates)


def correlated(n=400, bands=12, seed=0):
    """Spectra of few materials with little noise, normalised: (n, bands)."""
    rng = np.random.default_rng(seed)
    spectra = rng.normal(size=(n, 4)) @ rng.normal(size=(4, bands)) + 0.1 * rng.normal(size=(n, bands))
    return (spectra - spectra.mean(0)) / spectra.std(0)


@pytest.mark.parametrize(
    ("settings", "bands", "dates"),
    [
        ({"filters": [2, 3], "width": 4, "hidden": [3]}, 11, 1),
        ({"filters": [2, 3], "width": 4, "hidden": [], "stride": 1, "kernel": 3}, 3, 2),
        ({"filters": [2, 2, 2], "width": 2, "kernel": 7, "stride": 4}, 1, 1),
        ({"filters": [3], "width": 3, "components": 4, "stride": 3}, 9, 2),
    ],
)
def test_scores_are_the_sums_written_out(settings, bands, dates):
    network = made("spectral", settings, bands=bands, dates=dates)
    cube, valid, time = tile(network)
    with torch.no_grad():
        found = network(cube, valid, time)[0]
    expected = torch.from_numpy(spectral_by_hand(network, cube[0].numpy(), valid[0].numpy()))
    assert torch.allclose(found.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("bands", [1, 2, 5, 64, 200])
def test_every_band_counts_and_few_reach_the_2d_convolution(bands):
    network = made("spectral", {}, bands=bands)
    cube, valid, time = tile(network, 9)
    x = torch.zeros_like(cube).requires_grad_()
    network(x, torch.ones_like(valid), time)[..., 4, 4].sum().backward()
    assert (x.grad[0, 0].abs().amax((1, 2)) > 0).all()
    assert network.flat[0].in_channels <= 32 * (-(-bands // 8)) + 1


def test_components_are_those_of_scikit_learn_up_to_sign():
    x = correlated()
    network = build("spectral", {"components": 4, "filters": [2]}, bands=12, dates=1, classes=2)
    network.project(torch.from_numpy(np.cov(x, rowvar=False)))
    other = PCA(4, whiten=True).fit(x)
    found = x @ network.projection.double().numpy().T
    expected = other.transform(x)
    assert np.abs(np.abs(found) - np.abs(expected)).max() < 1e-4
    signs = (found * expected).sum(0)
    assert (np.abs(signs) > 0.999 * len(x) * (1 - 1e-2)).all(), "each component has one sign"
    assert (network.projection.gather(1, network.projection.abs().argmax(1, keepdim=True)) > 0).all()


def test_a_component_along_which_nothing_varies_is_zero():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 2)) @ rng.normal(size=(2, 5))
    network = build("spectral", {"components": 4, "filters": [2]}, bands=5, dates=1, classes=2)
    network.project(torch.from_numpy(np.cov(x, rowvar=False)))
    assert (network.projection[:2].abs().sum(1) > 0).all()
    assert (network.projection[2:] == 0).all()
    network.project(torch.zeros(5, 5))
    assert (network.projection == 0).all()


def test_components_that_were_never_fitted_do_not_seem_to_work():
    network = build("spectral", {"components": 2, "filters": [2]}, bands=5, dates=1, classes=2).eval()
    with torch.no_grad():
        assert network(*tile(network)).isnan().all()


def test_masked_pixels_stay_zero_behind_the_projection():
    network = made("spectral", {"components": 3, "filters": [2]}, bands=5, dates=2)
    cube, valid, time = tile(network)
    seen = []
    network.cubic.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    with torch.no_grad():
        network(cube, valid, time)
    (x,) = seen  # (1, 1, H, W, dates * components)
    dates = x[0, 0].permute(2, 0, 1).unflatten(0, (2, 3))
    assert (dates.masked_select(~valid[0][:, None]) == 0).all()
    expected = torch.einsum("kc,tchw->tkhw", network.projection, cube[0])
    assert torch.allclose(dates.masked_select(valid[0][:, None]), expected.masked_select(valid[0][:, None]), atol=1e-6)


def test_saliency_reaches_the_original_bands_through_the_projection():
    # The components are the bands 1 and 3; nothing of the others goes in.
    network = made("spectral", {"components": 2, "filters": [2], "hidden": [4]}, bands=5, dates=2)
    network.project(torch.diag(torch.tensor([0.0, 2.0, 0.0, 1.0, 0.0])))
    cube, valid, time = tile(network)
    cube = torch.nan_to_num(cube)
    found, _ = gradient(prepare(network), cube, valid, time, torch.ones(1, 6, 6, dtype=torch.bool))
    assert found.shape == cube.shape
    seen = found.abs().amax((0, 1, 3, 4)) > 0
    assert seen.tolist() == [False, True, False, True, False]


def test_a_bundle_holds_the_components(tmp_path):
    network = made("spectral", {"components": 2, "filters": [2]}, bands=5)
    bundle(network=network, bands=list("abcde"), mean=[0.0] * 5, std=[1.0] * 5).save(tmp_path)
    again = Bundle.load(tmp_path).network
    assert torch.equal(again.projection, network.projection)
    assert torch.equal(scores(again, *tile(network)), scores(network, *tile(network)))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"components": 6}, r"components: found 6, and the imagery has 5 bands; at most 5 are allowed"),
        (
            {"kernel": 3, "stride": 3},
            r"stride: .*a larger step than 2, kernels of 3 bands miss the last bands, found 3",
        ),
        ({"kernel": 4}, r"kernel: .*found 4"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, words):
    with pytest.raises(ModelError, match=words):
        build("spectral", settings, bands=5, dates=1, classes=2)


def test_other_networks_take_no_components():
    with pytest.raises(TypeError, match="'mlp' takes no components"):
        made("mlp", {}).project(torch.eye(2))

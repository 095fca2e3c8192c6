"""Networks on time series: masks exact, any number of dates, prepared and read back the same."""

from __future__ import annotations

import pytest
import torch

from models.bundle import Bundle
from models.inference import prepare, scores
from models.saliency.gradients import gradient
from models.table import NETWORKS, build, network_class
from tests.scenes import irregular
from tests.test_bundle import bundle
from tests.test_networks import TEMPORAL, VARIANTS, made

torch.set_num_threads(1)

EVERY = [VARIANTS[0], VARIANTS[3], *VARIANTS[7:], *TEMPORAL]
FREE = [(name, settings) for name, settings in TEMPORAL if not network_class(name).fixed_dates]


@pytest.mark.parametrize("dates", [1, 2, 5])
@pytest.mark.parametrize(("name", "settings"), EVERY)
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_values_under_a_mask_change_nothing(name, settings, dates, mode):
    network = made(name, settings, dates=dates)
    cube, valid, time = irregular(network)
    hidden = ~valid[:, :, None].expand_as(cube)

    def scored(values):
        torch.manual_seed(1)  # the same dropout
        cube = values.clone().requires_grad_()
        found = network.train(mode == "train")(cube, valid, time)
        (gradient,) = torch.autograd.grad(found.square().sum(), cube)
        return found, gradient

    first, gradient = scored(cube)
    assert first.isfinite().all()
    assert gradient.isfinite().all()
    assert (gradient[hidden] == 0).all()
    assert (gradient[~hidden] != 0).any()
    for value in (torch.nan, torch.inf, 1e30, -1e30):
        found, again = scored(cube.masked_fill(hidden, value))
        assert torch.equal(found, first)
        assert torch.equal(again, gradient)


@pytest.mark.parametrize("dates", [1, 2, 3])
@pytest.mark.parametrize(("name", "settings"), EVERY)
def test_without_any_valid_date_all_is_finite(name, settings, dates):
    network = made(name, settings, dates=dates).train()
    cube, valid, time = irregular(network)
    for time_ in (time, torch.zeros_like(time), time * 50):
        network.zero_grad()
        found = network(cube, torch.zeros_like(valid), time_)
        found.sum().backward()
        assert found.isfinite().all()
        assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(("name", "settings"), EVERY)
def test_whether_a_date_is_valid_is_known(name, settings):
    network = made(name, settings, dates=3)
    cube, valid, time = irregular(network, share=1.0)
    fewer = valid.clone()
    fewer[:, 1] = False
    with torch.no_grad():
        assert not torch.allclose(network(cube * 0, valid, time), network(cube * 0, fewer, time), atol=1e-6)


@pytest.mark.parametrize(("name", "settings"), FREE)
def test_dates_that_are_valid_nowhere_may_follow(name, settings):
    network = made(name, settings, dates=3)
    cube, valid, time = irregular(network)
    longer, flags, days = irregular(network, dates=6, seed=1)
    longer[:, :3], flags[:, :3], flags[:, 3:], days[:, :3] = cube, valid, False, time
    with torch.no_grad():
        assert torch.allclose(network(longer, flags, days), network(cube, valid, time), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "settings"), [v for v in FREE if network_class(v[0]).__mro__[1].__name__ != "Network"]
)
def test_a_masked_date_is_as_if_it_were_not_there(name, settings):
    network = made(name, settings, dates=5)
    cube, valid, time = irregular(network)
    valid[:, [1, 3]] = False
    with torch.no_grad():
        found = network(cube, valid, time)
        fewer = network(cube[:, [0, 2, 4]], valid[:, [0, 2, 4]], time[:, [0, 2, 4]])
    assert torch.allclose(found, fewer, atol=1e-6, rtol=0)


def test_networks_with_fixed_dates_refuse_other_dates():
    network = made("tempcnn", {}, dates=3)
    with pytest.raises(ValueError, match=r"expects a cube \(B, 3, 2, H, W\).*got \(2, 4, "):
        network(*irregular(network, dates=4))


def test_networks_with_free_dates_refuse_other_bands():
    network, other = made("lstm", {}, dates=3), made("lstm", {}, bands=5)
    with pytest.raises(ValueError, match=r"expects a cube \(B, T, 2, H, W\).*got \(2, 4, 5"):
        network(*irregular(other, dates=4))


@pytest.mark.parametrize(("name", "settings"), EVERY)
def test_time_is_read_where_dates_are_not_fixed(name, settings):
    network = made(name, settings, dates=3)
    cube, valid, time = irregular(network, share=1.0)
    with torch.no_grad():
        same = torch.allclose(network(cube, valid, time), network(cube, valid, time + 40), atol=1e-6)
    assert same == network.fixed_dates


@pytest.mark.parametrize(("name", "settings"), EVERY)
def test_tiles_with_their_own_dates_are_scored_as_alone(name, settings):
    network = made(name, settings, dates=3)
    cube, valid, time = irregular(network)
    with torch.no_grad():
        both = network(cube, valid, time)
        alone = torch.cat([network(cube[i : i + 1], valid[i : i + 1], time[i : i + 1]) for i in range(2)])
    assert torch.allclose(both, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_seed_gives_the_same_weights(name):
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(build(name, {}, bands=2, dates=3, classes=2).state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not all(torch.equal(states[0][k], states[2][k]) for k in states[0])


@pytest.mark.parametrize(("name", "settings"), TEMPORAL)
def test_a_prepared_network_gives_the_same_scores(name, settings):
    network = made(name, settings, dates=3)
    tile = irregular(network)
    with torch.no_grad():
        expected = network(*tile)
    ready = prepare(network)
    assert torch.allclose(scores(ready, *tile), expected, atol=1e-5, rtol=0)
    # Of recurrent networks it stands before the layer that it would be folded into, once a pixel: it stays.
    folded = name not in ("rnn", "lstm", "gru")
    assert folded != any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in ready.modules())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_bundle_read_back_is_the_same(tmp_path, name):
    network = made(name, {}, dates=2)
    days = ["2021-01-01", "2021-05-01"]
    first = bundle(network=network, dates=days, time=[0.0, 120.0])
    first.save(tmp_path)
    second = Bundle.load(tmp_path)
    tile = irregular(network)
    assert torch.equal(scores(first.network, *tile), scores(second.network, *tile))
    assert second.checksum == first.checksum


@pytest.mark.parametrize("name", ["lstm", "gru", "tempcnn", "transformer", "ltae", "convlstm", "utae"])
def test_finite_differences_agree(name):
    settings = {"activation": "tanh"} if name in ("tempcnn", "utae") else {}
    network = prepare(made(name, settings, dates=3)).double()
    cube, valid, time = (x[:1] for x in irregular(network))
    cube, time = cube.double(), time.double()
    everywhere = torch.ones(cube.shape[0], *cube.shape[3:], dtype=torch.bool)
    found, before = gradient(network, cube, valid, time, everywhere)
    winner = before.argmax(1, keepdim=True)
    for t, _, y, x in torch.nonzero(valid[0, :, None])[::17]:
        sums = []
        for step in (1e-5, -1e-5):
            moved = cube.clone()
            moved[0, t, 1, y, x] += step
            with torch.no_grad():
                sums.append(network(moved, valid, time).gather(1, winner).sum())
        assert float((sums[0] - sums[1]) / 2e-5) == pytest.approx(float(found[0, t, 1, y, x]), abs=1e-5)

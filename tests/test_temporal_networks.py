"""Networks on time series: masks exact, any number of dates, time order seen, equal to independent implementations."""

from __future__ import annotations

import pytest
import torch

from models.bundle import Bundle
from models.inference import prepare, scores
from models.network import ModelError
from models.saliency.gradients import gradient
from models.table import NETWORKS, build, network_class
from tests.oracles import (
    convlstm_by_hand,
    light_attention_by_hand,
    recurrent_by_hand,
    tempcnn_by_hand,
    transformer_by_hand,
)
from tests.test_bundle import bundle
from tests.test_networks import TEMPORAL, VARIANTS, made

torch.set_num_threads(1)

EVERY = [VARIANTS[0], VARIANTS[3], *VARIANTS[7:], *TEMPORAL]
FREE = [(name, settings) for name, settings in TEMPORAL if not network_class(name).fixed_dates]


def scene(network, side=4, dates=None, seed=0, share=0.6):
    """Two tiles of irregular dates; the first pixel has no valid date, the second one, the third the last one alone."""
    g = torch.Generator().manual_seed(seed)
    t = dates or network.dates
    side *= network.stride
    cube = torch.randn(2, t, network.bands, side, side, generator=g)
    valid = torch.rand(2, t, side, side, generator=g) < share
    valid[:, :, 0, :3] = False
    valid[:, 0, 0, 1] = valid[:, -1, 0, 2] = True
    time = (torch.rand(2, t, generator=g) * 30 + 1).cumsum(1)
    return cube, valid, time


@pytest.mark.parametrize("dates", [1, 2, 5])
@pytest.mark.parametrize(("name", "settings"), EVERY)
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_values_under_a_mask_change_nothing(name, settings, dates, mode):
    network = made(name, settings, dates=dates)
    cube, valid, time = scene(network)
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
    cube, valid, time = scene(network)
    for time_ in (time, torch.zeros_like(time), time * 50):
        network.zero_grad()
        found = network(cube, torch.zeros_like(valid), time_)
        found.sum().backward()
        assert found.isfinite().all()
        assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(("name", "settings"), EVERY)
def test_whether_a_date_is_valid_is_known(name, settings):
    network = made(name, settings, dates=3)
    cube, valid, time = scene(network, share=1.0)
    fewer = valid.clone()
    fewer[:, 1] = False
    with torch.no_grad():
        assert not torch.allclose(network(cube * 0, valid, time), network(cube * 0, fewer, time), atol=1e-6)


@pytest.mark.parametrize(("name", "settings"), FREE)
def test_dates_that_are_valid_nowhere_may_follow(name, settings):
    network = made(name, settings, dates=3)
    cube, valid, time = scene(network)
    longer, flags, days = scene(network, dates=6, seed=1)
    longer[:, :3], flags[:, :3], flags[:, 3:], days[:, :3] = cube, valid, False, time
    with torch.no_grad():
        assert torch.allclose(network(longer, flags, days), network(cube, valid, time), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "settings"), [v for v in FREE if network_class(v[0]).__mro__[1].__name__ != "Network"]
)
def test_a_masked_date_is_as_if_it_were_not_there(name, settings):
    network = made(name, settings, dates=5)
    cube, valid, time = scene(network)
    valid[:, [1, 3]] = False
    with torch.no_grad():
        found = network(cube, valid, time)
        fewer = network(cube[:, [0, 2, 4]], valid[:, [0, 2, 4]], time[:, [0, 2, 4]])
    assert torch.allclose(found, fewer, atol=1e-6, rtol=0)


def test_networks_with_fixed_dates_refuse_other_dates():
    network = made("tempcnn", {}, dates=3)
    with pytest.raises(ValueError, match=r"expects a cube \(B, 3, 2, H, W\).*got \(2, 4, "):
        network(*scene(network, dates=4))


def test_networks_with_free_dates_refuse_other_bands():
    network, other = made("lstm", {}, dates=3), made("lstm", {}, bands=5)
    with pytest.raises(ValueError, match=r"expects a cube \(B, T, 2, H, W\).*got \(2, 4, 5"):
        network(*scene(other, dates=4))


@pytest.mark.parametrize(("name", "settings"), EVERY)
def test_time_is_read_where_dates_are_not_fixed(name, settings):
    network = made(name, settings, dates=3)
    cube, valid, time = scene(network, share=1.0)
    with torch.no_grad():
        same = torch.allclose(network(cube, valid, time), network(cube, valid, time + 40), atol=1e-6)
    assert same == network.fixed_dates


@pytest.mark.parametrize(("name", "settings"), EVERY)
def test_tiles_with_their_own_dates_are_scored_as_alone(name, settings):
    network = made(name, settings, dates=3)
    cube, valid, time = scene(network)
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


def series(n, dates, seed):
    """Two classes with the same values in opposite order: a saw that rises or falls, at a random phase."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    phase = torch.randint(dates, (n, 1), generator=g)
    steps = (torch.arange(dates) * (1 - 2 * labels[:, None]) + phase) % dates  # (n, T)
    x = steps / dates * 4 - 2 + torch.randn(n, dates, generator=g) * 0.05
    return x[..., None], labels


def as_tiles(network, x):
    """Return series (N, T, C) as tiles of a stride x stride pixels that are all alike."""
    n, t, _ = x.shape
    s = network.stride
    cube = x[..., None, None].expand(-1, -1, -1, s, s)
    return cube, torch.ones(n, t, s, s, dtype=torch.bool), (torch.arange(t) * 30.0).expand(n, t)


def fit(network, x, labels, steps, lr=0.01):
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(network.train().parameters(), lr=lr)
    tile = as_tiles(network, x)
    for _ in range(steps):
        scores = network(*tile).mean((2, 3))
        loss = torch.nn.functional.cross_entropy(scores, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def accuracy(network, x, labels):
    with torch.no_grad():
        found = network.eval()(*as_tiles(network, x)).mean((2, 3)).argmax(1)
    return float((found == labels).float().mean())


LEARNERS = [
    ("mlp", {}),
    ("tempcnn", {"filters": 8, "dense": 16, "dropout": 0.1}),
    ("rnn", {"hidden": 16}),
    ("lstm", {"hidden": 16}),
    ("gru", {"hidden": 16}),
    ("transformer", {"width": 16, "heads": 2, "layers": 2, "feedforward": 32}),
    ("ltae", {"width": 32, "heads": 4, "features": 32, "hidden": [16], "dropout": 0.0}),
    ("convlstm", {"hidden": 12}),
    ("utae", {"width": 8, "heads": 4, "attention": 32, "dropout": 0.0}),
]


@pytest.mark.parametrize(("name", "settings"), LEARNERS)
def test_it_learns_an_order_that_no_mean_over_dates_can_see(name, settings):
    torch.manual_seed(0)
    network = build(name, settings, bands=1, dates=6, classes=2)
    fit(network, *series(192, 6, 1), steps=80)
    assert accuracy(network, *series(400, 6, 2)) > 0.95


def test_a_mean_over_dates_cannot_see_the_order():
    torch.manual_seed(0)
    network = build("mlp", {}, bands=1, dates=1, classes=2)
    train, test = series(192, 6, 1), series(400, 6, 2)
    fit(network, train[0].mean(1, keepdim=True), train[1], steps=80)
    assert 0.4 < accuracy(network, test[0].mean(1, keepdim=True), test[1]) < 0.6


@pytest.mark.parametrize(("name", "settings"), LEARNERS)
def test_it_overfits_one_batch(name, settings):
    torch.manual_seed(0)
    network = build(name, settings | {"dropout": 0.0}, bands=2, dates=4, classes=3)
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (16,), generator=g)
    assert fit(network, torch.randn(16, 4, 2, generator=g), labels, steps=120) < 0.05


RECURRENT = [
    (name, {"hidden": 5, "layers": layers, "direction": direction, "pooling": pooling})
    for name in ("rnn", "lstm", "gru")
    for layers, direction in ((1, "forward"), (2, "both"))
    for pooling in ("max", "mean", "last", "attention")
]


@pytest.mark.parametrize(("name", "settings"), RECURRENT)
def test_recurrent_networks_are_their_cells_over_valid_dates(name, settings):
    network = made(name, settings, dates=5)
    cube, valid, time = scene(network)
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
    cube, valid, time = scene(network)
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
    cube, valid, time = scene(network)
    with torch.no_grad():
        assert torch.allclose(network(cube, valid, time), convlstm_by_hand(network, cube, valid, time), atol=1e-5)


def test_a_convlstm_keeps_its_state_where_a_date_is_masked():
    network = made("convlstm", {"hidden": 3}, dates=4)
    cube, valid, time = scene(network, share=1.0)
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


@pytest.mark.parametrize(("name", "settings"), TEMPORAL)
def test_a_prepared_network_gives_the_same_scores(name, settings):
    network = made(name, settings, dates=3)
    tile = scene(network)
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
    tile = scene(network)
    assert torch.equal(scores(first.network, *tile), scores(second.network, *tile))
    assert second.checksum == first.checksum


@pytest.mark.parametrize("name", ["lstm", "gru", "tempcnn", "transformer", "ltae", "convlstm", "utae"])
def test_finite_differences_agree(name):
    settings = {"activation": "tanh"} if name in ("tempcnn", "utae") else {}
    network = prepare(made(name, settings, dates=3)).double()
    cube, valid, time = (x[:1] for x in scene(network))
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

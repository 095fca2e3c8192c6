"""Networks that learn without labels: the losses by hand."""

from __future__ import annotations

import pytest
import torch

from models.anomaly import reconstruction_error
from models.reconstruction import ReconstructionTask
from models.settings import TrainingSettings
from tests.oracles_figures import divergence_by_hand, reconstruction_loss_by_hand
from tests.scenes import LAND, PIXEL, scene
from tests.test_networks import made

torch.set_num_threads(1)


def batch_of(network, labels=None, seed=0):
    cube, valid, time = scene(network, side=2 * network.stride, seed=seed)
    return {"cube": cube, "valid": valid, "time": time} | ({} if labels is None else {"labels": labels})


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize(("name", "settings"), [PIXEL[0], LAND[0]])
def test_the_loss_is_that_of_the_valid_values_by_hand(name, settings, marked):
    network = made(name, settings, dates=2, classes=0)
    side = 2 * network.stride
    labels = torch.randint(-1, 2, (2, side, side)) if marked else None
    batch = batch_of(network, labels)
    task = ReconstructionTask(network, TrainingSettings()).eval()
    with torch.no_grad():
        total, weight = task.loss(batch)
        reconstruction, _ = network.split(network(batch["cube"], batch["valid"], batch["time"]))
    wanted = batch["valid"][:, :, None].expand_as(batch["cube"]).clone()
    if marked:
        wanted &= (labels >= 0)[:, None, None]
    expected, count = reconstruction_loss_by_hand(reconstruction, batch["cube"], wanted)
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert int(weight) == count > 0


@pytest.mark.parametrize(
    ("settings", "dates"),
    [({"code": 2}, 1), ({"code": 2}, 3), ({"looks_at": "land", "width": 2}, 1), ({"looks_at": "land", "width": 2}, 2)],
)
def test_what_is_hidden_is_not_seen_and_alone_counts(settings, dates):
    network = made("autoencoder", settings | {"corruption": "mask", "share": 0.4}, bands=3, dates=dates, classes=0)
    task = ReconstructionTask(network, TrainingSettings()).eval()
    cube, valid, time = scene(network, side=32 * network.stride)
    task.training = True  # the network stays as it is: batch normalisation would mix the pixels
    torch.manual_seed(3)
    shown, flags, hidden = network.corrupt(cube, valid)
    assert 0.3 < float(hidden.float().mean()) < 0.5
    with torch.no_grad():
        torch.manual_seed(3)
        total, weight = task.loss({"cube": cube, "valid": valid, "time": time})
        # What is hidden has no say: any other number in its place gives the same reconstruction.
        reconstruction, _ = network.split(network(shown, flags, time))
        other = torch.where(hidden, torch.randn_like(cube), cube)
        torch.manual_seed(3)
        again, flags_again, _ = network.corrupt(other, valid)
        assert torch.equal(network.split(network(again, flags_again, time))[0], reconstruction)
    expected, count = reconstruction_loss_by_hand(reconstruction, cube, hidden & valid[:, :, None].expand_as(cube))
    assert float(total) == pytest.approx(expected, rel=1e-4)
    assert int(weight) == count
    if dates > 1 or not network.pixelwise:
        # Whole dates of a pixel, or squares of land: all bands at once.
        assert torch.equal(hidden.all(2), hidden.any(2))
    if not network.pixelwise:
        cells = hidden[:, :, 0].unfold(2, 8, 8).unfold(3, 8, 8).flatten(4)
        assert torch.equal(cells.all(-1), cells.any(-1))


def test_noise_is_added_to_what_is_shown_and_the_clean_values_are_wanted():
    network = made("autoencoder", {"corruption": "noise", "share": 0.5}, bands=3, dates=2, classes=0)
    cube, valid, _ = scene(network, side=60)
    shown, flags, wanted = network.corrupt(cube, valid)
    noise = (shown - cube)[valid[:, :, None].expand_as(cube)]
    assert float(noise.std()) == pytest.approx(0.5, abs=0.01)
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)
    assert torch.equal(flags, valid)
    assert wanted.all()


@pytest.mark.parametrize("corruption", ["none", "noise", "mask"])
@pytest.mark.parametrize("name", ["autoencoder", "vae"])
def test_validation_is_deterministic_and_corruption_comes_from_the_generator(name, corruption):
    settings = {"corruption": corruption} if name == "autoencoder" else {}
    network = made(name, settings, bands=3, dates=2, classes=0)
    task = ReconstructionTask(network, TrainingSettings())
    batch = batch_of(network)

    def drawn(seed):
        torch.manual_seed(seed)
        with torch.no_grad():
            return float(task.loss(batch)[0])

    task.eval()
    assert drawn(0) == drawn(1)
    task.train()
    assert drawn(0) == drawn(0)
    random = name == "vae" or corruption != "none"
    assert (drawn(0) != drawn(1)) == random


def test_the_divergence_is_that_of_the_integral():
    network = made("vae", {"code": 2, "beta": 0.5, "warm_up": 4}, bands=3, classes=0)
    encoded = torch.tensor([0.7, -1.2, 0.3, -2.0]).view(1, 4, 1, 1).expand(1, 4, 2, 1)
    found = network.penalty(encoded)
    by_hand = divergence_by_hand([0.7, -1.2], [0.3, -2.0])
    assert found.shape == (1, 2, 1)
    assert torch.allclose(found, torch.tensor(2 * 0.5 * by_hand), atol=1e-5)
    assert [float(network.penalty(encoded, e)[0, 0, 0] / found[0, 0, 0]) for e in (0, 1, 3, 9)] == pytest.approx(
        [0.25, 0.5, 1, 1]
    )
    assert torch.equal(network.penalty(torch.zeros(1, 4, 1, 1)), torch.zeros(1, 1, 1))


def test_pixels_share_the_divergence_of_their_cell_and_only_those_that_count_pay():
    network = made("vae", {"looks_at": "land", "width": 1, "beta": 0.3}, dates=2, classes=0)
    labels = torch.full((2, 4, 4), -1)
    labels[0, 1, 2] = 0
    batch = batch_of(network, labels)
    batch["valid"][:] = True
    task = ReconstructionTask(network, TrainingSettings()).eval()
    with torch.no_grad():
        total, weight = task.loss(batch)
        encoded = network.encode(batch["cube"], batch["valid"])
        reconstruction = network.decode(network.embedding(encoded))
    means, variances = encoded[0, :, 0, 1].chunk(2)
    squares = float((reconstruction - batch["cube"])[0, :, :, 1, 2].square().sum())
    divergence = divergence_by_hand(means.tolist(), variances.tolist())
    assert float(total) == pytest.approx(squares + 2 * 0.3 * divergence / 4, rel=1e-4)
    assert int(weight) == 4


def test_the_code_is_drawn_from_its_distribution_while_learning():
    network = made("vae", {"code": 2}, bands=3, classes=0)
    encoded = torch.tensor([0.7, -1.2, 0.3, -2.0]).view(1, 4, 1, 1)
    assert torch.equal(network.code(encoded), encoded[:, :2])
    draws = network.train().code(encoded.expand(40_000, -1, -1, -1))[..., 0, 0]
    assert draws.mean(0).tolist() == pytest.approx([0.7, -1.2], abs=0.03)
    assert draws.var(0).tolist() == pytest.approx([2.718281828**0.3, 2.718281828**-2.0], rel=0.03)
    # And it passes the gradient on: d code / d mean is 1, d code / d log variance is half the deviation drawn.
    free = encoded.clone().requires_grad_()
    code = network.code(free)
    code.sum().backward()
    assert free.grad[0, :2, 0, 0].tolist() == [1, 1]
    assert torch.allclose(free.grad[:, 2:], 0.5 * (code - encoded[:, :2]).detach(), atol=1e-6)


def test_the_reconstruction_error_of_each_pixel_by_hand():
    network = made("autoencoder", {}, bands=3, dates=2, classes=0)
    cube, valid, time = scene(network)
    valid[0, :, 1, 1] = False
    cube = torch.where(valid[:, :, None], cube, torch.nan)
    with torch.no_grad():
        outputs = network(cube, valid, time)
    found = reconstruction_error(network, outputs, cube, valid)
    assert found.shape == (2, 4, 4)
    assert found[0, 1, 1].isnan()
    reconstruction = network.split(outputs)[0]
    for b, y, x in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(4)):
        dates = [t for t in range(2) if valid[b, t, y, x]]
        squares = [float(reconstruction[b, t, c, y, x] - cube[b, t, c, y, x]) ** 2 for t in dates for c in range(3)]
        if squares:
            assert float(found[b, y, x]) == pytest.approx((sum(squares) / len(squares)) ** 0.5, rel=1e-4)


def test_a_task_of_a_network_for_classes_is_refused():
    with pytest.raises(ValueError, match="made for 3 classes: it has no decoder"):
        ReconstructionTask(made("vae", {}, classes=3), TrainingSettings())

"""Networks that learn without labels: the contract, the losses by hand, and what the code and its errors are good for."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from lightning.pytorch import LightningDataModule
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch.utils.data import DataLoader

from models.anomaly import reconstruction_error
from models.inference import prepare, scores
from models.network import EncodingNetwork, ModelError
from models.pretrained import load_pretrained
from models.reconstruction import ReconstructionTask
from models.settings import OptimizerSettings, TrainingSettings
from models.table import build
from models.tasks import ClassificationTask
from models.training import fit
from tests.oracles import (
    divergence_by_hand,
    gradient_support,
    reconstruction_loss_by_hand,
    seen_from,
    tiled_scores,
)
from tests.test_bundle import bundle
from tests.test_networks import made

torch.set_num_threads(1)

PIXEL = [("autoencoder", {"code": 2}), ("vae", {"code": 2, "activation": "maxout"})]
LAND = [
    ("autoencoder", {"looks_at": "land", "width": 2}),
    ("autoencoder", {"looks_at": "land", "width": 1, "depth": 2, "normalisation": "none", "activation": "silu"}),
    ("vae", {"looks_at": "land", "width": 1, "depth": 3}),
]


def scene(network, side=None, seed=0, share=0.7):
    g = torch.Generator().manual_seed(seed)
    side = side or 4 * network.stride
    cube = torch.randn(2, network.dates, network.bands, side, side, generator=g)
    valid = torch.rand(2, network.dates, side, side, generator=g) < share
    return cube, valid, (torch.arange(network.dates) * 16.0).expand(2, -1)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("dates", [1, 3])
@pytest.mark.parametrize(("name", "settings"), PIXEL + LAND)
def test_the_radius_is_exactly_what_an_input_reaches(name, settings, dates, classes):
    network = made(name, settings, bands=3, dates=dates, classes=classes)
    side = 2 * network.halo + 4 * network.stride
    furthest = 0
    for phase in range(network.stride):
        reached, y, x = seen_from(network, phase, (phase * 3) % network.stride, side)
        rows, columns = torch.nonzero(reached, as_tuple=True)
        furthest = max(furthest, int((rows - y).abs().max()), int((columns - x).abs().max()))
    assert furthest == network.radius
    assert network.halo >= network.radius > network.halo - network.stride
    assert network.pixelwise == (network.chip == 1) == ((name, settings) in PIXEL)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize(("name", "settings"), PIXEL[:1] + LAND[:2])
def test_the_support_of_the_gradient_lies_within_the_halo_and_fills_the_radius(name, settings, classes):
    network = made(name, settings, bands=3, dates=2, classes=classes)
    side = 2 * network.halo + 4 * network.stride
    reach = 0
    for phase in range(network.stride):
        y = x = side // 2 + phase
        rows, columns = torch.nonzero(gradient_support(network, y, x, side), as_tuple=True)
        reach = max(reach, int((rows - y).abs().max()), int((columns - x).abs().max()))
    assert reach == network.radius <= network.halo


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize(("name", "settings"), PIXEL + LAND)
@examples(max_examples=3, deadline=None)
@given(h=st.integers(1, 33), w=st.integers(1, 33), size=st.integers(1, 9), seed=st.integers(0, 9))
def test_outputs_do_not_depend_on_how_a_scene_is_cut(name, settings, classes, h, w, size, seed):
    network = made(name, settings, dates=2, classes=classes, seed=seed)
    step = network.stride
    cube, valid = torch.randn(1, 2, 2, h, w), torch.rand(1, 2, h, w) < 0.8
    time = torch.tensor([[0.0, 16.0]])
    whole = tiled_scores(network, cube, valid, time, -(-max(h, w) // step) * step)
    tiled = tiled_scores(network, cube, valid, time, size * step)
    assert torch.allclose(tiled, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "settings"), PIXEL + LAND)
def test_without_classes_it_gives_reconstruction_and_embedding(name, settings):
    network = made(name, settings, bands=2, dates=3, classes=0)
    assert isinstance(network, EncodingNetwork)
    cube, valid, time = scene(network)
    with torch.no_grad():
        found = network(cube, valid, time)
        assert found.shape[1] == network.outputs == 6 + network.features
        reconstruction, embedding = network.split(found)
        encoded = network.encode(cube, valid)
        coarse = network.embedding(encoded)
        assert torch.equal(reconstruction, network.decode(coarse))
    step = network.stride
    assert torch.equal(embedding[..., 1::step, step - 1 :: step] if step > 1 else embedding, coarse)
    assert torch.allclose(scores(prepare(network), cube, valid, time), found, atol=1e-5, rtol=0)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize(("name", "settings"), PIXEL + LAND)
def test_values_that_are_not_valid_change_nothing(name, settings, classes):
    network = made(name, settings, dates=2, classes=classes)
    cube, valid, time = scene(network)
    other = torch.where(valid[:, :, None], cube, torch.nan)
    with torch.no_grad():
        assert torch.equal(network(cube, valid, time), network(other, valid, time))
        if classes == 0:
            task = ReconstructionTask(network, TrainingSettings()).eval()
            batches = ({"cube": c, "valid": valid, "time": time} for c in (cube, other))
            first, second = (task.loss(b) for b in batches)
            assert torch.equal(first[0], second[0])


@pytest.mark.parametrize(("name", "settings"), PIXEL + LAND)
def test_a_network_for_classes_has_the_same_encoder_and_no_decoder(name, settings):
    without = made(name, settings, dates=2, classes=0).state_dict()
    with_ = made(name, settings, dates=2, classes=3).state_dict()
    encoders = [{k: v.shape for k, v in state.items() if k.startswith("encoder.")} for state in (without, with_)]
    assert encoders[0] == encoders[1]
    assert {k.split(".")[0] for k in without} == {"encoder", "decoder"}
    assert {k.split(".")[0] for k in with_} == {"encoder", "head"}


@pytest.mark.parametrize(
    ("bands", "dates", "settings", "features"),
    [(10, 1, {}, 3), (10, 24, {}, 32), (4, 1, {"looks_at": "land"}, 5), (10, 1, {"code": 7}, 7), (1, 2, {}, 1)],
)
def test_the_code_is_narrower_than_what_it_stands_for(bands, dates, settings, features):
    assert build("autoencoder", settings, bands=bands, dates=dates, classes=0).features == features


def test_a_code_that_can_copy_is_refused_unless_it_must_undo_something():
    with pytest.raises(ModelError, match=r"model.code: found 8, 8 numbers for 8 values"):
        build("autoencoder", {"code": 8}, bands=4, dates=2, classes=0)
    build("autoencoder", {"code": 8, "corruption": "noise"}, bands=4, dates=2, classes=0)
    build("autoencoder", {"code": 8}, bands=4, dates=2, classes=3)


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


def seasons(n, seed, dates=10, bands=4, classes=3, noise=1.1):
    """Series of three classes and three things that vary in each, in noise of its own for each date and band."""
    mix = torch.randn(classes + 3, dates * bands, generator=torch.Generator().manual_seed(99))
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=g)
    kind = 1.5 * torch.nn.functional.one_hot(labels, classes) + 0.3 * torch.randn(n, classes, generator=g)
    hidden = torch.cat([kind, torch.randn(n, 3, generator=g)], dim=1)
    x = 1.5 * torch.tanh(0.6 * hidden @ mix)
    return (x + noise * torch.randn(x.shape, generator=g)).view(n, dates, bands), labels


class Pixels(LightningDataModule):
    """Single pixels (N, T, C), with or without classes."""

    def __init__(self, x, labels=None, *, size=50, val=0):
        super().__init__()
        labels = torch.zeros(len(x), dtype=torch.long) if labels is None else labels
        valid, time = torch.ones(x.shape[1], 1, 1, dtype=torch.bool), torch.zeros(x.shape[1])
        self.items = [
            {"cube": a[..., None, None], "valid": valid, "time": time, "labels": b.view(1, 1)}
            for a, b in zip(x, labels, strict=True)
        ]
        self.size, self.cut = size, len(x) - val

    def train_dataloader(self):
        return DataLoader(self.items[: self.cut], batch_size=self.size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.items[self.cut :], batch_size=37) if self.cut < len(self.items) else []


def trained(task, data, folder, epochs, progress=None):
    settings = TrainingSettings(
        epochs=epochs, track=[], early_stopping=None, check_batch=False, optimizer=OptimizerSettings(lr=0.01)
    )
    task.settings = settings
    return fit(task, data, folder, settings, progress=progress)


def outputs(network, x):
    with torch.no_grad():
        return network(x[..., None, None], torch.ones(*x.shape[:2], 1, 1, dtype=torch.bool), torch.zeros(x.shape[:2]))


def errors(network, x):
    valid = torch.ones(*x.shape[:2], 1, 1, dtype=torch.bool)
    return reconstruction_error(network, outputs(network, x), x[..., None, None], valid).flatten()


KINDS = [("autoencoder", {"corruption": "mask"}), ("vae", {})]


@pytest.fixture(scope="module", params=KINDS, ids=["autoencoder", "vae"])
def encoder(request, tmp_path_factory):
    """A network that has seen 1000 pixels without their classes, and the same before it had."""
    name, settings = request.param
    torch.manual_seed(0)
    network = build(name, settings, bands=4, dates=10, classes=0)
    random = copy.deepcopy(network).eval()
    task = ReconstructionTask(network, TrainingSettings())
    result = trained(task, Pixels(seasons(1000, 0)[0]), tmp_path_factory.mktemp("encoder"), 12)
    assert result.history[-1]["train_loss"] < 0.8 * result.history[0]["train_loss"]
    return network.eval(), random


def test_planted_anomalies_are_found_by_the_reconstruction_error(encoder):
    network, random = encoder
    x, _ = seasons(1100, 1)
    # The values of real pixels, in a season that none of them has: nothing but the relation between dates is wrong.
    g = torch.Generator().manual_seed(5)
    planted = x[:100].flatten(1)[:, torch.randperm(40, generator=g)].view(100, 10, 4)
    truth = torch.arange(1100) < 100
    areas = [roc_auc_score(truth, errors(n, torch.cat([planted, x[100:]]))) for n in (network, random)]
    assert areas[0] > 0.95  # 0.99 was seen
    assert areas[1] < 0.6


def test_a_linear_probe_finds_more_in_what_was_learnt_than_in_a_random_encoder(encoder):
    (few, classes), (many, truth) = seasons(60, 7), seasons(1000, 1)
    found = []
    for network in encoder:
        embeddings = [network.split(outputs(network, x))[1].flatten(1).numpy() for x in (few, many)]
        probe = LogisticRegression(max_iter=1000).fit(embeddings[0], classes.numpy())
        found.append(probe.score(embeddings[1], truth.numpy()))
    assert found[0] > found[1] + 0.15  # 0.93 against 0.59 was seen


def test_with_ten_labels_a_class_a_pretrained_encoder_is_the_better_start(encoder, tmp_path):
    network, _ = encoder
    source = bundle(
        network=network, bands=list("abcd"), mean=[0.0] * 4, std=[1.0] * 4, dates=[None] * 10, time=[0.0] * 10,
        task={"name": "reconstruction"}, legend=[],
    )  # fmt: skip
    many, truth = seasons(1500, 1)
    found = {True: 0.0, False: 0.0}
    for seed in range(4):
        x, labels = seasons(200, 20 + seed)
        few = torch.cat([torch.nonzero(labels == k)[:10, 0] for k in range(3)])
        for begun in found:
            torch.manual_seed(seed)
            learner = build(network.name, network.settings, bands=4, dates=10, classes=3)
            if begun:
                load_pretrained(learner, source, list("abcd"))
            task = ClassificationTask(learner, classes=3, settings=TrainingSettings(), counts=[10] * 3)
            trained(task, Pixels(x[few], labels[few], size=15), tmp_path / f"{seed}{begun}", 12)
            found[begun] += float((outputs(learner.eval(), many).argmax(1).flatten() == truth).float().mean()) / 4
    assert found[True] > found[False] + 0.04  # 0.09 and 0.11 more were seen


class KilledError(Exception):
    pass


@pytest.mark.parametrize(("name", "settings"), [KINDS[0], ("vae", {"warm_up": 3})])
def test_a_killed_training_goes_on_and_ends_with_the_same_weights(name, settings, tmp_path):
    data = Pixels(seasons(120, 0)[0], val=40)

    def run(folder, progress=None):
        torch.manual_seed(0)
        task = ReconstructionTask(build(name, settings, bands=4, dates=10, classes=0), TrainingSettings())
        return task.network, trained(task, data, folder, 4, progress)

    def kill(epoch, epochs, figures):
        if epoch == 2:
            raise KilledError

    whole, expected = run(tmp_path / "whole")
    with pytest.raises(KilledError):
        run(tmp_path / "killed", kill)
    network, result = run(tmp_path / "killed")
    assert result.resumed_from == 2
    assert result.history == expected.history
    assert {"train_loss", "val_loss"} <= set(result.history[0])
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize("name", ["autoencoder", "vae"])
def test_the_loss_of_validation_does_not_depend_on_batches(name, tmp_path):
    torch.manual_seed(0)
    task = ReconstructionTask(build(name, {}, bands=4, dates=10, classes=0), TrainingSettings())
    data = Pixels(seasons(150, 0)[0], val=80)
    result = trained(task, data, tmp_path, 2)
    task.eval()
    batch = {k: torch.stack([item[k] for item in data.items[70:]]) for k in data.items[0]}
    with torch.no_grad():
        total, weight = task.loss(batch)
    assert result.best_epoch == 1
    assert float(total / weight) == pytest.approx(result.history[1]["val_loss"], rel=1e-5)

"""Networks that learn without labels: what the code and its errors are good for."""

from __future__ import annotations

import copy

import pytest
import torch
from lightning.pytorch import LightningDataModule
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch.utils.data import DataLoader

from models.anomaly import reconstruction_error
from models.pretrained import load_pretrained
from models.reconstruction import ReconstructionTask
from models.settings import OptimizerSettings, TrainingSettings
from models.table import build
from models.tasks import ClassificationTask
from models.training import fit
from tests.test_bundle import bundle

torch.set_num_threads(1)


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

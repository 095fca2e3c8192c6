"""A classifier against a generator: losses by hand, what is kept, resumption."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, IterableDataset

from models.adversarial import AdversarialTask, Generator, feature_matching, unsupervised_loss
from models.bundle import Bundle
from models.inference import prepare, scores
from models.settings import OptimizerSettings, TrainingSettings
from models.table import build
from models.training import fit
from tests.oracles_figures import adversarial_loss_by_hand
from tests.oracles_tiles import gradient_support, tiled_scores
from tests.test_bundle import bundle
from tests.test_networks import made

torch.set_num_threads(1)

SMALL = {"filters": [4, 6], "hidden": [8], "noise": 5, "generator_width": 2}


def batch_of(x, labels=None):
    """Return patches (N, T, C, S, S) as a batch, their labels at the centre."""
    n, t, _, side, _ = x.shape
    batch = {"cube": x, "valid": torch.ones(n, t, side, side, dtype=torch.bool), "time": torch.zeros(n, t)}
    if labels is not None:
        batch["labels"] = torch.full((n, side, side), -1)
        batch["labels"][:, side // 2, side // 2] = labels
    return batch


def stripes(n, seed, side=9):
    """Stripes in one of three directions, at any phase, in noise."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=g)
    angle = (labels * torch.pi / 3 + 0.25 * torch.randn(n, generator=g)).view(-1, 1, 1)
    phase, width = (torch.rand(n, 1, 1, generator=g) for _ in range(2))
    y, x = torch.meshgrid(*[torch.arange(side) - side // 2] * 2, indexing="ij")
    wave = (2 * torch.pi * ((x * angle.cos() + y * angle.sin()) / (4 + 2 * width) + phase)).sin()
    bands = torch.stack([wave, -wave], dim=1) + 0.7 * torch.randn(n, 2, 1, 1, generator=g)
    return (bands + 0.6 * torch.randn(bands.shape, generator=g))[:, None], labels


class Batches(IterableDataset):
    """Batches drawn from labelled patches, with unlabelled ones beside them or without."""

    def __init__(self, x, labels, unlabelled, steps):
        self.x, self.labels, self.unlabelled, self.steps = x, labels, unlabelled, steps

    def __iter__(self):
        for _ in range(self.steps):
            i = torch.randperm(len(self.x))[:10]
            batch = batch_of(self.x[i], self.labels[i])
            if self.unlabelled is not None:
                batch["unlabelled"] = batch_of(self.unlabelled[torch.randperm(len(self.unlabelled))[:16]])
            yield batch


class Patches(LightningDataModule):
    def __init__(self, x, labels, unlabelled=None, *, val=None, steps=4):
        super().__init__()
        self.train = Batches(x, labels, unlabelled, steps)
        self.val = [batch_of(*val)] if val else []

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=None)

    def val_dataloader(self):
        return DataLoader(self.val, batch_size=None) if self.val else []


def task_of(network, **settings):
    settings = TrainingSettings(**{"track": [], "early_stopping": None} | settings)
    return AdversarialTask(network, classes=network.classes, settings=settings, counts=[1] * network.classes)


def test_the_losses_by_hand():
    torch.manual_seed(0)
    real, made_up = 3 * torch.randn(7, 3), 3 * torch.randn(5, 3)
    assert float(unsupervised_loss(real, made_up)) == pytest.approx(adversarial_loss_by_hand(real, made_up), rel=1e-5)
    # Scores that float32 cannot take the exponential of.
    assert float(unsupervised_loss(torch.full((1, 2), -200.0), torch.full((1, 2), 200.0))) == pytest.approx(
        400, abs=0.1
    )
    a, b = torch.tensor([[1.0, 2.0], [3.0, 6.0]]), torch.tensor([[0.0, 1.0]])
    assert float(feature_matching(a, b)) == pytest.approx((2**2 + 3**2) / 2)


@pytest.mark.parametrize("side", [9, 11])
def test_what_is_judged_is_the_centre_with_its_features(side):
    network = made("gan", SMALL, bands=2, dates=2)
    x = torch.randn(3, 2, 2, side, side)
    batch = batch_of(x)
    batch["valid"] = torch.rand(3, 2, side, side) < 0.8
    with torch.no_grad():
        found, features = network.judge(*task_of(network)._patches(batch))
        assert torch.equal(found, network.centre(x, batch["valid"], batch["time"]))
        assert features.shape == (3, 8)
        last = network.layers[-1]
        assert torch.allclose(features @ last.weight.flatten(1).T + last.bias, found, atol=1e-6)


def test_it_maps_like_any_network():
    network = made("gan", SMALL, bands=2, dates=2)
    cube, valid, time = torch.randn(1, 2, 2, 23, 17), torch.rand(1, 2, 23, 17) < 0.8, torch.zeros(1, 2)
    whole = tiled_scores(network, cube, valid, time, 23)
    assert torch.allclose(tiled_scores(network, cube, valid, time, 6), whole, atol=1e-5, rtol=0)
    rows, columns = torch.nonzero(gradient_support(network, 10, 10, 21), as_tuple=True)
    assert max(int((rows - 10).abs().max()), int((columns - 10).abs().max())) == network.radius == network.halo == 4


@pytest.mark.parametrize("patch", [{"patch": 9}, {"patch": 5, "filters": [4]}, {"patch": 19, "pool": 2}])
def test_the_generator_makes_patches_of_the_chip_with_the_noise_of_the_generator(patch):
    settings = SMALL | patch | ({"pool": 1} if patch["patch"] == 5 else {})
    network = made("gan", settings, bands=3, dates=2)
    generator = Generator(network)
    valid = torch.ones(4, 2, network.chip, network.chip, dtype=torch.bool)
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(generator(4, valid))
    assert drawn[0].shape == (4, 2, 3, network.chip, network.chip)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def adversarial(folder, *, unlabelled=True, progress=None, epochs=4):
    (x, labels), (more, _), val = stripes(30, 0), stripes(60, 1), stripes(40, 2)
    torch.manual_seed(0)
    task = task_of(build("gan", SMALL, bands=2, dates=1, classes=3), epochs=epochs, check_batch=False)
    before = {k: v.clone() for k, v in task.state_dict().items()}
    data = Patches(x, labels, more if unlabelled else None, val=val)
    result = fit(task, data, folder, task.settings, progress=progress)
    return task, before, result


def test_both_learn_and_the_figures_are_those_of_the_labels(tmp_path):
    task, before, result = adversarial(tmp_path, epochs=1)
    after = task.state_dict()
    for part in ("network.", "generator."):
        assert any(not torch.equal(v, before[k]) for k, v in after.items() if k.startswith(part))
    figures = result.history[0]
    assert {"train_loss", "train_unsupervised", "train_generator", "val_loss", "val_overall"} <= set(figures)
    x, labels = stripes(40, 2)
    task.eval()
    with torch.no_grad():
        found = task.network.centre(x, torch.ones(40, 1, 9, 9, dtype=torch.bool), torch.zeros(40, 1))
    assert figures["val_loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(found, labels)), rel=1e-4)


def test_without_unlabelled_patches_only_labels_count_and_the_generator_rests(tmp_path):
    task, before, result = adversarial(tmp_path, unlabelled=False, epochs=1)
    assert all(torch.equal(v, before[k]) for k, v in task.state_dict().items() if k.startswith("generator."))
    assert not {"train_unsupervised", "train_generator"} & set(result.history[0])


def test_a_step_is_that_of_the_losses_written_out(tmp_path):
    """The classifier's first step, with plain gradient descent: labels, real and made-up patches, in one sum."""
    torch.manual_seed(0)
    settings = SMALL | {"dropout": 0.0, "unlabelled_weight": 0.5}
    network = build("gan", settings, bands=2, dates=1, classes=3)
    task = task_of(
        network,
        epochs=1,
        check_batch=False,
        optimizer=OptimizerSettings(name="sgd", lr=0.1, momentum=0, weight_decay=0),
    )
    (x, labels), (more, _) = stripes(10, 0), stripes(16, 1)
    before = {k: v.detach().clone() for k, v in network.named_parameters()}
    seen = {}
    judge = network.judge

    def spy(cube, valid):
        # In the order of the calls: real, made up, and both again for the generator.
        seen.setdefault(len(seen), cube.detach().clone())
        return judge(cube, valid)

    network.judge = spy
    fit(task, Patches(x, labels, more, steps=1), tmp_path, task.settings)
    after = {k: v.detach().clone() for k, v in network.named_parameters()}
    assert len(seen) == 4
    assert torch.equal(seen[1], seen[3])
    network.load_state_dict(before)
    ones = torch.ones(16, 1, 9, 9, dtype=torch.bool)
    supervised = torch.nn.functional.cross_entropy(network.centre(x, ones[:10], torch.zeros(10, 1)), labels)
    total = supervised + 0.5 * unsupervised_loss(judge(seen[0], ones)[0], judge(seen[1], ones)[0])
    network.zero_grad()
    total.backward()
    for name, p in network.named_parameters():
        assert torch.allclose(after[name], before[name] - 0.1 * p.grad, atol=1e-6)


def test_made_up_patches_have_the_gaps_of_real_ones():
    network = made("gan", SMALL, bands=2)
    task = task_of(network)
    real = batch_of(torch.randn(6, 1, 2, 9, 9))
    real["valid"] = torch.rand(6, 1, 9, 9) < 0.5
    seen = []
    judge = network.judge
    network.judge = lambda cube, valid: seen.append(valid) or judge(cube, valid)
    task.optimizers = lambda: [None, None]
    task._step = lambda steps, cost: None
    task.log = lambda *a, **k: None
    labelled = batch_of(torch.randn(3, 1, 2, 9, 9), torch.tensor([0, 1, 2]))
    task.training_step(labelled | {"unlabelled": real}, 0)
    assert len(seen) == 4
    assert all(torch.equal(valid, real["valid"]) for valid in seen)


def test_neither_bundle_nor_network_holds_the_generator(tmp_path):
    task, _, _ = adversarial(tmp_path / "training", epochs=1)
    assert any(k.startswith("generator.") for k in task.state_dict())
    fresh = build("gan", SMALL, bands=2, dates=1, classes=3)
    assert set(task.network.state_dict()) == set(fresh.state_dict())
    bundle(network=task.network).save(tmp_path / "bundle")
    read = Bundle.load(tmp_path / "bundle").network
    assert set(read.state_dict()) == {k for k in fresh.state_dict() if k.startswith("layers.")}
    assert not [m for m in read.modules() if isinstance(m, Generator)]
    tile = torch.randn(1, 1, 2, 12, 12), torch.ones(1, 1, 12, 12, dtype=torch.bool), torch.zeros(1, 1)
    with torch.no_grad():
        assert torch.allclose(scores(prepare(read), *tile), task.network.eval()(*tile), atol=1e-5)


class KilledError(Exception):
    pass


def test_a_killed_training_goes_on_and_ends_with_the_same_weights(tmp_path):
    def kill(epoch, epochs, figures):
        if epoch == 2:
            raise KilledError

    whole, _, expected = adversarial(tmp_path / "whole")
    with pytest.raises(KilledError):
        adversarial(tmp_path / "killed", progress=kill)
    task, _, result = adversarial(tmp_path / "killed")
    assert result.resumed_from == 2
    assert result.history == expected.history
    # The generator's too: it made patches of the epochs that were resumed.
    states = [torch.load(tmp_path / f / "last.ckpt", weights_only=True)["state_dict"] for f in ("whole", "killed")]
    assert any(k.startswith("generator.") for k in states[0])
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())
    assert all(torch.equal(v, whole.network.state_dict()[k]) for k, v in task.network.state_dict().items())

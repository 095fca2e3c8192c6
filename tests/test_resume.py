"""A training that is stopped, killed or out of memory goes on within the epoch, and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from test_datamodule import module, store_of
from torch import nn

from models.keeper import WholeCheckpointIO
from models.network import ModelError
from models.settings import TrainingSettings
from models.table import build
from models.tasks import ClassificationTask
from models.training import FitResult, fit
from pipeline.samples.chips import ChipStore

torch.set_num_threads(1)

EPOCHS = 3


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ChipStore:
    return store_of(tmp_path_factory.mktemp("store"), 8)


def learn(
    store: ChipStore,
    folder: Path,
    *,
    hook: Any = None,
    batch: int = 4,
    augment: bool = True,
    network: Any = None,
    **options: Any,
) -> tuple[nn.Module, FitResult]:
    """Train on chips; ``hook(network)`` is called before each pass forward while training."""
    settings = TrainingSettings(**{"epochs": EPOCHS, "track": ["csv"], "check_batch": False} | options)
    torch.manual_seed(0)
    # Dropout and augmentation draw from torch's generator, the order of samples from its own.
    made = build("unet", {"width": 4, "depth": 1} | (network or {}), bands=2, dates=2, classes=3)
    task = ClassificationTask(made, classes=3, settings=settings, counts=[1, 2, 1])
    if hook is not None:

        def watch(network: nn.Module, given: Any) -> None:
            if network.training:
                hook(given)

        made.register_forward_pre_hook(watch)
    data = module(store, batch_size=batch, augment=("flip", "rotate", "noise") if augment else ())
    return made, fit(task, data, folder, settings)


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([v.flatten().double() for v in network.state_dict().values()])


def steps(store: ChipStore, batch: int = 4) -> int:
    return len(module(store, batch_size=batch).train_dataloader())


class At:
    """Acts at the so-manieth pass forward."""

    def __init__(self, number: int, act: Any) -> None:
        self.number, self.act, self.seen = number, act, 0

    def __call__(self, given: Any) -> None:
        self.seen += 1
        if self.seen == self.number:
            self.act()


class KilledError(Exception):
    pass


def kill() -> None:
    raise KilledError


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_ends_a_training_after_its_step_and_the_rest_is_as_if_undisturbed(
    store: ChipStore, tmp_path: Path
) -> None:
    n, accumulate = steps(store), 2
    assert n > 6
    whole_, expected = learn(store, tmp_path / "whole", accumulate=accumulate)
    before = signal.getsignal(signal.SIGTERM)
    places = []
    # In the first epoch, twice in the second, and in the last step of it, which is waited for with all that follows.
    for number in (4, n - 4 + 3, 2):
        with pytest.raises(
            KeyboardInterrupt, match=rf"stopped in epoch \d, after step \d+ of {n}; the same command"
        ) as stop:
            learn(store, tmp_path / "stopped", hook=At(number, terminate), accumulate=accumulate)
        places.append(str(stop.value))
    assert signal.getsignal(signal.SIGTERM) is before
    assert len(set(places)) == 3
    state = torch.load(tmp_path / "stopped" / "last.ckpt", weights_only=True)
    left = n - state["callbacks"]["keeper"]["step"]
    with pytest.raises(KeyboardInterrupt, match="stopped after epoch 2;"):
        learn(store, tmp_path / "stopped", hook=At(left, terminate), accumulate=accumulate)
    again, result = learn(store, tmp_path / "stopped", accumulate=accumulate)
    assert result.history == expected.history
    assert result.resumed_from == EPOCHS - 1
    assert torch.equal(weights(again), weights(whole_))


def test_a_killed_training_goes_on_from_the_last_checkpoint_within_the_epoch(store: ChipStore, tmp_path: Path) -> None:
    n = steps(store)
    whole_, expected = learn(store, tmp_path / "whole")
    for number in (3, n + 2):  # in the first epoch, and in the second
        with pytest.raises(KilledError):
            learn(store, tmp_path / "killed", hook=At(number, kill), checkpoint_every=1e-9)
    seen = At(0, kill)
    again, result = learn(store, tmp_path / "killed", hook=seen)
    assert seen.seen == EPOCHS * n - (2 + n + 1)
    assert result.history == expected.history
    assert torch.equal(weights(again), weights(whole_))


def test_an_epoch_that_is_resumed_shows_the_samples_of_that_epoch(store: ChipStore, tmp_path: Path) -> None:
    whole_, _ = learn(store, tmp_path / "whole", epochs=2)
    with pytest.raises(KilledError):
        learn(store, tmp_path / "killed", hook=At(steps(store) + 1, kill), epochs=2)
    again, _ = learn(store, tmp_path / "killed", epochs=2)
    assert torch.equal(weights(again), weights(whole_))


def test_a_checkpoint_survives_sigkill_while_it_is_saved(tmp_path: Path) -> None:
    last = tmp_path / "last.ckpt"
    # Made here: a process that was forked must not start torch's threads.
    states = [{"number": number, "values": torch.full((1 << 22,), number)} for number in range(2)]
    killed = 0
    for delay in (0.0, 0.002, 0.01, 0.03):
        pid = os.fork()
        if not pid:
            for number in range(1000):
                WholeCheckpointIO().save_checkpoint(states[number % 2], last)
            os._exit(0)
        deadline = time.monotonic() + 60
        while not last.is_file() and time.monotonic() < deadline:
            time.sleep(0.001)
        while not (half := list(tmp_path.glob(".last.ckpt.*.tmp"))) and time.monotonic() < deadline:
            pass
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        killed += bool(half and half[0].exists())
        state = torch.load(last, weights_only=True)
        assert (state["values"] == state["number"]).all()
    assert killed  # in the middle, at least once


def full(given: Any) -> None:
    """Be a device that holds three chips."""
    if len(given[0]) > 3:
        raise torch.OutOfMemoryError("out of memory. Tried to allocate 2 GiB")


def test_out_of_memory_halves_the_batch_and_makes_as_large_steps(store: ChipStore, tmp_path: Path) -> None:
    options = {"batch": 8, "augment": False, "network": {"dropout": 0.0, "normalisation": "none"}, "accumulate": 2}
    large, expected = learn(store, tmp_path / "large", **options)
    network, result = learn(store, tmp_path / "small", hook=full, **options)
    assert json.loads((tmp_path / "small" / "division.json").read_text()) == {"parts": 4}
    assert result.notes[0].startswith("out of memory: each batch was divided in 4, and 8 make a step together")
    # Each part has its own mean over its labels, so steps are nearly the same, and as many.
    assert result.history[-1]["train_loss"] == pytest.approx(expected.history[-1]["train_loss"], rel=0.1)
    moved = weights(network) - weights(large)
    assert moved.norm() < 0.1 * weights(large).norm()


def test_out_of_memory_within_an_epoch_that_is_resumed_and_again_after_a_kill(store: ChipStore, tmp_path: Path) -> None:
    n = steps(store)
    with pytest.raises(KeyboardInterrupt):
        learn(store, tmp_path, hook=At(n + 2, terminate))
    again = At(2 * (n - 2) + 3, terminate)  # the first pass forward is the one that does not fit
    with pytest.raises(KeyboardInterrupt, match=rf"in epoch 3, after step 2 of {2 * n};"):
        learn(store, tmp_path, hook=lambda given: (again(given), full(given)))
    _, result = learn(store, tmp_path, hook=full)
    assert len(result.history) == EPOCHS
    assert "each batch was divided in 2" in result.notes[0]


def test_out_of_memory_with_a_single_chip_says_what_would_help(store: ChipStore, tmp_path: Path) -> None:
    def never(given: Any) -> None:
        raise torch.OutOfMemoryError("Tried to allocate 9 GiB")

    with pytest.raises(ModelError, match=r"cannot be halved any more; a smaller network, .*Tried to allocate 9 GiB"):
        learn(store, tmp_path, hook=never)


def test_a_training_killed_after_it_had_stopped_early_trains_no_more(store: ChipStore, tmp_path: Path) -> None:
    options = {"epochs": 30, "early_stopping": 1, "optimizer": {"lr": 0.3}}
    _, expected = learn(store, tmp_path, **options)
    assert len(expected.history) < 30
    (tmp_path / "done.json").unlink()
    seen = At(0, kill)
    _, result = learn(store, tmp_path, hook=seen, **options)
    assert seen.seen == 0
    assert result.history == expected.history

"""Several ranks that train together make the steps that one would make, and measure what one would measure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_datamodule import module, store_of
from test_resume import weights
from test_run import cli
from torch import nn

from models.launching import _from_slurm
from models.learning import LearningTask
from models.network import ModelError
from models.networks.coding import CodingNetwork
from models.place import Place
from models.reconstruction import ReconstructionTask
from models.settings import TrainingSettings
from models.table import NETWORKS, build
from models.tasks import ClassificationTask
from models.training import FitResult, fit
from pipeline.samples.chips import ChipStore
from pipeline.samples.folds import TRAIN, VAL
from pipeline.samples.labels import IGNORE
from pipeline.samples.order import Order

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ChipStore:
    return store_of(tmp_path_factory.mktemp("store"), 16)


def learn(store: ChipStore, folder: Path, **options: Any) -> tuple[nn.Module, FitResult]:
    """Train a network with batch normalisation for two epochs of batches that are divided unevenly."""
    given = {"epochs": 2, "track": ["csv"], "check_batch": False, "optimizer": {"name": "sgd", "lr": 0.05}}
    settings = TrainingSettings(**given | options)
    torch.manual_seed(0)
    network = build("unet", {"width": 4, "depth": 1, "dropout": 0.0}, bands=2, dates=2, classes=3)
    assert any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    task = ClassificationTask(network, classes=3, settings=settings, counts=[1, 2, 1])
    return network, fit(task, module(store, batch_size=3), folder, settings)


def test_two_ranks_make_the_steps_of_one_and_measure_the_same(store: ChipStore, tmp_path: Path) -> None:
    options = {"accumulate": 2, "clip": 0.5, "l2": 1e-3}
    alone, expected = learn(store, tmp_path / "one", **options)
    together, result = learn(store, tmp_path / "two", devices=2, **options)
    assert torch.allclose(weights(together), weights(alone), atol=1e-5)
    assert together.state_dict().keys() == alone.state_dict().keys()
    assert [type(m) for m in together.modules()] == [type(m) for m in alone.modules()]
    for found, wanted in zip(result.history, expected.history, strict=True):
        assert found == pytest.approx(wanted, abs=1e-5)
    assert (tmp_path / "two" / "metrics.csv").is_file()


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_every_sample_is_one_ranks_and_no_rank_misses_a_step(store: ChipStore, ranks: int) -> None:
    for name, role in (("train_dataloader", TRAIN), ("val_dataloader", VAL)):
        parts = []
        for rank in range(ranks):
            data = module(store, batch_size=3)
            data.trainer = type("Trainer", (), {"global_rank": rank, "world_size": ranks})()
            parts.append(list(getattr(data, name)()))
        data.trainer = None
        assert len({len(part) for part in parts}) == 1
        for batch, *shares in zip(getattr(data, name)(), *parts, strict=True):
            # One that has no sample is kept busy with one that has no label.
            mine = [s for s in shares if (s["labels"] != IGNORE).any()]
            assert torch.equal(torch.cat([s["cube"] for s in mine]), batch["cube"])
            assert len(mine) == min(ranks, len(batch["cube"]))
        labelled = sum(int((b["labels"] != IGNORE).sum()) for part in parts for b in part)
        assert labelled == store.counts(0, role).sum()


def test_batches_that_are_divided_hold_the_same_samples_in_the_same_order() -> None:
    one, parts = Order(23, 6, 0, None), Order(23, 6, 0, None, split=2)
    assert len(parts) == 2 * len(one)
    assert [i for draw in parts for i in draw.places] == [i for draw in one for i in draw.places]
    rest = Order(23, 6, 0, None, skipped=2)
    assert [*list(one)[2:], *one] == [*rest, *rest]


def test_every_network_moves_all_its_weights_which_ddp_relies_on() -> None:
    for name in NETWORKS:
        for classes in (3, 0):
            try:
                network = build(name, {}, bands=3, dates=5, classes=classes)
            except ModelError:  # needs classes
                assert classes == 0
                continue
            side = network.chip
            batch = {
                "cube": torch.randn(2, 5, 3, side, side),
                "valid": torch.ones(2, 5, side, side, dtype=torch.bool),
                "time": 10 * torch.arange(5.0).expand(2, 5),
                "labels": torch.zeros(2, side, side, dtype=torch.long),
            }
            settings = TrainingSettings()
            task: LearningTask
            if isinstance(network, CodingNetwork) and not classes:
                task = ReconstructionTask(network, settings)
            else:
                task = ClassificationTask(
                    network, classes=3, settings=settings, counts=[1, 1, 1], centred=network.centred
                )
            task.train().loss(batch)[0].backward()
            assert [n for n, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"nodes": 2},
            "training.nodes: found 2, but this is one of 1; several are started from outside, by torchrun or srun",
        ),
        ({"strategy": "ddp"}, "training.strategy: found ddp, and one device"),
    ],
)
def test_what_this_machine_cannot_do_is_refused(
    store: ChipStore, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        learn(store, tmp_path, **options)


def test_srun_says_who_is_who() -> None:
    step = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": "5", "SLURM_LOCALID": "1"}
    found = _from_slurm(step | {"SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_JOB_ID": "1234567"})
    assert found == {
        "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "gpu07", "MASTER_PORT": "24567",
    }  # fmt: skip
    assert Place(rank=5, size=8, local=1, per_node=4).nodes == 2
    with pytest.raises(ModelError, match="found 7 tasks on 2 nodes"):
        _from_slurm(step | {"SLURM_STEP_NUM_TASKS": "7"})


def test_a_command_that_srun_starts_twice_runs_once_and_trains_on_both(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", str(folder / "job.yaml"), "--set", "model={name: unet, width: 4, depth: 1, dropout: 0}"]
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NODELIST": "127.0.0.1",
            "SLURM_JOB_ID": str(os.getpid())}  # fmt: skip
    code = "import sys; from workflows.cli import main; main(sys.argv[1:])"
    environment = os.environ | step | {"SLURM_PROCID": "1", "SLURM_LOCALID": "1",
                                       "PYTHONPATH": str(Path(__file__).parent.parent)}  # fmt: skip
    other = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with monkeypatch.context() as patch:
        for name, value in (step | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}).items():
            patch.setenv(name, value)
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            patch.setenv(name, "")
        assert cli(*arguments) == 0
    said = other.communicate(timeout=60)
    assert other.returncode == 0
    assert said == (b"", b"")
    together = json.loads((folder / "out" / "model" / "bundle.json").read_text())["training"]
    assert together["epochs"] == [3]
    # What trains is no input: the next run finds everything done.
    capfd.readouterr()
    assert cli(*arguments) == 0
    assert capfd.readouterr().err.count("up to date") == 2

"""On what a training computes: devices and ranks, precision, threads, compiled networks."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Iterator
from typing import Any, Literal

import torch
from lightning.pytorch.strategies import DDPStrategy

from models.keeper import WholeCheckpointIO
from models.launching import enrolled, started
from models.learning import LearningTask
from models.network import ModelError, Network
from models.place import ALONE, Place
from models.ranks import Company
from models.settings import TrainingSettings
from models.synced import SyncedBatchNorm

_COMPILED = ("forward", "centre", "encode", "decode")
"""What of a network is called while it learns."""


@contextlib.contextmanager
def company_of(settings: TrainingSettings, task: LearningTask) -> Iterator[Company]:
    """Give the processes that are to train together; they are started where nobody has done it.

    Raises
    ------
    ModelError
        If devices, nodes or strategy do not fit this machine, or what torchrun or srun has started.
    """
    outside = enrolled()
    found = settings.devices if outside is None else outside.place.per_node
    number = 1 if found == "auto" else found
    nodes = 1 if outside is None else outside.place.nodes
    if outside is not None and settings.devices not in ("auto", number):
        raise ModelError(
            f"training.devices: found {settings.devices}, but {outside.launcher} has started {number} processes on each node; "
            "give auto, or start as many"
        )
    if settings.nodes not in ("auto", nodes):
        raise ModelError(
            f"training.nodes: found {settings.nodes}, but this is one of {nodes}; several are started from outside, by torchrun "
            "or srun (docs/training.md)"
        )
    gpus = torch.cuda.device_count()
    if outside is None and 0 < gpus < number:
        raise ModelError(
            f"training.devices: found {number}, and this machine has {gpus} GPUs; auto and up to that are allowed"
        )
    if number * nodes == 1:
        if settings.strategy == "ddp":
            raise ModelError(
                "training.strategy: found ddp, and one device; set training.devices to how many are to learn together"
            )
        yield Company(ALONE, "")
    elif not task.automatic_optimization:
        raise ModelError(
            f"training.devices: found {number * nodes}, and the network '{task.network.name}' makes its own steps: it trains on "
            "one device"
        )
    elif outside is not None:
        with outside.blamed():
            yield outside
    else:
        with started(number) as company:
            yield company


def options(settings: TrainingSettings, company: Company | None = None) -> dict[str, Any]:
    """Return what Lightning is told of this machine, for every training on it."""
    company = company or Company(ALONE, "")
    cuda = torch.cuda.is_available()
    told: dict[str, Any] = {
        "accelerator": "auto" if cuda else "cpu",
        "devices": company.place.per_node,
        "num_nodes": company.place.nodes,
        "precision": _precision(settings),
        "plugins": [WholeCheckpointIO(), company.environment()],
        "use_distributed_sampler": False,  # the data module divides its batches itself, and shows no sample twice
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    if company.place.size > 1:
        # Statistics of layers are those of all ranks already.
        told["strategy"] = DDPStrategy(broadcast_buffers=False)
        told["plugins"] += [] if cuda else [SyncedBatchNorm()]
        told["sync_batchnorm"] = cuda
    return told


def _precision(settings: TrainingSettings) -> Literal["32-true", "bf16-mixed", "16-mixed"]:
    cuda = torch.cuda.is_available()
    if settings.precision == "auto":
        # Where it is emulated it is slower than what it replaces.
        return "bf16-mixed" if cuda and torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    if settings.precision == "16" and not cuda:
        raise ModelError("training.precision: 16 needs a GPU, and there is none here; use auto, 32 or bf16")
    return {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[settings.precision]  # type: ignore[return-value]


@contextlib.contextmanager
def threads(network: Network, place: Place) -> Iterator[None]:
    """Compute on one thread where steps are tiny: dividing them costs more than it saves, 20-fold on a busy machine.

    Ranks of one machine share its cores.
    """
    before = torch.get_num_threads()
    own = before if place.size == 1 else max(1, len(os.sched_getaffinity(0)) // place.per_node)
    torch.set_num_threads(1 if network.pixelwise else own)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def compiled(network: Network, settings: TrainingSettings) -> Iterator[None]:
    """Let a network compute with compiled code for a while; its weights keep their names.

    Raises
    ------
    ModelError
        If this machine cannot compile.
    """
    if not settings.compile:
        yield
        return
    compiler = shutil.which(os.environ.get("CXX", "")) or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise ModelError(
            "training.compile: no C++ compiler is found here (g++, clang++ or $CXX); install one, or leave compile out"
        )
    if torch.cuda.is_available() and importlib.util.find_spec("triton") is None:
        raise ModelError(
            "training.compile: on a GPU it needs the package triton; `pip install triton`, or leave compile out"
        )
    names = [name for name in _COMPILED if hasattr(network, name)]
    for name in names:
        setattr(network, name, torch.compile(getattr(network, name)))
    try:
        yield
    finally:
        for name in names:
            delattr(network, name)

"""How the processes that train together start and find each other.

They are started here (`started`), or from outside by torchrun or srun, which start the same command once per rank (`enrol`).
"""

from __future__ import annotations

import contextlib
import datetime
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from torch import distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from models.network import ModelError
from models.place import Place
from models.ranks import Company, RankError

_TOGETHER = datetime.timedelta(minutes=10)  # until all processes of a training must have started
_FAREWELL, _SECOND = datetime.timedelta(seconds=30), datetime.timedelta(seconds=1)

_enrolled: Company | None = None

broken = False
"""Whether connections to other ranks were left open in the middle of a training, which only the end of the process closes."""


def enrolled() -> Company | None:
    """Return the company in which this process was started from outside, if it was."""
    return _enrolled


@contextlib.contextmanager
def enrol() -> Iterator[Company]:
    """Join the processes that torchrun or srun has started, for the time of a command.

    Raises
    ------
    RankError
        If the others do not come.
    """
    global _enrolled
    launcher = "torchrun" if os.environ.get("WORLD_SIZE") else "srun"
    if launcher == "srun":
        os.environ.update(_from_slurm(os.environ))
    size, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    # Of each node alike: torchrun says it, srun has been asked.
    place = Place(
        rank=rank,
        size=size,
        local=int(os.environ.get("LOCAL_RANK", "0")),
        per_node=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
    )
    if torch.cuda.is_available() and torch.cuda.device_count() == 1 and place.per_node > 1:
        # Each was given a GPU of its own and sees no other: as good as a node of its own.
        place = Place(rank=rank, size=size)
    try:
        store, _, _ = next(rendezvous("env://", timeout=_TOGETHER))
        company = Company(place, launcher, PrefixStore("landweave", store))
        _join(company)
    except (distributed.DistError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise RankError(
            f"{size} processes were started by {launcher}, and they could not connect at {os.environ.get('MASTER_ADDR')}:"
            f"{os.environ.get('MASTER_PORT')}: {reason}"
        ) from error
    _enrolled = company
    patience = _FAREWELL
    try:
        yield company
    except SystemExit:  # so ends a command that has done its work, too
        raise
    except BaseException as error:
        # Those that wait for work leave at once; those that are in the middle of it will not answer.
        patience = _SECOND
        company.complain(error)
        raise
    finally:
        _enrolled = None
        if rank == 0:
            company.dismiss(patience)
        distributed.destroy_process_group()


def _from_slurm(environment: Any) -> dict[str, str]:
    """Return the variables of torchrun for a process that srun has started."""
    nodes = int(environment.get("SLURM_STEP_NUM_NODES") or 1)
    size = int(environment["SLURM_STEP_NUM_TASKS"])
    if size % nodes:
        raise ModelError(f"srun: found {size} tasks on {nodes} nodes; give each node as many (--ntasks-per-node)")
    listed = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_NODELIST") or "127.0.0.1"
    job = environment.get("SLURM_JOB_ID", "0")
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(size // nodes),
        "MASTER_ADDR": environment.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(listed),
        # Two jobs on one node must not meet.
        "MASTER_PORT": environment.get("MASTER_PORT") or str(20_000 + int(job) % 10_000),
    }


@contextlib.contextmanager
def started(number: int) -> Iterator[Company]:
    """Start so many processes of this machine less one, which is this; they end with it."""
    global broken
    store = TCPStore("127.0.0.1", 0, number, is_master=True, wait_for_workers=False, timeout=_TOGETHER)
    spawn = multiprocessing.get_context("spawn")
    children = [
        spawn.Process(
            target=_child, args=(store.port, Place(rank=i, size=number, local=i, per_node=number)), daemon=True
        )
        for i in range(1, number)
    ]
    company = Company(Place(size=number, per_node=number), "this process", store, _children=children)
    try:
        for child in children:
            child.start()
        with company.blamed():
            _join(company)
            yield company
        company.dismiss(_FAREWELL)
        for child in children:
            child.join(10)
    except (RankError, KeyboardInterrupt, SystemExit):
        broken = True
        raise
    finally:
        for child in children:
            child.kill()
        # What still waits for a rank that is gone would wait here for half an hour.
        if distributed.is_initialized() and not broken:
            distributed.destroy_process_group()


def _child(port: int, place: Place) -> None:
    """Be a rank that another process has started: follow it, and end when it ends."""
    # Both may reach all processes; the first tells the others when to stop, and the user what there is to say.
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    silence()
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    store = TCPStore("127.0.0.1", port, place.size, is_master=False, timeout=_TOGETHER)
    company = Company(place, "this process", store)
    _join(company)
    try:
        company.follow()
    except BaseException as error:
        company.complain(error)
        raise
    finally:
        distributed.destroy_process_group()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def silence() -> None:
    """Write nothing any more, libraries included: the first rank says what there is to say."""
    sys.stdout.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def _join(company: Company) -> None:
    """Connect the processes."""
    place, device = company.place, None
    if torch.cuda.is_available():
        if place.local >= torch.cuda.device_count():
            raise ModelError(
                f"training.devices: found {place.per_node} processes on a node with {torch.cuda.device_count()} GPUs; start one "
                "for each GPU at most"
            )
        torch.cuda.set_device(place.local)
        device = torch.device("cuda", place.local)
    distributed.init_process_group(
        "gloo" if device is None else "nccl",
        store=PrefixStore("group", company.store),
        rank=place.rank,
        world_size=place.size,
        device_id=device,
    )

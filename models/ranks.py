"""The processes that train together: how they find each other, and how the first of them leads the others.

Ranks above 0 do nothing by themselves: they wait until the first hands them a part of a training, take part in it, and wait
again. So whatever else a run does is done once, by the first. They are started here (`Company.started`), or from outside by
torchrun or srun, which start the same command once per rank (`enrolled`).
"""

from __future__ import annotations

import contextlib
import datetime
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import cloudpickle
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from torch import Tensor, distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from models.network import ModelError

_SECONDS = 0.1  # between two looks for work
_TOGETHER = datetime.timedelta(minutes=10)  # until all processes of a training must have started
_FAREWELL, _SECOND = datetime.timedelta(seconds=30), datetime.timedelta(seconds=1)
_ERROR = "error"


class RankError(ModelError):
    """A process of a training on several devices failed, which ends the training; the request itself is not wrong."""

    exit_status = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a process stands among those that train together.

    Attributes
    ----------
    rank, size : int
        Its number, from 0, and how many there are.
    local, per_node : int
        The same on its node.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    per_node: int = 1

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return self.size // self.per_node


ALONE = Place()


@dataclass
class Company:
    """The processes that train together, as one of them sees it.

    Attributes
    ----------
    place : Place
        Where this process stands.
    launcher : str
        What started the processes.
    store : Store or None
        Where ranks leave each other notes; None of one that trains alone.
    """

    place: Place
    launcher: str
    store: Any = None
    _tasks: int = 0
    _children: list[Any] = field(default_factory=list)

    def lead(self, work: Callable[[Company], Any]) -> None:
        """Let all others do a work; this process is to do it at the same time."""
        if self.place.size == 1:
            return
        # By value: a network may hold functions that have no name.
        self.store.set(f"task/{self._tasks}", cloudpickle.dumps(work))
        self._tasks += 1

    def follow(self) -> None:
        """Do what the first rank hands out, until it says that there is no more."""
        while True:
            key = f"task/{self._tasks}"
            while not self.store.check([key]):
                time.sleep(_SECONDS)
            self._tasks += 1
            said = self.store.get(key)
            if not said:
                self.store.set(f"left/{self.place.rank}", b"")
                return
            cloudpickle.loads(said)(self)

    def dismiss(self, patience: datetime.timedelta) -> None:
        """Let all others go, and wait until they know: the store may end with this process."""
        with contextlib.suppress(distributed.DistError):  # they may have gone already
            self.store.set(f"task/{self._tasks}", b"")
            self.store.wait([f"left/{rank}" for rank in range(1, self.place.size)], patience)

    def complain(self, error: BaseException) -> None:
        """Leave word of what ends this process."""
        said = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        with contextlib.suppress(distributed.DistError):
            self.store.set(_ERROR, f"process {self.place.rank + 1} of {self.place.size}: {said}")

    @contextlib.contextmanager
    def blamed(self) -> Iterator[None]:
        """Name the rank that failed first where others fail because it is gone.

        Raises
        ------
        RankError
            If another rank has failed.
        """
        try:
            yield
        except (ModelError, torch.OutOfMemoryError):
            raise
        except RuntimeError as error:
            if self.place.size == 1:
                raise
            time.sleep(1)  # the one that failed may be about to say why
            said = self.store.get(_ERROR).decode() if self.store.check([_ERROR]) else ""
            lost = [str(i + 2) for i, child in enumerate(self._children) if child.exitcode]
            if not said and lost:
                said = f"process {', '.join(lost)} of {self.place.size} died: out of memory, or killed from outside"
            if not said:
                raise
            if torch.OutOfMemoryError.__name__ in said:
                raise torch.OutOfMemoryError(said) from error
            raise RankError(
                f"the training on {self.place.size} devices failed: {said}. What is done is kept"
            ) from error

    def environment(self) -> Environment:
        """Return what Lightning is told of the processes; of one that is alone too, or it would look for itself."""
        return Environment(self.place)

    def sum(self, *values: Tensor | float) -> list[float]:
        """Return the sums of some numbers over all processes."""
        if self.place.size == 1:
            return [float(v) for v in values]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        summed = torch.tensor([float(v) for v in values], dtype=torch.float64, device=device)
        distributed.all_reduce(summed)
        return [float(v) for v in summed.tolist()]


class Environment(ClusterEnvironment):
    """Tells Lightning that all processes run and are connected."""

    creates_processes_externally = True
    # Processes are connected before Lightning would do it.
    main_address, main_port = "", 0

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place

    @staticmethod
    def detect() -> bool:
        """Never be found by chance."""
        return False

    def world_size(self) -> int:
        """Return the number of processes."""
        return self.place.size

    def global_rank(self) -> int:
        """Return the number of this process."""
        return self.place.rank

    def local_rank(self) -> int:
        """Return the number of this process on its node."""
        return self.place.local

    def node_rank(self) -> int:
        """Return the number of the node."""
        return self.place.rank // self.place.per_node

    def set_world_size(self, size: int) -> None:
        """Keep what is known."""

    def set_global_rank(self, rank: int) -> None:
        """Keep what is known."""


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

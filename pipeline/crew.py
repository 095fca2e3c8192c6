"""Who does the work of a job: threads of this process, processes of this machine, one per GPU, or a cluster that is there."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.engine import cores, memory_budget
from pipeline.errors import JobError, RunError
from pipeline.settings import ComputeSettings

if TYPE_CHECKING:
    from distributed import Client

SETTINGS = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    # A forward pass holds the interpreter for seconds; the event loop is slow then, not sick.
    "distributed.admin.tick.limit": "10m",
    # Samples of every thread's stack, a hundred a second, and a tick fifty times a second take a tenth of a core, and the
    # interpreter from whoever computes.
    "distributed.admin.tick.interval": "1s",
    "distributed.worker.profile.enabled": False,
    # Processes would give every freed page back at once, and pay for it with the next array; blocks do it when they are done.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
    # Whatever was on two workers when they died is tried once more by itself: see `run_tasks`.
    "distributed.scheduler.allowed-failures": 1,
    "distributed.logging": {"distributed": "error", "distributed.worker": "error", "distributed.core": "error"},
}
"""Settings of Dask, for whoever talks to it."""


def gpus() -> tuple[str, ...]:
    """Return the GPUs that PyTorch sees here, named as CUDA_VISIBLE_DEVICES names them."""
    import torch

    number = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    # Those behind a number that is wrong are not seen.
    return tuple(map(str, range(number)) if named is None else named.split(",")[:number])


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """Who does the work.

    Attributes
    ----------
    place : {"here", "processes", "gpus", "cluster"}
        This process; processes of this machine; one for each of its GPUs; a Dask cluster that is there.
    workers : int
        Processes.
    threads : int
        Blocks in work at once in each.
    gpus : tuple of str
        Where each has one of its own: their names; see `gpus`.
    heard : str
        Of a cluster that does not answer: why it is not known; else empty.
    """

    place: Literal["here", "processes", "gpus", "cluster"]
    workers: int
    threads: int
    gpus: tuple[str, ...] = ()
    heard: str = ""

    def budget(self, memory: str, own: int) -> int:
        """Return the bytes that one worker may take, this process, which takes ``own`` bytes, beside them.

        What a job states is of one worker. Else processes of this machine share what it has, and a worker of a cluster is
        taken to have as much as this machine.
        """
        budget = memory_budget(memory)
        if memory == "auto" and self.place in ("processes", "gpus"):
            return max(0, budget - own) // self.workers
        return budget


def crew_of(compute: ComputeSettings) -> Crew:
    """Return who will do the work, as far as it can be known beforehand: a cluster is asked, and need not answer.

    Raises
    ------
    JobError
        If GPUs are asked for and there are none.
    """
    import dask
    from distributed.utils import silence_logging_cmgr

    place: Literal["here", "processes", "gpus"] = "here"
    devices: tuple[str, ...] = ()
    workers = 1
    if compute.scheduler:
        try:
            with (
                dask.config.set(SETTINGS),
                silence_logging_cmgr(logging.CRITICAL),
                connected(compute.scheduler) as client,
            ):
                threads = list(client.nthreads().values())
            heard = "" if threads else f"the cluster at {compute.scheduler} has no worker yet"
        except (JobError, RunError) as error:
            threads, heard = [], str(error)
        return Crew(
            place="cluster", workers=max(1, len(threads)), threads=int(max(threads, default=cores())), heard=heard
        )
    if compute.workers == "gpus":
        place, devices = "gpus", gpus()
        workers = len(devices)
        if not workers:
            raise JobError(
                "compute.workers: found gpus, and PyTorch sees no GPU here (`landweave doctor` lists them); leave it out "
                "to compute on the cores"
            )
    elif compute.workers != "auto" and compute.workers > 1:
        place, workers = "processes", compute.workers
    threads_each = max(1, cores() // workers) if compute.threads == "auto" else compute.threads
    return Crew(place=place, workers=workers, threads=threads_each, gpus=devices)


def connected(scheduler: str) -> Client:
    """Return a client of a running cluster.

    Raises
    ------
    JobError
        If there is no such scheduler file.
    RunError
        If no scheduler answers.
    """
    from distributed import Client

    where: dict[str, Any] = {"address": scheduler}
    if "://" not in scheduler:
        if not Path(scheduler).is_file():
            raise JobError(
                f"compute.scheduler: found {scheduler!r}, which is neither a file nor an address; give an address such as "
                "tcp://node:8786, or the file that `dask scheduler --scheduler-file FILE` writes (is the scheduler started?)"
            )
        where = {"scheduler_file": scheduler}
    try:
        return Client(**where, timeout="5s")
    except (OSError, TimeoutError, ValueError, KeyError) as error:
        raise RunError(
            f"compute.scheduler: no Dask scheduler answers at {scheduler} ({error}); start one there "
            "(`dask scheduler`) or leave compute.scheduler out to run on this machine"
        ) from error

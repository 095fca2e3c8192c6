"""Where blocks run: threads of this process, processes on this machine, one per GPU, or a Dask cluster that is there."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.engine import cores, memory_budget
from pipeline.errors import JobError, RunError
from pipeline.settings import ComputeSettings

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from distributed import Client

Say = Callable[[str], None]

_SETTINGS = {
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
# Any free port, and only for this machine: two runs side by side must not quarrel over one.
_DASHBOARD = "127.0.0.1:0"


def gpus() -> list[str]:
    """Return the GPUs that PyTorch sees here, named as CUDA_VISIBLE_DEVICES names them."""
    import torch

    number = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    # Those behind a number that is wrong are not seen.
    return [str(i) for i in range(number)] if named is None else named.split(",")[:number]


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
    heard : str
        Of a cluster that does not answer: why it is not known; else empty.
    """

    place: Literal["here", "processes", "gpus", "cluster"]
    workers: int
    threads: int
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
    workers = 1
    if compute.scheduler:
        try:
            with (
                dask.config.set(_SETTINGS),
                silence_logging_cmgr(logging.CRITICAL),
                _connected(compute.scheduler) as client,
            ):
                threads = list(client.nthreads().values())
            heard = "" if threads else f"the cluster at {compute.scheduler} has no worker yet"
        except (JobError, RunError) as error:
            threads, heard = [], str(error)
        return Crew(
            place="cluster", workers=max(1, len(threads)), threads=int(max(threads, default=cores())), heard=heard
        )
    if compute.workers == "gpus":
        place, workers = "gpus", len(gpus())
        if not workers:
            raise JobError(
                "compute.workers: found gpus, and PyTorch sees no GPU here (`landweave doctor` lists them); leave it out "
                "to compute on the cores"
            )
    elif compute.workers != "auto" and compute.workers > 1:
        place, workers = "processes", compute.workers
    threads_each = max(1, cores() // workers) if compute.threads == "auto" else compute.threads
    return Crew(place=place, workers=workers, threads=threads_each)


@contextlib.contextmanager
def dask_client(compute: ComputeSettings, say: Say = lambda _: None) -> Iterator[Client]:
    """Yield a Dask client as the job asks: in this process, on worker processes, or on a running cluster.

    In-process is the default: tasks run in threads, nothing is copied, and there is no server to reach.

    Parameters
    ----------
    compute : ComputeSettings
        Where the work runs.
    say : callable
        Is told where the dashboard is, and what becomes of workers.

    Raises
    ------
    JobError
        If the place does not exist: no GPU, no scheduler file.
    RunError
        If no scheduler answers.
    """
    import dask
    from distributed import Client
    from distributed.utils import silence_logging_cmgr

    # Dask would report, in words of its own and with tracebacks, what is said here once and plainly.
    quiet = silence_logging_cmgr(logging.CRITICAL)
    with dask.config.set(_SETTINGS), quiet, contextlib.ExitStack() as stack:
        if compute.scheduler:
            client = stack.enter_context(_connected(compute.scheduler))
            say(f"dashboard of the cluster: {client.dashboard_link}")
        else:
            cluster = stack.enter_context(_local(compute))
            client = stack.enter_context(Client(cluster, timeout="30s"))
            if find_spec("bokeh"):
                say(f"dashboard: {client.dashboard_link}")
        client.loop.asyncio_loop.set_exception_handler(_unheard)
        with _watched(client, say):
            yield client


def _unheard(loop: AbstractEventLoop, context: dict[str, Any]) -> None:
    """Tell of errors that nobody asked about; but not that a sender of Dask waited when its event loop was stopped.

    A sender waits two milliseconds for more to send, and the end of that wait is an error that it looks at in the loop's next
    turn (`distributed.batched`). Now and then there is no next turn.
    """
    if not isinstance(context.get("exception"), TimeoutError):
        loop.default_exception_handler(context)


def _connected(scheduler: str) -> Client:
    """Return a client of a running cluster."""
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


def _local(compute: ComputeSettings) -> Any:
    """Return a cluster on this machine, for as long as the client lasts."""
    from distributed import LocalCluster, Nanny, Scheduler, SpecCluster

    crew = crew_of(compute)
    if crew.place == "here":
        return LocalCluster(
            n_workers=1,
            threads_per_worker=crew.threads,
            processes=False,
            memory_limit=0,
            dashboard_address=_DASHBOARD,
            worker_dashboard_address=_DASHBOARD,
            protocol="inproc://",
            silence_logs=logging.CRITICAL,
        )
    own: list[dict[str, str]] = [{}] * crew.workers
    if crew.place == "gpus":
        own = [{"CUDA_VISIBLE_DEVICES": device} for device in gpus()]
    # Each under a nanny, which starts a process anew that was killed: the run keeps its pace, and is never without workers.
    here = {"host": "127.0.0.1", "dashboard_address": _DASHBOARD}
    options = here | {"nthreads": crew.threads, "memory_limit": 0, "silence_logs": logging.CRITICAL}
    return SpecCluster(
        workers={i: {"cls": Nanny, "options": options | {"env": env}} for i, env in enumerate(own)},
        scheduler={"cls": Scheduler, "options": here | {"port": 0}},
    )


@contextlib.contextmanager
def _watched(client: Client, say: Say) -> Iterator[None]:
    """Say which workers are lost while the client is in use."""
    present = set(client.nthreads())
    if not present:
        say("the cluster has no worker yet: waiting for one")

    def tell(event: tuple[float, Any]) -> None:
        _, what = event
        if not isinstance(what, dict) or what.get("action") not in ("add-worker", "remove-worker"):
            return
        worker = what["worker"]
        if what["action"] == "add-worker":
            present.add(worker)
            return
        present.discard(worker)
        # One that was asked to go, or whose time was up and said so, is no loss: it handed over what it had.
        if not what["expected"]:
            say(f"worker {worker} was lost: its blocks are done by others")
        if not present:
            say("no worker is left: waiting for one")

    client.subscribe_topic("all", tell)
    try:
        yield
    finally:
        # Those that go at the end of the work are not lost.
        if client.status == "running":
            client.unsubscribe_topic("all")

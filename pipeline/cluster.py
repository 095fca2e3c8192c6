"""Where blocks run: Dask's workers, in this process or others, and how long they stay."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pipeline.crew import SETTINGS, Crew, connected, crew_of
from pipeline.settings import ComputeSettings

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from distributed import Client

Say = Callable[[str], None]

# Any free port, and only for this machine: two runs side by side must not quarrel over one.
_DASHBOARD = "127.0.0.1:0"


@contextlib.contextmanager
def workers_kept() -> Iterator[None]:
    """Keep workers, and their dashboard, from one `dask_client` within to the next, while they are asked for alike.

    Processes need seconds to start and to load their packages: once for a whole job, not for each of its stages.
    """
    with _Workers() as workers:
        token = _KEPT.set(workers)
        try:
            yield
        finally:
            _KEPT.reset(token)


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
    kept = _KEPT.get()
    with contextlib.nullcontext(kept) if kept else _Workers() as workers:
        client = workers.client(compute, say)
        try:
            with _watched(client, say):
                yield client
        finally:
            workers.rest()


class _Workers(contextlib.ExitStack):
    """Workers that are at work, or wait for more of it; closed, they are gone."""

    def __init__(self) -> None:
        super().__init__()
        self._wanted: str | Crew | None = None
        self._client: Client | None = None

    def client(self, compute: ComputeSettings, say: Say) -> Client:
        """Return a client of those that are wanted: those that are here, or new ones."""
        wanted = compute.scheduler or crew_of(compute)
        if self._client is None or self._client.status != "running" or wanted != self._wanted:
            self.close()
            self._client, self._wanted = self.enter_context(_started(wanted, say)), wanted
        return self._client

    def rest(self) -> None:
        """Let those go that would hold what others need: networks on GPUs, where the next may be trained."""
        if isinstance(self._wanted, Crew) and self._wanted.gpus:
            self.close()
            self._client = None


_KEPT: ContextVar[_Workers | None] = ContextVar("kept", default=None)


@contextlib.contextmanager
def _started(wanted: str | Crew, say: Say) -> Iterator[Client]:
    """Yield a client of a scheduler, or of a crew that is started and, in the end, dismissed."""
    import dask
    from distributed import Client
    from distributed.utils import silence_logging_cmgr

    # Dask would report, in words of its own and with tracebacks, what is said here once and plainly.
    quiet = silence_logging_cmgr(logging.CRITICAL)
    with dask.config.set(SETTINGS), quiet, contextlib.ExitStack() as stack:
        if isinstance(wanted, str):
            client = stack.enter_context(connected(wanted))
            say(f"dashboard of the cluster: {client.dashboard_link}")
        else:
            client = stack.enter_context(Client(stack.enter_context(_local(wanted)), timeout="30s"))
            if find_spec("bokeh"):
                say(f"dashboard: {client.dashboard_link}")
        client.loop.asyncio_loop.set_exception_handler(_unheard)
        yield client


def _unheard(loop: AbstractEventLoop, context: dict[str, Any]) -> None:
    """Tell of errors that nobody asked about; but not that a sender of Dask waited when its event loop was stopped.

    A sender waits two milliseconds for more to send, and the end of that wait is an error that it looks at in the loop's next
    turn (`distributed.batched`). Now and then there is no next turn.
    """
    if not isinstance(context.get("exception"), TimeoutError):
        loop.default_exception_handler(context)


def _local(crew: Crew) -> Any:
    """Return a cluster on this machine."""
    from distributed import LocalCluster, Nanny, Scheduler, SpecCluster

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
    own = [{"CUDA_VISIBLE_DEVICES": device} for device in crew.gpus] or [{}] * crew.workers
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

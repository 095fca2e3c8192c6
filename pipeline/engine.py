"""Run a function over many items with Dask: threads, processes or a cluster, with bounded submission and retries."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import RunError
from pipeline.settings import ComputeSettings

if TYPE_CHECKING:
    from distributed import Client

# How many tasks wait per thread: enough that no thread idles, few enough that results never pile up.
_AHEAD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An item whose task failed after all retries."""

    item: Any
    error: str


def cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0))


def memory_budget(setting: str = "auto") -> int:
    """Return the memory budget in bytes: as set, else of the container (cgroup v2, then v1), else of the machine."""
    import psutil
    from dask.utils import parse_bytes

    if setting != "auto":
        try:
            return int(parse_bytes(setting))
        except ValueError as error:
            raise RunError(f"compute.memory: expected a size such as 8GiB, found {setting!r}") from error
    limits = [int(psutil.virtual_memory().total)]
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError):
            text = Path(name).read_text().strip()
            if text.isdigit():
                limits.append(int(text))
    return min(limits)


def release_memory() -> None:
    """Give memory that was freed back to the system; the C library would keep it, and the next stage add its own.

    Does nothing where the C library has no such call (glibc has).
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextlib.contextmanager
def dask_client(compute: ComputeSettings) -> Iterator[Client]:
    """Yield a Dask client as the job asks: in this process, on worker processes, or on a running cluster.

    In-process is the default: tasks run in threads, nothing is copied, and there is no server to reach.
    """
    import dask
    from distributed import Client, LocalCluster

    threads = cores() if compute.threads == "auto" else compute.threads
    quiet = {
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": False,
        # A forward pass holds the interpreter for seconds; the event loop is slow then, not sick.
        "distributed.admin.tick.limit": "10m",
        "distributed.logging": {"distributed": "error", "distributed.worker": "error", "distributed.core": "error"},
    }
    with dask.config.set(quiet):
        if compute.scheduler:
            try:
                client = Client(compute.scheduler, timeout="5s")
            except (OSError, TimeoutError) as error:
                raise RunError(
                    f"compute.scheduler: no Dask scheduler answers at {compute.scheduler} ({error}); start one there "
                    "(`dask scheduler`) or leave compute.scheduler out to run on this machine"
                ) from error
            with client:
                yield client
            return
        processes = compute.workers != "auto" and compute.workers > 1
        cluster = LocalCluster(
            n_workers=compute.workers if processes else 1,
            threads_per_worker=threads if not processes or compute.threads != "auto" else 1,
            processes=processes,
            memory_limit=0,
            # Any free port, and only for this machine: two runs side by side must not quarrel over one.
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            protocol=None if processes else "inproc://",
        )
        with cluster, Client(cluster) as client:
            yield client


def width(client: Client) -> int:
    """Return how many tasks the client's workers run at once."""
    return max(1, sum(int(n) for n in client.nthreads().values()))


def run_tasks(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    client: Client,
    on_result: Callable[[Any, Any], None],
    retries: int = 2,
    fatal: tuple[type[BaseException], ...] = (),
) -> list[Failure]:
    """Apply ``function`` to every item on the client's workers.

    Only a few tasks per thread are submitted ahead, so a million items cost no more memory than ten. Results reach
    ``on_result(item, result)`` in this thread, in the order in which they are done.

    Returns
    -------
    list of Failure
        The items that failed ``retries + 1`` times.

    Raises
    ------
    fatal
        An error of one of these types ends the work at once: trying again cannot help.
    """
    from distributed import as_completed

    queue = iter(items)
    failures: list[Failure] = []
    waiting: dict[Any, Any] = {}

    def submit(item: Any) -> Any:
        future = client.submit(function, item, retries=retries, pure=False)
        waiting[future] = item
        return future

    try:
        pool = as_completed([submit(i) for i in itertools.islice(queue, _AHEAD * width(client))])
        for future in pool:
            item = waiting.pop(future)
            error = future.exception()
            if isinstance(error, fatal):
                raise error
            if error is None:
                on_result(item, future.result())
            else:
                failures.append(Failure(item=item, error=f"{type(error).__name__}: {error}"))
            del future
            for following in itertools.islice(queue, 1):
                pool.add(submit(following))
    finally:
        for future in waiting:
            future.cancel()
    return failures

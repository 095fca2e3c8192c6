"""Run a function over many items with Dask: bounded submission, retries, and workers that may die."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING, Any

from pipeline.errors import RunError
from pipeline.limits import memory_limit

if TYPE_CHECKING:
    from distributed import Client, KilledWorker

# How many tasks wait per thread: enough that no thread idles, few enough that results never pile up.
_AHEAD = 2
# How often the number of threads is asked for.
_SECONDS = 5.0
# How long all workers together are given to take the function, in seconds.
_PATIENCE = 10.0
# Items that take no time, such as blocks without data, are given to a task together: so many at most, and it gives back
# what it has not begun after so many seconds. So a worker that dies takes little more with it than its item.
_TOGETHER = 64
_WHILE = 0.5
# When memory was last given back by this process.
_released = 0.0


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
    return memory_limit(int(psutil.virtual_memory().total))


def release_memory(seconds: float = 0.0) -> None:
    """Give memory that was freed back to the system; the C library would keep it, and the next stage add its own.

    What is given back costs time when it is needed again: it is not done a second time within so many seconds. Does nothing
    where the C library has no such call (glibc has).
    """
    global _released
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None and time.monotonic() - _released >= seconds:
        _released = time.monotonic()
        trim(0)


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

    Only a few tasks per thread are submitted ahead, so a million items cost no more memory than ten; a task holds one item,
    or several that take no time. Results reach ``on_result(item, result)`` in this thread, in the order in which they are
    done. A worker that dies takes only its tasks with it, which others do. What was there each time that workers died is
    done at the end, one at a time: so what kills them is named, and nothing else is.

    Returns
    -------
    list of Failure
        The items that failed ``retries + 1`` times by themselves, or killed every worker that took them.

    Raises
    ------
    fatal
        An error of one of these types ends the work at once: trying again cannot help.
    RunError
        If the workers cannot load the function, or the scheduler went away.
    """
    work = _Work(function, client, retries, fatal)
    suspects: list[Any] = []
    failures = work.each(
        items, on_result, lambda: _AHEAD * width(client), lambda item, _: suspects.append(item), _TOGETHER
    )

    def guilty(item: Any, error: KilledWorker) -> None:
        died = error.allowed_failures + 1
        text = f"{died} workers died, one after the other, with nothing else to do: out of memory, or a library that crashed"
        failures.append(Failure(item=item, error=text))

    failures += work.each(suspects, on_result, lambda: 1, guilty, together=1)
    return failures


class _Work:
    """A function on the workers of a client.

    The function is sent once, as a result that tasks take from each other's workers and that is made again if all who had
    it are gone; with every task it would be most of the work.
    """

    def __init__(
        self, function: Callable[[Any], Any], client: Client, retries: int, fatal: tuple[type[BaseException], ...]
    ) -> None:
        from distributed import wait

        self.client = client
        self.retries = retries
        self.fatal = fatal
        self.name = f"{getattr(function, '__name__', type(function).__name__)}-{uuid.uuid4().hex[:12]}"
        # Else one worker would load the packages, and then those that take the function from it.
        loading = self.on_all(_load, getattr(function, "func", function).__module__)
        self.shared = client.submit(_itself, function, key=f"{self.name}-shared")
        with self.reachable():
            error = self.shared.exception()
        if error is not None:
            raise RunError(
                f"the workers cannot load the work: {type(error).__name__}: {error}; scheduler and workers need the same "
                "landweave, and the same Python packages, as this process"
            ) from error
        del loading
        # From a worker that is at work already it would come late. No more than a head start: who needs longer is not waited for.
        with self.reachable(), contextlib.suppress(TimeoutError):
            wait(self.on_all(_nothing, self.shared), timeout=_PATIENCE)
        self.numbers = count()

    def on_all(self, call: Callable[[Any], Any], argument: Any) -> list[Any]:
        """Call something on each of several workers; return the futures."""
        workers = list(self.client.nthreads())
        places = workers if len(workers) > 1 else []
        return [self.client.submit(call, argument, workers=[w], allow_other_workers=True, pure=False) for w in places]

    def each(
        self,
        items: Iterable[Any],
        on_result: Callable[[Any, Any], None],
        ahead: Callable[[], int],
        on_killed: Callable[[Any, KilledWorker], None],
        together: int,
    ) -> list[Failure]:
        """Do all items, so many tasks submitted at a time, of so many items at most; return what failed."""
        from distributed import KilledWorker, as_completed

        queue = iter(items)
        alone: deque[Any] = deque()
        failures: list[Failure] = []
        waiting: dict[Any, list[Any]] = {}
        size = 1

        def submit(number: int) -> list[Any]:
            groups = [[alone.popleft()] for _ in range(min(number, len(alone)))]
            groups += [g for _ in range(number - len(groups)) if (g := list(islice(queue, size)))]
            made = []
            # One that fails in company is tried again by itself.
            for some, retries in (
                ([g for g in groups if len(g) == 1], self.retries),
                ([g for g in groups if len(g) > 1], 0),
            ):
                if some:
                    keys = [f"{self.name}-{next(self.numbers)}" for _ in some]
                    futures = self.client.map(_call, some, work=self.shared, key=keys, retries=retries, pure=False)
                    waiting.update(zip(futures, some, strict=True))
                    made += futures
            return made

        try:
            with self.reachable():
                most, asked = ahead(), time.monotonic()
                pool = as_completed(submit(most))
            while waiting:
                with self.reachable():
                    done = pool.next_batch()
                    outcomes = self.outcomes(done)
                for future, (error, result) in zip(done, outcomes, strict=True):
                    group = waiting.pop(future)
                    if isinstance(error, self.fatal):
                        raise error
                    if isinstance(error, KilledWorker):
                        for item in group:
                            on_killed(item, error)
                    elif error is not None and len(group) == 1:
                        failures.append(Failure(item=group[0], error=f"{type(error).__name__}: {error}"))
                    elif error is not None:
                        alone.extend(group)
                    else:
                        results, seconds = result
                        for item, own in zip(group, results, strict=False):
                            on_result(item, own)
                        alone.extend(group[len(results) :])
                        size = _next_size(len(group), len(results), seconds, together)
                # A worker keeps a result for as long as its future is known here.
                del done, future
                with self.reachable():
                    # A cluster grows and shrinks while it works.
                    if time.monotonic() - asked > _SECONDS:
                        most, asked = ahead(), time.monotonic()
                    pool.update(submit(most - len(waiting)))
        finally:
            if waiting and self.client.status == "running":
                self.client.cancel(list(waiting))
        return failures

    def outcomes(self, futures: list[Any]) -> list[tuple[BaseException | None, Any]]:
        """Return error and result of tasks that are done; all that are done by now come in one message."""
        from distributed import KilledWorker

        good = [f for f in futures if f.status != "error"]
        try:
            results = iter(self.client.gather(good))
        except KilledWorker as error:
            # A worker died with results before they were fetched, and so did those that were to make them again.
            return [(error, None)] * len(futures)
        return [(None, next(results)) if f in good else (f.exception(), None) for f in futures]

    @contextlib.contextmanager
    def reachable(self) -> Iterator[None]:
        """Say what it means where the connection to the scheduler breaks: all that was submitted is then forgotten."""
        from concurrent.futures import CancelledError

        scheduler = self.client.scheduler.address
        try:
            yield
        except (CancelledError, OSError, TimeoutError) as error:
            raise RunError(
                f"the Dask scheduler at {scheduler} went away ({error}); what is done is kept: start it again, with its "
                "workers, and give the same command"
            ) from error


def _load(module: str) -> None:
    # Where it is missing, the function cannot be loaded either, and that is said.
    with contextlib.suppress(ImportError):
        importlib.import_module(module)


def _nothing(_: Any) -> None:
    pass


def _itself(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return function


def _call(items: list[Any], *, work: Callable[[Any], Any]) -> tuple[list[Any], float]:
    """Return the results of items, and the seconds they took; of several, of those before the first that fails."""
    start = time.monotonic()
    results = [work(items[0])] if len(items) == 1 else []
    while len(results) < len(items) and time.monotonic() - start < _WHILE:
        try:
            results.append(work(items[len(results)]))
        except Exception:  # noqa: BLE001 - it is tried again by itself, and said then
            break
    return results, time.monotonic() - start


def _next_size(given: int, done: int, seconds: float, most: int) -> int:
    """Return how many items a task is to hold, by what the last one took: as many as are done in a while."""
    if done < given:
        return max(1, done)
    return min(2 * given, most) if 2 * seconds < _WHILE else given

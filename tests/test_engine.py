from __future__ import annotations

import io
import logging
import os
import threading
import time
from pathlib import Path

import pytest
from distributed import LocalCluster

from pipeline import engine
from pipeline.cluster import dask_client
from pipeline.crew import gpus
from pipeline.engine import Failure, cores, memory_budget, run_tasks, width
from pipeline.errors import JobError, RunError
from pipeline.settings import ComputeSettings


def square(i: int) -> int:
    return i * i


def fails_on_three(i: int) -> int:
    if i == 3:
        raise ValueError("three")
    return i


class Flaky:
    """Fails the first time an item is tried."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, i: int) -> int:
        mark = self.folder / str(i)
        if not mark.exists():
            mark.touch()
            raise OSError("once")
        return i


def test_workers_that_come_late_do_the_work() -> None:
    seen: dict[int, int] = {}
    heard: list[str] = []
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=None, protocol="inproc://") as cluster,
        dask_client(ComputeSettings(scheduler=cluster.scheduler_address), heard.append) as client,
    ):
        assert heard[-1] == "the cluster has no worker yet: waiting for one"
        cluster.scale(1)
        assert not run_tasks(square, range(4), client=client, on_result=seen.__setitem__)
    assert seen == {i: i * i for i in range(4)}


class Unloadable:
    def __reduce__(self):
        return int, ("this is no number",)

    def __call__(self, i: int) -> int:
        return i


def test_every_item_is_done_once() -> None:
    seen: dict[int, int] = {}
    with dask_client(ComputeSettings(threads=2)) as client:
        assert width(client) == 2
        assert run_tasks(square, range(40), client=client, on_result=seen.__setitem__) == []
    assert seen == {i: i * i for i in range(40)}


def test_submission_is_bounded() -> None:
    drawn = 0
    most = 0
    done = 0
    lock = threading.Lock()

    def items():
        nonlocal drawn, most
        for i in range(3000):
            with lock:
                drawn += 1
                most = max(most, drawn - done)
            yield i

    def count(*_: int) -> None:
        nonlocal done
        with lock:
            done += 1

    with dask_client(ComputeSettings(threads=2)) as client:
        run_tasks(square, items(), client=client, on_result=count)
    assert (drawn, done) == (3000, 3000)
    assert most <= (2 * 2 + 1) * engine._TOGETHER


def test_what_fails_is_named_and_the_rest_is_done() -> None:
    seen: list[int] = []
    # As Dask's own handler is: nothing of a failure may come from it beside what is said here.
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    logging.getLogger("distributed").addHandler(handler)
    try:
        with dask_client(ComputeSettings(threads=2)) as client:
            failures = run_tasks(
                fails_on_three, range(6), client=client, on_result=lambda i, _: seen.append(i), retries=1
            )
    finally:
        logging.getLogger("distributed").removeHandler(handler)
    assert failures == [Failure(item=3, error="ValueError: three")]
    assert sorted(seen) == [0, 1, 2, 4, 5]
    assert not written.getvalue()


def test_what_fails_among_many_that_take_no_time_is_named_and_the_rest_is_done_once() -> None:
    seen: list[int] = []
    tried: list[int] = []

    def some_fail(i: int) -> int:
        tried.append(i)
        if i % 100 == 77:
            raise ValueError(f"no {i}")
        return i

    with dask_client(ComputeSettings(threads=2)) as client:
        failures = run_tasks(some_fail, range(500), client=client, on_result=lambda i, _: seen.append(i), retries=1)
    assert [f.error for f in sorted(failures, key=lambda f: f.item)] == [
        f"ValueError: no {77 + 100 * i}" for i in range(5)
    ]
    assert sorted(seen) == [i for i in range(500) if i % 100 != 77]
    # Each was done by the task that was given it; one that failed was tried in company, and twice by itself.
    assert len(tried) <= len(seen) + 3 * len(failures)


def test_items_that_take_time_are_given_out_one_by_one() -> None:
    held: list[int] = []

    def slow(i: int) -> int:
        time.sleep(0.06 if i >= 100 else 0)
        return threading.get_ident()

    with dask_client(ComputeSettings(threads=2)) as client:
        run_tasks(slow, range(130), client=client, on_result=lambda _, by: held.append(by))
    # What was taken together while it took no time is shared again once it does.
    last = held[-20:]
    assert min(last.count(one) for one in set(held)) >= 5


def test_a_task_is_tried_again(tmp_path: Path) -> None:
    seen: list[int] = []
    with dask_client(ComputeSettings(threads=2)) as client:
        assert not run_tasks(Flaky(tmp_path), range(5), client=client, on_result=lambda i, _: seen.append(i), retries=1)
    assert sorted(seen) == [0, 1, 2, 3, 4]


def test_a_fatal_error_ends_the_work() -> None:
    with dask_client(ComputeSettings(threads=1)) as client, pytest.raises(ValueError, match="three"):
        run_tasks(fails_on_three, range(6), client=client, on_result=lambda *_: None, retries=0, fatal=(ValueError,))


def test_no_scheduler_is_said() -> None:
    with pytest.raises(RunError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):  # noqa: SIM117
        with dask_client(ComputeSettings(scheduler="tcp://127.0.0.1:9")):
            pass


def test_work_that_workers_cannot_load_is_said() -> None:
    with (
        dask_client(ComputeSettings(threads=1)) as client,
        pytest.raises(RunError, match="workers cannot load the work"),
    ):
        run_tasks(Unloadable(), range(3), client=client, on_result=lambda *_: None)


def test_a_scheduler_that_is_neither_file_nor_address(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"found '.*absent.json', which is neither a file nor an address"):  # noqa: SIM117
        with dask_client(ComputeSettings(scheduler=str(tmp_path / "absent.json"))):
            pass


def test_no_gpu_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(JobError, match="found gpus, and PyTorch sees no GPU here"):  # noqa: SIM117
        with dask_client(ComputeSettings(workers="gpus")):
            pass


@pytest.mark.parametrize(
    ("named", "seen"), [(None, ("0", "1")), ("5,GPU-3a", ("5", "GPU-3a")), ("4,7,-1,9", ("4", "7"))]
)
def test_gpus_keep_the_names_that_the_environment_gives_them(
    monkeypatch: pytest.MonkeyPatch, named: str | None, seen: tuple[str, ...]
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert gpus() == seen


def test_the_budget() -> None:
    assert memory_budget("2GiB") == 2 << 30
    assert 0 < memory_budget() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with pytest.raises(RunError, match="expected a size such as 8GiB, found 'much'"):
        memory_budget("much")
    assert cores() >= 1

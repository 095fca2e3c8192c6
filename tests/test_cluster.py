"""Workers that are processes of their own, and what happens when they die."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from conftest import write_job, write_labels, write_scene
from distributed import Client, LocalCluster
from kill import begin
from test_run import cli, count_parts, digests

from pipeline.cluster import dask_client, workers_kept
from pipeline.engine import run_tasks
from pipeline.errors import RunError
from pipeline.settings import ComputeSettings
from workflows import scoring


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained network, a map made of many blocks by one thread in `whole`, and none in `out`."""
    folder = tmp_path_factory.mktemp("trained")
    write_scene(folder / "scene.tif", side=120)
    write_labels(folder / "fields.gpkg", side=120)
    write_job(
        folder / "job.yaml",
        model={"name": "mlp", "hidden": [8]},
        training={"epochs": 1, "track": ["csv"]},
        predict={"layers": ["classes", "confidence"], "block": 16},
        compute={"threads": 1},
    )
    assert cli("train", folder / "job.yaml", "-q") == 0
    assert cli("predict", folder / "job.yaml", "-q") == 0
    (folder / "out" / "maps").rename(folder / "maps")
    return folder


def at_part(folder: Path, number: int, act: Callable[[], None]) -> threading.Thread:
    """Act as soon as so many parts are there."""

    def wait() -> None:
        deadline = time.monotonic() + 60
        while count_parts(folder) < number and time.monotonic() < deadline:
            time.sleep(0.002)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def misses() -> int:
    return scoring._load.cache_info().misses


def test_a_worker_of_a_cluster_is_killed(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        address = cluster.scheduler_address
        one = next(iter(client.run(os.getpid).values()))
        killer = at_part(trained, 16, lambda: os.kill(one, signal.SIGKILL))
        assert cli("predict", trained / "job.yaml", "--set", f"compute.scheduler={address}") == 0
        killer.join()
        # The one that lived, and the one that was started in its place if it had a block to do.
        loaded = client.run(misses).values()
        assert max(loaded) == 1
        assert set(loaded) <= {0, 1}
    heard = capfd.readouterr().err
    assert heard.count("was lost: its blocks are done by others") == 1
    assert "dashboard of the cluster: http" in heard
    assert "blocks that failed" not in heard
    assert digests(trained / "out") == digests(trained)


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", *arguments], stderr=subprocess.DEVNULL)


@pytest.fixture
def away(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A scheduler and a worker, started by hand: the file that says where it is, and its process."""
    file = str(tmp_path / "scheduler.json")
    scheduler = start("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", file,
                      "--dashboard-address", "127.0.0.1:0")  # fmt: skip
    worker = start("distributed.cli.dask_worker", "--scheduler-file", file, "--nthreads", "1", "--no-dashboard",
                   "--no-nanny", "--local-directory", str(tmp_path))  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not Path(file).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        yield file, scheduler
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()


def test_the_scheduler_is_killed(
    trained: Path, away: tuple[str, subprocess.Popen[bytes]], capfd: pytest.CaptureFixture[str]
) -> None:
    file, scheduler = away
    shutil.rmtree(trained / "out" / "maps", ignore_errors=True)
    killer = at_part(trained, 16, scheduler.kill)
    assert cli("predict", trained / "job.yaml", "--set", f"compute.scheduler={file}") == 1
    killer.join()
    heard = capfd.readouterr().err
    assert heard.count("error: the Dask scheduler at tcp://127.0.0.1:") == 1
    assert "went away" in heard
    assert "Traceback" not in heard
    assert cli("predict", trained / "job.yaml") == 0
    assert "resumed: " in capfd.readouterr().err
    assert digests(trained / "out") == digests(trained)


def test_sigterm_stops_a_run_tidily(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(trained / "out" / "maps", ignore_errors=True)
    process = begin(["predict", trained / "job.yaml", "--quiet", "--set", "compute={workers: 2}"])
    workers: list[psutil.Process] = []

    def end() -> None:
        workers.extend(psutil.Process(process.pid).children(recursive=True))
        process.terminate()

    at_part(trained, 8, end).join()
    _, heard = process.communicate(timeout=100)
    assert process.returncode == 1, heard
    assert heard.decode() == "error: stopped by SIGTERM; what is done is kept: the same command goes on from there\n"
    assert len(workers) >= 2
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    assert count_parts(trained) >= 8
    assert cli("predict", trained / "job.yaml") == 0
    assert "resumed: " in capfd.readouterr().err
    assert digests(trained / "out") == digests(trained)


def test_what_kills_every_worker_is_named_and_each_worker_has_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    # Functions of this place go to workers as they are: those of a module would make each of them import it, and torch.
    def device() -> str:
        return os.environ["CUDA_VISIBLE_DEVICES"]

    def deadly(item: int) -> int:
        if item == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    monkeypatch.setattr("pipeline.crew.gpus", lambda: ("5", "GPU-3a"))
    seen: dict[int, int] = {}
    heard: list[str] = []
    with dask_client(ComputeSettings(workers="gpus", threads=1), heard.append) as client:
        assert set(client.run(device).values()) == {"5", "GPU-3a"}
        failures = run_tasks(deadly, range(8), client=client, on_result=seen.__setitem__)
        # Those that were started in place of the dead see their devices too.
        client.wait_for_workers(2, timeout=60)
        assert set(client.run(device).values()) == {"5", "GPU-3a"}
    assert [f.item for f in failures] == [3]
    assert "2 workers died, one after the other" in failures[0].error
    assert sorted(seen) == [0, 1, 2, 4, 5, 6, 7]
    assert sum("was lost" in text for text in heard) == 4


def pids(compute: ComputeSettings) -> set[int]:
    """Return the processes that work, as a stage of a job would find them."""
    with dask_client(compute) as client:
        return set(client.run(os.getpid).values())


def test_workers_stay_from_stage_to_stage_while_they_are_asked_for_alike() -> None:
    two, one = ComputeSettings(workers=2, threads=1), ComputeSettings(workers=2, threads=2)
    with workers_kept():
        first = pids(two)
        assert len(first) == 2
        assert pids(two) == first
        other = pids(one)
        assert not other & first
    assert not any(psutil.pid_exists(p) for p in first | other)
    # By themselves they last as long as they are used.
    assert not any(psutil.pid_exists(p) for p in pids(two))


def test_of_a_scheduler_that_is_gone_nothing_is_kept() -> None:
    with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster, workers_kept():
        compute = ComputeSettings(scheduler=cluster.scheduler_address)
        assert len(pids(compute)) == 1
        cluster.close()
        with pytest.raises(RunError, match="no Dask scheduler answers"):
            pids(compute)


def test_networks_leave_gpus_between_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.crew.gpus", lambda: ("0",))
    compute = ComputeSettings(workers="gpus", threads=1)
    with workers_kept():
        assert not any(psutil.pid_exists(p) for p in pids(compute))

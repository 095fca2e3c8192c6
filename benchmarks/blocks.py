"""What the engine costs: time and bytes per block of a map with nothing to do in it, and memory over a great many blocks."""

from __future__ import annotations

import argparse
import pickle
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from common import make_bundle, make_series, report, request

from pipeline.cluster import dask_client
from pipeline.engine import run_tasks, width
from pipeline.maps.parts import PartRecord
from pipeline.settings import ComputeSettings
from workflows.maptask import MapTask

# What Dask keeps has an end: logs of 1,000 entries, and the names of the last 100,000 tasks, some 300 bytes each, which
# are all the growth that is left after so many blocks.
_WARM = 0.2


# Seconds of a block that is given a task of its own; those that take less share one.
_SLOW = 0.3


@dataclass(frozen=True, slots=True)
class Nothing:
    """A block task that carries all that a real one does, and does nothing with it, for so many seconds."""

    task: MapTask
    seconds: float = 0.0

    def __call__(self, index: int) -> PartRecord:
        """Return the record of a block without valid input."""
        time.sleep(self.seconds)
        return PartRecord(block=index)


def task_of(folder: Path) -> MapTask:
    """Return the task of a map from a series of images."""
    raster = make_series(folder / "series.tif", 64, 96)
    bundle = make_bundle(folder / "model", "rnn", {"hidden": 4}, dates=96)
    job = request(raster, folder / "model", bundle, ["classes", "confidence"], 1)
    return MapTask(
        bundle=job.folder, checksum=bundle.checksum, cube=job.cube, blocks=job.plan((), ()).blocks,
        layers=job.layers("predict"), folder=folder,
    )  # fmt: skip


def spent() -> float:
    """Return the processor seconds of this process and its workers."""
    me = psutil.Process()
    return sum(sum(p.cpu_times()[:2]) for p in (me, *me.children(recursive=True)))


def place(compute: ComputeSettings) -> str:
    """Return where the blocks run, in words."""
    return "in process" if compute.workers == "auto" else f"{compute.workers} processes"


def slow(task: MapTask, compute: ComputeSettings, blocks: int) -> None:
    """Run blocks that only wait, each in a task of its own; print what a thread, and a core, lose with each."""
    with dask_client(compute) as client:
        threads = width(client)
        run_tasks(Nothing(task, _SLOW), range(threads), client=client, on_result=lambda *_: None)
        start, before = time.perf_counter(), spent()
        run_tasks(Nothing(task, _SLOW), range(blocks), client=client, on_result=lambda *_: None)
        seconds, work = time.perf_counter() - start, spent() - before
    lost = 1000 * (threads * seconds / blocks - _SLOW)
    print(f"{place(compute)}: a thread has nothing to do for {lost:.2f} ms between two blocks of {_SLOW:g} s")
    report(f"the engine's time per block, blocks of {_SLOW:g} s, {place(compute)}", lost, unit="ms", most=5)
    work *= 1000 / blocks
    report(f"the same, of a core, which may be another, {place(compute)}", work, unit="ms")


def measure(task: MapTask, compute: ComputeSettings, blocks: int) -> None:
    """Run so many empty blocks; print what each took, and how memory grew."""
    process = psutil.Process()
    done, first = 0, 0

    def count(_: int, __: PartRecord) -> None:
        nonlocal done, first
        done += 1
        if done == int(_WARM * blocks):
            first = process.memory_info().rss

    with dask_client(compute) as client:
        start, before = time.perf_counter(), spent()
        run_tasks(Nothing(task), range(blocks), client=client, on_result=count)
        seconds, work = time.perf_counter() - start, spent() - before
        last = process.memory_info().rss
    where = place(compute)
    print(f"{where}: {1000 * seconds / blocks:.2f} ms per block ({1000 * work / blocks:.2f} ms of a core)")
    print(f"  memory at {_WARM:.0%} of {blocks:,} blocks {first / 2**20:.0f} MiB, at the end {last / 2**20:.0f} MiB")
    report(f"the engine's time per block, blocks without data, {where}", 1000 * seconds / blocks, unit="ms", most=5)
    report(f"memory after {blocks:,} blocks, to that at {_WARM:.0%} of them, {where}", last / first, most=1.05)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=100_000)
    parser.add_argument("--some", type=int, default=4_000, help="blocks on two processes")
    parser.add_argument("--slow", type=int, default=200, help=f"blocks of {_SLOW:g} s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        task = task_of(Path(temporary))
        print(f"the work, {len(pickle.dumps(task)):,} bytes, is sent to each worker once; a block, its number")
        for compute, blocks in ((ComputeSettings(workers=2), options.some), (ComputeSettings(), options.blocks)):
            slow(task, compute, options.slow)
            measure(task, compute, blocks)


if __name__ == "__main__":
    main()

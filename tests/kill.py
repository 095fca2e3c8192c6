"""Kill whole jobs at random moments, start them again each time, and compare what comes out with an undisturbed job.

    python tests/kill.py --times 20 [--seed 0] [--workers 2]

A job is all stages, then the explanations of its map. After each kill every file with a final name is opened and read to its
end; maps, parts of maps, weights and chips must hold what they hold in the undisturbed job.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import safetensors.torch
import torch
import yaml
from rasterio.windows import from_bounds

ROOT = Path(__file__).parent.parent
# Commands one after the other in one process: what is killed is the work, not a program that starts.
_CODE = """
import json, sys
from workflows.cli import main
for command in json.loads(sys.argv[1]):
    try:
        main(command)
    except SystemExit as end:
        if end.code:
            raise
"""
STAGES = ("prepare", "train", "predict", "evaluate", "explain", "importance", "report")
# A job is killed within the first third of the time it takes undisturbed: so it goes on, and is killed several times.
_REACH = 1 / 3
_TRIES = 200


def begin(*commands: Sequence[str], log: int | Any = subprocess.PIPE) -> subprocess.Popen[bytes]:
    """Start landweave with some commands, one after the other; what it says goes to ``log``."""
    command = [sys.executable, "-c", _CODE, json.dumps([list(map(str, c)) for c in commands])]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=log, stderr=log)


def _raster(path: Path) -> None:
    with rasterio.open(path) as raster:
        for _, window in raster.block_windows(1):
            raster.read(window=window)


def _table(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lengths = {len(row) for row in csv.reader(text.splitlines())}
    if not text.endswith("\n") or len(lengths) != 1:
        raise ValueError(f"rows of {sorted(lengths)} cells, ending in {text[-20:]!r}")


def _page(path: Path) -> None:
    if not path.read_text(encoding="utf-8").rstrip().endswith("</html>"):
        raise ValueError("the page does not end")


_READERS: dict[str, Callable[[Path], object]] = {
    ".tif": _raster,
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".yaml": lambda path: yaml.safe_load(path.read_text(encoding="utf-8"))["imagery"],
    ".csv": _table,
    ".html": _page,
    ".qml": ElementTree.parse,
    ".xml": ElementTree.parse,
    ".safetensors": safetensors.torch.load_file,
    ".ckpt": lambda path: torch.load(path, weights_only=True),
}
# What is appended to has a checksum a line, and says nothing by its end; a lock and a key are a line; a mosaic in work is
# described anew each time.
_OTHER = ("manifest.jsonl", "lock", "key")
_SCRATCH = "mosaic"


def partial(output: Path) -> list[str]:
    """Return the files with final names that cannot be read to their end, and why; names that begin with a dot are not final."""
    wrong = []
    for folder, folders, files in os.walk(output):
        folders[:] = [f for f in folders if f != _SCRATCH and (not f.startswith(".") or f == ".landweave")]
        if "chips.zarr" in folders:
            folders.remove("chips.zarr")
        for path in (Path(folder) / name for name in files if not name.startswith(".")):
            try:
                if path.name not in _OTHER:
                    _READERS[path.suffix](path)
            except Exception as error:  # noqa: BLE001 - whatever it is, it stands in the way of reading
                wrong.append(f"{path.relative_to(output)}: {type(error).__name__}: {error}")
    return wrong


def other(output: Path, reference: Path) -> list[str]:
    """Return what differs from an undisturbed job, of what is there: maps and weights by bytes, parts and chips by values.

    A map says on which day, and when, its network was trained: that alone may differ.
    """
    wrong = []
    exact = ("maps/[!.]*.tif", "model/[!.]*.safetensors", "report/accuracy.json", "report/areas.csv")
    for path in (p for pattern in exact for p in output.glob(pattern)):
        if _undated(path) != _undated(reference / path.relative_to(output)):
            wrong.append(f"{path.relative_to(output)} is another one")
    for path in output.glob(".landweave/*parts/*/[0-9]*.tif"):
        with rasterio.open(path) as part, rasterio.open(reference / "maps" / f"{path.parent.name}.tif") as whole:
            held, there = part.read(), whole.read(window=from_bounds(*part.bounds, whole.transform))
            if not np.array_equal(held, there, equal_nan=held.dtype.kind == "f"):
                wrong.append(f"{path.relative_to(output)} is not that piece of the map")
    if (output / "chips.zarr").exists() and chips(output) != chips(reference):
        wrong.append("chips.zarr holds other chips")
    return wrong


def _undated(path: Path) -> bytes:
    """Return the bytes of a file, without the date in a raster's tags."""
    held = path.read_bytes()
    if path.suffix != ".tif":
        return held
    with rasterio.open(path) as raster:
        date = raster.tags()["date"].encode()
    return held.replace(date, b"-" * len(date))


def chips(output: Path) -> dict[str, str]:
    """Return a checksum of each array of the chip store."""
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((output / "chips.zarr").rglob("c/*"))
        if path.is_file()
    }


def make(folder: Path, workers: int | str) -> Path:
    """Make a scene, its labels and a job in a folder; return the job."""
    from conftest import write_job, write_labels, write_scene

    write_scene(folder / "scene.tif", side=160)
    write_labels(folder / "fields.gpkg", side=160)
    return write_job(
        folder / "job.yaml",
        model={"name": "unet", "width": 4, "depth": 1},
        training={"epochs": 8, "track": ["csv"], "augment": ["flip", "rotate"]},
        predict={"layers": ["classes", "confidence", "probabilities"], "block": 32},
        compute={"workers": workers, "threads": 1},
    )


def stage(log: Path) -> str:
    """Return the stage that a job was in, by what it said last; empty before the first."""
    said = [line.partition(":")[0].strip() for line in log.read_text(encoding="utf-8").splitlines()]
    return next((line for line in reversed(said) if line in STAGES), "")


def attempt(job: Path, log: Path, seconds: float) -> int | None:
    """Run a job, killed so long after its first stage has begun; return its exit status, or None if it was killed."""
    with log.open("wb") as stream:
        process = begin(["run", str(job)], ["explain", str(job)], log=stream)
        while process.poll() is None and not stage(log):
            time.sleep(0.01)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return None


def main() -> None:
    """Kill, start again and compare; exit with 1 at the first difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20, help="kills")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument(
        "--workers", type=int, default=0, help="processes; default: threads of the process that is killed"
    )
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    where: Counter[str] = Counter()
    finished = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder, log = Path(temporary), Path(temporary) / "log.txt"
        job, output, reference = make(folder, options.workers or "auto"), folder / "out", folder / "undisturbed"
        start = time.monotonic()
        if attempt(job, log, 3600) != 0:
            raise SystemExit(log.read_text(encoding="utf-8"))
        whole = time.monotonic() - start
        output.rename(reference)
        print(f"undisturbed: {whole:.0f} s", flush=True)
        # It ends with a job that is left alone until it is done.
        for number in range(_TRIES):
            enough = where.total() >= options.times
            status = attempt(job, log, 3600 if enough else rng.uniform(0, _REACH * whole))
            wrong = partial(output) + other(output, reference)
            if status is None:
                where[stage(log)] += 1
                print(f"{where.total()}: killed in {stage(log)}", flush=True)
            elif status == 0:
                wrong += [str(p) for p in reference.glob("maps/*") if not (output / p.relative_to(reference)).exists()]
                finished += 1
                output.rename(folder / f"finished-{number}")
                print("  done, the same as the undisturbed one" if not wrong else "  done", flush=True)
            if wrong or status:
                raise SystemExit("\n".join([f"exit status {status}", *wrong, log.read_text(encoding="utf-8")]))
            if enough:
                break
    print(
        f"killed {where.total()} times ({', '.join(f'{n} in {s}' for s, n in where.most_common())}), started again each time:"
    )
    print(f"{finished} jobs done, each with the bytes of the undisturbed one; no final name held a partial file")


if __name__ == "__main__":
    main()

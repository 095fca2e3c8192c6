"""Run the benchmarks and write the table of docs/performance.md: the machine, what was measured, and what was asked for.

    python benchmarks/table.py [--quick] [--write] [NAME ...]

With names only those are run, and their rows are printed; ``--write`` puts them into the table. Rows of other benchmarks stay
where they were measured on the same machine with the same versions.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import rasterio
import torch
from common import FIGURES, shown

from pipeline.engine import cores

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
_NO_BENCHMARKS = ("common", "table")
# These prove something, or make a page of their own.
_APART = ("country", "export", "paper", "ranks")
_ROW = re.compile(r"\| `(\w+)\.py")
_PACKAGES = ("landweave", "torch", "lightning", "numpy", "rasterio", "distributed", "zarr")
# What makes a benchmark short: minutes for all of them on two cores.
QUICK = {
    "blocks": "--blocks 20000 --some 4000",
    "chips": "--side 2048 --features 1000 --large 8192 --turns 2 --repeat 8",
    "feeding": "--side 1536 --samples 8000 --epochs 1",
    "predict": "",
    "reading": "--side 4096 --repeats 3",
    "mosaic": "--repeats 3",
    "memory": "--small 2048 --large 6144 --season 1024 --explained 1024",
    "series": "--dates 137",
    "networks": "unet cnn lstm --seconds 0.5",
    "saliency": "--side 64 --pixels 20 --block 96 --repeat 2",
}


def machine() -> str:
    """Return a line about this machine."""
    processor = platform.processor() or platform.machine()
    about = Path("/proc/cpuinfo")
    if about.is_file():
        models = [
            line.partition(":")[2].strip() for line in about.read_text().splitlines() if line.startswith("model name")
        ]
        processor = models[0] if models else processor
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return (
        f"{cores()} cores ({processor}), {psutil.virtual_memory().total / 2**30:.0f} GiB of memory, "
        f"{', '.join(gpus) or 'no GPU'}; {platform.system()}"
    )


def versions() -> str:
    """Return a line about what was measured with."""
    found = [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES]
    return ", ".join([f"Python {platform.python_version()}", *found, f"GDAL {rasterio.__gdal_version__}"])


def figures(name: str, arguments: list[str]) -> tuple[list[dict[str, Any]], bool]:
    """Run a benchmark; return its figures, and whether it came to its end."""
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "figures.jsonl"
        paths = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {FIGURES: str(file), "PYTHONPATH": paths}
        done = subprocess.run([sys.executable, str(HERE / f"{name}.py"), *arguments], env=environment, check=False)
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [json.loads(line) for line in lines], done.returncode == 0


def row(command: str, figure: dict[str, Any]) -> str:
    """Return a row of the table."""
    value, unit, least, most = (figure[k] for k in ("value", "unit", "least", "most"))
    asked, met = "", ""
    if least is not None:
        asked, met = f"at least {shown(least, unit)}", "yes" if value >= least else "no"
    elif most is not None:
        asked, met = f"at most {shown(most, unit)}", "yes" if value <= most else "no"
    day = datetime.datetime.now(datetime.UTC).date()
    return f"| `{command}` | {figure['figure']} | {shown(value, unit)} | {asked} | {met} | {day} |"


def kept(page: str, names: list[str], about: str) -> list[str]:
    """Return the rows that stand on the page of other benchmarks; none if they are of another machine or other versions."""
    lines = page.partition(BEGIN)[2].partition(END)[0].splitlines()
    if about not in "\n".join(lines):
        return []
    return [line for line in lines if (found := _ROW.match(line)) and found[1] not in names]


def main() -> None:
    """Run, collect and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = sorted(p.stem for p in HERE.glob("*.py") if p.stem not in (*_NO_BENCHMARKS, *_APART))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(every)}; default: all")
    parser.add_argument("--quick", action="store_true", help="small sizes: minutes on two cores, and coarser figures")
    parser.add_argument("--write", action="store_true", help="write the rows of some benchmarks, too; others stay")
    options = parser.parse_args()
    if unknown := set(options.names) - set(every):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    rows, broken = [], []
    for name in options.names or every:
        arguments = QUICK.get(name, "") if options.quick else ""
        command = f"{name}.py {arguments}".rstrip()
        print(f"## {command}", flush=True)
        found, whole = figures(name, arguments.split())
        rows += [row(command, figure) for figure in found]
        broken += [] if whole else [command]
    about = f"Measured on {machine()}.\nWith {versions()}."
    print("\n".join([about, *rows]))
    if broken:
        raise SystemExit(f"did not come to their end, so that nothing is written: {'; '.join(broken)}")
    if options.write or not options.names:
        page = PAGE.read_text(encoding="utf-8")
        rows = sorted(rows + kept(page, options.names or every, about), key=lambda line: _ROW.match(line)[1])  # type: ignore[index]
        head = ["| benchmark | figure | measured | asked for | met | on |", "|---|---|---|---|---|---|"]
        before, _, rest = page.partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(before + "\n".join([BEGIN, "", about, "", *head, *rows, "", END]) + after, encoding="utf-8")


if __name__ == "__main__":
    main()

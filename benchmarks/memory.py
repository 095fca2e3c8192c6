"""Peak memory of `predict`: it is as planned, and grows neither with the raster nor with the number of dates.

``--quick`` compares plan and measurement alone, on small rasters.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import get_args

from common import make_bundle, make_raster, make_series, report, request

from models.settings import Method, SaliencySettings
from workflows.console import Console
from workflows.output import Output
from workflows.predict import make_map
from workflows.request import STAGES

# Of what a small machine has: blocks follow from it.
BUDGET = "1GiB"
# Memory does not grow with these, time does.
QUICK = {"samples": 2, "steps": 2, "patch": 16, "step": 16}


def child(folder: Path, raster: Path, method: str) -> None:
    """Map one raster in this process, explained or not, and print its peak memory in MiB."""
    from models.bundle import Bundle

    model = folder / f"model-{raster.stem}"
    bundle = Bundle.load(model)
    layers = ["classes", "confidence"] + ["saliency"] * bool(method)
    job = request(raster, model, bundle, layers, 2, memory=BUDGET)
    if method:
        job = replace(job, saliency=SaliencySettings.model_validate({"method": method, **QUICK}))
    made = [layer for stage in STAGES for layer in job.layers(stage)]
    plan = job.plan(job.explanations, made)
    make_map(job, Output(folder / f"{raster.stem}-{method}"), Console(quiet=True), overwrite=False)
    in_blocks = plan.crew.threads * plan.needs.block(plan.side) / 2**20
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(plan.crew.threads, plan.blocks.size, in_blocks, plan.peak / 2**20, found)


# Measured peaks to planned ones.
RATIOS: list[float] = []


def peak(folder: Path, raster: Path, method: str = "", *, keep: bool = False) -> tuple[float, float]:
    """Map a raster in a process of its own; return its peak memory, and what of it is beyond the plan of its blocks, in MiB."""
    command = [sys.executable, __file__, "--child", str(folder), str(raster), method]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    threads, side, *sizes = done.stdout.split()
    in_blocks, planned, found = map(float, sizes)
    if not keep:
        raster.unlink()
    RATIOS.append(found / planned)
    print(
        f"{raster.stem + ' ' * bool(method) + method:>32}: {threads} blocks of {side} px at once, {in_blocks:.0f} MiB; "
        f"planned {planned:.0f} MiB, peak {found:.0f} MiB, ratio {found / planned:.2f}"
    )
    return found, found - in_blocks


def planned(folder: Path) -> None:
    """Compare peaks with plans, two threads each."""
    raster = make_raster(folder / "unet.tif", 2048)
    make_bundle(folder / "model-unet", "unet", {})
    for method in ("", "gradient", "integrated_gradients"):
        peak(folder, raster, method, keep=True)
    series = make_series(folder / "lstm.tif", 768, 24)
    make_bundle(folder / "model-lstm", "lstm", {"hidden": 16}, dates=24)
    peak(folder, series)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=4096)
    parser.add_argument("--large", type=int, default=16384)
    parser.add_argument("--season", type=int, default=2048, help="side of the raster with dates")
    parser.add_argument("--few", type=int, default=24, help="dates")
    parser.add_argument("--many", type=int, default=96, help="dates")
    parser.add_argument("--explained", type=int, default=2048, help="side of the raster that is explained")
    parser.add_argument("--quick", action="store_true", help="compare plan and measurement alone")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        folder, raster, method = options.child
        child(Path(folder), Path(raster), method)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        print(f"budget {BUDGET}")
        planned(folder)
        report("measured peak to the planned one, the largest of four maps and explanations", max(RATIOS), most=1.25)
        report("the same, the smallest of four", min(RATIOS), least=0.75)
        if options.quick:
            return
        peaks = []
        for side in (options.small, options.large):
            raster = make_raster(folder / f"{side}x{side}.tif", side)
            # A narrow network: memory per block is what it is, and the large raster takes minutes, not an hour.
            make_bundle(folder / f"model-{raster.stem}", "unet", {"width": 8, "depth": 2})
            peaks.append(peak(folder, raster))
        figure = f"peak memory of predict, a raster of {options.large} px to one of {options.small} px"
        report(figure, peaks[1][0] / peaks[0][0], most=1.25)
        peaks = []
        for dates in (options.few, options.many):
            raster = make_series(folder / f"{dates}-dates.tif", options.season, dates)
            make_bundle(folder / f"model-{raster.stem}", "rnn", {"hidden": 4, "direction": "forward"}, dates=dates)
            peaks.append(peak(folder, raster))
        figure = f"memory beyond the plan of the blocks, {options.many} dates to {options.few}"
        report(figure, peaks[1][1] / peaks[0][1])
        raster = make_raster(folder / "explained.tif", options.explained)
        make_bundle(folder / f"model-{raster.stem}", "unet", {"width": 8, "depth": 2})
        plain = peak(folder, raster, keep=True)[0]
        worst = max(peak(folder, raster, method, keep=True)[0] for method in get_args(Method))
        report("peak memory, the most that a method of saliency takes to the map alone", worst / plain)


if __name__ == "__main__":
    main()

"""Peak memory of `predict`: it must grow neither with the raster nor with the number of dates; blocks grow smaller."""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from common import make_bundle, make_raster, make_series, request

from workflows.console import Console
from workflows.output import Output
from workflows.predict import bytes_per_pixel, make_map

# Of what a small machine has: blocks follow from it.
BUDGET = "1GiB"


def child(folder: Path, raster: Path) -> None:
    """Map one raster in this process and print its peak memory in MiB."""
    from models.bundle import Bundle

    model = folder / f"model-{raster.stem}"
    bundle = Bundle.load(model)
    job = request(raster, model, bundle, ["classes", "confidence"], 2, memory=BUDGET)
    make_map(job, Output(folder / raster.stem), Console(quiet=True), overwrite=False)
    side = job.blocks().size + 2 * job.blocks().halo
    planned = 2 * bytes_per_pixel(bundle.network, job.cube, gradient=False) * side**2 / 2**20
    print(job.blocks().size, planned, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def peak(folder: Path, raster: Path) -> tuple[float, float]:
    """Map a raster in a process of its own; return its peak memory, and what of it is beyond the plan of its blocks, in MiB."""
    command = [sys.executable, __file__, "--child", str(folder), str(raster)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    side, planned, found = done.stdout.split()
    raster.unlink()
    beyond = float(found) - float(planned)
    print(f"{raster.stem:>20}: 2 blocks of {side} px planned {float(planned):.0f} MiB, peak {float(found):.0f} MiB")
    return float(found), beyond


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=4096)
    parser.add_argument("--large", type=int, default=16384)
    parser.add_argument("--season", type=int, default=2048, help="side of the raster with dates")
    parser.add_argument("--few", type=int, default=24, help="dates")
    parser.add_argument("--many", type=int, default=96, help="dates")
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        print(f"budget {BUDGET}")
        peaks = []
        for side in (options.small, options.large):
            raster = make_raster(folder / f"{side}x{side}.tif", side)
            # A narrow network: memory per block is what it is, and the large raster takes minutes, not an hour.
            make_bundle(folder / f"model-{raster.stem}", "unet", {"width": 8, "depth": 2})
            peaks.append(peak(folder, raster))
        print(f"ratio of peaks, large to small: {peaks[1][0] / peaks[0][0]:.3f}")
        peaks = []
        for dates in (options.few, options.many):
            raster = make_series(folder / f"{dates}-dates.tif", options.season, dates)
            make_bundle(folder / f"model-{raster.stem}", "rnn", {"hidden": 4, "direction": "forward"}, dates=dates)
            peaks.append(peak(folder, raster))
        print(f"ratio of what is beyond the plan, many dates to few: {peaks[1][1] / peaks[0][1]:.3f}")


if __name__ == "__main__":
    main()

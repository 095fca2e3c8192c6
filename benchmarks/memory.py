"""Peak memory of `predict` on a small and a large raster: it must not grow with the raster."""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from common import make_bundle, make_raster, request

from workflows.console import Console
from workflows.output import Output
from workflows.predict import make_map


def child(folder: Path, raster: Path) -> None:
    """Map one raster in this process and print its peak memory in MiB."""
    from models.bundle import Bundle

    bundle = Bundle.load(folder / "model")
    job = request(raster, folder / "model", bundle, ["classes", "confidence"], 2)
    make_map(job, Output(folder / raster.stem), Console(quiet=True), overwrite=False)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=4096)
    parser.add_argument("--large", type=int, default=16384)
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # A narrow network: memory per block is what it is, and the large raster takes minutes, not an hour.
        make_bundle(folder / "model", "unet", {"width": 8, "depth": 2})
        peaks = []
        for side in (options.small, options.large):
            raster = make_raster(folder / f"scene{side}.tif", side)
            command = [sys.executable, __file__, "--child", str(folder), str(raster)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks.append(float(done.stdout))
            raster.unlink()
            print(f"{side:>6} x {side} x 4: peak {peaks[-1]:.0f} MiB")
        print(f"ratio {peaks[1] / peaks[0]:.3f}")


if __name__ == "__main__":
    main()

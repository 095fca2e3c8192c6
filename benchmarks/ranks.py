"""What several ranks learn beside what one learns from the same data: figures of the test fold, over seeds.

Each row is one training of `unet` on a made-up scene, with dropout and augmentation, which are drawn per rank. The difference
of the means is to be compared with its standard error. At the end one and the same bundle is evaluated by a job of one device
and by one of several, whose figures must be the same to the last digit.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from statistics import fmean, stdev

from workflows.console import Console
from workflows.context import Context
from workflows.load import make_job
from workflows.run import run
from workflows.scene import Scene, make_scene

FIGURES = ("overall", "kappa", "macro_f1")


def figures(scene: Scene, folder: Path, devices: int, seed: int, epochs: int, output: str = "") -> dict[str, float]:
    """Run a job to its figures on the test fold."""
    raw = {
        "imagery": [{"path": str(path)} for path in scene.rasters],
        "labels": {"path": str(scene.labels), "field": scene.field},
        "folds": {"k": 0, "seed": 0},
        "output": output or f"out-{devices}-{seed}",
        "model": {"name": "unet", "width": 8, "depth": 1},
        "training": {"epochs": epochs, "devices": devices, "seed": seed, "track": []},
        "predict": {"layers": ["classes"]},
    }
    context = Context(make_job(raw, (), base=folder), Console(quiet=True))
    run(context, ("prepare", "train", "predict", "evaluate"))
    found = json.loads((context.output.report / "accuracy.json").read_text())
    return {name: found[name] for name in FIGURES}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--side", type=int, default=384)
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = make_scene(folder / "scene", side=options.side)
        rows: dict[int, list[dict[str, float]]] = {}
        print(f"{'devices':>8}{'seed':>6}" + "".join(f"{f:>10}" for f in FIGURES))
        for devices in (1, options.devices):
            for seed in range(options.seeds):
                found = figures(scene, folder, devices, seed, options.epochs)
                rows.setdefault(devices, []).append(found)
                print(f"{devices:>8}{seed:>6}" + "".join(f"{found[f]:>10.4f}" for f in FIGURES), flush=True)
        for f in FIGURES:
            one, several = ([r[f] for r in rows[d]] for d in (1, options.devices))
            error = ((stdev(one) ** 2 + stdev(several) ** 2) / options.seeds) ** 0.5
            print(f"{f}: {options.devices} devices minus one {fmean(several) - fmean(one):+.4f} +- {error:.4f}")
        # The same bundle, evaluated anew by a job of several devices.
        output = "out-1-0"
        before = rows[1][0]
        shutil.rmtree(folder / output / "report")
        again = figures(scene, folder, options.devices, 0, options.epochs, output)
        print(
            f"one bundle, evaluated by one device and by {options.devices}: {'the same' if again == before else 'DIFFERENT'}"
        )


if __name__ == "__main__":
    main()

"""The whole job on a made-up scene, judged against the truth that only a made-up scene has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from pipeline.files import write_text
from pipeline.maps.accuracy import Accuracy, confusion
from pipeline.samples.legend import Legend
from workflows.console import Console
from workflows.context import Context
from workflows.jobtext import commented
from workflows.load import load_job
from workflows.quicklook import quicklook, terminal_picture
from workflows.run import run
from workflows.scene import make_scene


def demo(
    folder: Path, console: Console, *, overrides: tuple[str, ...] = (), overwrite: bool = False, side: int = 1024
) -> list[tuple[str, Path]]:
    """Make a scene, train, map, explain and report; return what was made and where."""
    console.stage(f"demo: a scene of {side} x {side} pixels in {folder}")
    scene = make_scene(folder / "scene", side=side)
    path = folder / "job.yaml"
    values: dict[str, Any] = {
        "name": "demo",
        "output": "out",
        "imagery": [{"path": str(r.relative_to(folder))} for r in scene.rasters],
        "labels": {"path": str(scene.labels.relative_to(folder)), "field": scene.field},
        "model": {"name": "unet"},
    }
    if not path.exists():
        write_text(path, commented(values) + "\n")
    context = Context(load_job(path, overrides), console, overwrite=overwrite)
    made = run(context)
    classes = context.output.maps / "classes.tif"
    legend = context.labels.legend
    picture = context.output.report / "classes.png"
    quicklook(classes, legend.classes, picture)
    overall = _against_truth(classes, scene.truth, legend)
    console.picture(terminal_picture(classes, legend.classes))
    console.note(f"of all pixels mapped, {100 * overall:.1f} % are as the truth of the scene has them")
    return [*made, ("picture", picture), ("job file", path)]


def _against_truth(classes: Path, truth: Path, legend: Legend) -> float:
    """Return the share of mapped pixels that are right: the scene's truth holds the class names in its tags."""
    total = np.zeros((len(legend.classes),) * 2, dtype=np.int64)
    with rasterio.open(classes) as a, rasterio.open(truth) as b:
        names = {int(code): name for code, name in (t.split("=", 1) for t in b.tags()["classes"].split(";"))}
        truth_index = {code: i for i, c in enumerate(legend.classes) for code, n in names.items() if n == c.name}
        map_index = {c.code: i for i, c in enumerate(legend.classes)}
        for _, window in a.block_windows(1):
            mapped, true = a.read(1, window=window), b.read(1, window=window)
            m, t = _lookup(mapped, map_index), _lookup(true, truth_index)
            both = (m >= 0) & (t >= 0)
            total += confusion(t[both], m[both], len(legend.classes))
    return float(Accuracy.of(total, list(legend.classes)).overall or 0.0)


def _lookup(values: np.ndarray[Any, Any], index: dict[int, int]) -> np.ndarray[Any, Any]:
    table = np.full(65536, -1, dtype=np.int64)
    for code, i in index.items():
        table[code] = i
    return np.asarray(table[values.astype(np.int64)])

"""Open everything a job names, print what will be done, and find what would fail: nothing is written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from models.inference import activation_bytes
from models.network import flop_per_pixel
from pipeline.engine import cores, memory_budget
from pipeline.grid import Window, crs_name, whole
from workflows.console import quantity
from workflows.predict import block_grid

if TYPE_CHECKING:
    from workflows.context import Context

# Bytes per pixel that the layers take on disk before compression.
_LAYER_BYTES = {"classes": 1, "confidence": 2, "probabilities": 2, "saliency": 4}


def check(context: Context) -> None:
    """Print grid, bands, dates, labels, folds, blocks, memory and disk of a job.

    Raises
    ------
    LandweaveError
        The first thing that would fail.
    """
    job, console = context.job, context.console
    console.stage(f"check: {job.name}")
    cube = context.cube
    box = cube.geobox
    height, width = int(box.shape.y), int(box.shape.x)
    console.table(
        "  imagery",
        ("", ""),
        [
            ("grid", f"{width} x {height} px, {crs_name(box)}, {abs(box.resolution.x):g} x {abs(box.resolution.y):g}"),
            ("bands", ", ".join(cube.bands)),
            ("dates", ", ".join(d.isoformat() if d else "undated" for d in cube.dates)),
            ("files", len({s.path for s in cube.sources})),
        ],
    )
    _read_corners(context)
    labels = context.labels
    rows = labels.report()
    if rows:
        columns = list(rows[0])
        console.table("  labels", columns, [[r[c] for c in columns] for r in rows])
    folds = context.folds
    network = context.network()
    blocks = block_grid(network, cube.geobox, job.predict, job.saliency, job.compute)
    threads = cores() if job.compute.threads == "auto" else job.compute.threads
    per_pixel = activation_bytes(network, gradient=blocks.halo > network.halo)
    memory = threads * per_pixel * (blocks.size + 2 * blocks.halo) ** 2
    per_layer = sum(_LAYER_BYTES[name] for name in job.predict.layers)
    free = shutil.disk_usage(_existing(job.folder)).free
    console.table(
        "  plan",
        ("", ""),
        [
            ("folds", f"{folds.method}, {len(folds.names)} ({', '.join(folds.names)}), buffer {folds.buffer} px"),
            ("network", f"{job.model.name}: {sum(p.numel() for p in network.parameters()):,} parameters"),
            ("", f"halo {network.halo} px, stride {network.stride} px, {quantity(flop_per_pixel(network))}FLOP/px"),
            ("chips", f"{context.chip_size} x {context.chip_size} px"),
            ("blocks", f"{len(blocks)} of {blocks.size} px, read with {blocks.halo} px around"),
            ("threads", threads),
            (
                "memory",
                f"about {quantity(memory)}B in forward passes, of {quantity(memory_budget(job.compute.memory))}B",
            ),
            (
                "disk",
                f"at most {quantity(2.0 * height * width * per_layer)}B for parts and maps, {quantity(free)}B free",
            ),
        ],
    )
    console.note("nothing was written")


def _read_corners(context: Context) -> None:
    """Read the first and the last window of the grid: a truncated file opens, and fails only at its end.

    Raises
    ------
    ReadError
        If a file cannot be read there; names it.
    """
    cube = context.cube
    full = whole(cube.geobox)
    side = 256
    for y, x in ((0, 0), (max(0, full.height - side), max(0, full.width - side))):
        window = Window(y=y, x=x, height=min(side, full.height), width=min(side, full.width))
        if not cube.read(window).valid.any():
            context.console.note(f"no valid pixel in {window}")


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder

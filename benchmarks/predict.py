"""How close `predict` comes to the limit of this machine: the forward pass, reading and writing, each alone, in one run.

The limit for n cores (pixels/s) is 1 / (1/R + a/F + 1/W): R the rate of reading alone, F that of the bare forward pass on
data in memory, W that of writing alone, each on n threads; a the cost of the halo, ((T + 2 halo) / T)^2 for blocks of T.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import rasterio
import torch
from common import make_bundle, make_raster, report, request

from models.inference import scores
from pipeline.engine import cores
from workflows.console import Console, quantity
from workflows.output import Output
from workflows.predict import make_map
from workflows.scoring import load_scorer


def rate(work: Callable[[int], int], items: int, threads: int) -> float:
    """Return units per second of ``work`` over items on threads."""
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        total = sum(pool.map(work, range(items)))
    return total / (time.perf_counter() - start)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--network", default="unet")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--depth", type=int, default=3)
    options = parser.parse_args()
    threads = cores()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        raster = make_raster(folder / "scene.tif", options.side)
        settings = {"width": options.width, "depth": options.depth} if options.network == "unet" else {}
        bundle = make_bundle(folder / "model", options.network, settings)
        job = request(raster, folder / "model", bundle, ["classes", "confidence"], threads)
        blocks = job.blocks(job.explanations)
        scorer = load_scorer(folder / "model", bundle.checksum)
        side = blocks.size + 2 * blocks.halo
        tensors = scorer.tensors(
            np.zeros((1, 1, 4, side, side), np.float32), np.ones((1, 1, side, side), bool), np.zeros((1, 1), np.float32)
        )

        def forward(_: int) -> int:
            with scorer.turn():
                scores(scorer.network, *tensors)
            return side * side

        def read(i: int) -> int:
            window = blocks[i].inner
            with rasterio.open(raster) as source:
                source.read(window=window.to_rasterio())
            return window.height * window.width

        profile = {
            "driver": "GTiff", "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate",
            "width": blocks.size, "height": blocks.size, "count": 1,
        }  # fmt: skip
        rng = np.random.default_rng(0)
        classes = np.kron(rng.integers(1, 9, (blocks.size // 16 + 1,) * 2), np.ones((16, 16)))
        classes = classes[: blocks.size, : blocks.size].astype(np.uint8)
        confidence = rng.integers(5000, 10000, classes.shape).astype(np.uint16)

        def write(i: int) -> int:
            for name, values, predictor in (("classes", classes, 1), ("confidence", confidence, 2)):
                path = folder / f"{name}-{i}.tif"
                with rasterio.open(path, "w", dtype=values.dtype, predictor=predictor, **profile) as target:
                    target.write(values, 1)
                path.unlink()
            return blocks.size**2

        forward(0)
        repeats = max(2 * threads, 8)
        f = rate(forward, repeats, threads)
        r = rate(read, len(blocks), threads)
        w = rate(write, repeats, threads)
        a = (side / blocks.size) ** 2
        start = time.perf_counter()
        make_map(job, Output(folder / "out"), Console(quiet=True), overwrite=False)
        whole = options.side**2 / (time.perf_counter() - start)
        again = rate(forward, repeats, threads)
        # Measured before and after, for machines are shared: the limit takes the faster of the two.
        limit = 1 / (1 / r + a / max(f, again) + 1 / w)
        parameters = sum(p.numel() for p in bundle.network.parameters())
        print(
            f"{options.network}, {parameters:,} parameters, {threads} threads, blocks of {blocks.size} + 2 x {blocks.halo} px"
        )
        print(f"forward pass alone   {quantity(f)}px/s (halo included), {quantity(again)}px/s at the end of the run")
        print(f"reading alone        {quantity(r)}px/s")
        print(f"writing alone        {quantity(w)}px/s")
        print(f"cost of the halo     {a:.2f}")
        print(f"limit                {quantity(limit)}px/s")
        print(f"predict              {quantity(whole)}px/s")
        report(f"predict with {options.network}, to the limit of this machine", whole / limit, least=0.85)


if __name__ == "__main__":
    main()

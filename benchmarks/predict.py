"""How close `predict` comes to the limit of this machine: the forward pass, reading and writing, each alone, in one run.

The limit for n cores (pixels/s) is 1 / (1/R + a/F + 1/W): R the rate of reading alone, F that of the bare forward pass on
data in memory, W that at which GDAL makes the map's files, overviews included, from memory, each on n threads; a the cost of
the halo, ((T + 2 halo) / T)^2 for blocks of T.

Then the engines, each against the exact path, on one thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rasterio
import rasterio.shutil
import torch
from common import make_bundle, make_raster, make_series, report, request
from rasterio.io import MemoryFile

from models.fast import Engine, EngineName, native_half, ready
from models.inference import prepare, scores
from models.network import ModelError, Network
from models.onnx import quantise, write_onnx
from pipeline.engine import cores
from pipeline.files import sync
from pipeline.maps.layers import Layer
from pipeline.maps.mosaic import cog_options
from workflows.console import Console, quantity
from workflows.output import Output
from workflows.predict import make_map
from workflows.scoring import load_scorer


@dataclass(frozen=True)
class Case:
    """A network and the raster that it maps. Of several dates there is one band."""

    side: int
    settings: dict[str, Any] = field(default_factory=dict)
    dates: int = 1
    block: int | str = "auto"
    tile: int = 256


# Each map takes about a minute on two cores, and has at least eight blocks for each of them.
CASES = {
    "unet": Case(4096, {"width": 32, "depth": 3}),
    "mlp": Case(12288),
    "lstm": Case(1024, {"hidden": 64, "direction": "forward"}, dates=24, block=256, tile=128),
}


def rate(work: Callable[[int], int], items: int, threads: int) -> float:
    """Return units per second of ``work`` over items on threads."""
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        total = sum(pool.map(work, range(items)))
    return total / (time.perf_counter() - start)


def limit(name: str, case: Case, folder: Path, threads: int) -> Network:
    """Map a raster, print how close that was to the limit, and return the network."""
    path = folder / "scene.tif"
    raster = make_raster(path, case.side) if case.dates == 1 else make_series(path, case.side, case.dates)
    bundle = make_bundle(folder / "model", name, case.settings, case.dates)
    job = request(raster, folder / "model", bundle, ["classes", "confidence"], threads)
    job = dataclasses.replace(job, predict=job.predict.model_copy(update={"block": case.block}))
    blocks = job.plan((), job.layers("predict")).blocks
    scorer = load_scorer(folder / "model", bundle.checksum)
    side = blocks.size + 2 * blocks.halo
    network = scorer.network
    tensors = tile(network, side)

    def forward(_: int) -> int:
        with scorer.turn():
            scores(network, *tensors)
        return side * side

    def read(i: int) -> int:
        window = blocks[i].inner
        with rasterio.open(raster) as source:
            source.read(window=window.to_rasterio())
        return window.height * window.width

    forward(0)
    # As long as a good part of the map takes: on a shared machine a moment may be a third faster than the next minute.
    repeats = max(2 * threads, len(blocks) // 2)
    f = rate(forward, repeats, threads)
    r = rate(read, len(blocks), threads)
    a = (side / blocks.size) ** 2
    whole = 0.0
    for turn in ("first", "out"):
        start = time.perf_counter()
        make_map(job, Output(folder / turn), Console(quiet=True), overwrite=False)
        whole = max(whole, case.side**2 / (time.perf_counter() - start))
    again = rate(forward, repeats, threads)
    w = written(folder / "out", job.layers("predict"), threads)
    bare = written(folder / "out", job.layers("predict"), threads, OVERVIEWS="NONE")
    # Measured before and after, and the map made twice, for machines are shared: the faster of two counts.
    most, without = (1 / (1 / r + a / max(f, again) + 1 / each) for each in (w, bare))
    parameters = sum(p.numel() for p in network.parameters())
    print(
        f"{name}, {parameters:,} parameters, {threads} threads, {len(blocks)} blocks of {blocks.size} + 2 x {blocks.halo} px"
    )
    print(f"  forward pass alone   {quantity(f)}px/s (halo included), {quantity(again)}px/s at the end of the run")
    print(f"  reading alone        {quantity(r)}px/s")
    print(f"  writing alone        {quantity(w)}px/s, {quantity(bare)}px/s without overviews")
    print(f"  cost of the halo     {a:.2f}")
    print(f"  limit                {quantity(most)}px/s, {quantity(without)}px/s without overviews")
    print(f"  predict              {quantity(whole)}px/s, {whole / without:.3f} of the limit without overviews")
    report(f"predict with {name}, to the limit of this machine", whole / most, least=0.85)
    return network


def written(folder: Path, layers: Sequence[Layer], threads: int, **options: str) -> float:
    """Return pixels per second of GDAL alone, from memory to the files of a map, as they are delivered: on the disk."""
    pixels, spent = 0, 0.0
    for layer in layers:
        with rasterio.open(folder / "maps" / f"{layer.name}.tif") as source, MemoryFile() as memory:
            profile = {**source.profile, "driver": "GTiff", "compress": "none", "predictor": 1}
            with memory.open(**profile) as target:
                target.write(source.read())
            with memory.open() as values:
                start = time.perf_counter()
                rasterio.shutil.copy(
                    values, folder / "alone.tif", driver="COG", **cog_options(layer, threads), **options
                )
                sync(folder / "alone.tif")
                spent += time.perf_counter() - start
            pixels = source.width * source.height
    return pixels / spent


def tile(network: Network, side: int) -> tuple[torch.Tensor, ...]:
    """Return a random tile, all of it valid."""
    cube = torch.randn(1, network.dates, network.bands, side, side)
    days = 16.0 * torch.arange(network.dates)[None]
    return cube, torch.ones(1, network.dates, side, side, dtype=torch.bool), days


def engines(network: Network, side: int, folder: Path) -> None:
    """Print how fast each engine is against the exact path, the best of four rounds, on one thread."""
    side = -(-side // network.stride) * network.stride
    made = {"torch": prepare(network)}
    half = native_half(torch.device("cpu"))
    names: list[EngineName] = [half] if half else []
    if not half:
        print("  torch-bf16           not run: this processor has no instructions for it")
    if all(importlib.util.find_spec(p) for p in ("onnx", "onnxruntime", "onnxscript")):
        names += ["onnx", "onnx-int8"]
    for name in names:
        path = folder / f"{name}.onnx"
        try:
            if name.startswith("onnx"):
                write_onnx(made["torch"], path)
            if name == "onnx-int8":
                quantise(path, path, [tile(network, 128) for _ in range(4)], network.name)
            made[name] = ready(made["torch"], Engine(name, path))
        except ModelError as error:
            print(f"  {name:20} {error}")
    given = tile(network, side)
    best = dict.fromkeys(made, float("inf"))
    for _ in range(4):
        for name, engine in made.items():
            start = time.perf_counter()
            scores(engine, *given)
            best[name] = min(best[name], time.perf_counter() - start)
    exact = scores(made["torch"], *given).argmax(1)
    for name, engine in list(made.items())[1:]:
        same = (scores(engine, *given).argmax(1) == exact).float().mean()
        # Of a network that has learned nothing: what the gate finds on a trained one is higher.
        text = f"{best['torch'] / best[name]:.2f} times the exact path, {100 * same:.2f} % of classes equal on noise"
        print(
            f"  {name:20} {text}",
            flush=True,
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=CASES, help="Only this one.")
    parser.add_argument("--side", type=int, help="Side of the raster, where another is wanted.")
    parser.add_argument("--block", type=int, help="Side of a block, where another is wanted.")
    parser.add_argument("--engines", action="store_true", help="Only compare the engines.")
    options = parser.parse_args()
    threads = cores()
    torch.set_num_threads(1)
    for name, case in CASES.items():
        if options.network not in (None, name):
            continue
        changed = {k: v for k in ("side", "block") if (v := getattr(options, k))}
        case = dataclasses.replace(case, **changed)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            if options.engines:
                network = make_bundle(folder / "model", name, case.settings, case.dates).network
                print(name)
            else:
                network = limit(name, case, folder, threads)
            engines(network, case.tile, folder)


if __name__ == "__main__":
    main()

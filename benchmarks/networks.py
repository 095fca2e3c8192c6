"""How fast each network learns and predicts on one thread, and what share of the machine's peak that is.

The peak is that of a convolution of 64 to 64 channels, the best that the library does on this machine, measured beside
each network, for machines are shared. The share is the network's own floating point operations per second over it; a step
of training counts as three forward passes. Of a network that learns from patches, training is counted in patches, and its
share is left out; below stands what its map would cost as one patch after another.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable

import torch
from common import report
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from models.cost import blank_tile, flop_per_pixel, parameters
from models.inference import prepare, scores
from models.network import Network
from models.table import NETWORKS, build
from workflows.console import quantity

CLASSES = 8


def rate(work: Callable[[], object], items: float, seconds: float) -> float:
    """Return items per second of the fastest of the runs that fit into a time; at least two after the first."""
    work()
    fastest, runs, end = float("inf"), 0, time.perf_counter() + seconds
    while runs < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        fastest = min(fastest, time.perf_counter() - start)
        runs += 1
    return items / fastest


def peak(seconds: float) -> float:
    """Return the floating point operations per second of a convolution."""
    side, width = 128, 64
    layer = nn.Conv2d(width, width, 3, padding=1).to(memory_format=torch.channels_last).requires_grad_(False)
    x = torch.randn(1, width, side, side).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        return rate(lambda: layer(x), 2 * 9 * width**2 * side**2, seconds)


def tile(network: Network, batch: int, height: int, width: int, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return cube, valid and time of random tiles; ``share`` is that of valid dates."""
    cube = torch.randn(batch, network.dates, network.bands, height, width)
    valid = torch.rand(batch, network.dates, height, width) < share
    return cube, valid, (torch.arange(network.dates) * 365 / network.dates).expand(batch, -1)


def prediction(network: Network, share: float, seconds: float) -> float:
    """Return pixels per second of `models.inference.scores`."""
    # A pixel network takes rows of a slab; a tile of a spatial one is small beside that of a map, whose rate is the same.
    height, width = (16, 512) if network.pixelwise else (128, 128)
    ready, inputs = prepare(network), tile(network, 1, height, width, share)
    return rate(lambda: scores(ready, *inputs), height * width, seconds)


def training(network: Network, share: float, seconds: float) -> float:
    """Return labelled pixels per second of steps of training on batches of chips, or of patches with one label each."""
    side = network.chip
    batch = 1024 if network.pixelwise else 4
    batch = 64 if network.centred else batch
    inputs = tile(network.train(), batch, side, side, share)
    labels = torch.randint(network.classes, (batch,) if network.centred else (batch, side, side))
    score = network.centre if network.centred else network
    optimizer = torch.optim.AdamW(network.parameters())

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(score(*inputs), labels).backward()
        optimizer.step()

    return rate(step, labels.numel(), seconds)


def flop_per_patch(network: Network) -> float:
    """Return floating point operations of the pass over a single patch."""
    shadow = copy.deepcopy(network).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shadow.centre(*blank_tile(shadow, shadow.chip, "meta"))
    return float(counter.get_total_flops())


def patches(network: Network, seconds: float) -> tuple[float, float]:
    """Return how much more every patch by itself costs than the map of them: in operations, and in time."""
    ready = prepare(network)
    inputs = tile(network, 256, network.chip, network.chip, 1.1)
    with torch.inference_mode():
        apart = rate(lambda: ready.centre(*inputs), 256, seconds)
    return flop_per_patch(network) / flop_per_pixel(network), prediction(network, 1.1, seconds) / apart


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(NETWORKS), help="networks; default: all")
    parser.add_argument("--dates", type=int, default=24)
    parser.add_argument("--bands", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=1.5, help="for each figure")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(
        f"{options.dates} dates, {options.bands} bands, {CLASSES} classes, one thread; a fifth of the dates masked, or none"
    )
    heads = ("parameters", "FLOP/px", "peak FLOP/s", "predict px/s", "none masked", "share", "train px/s", "share")
    print(f"{'network':12}" + "".join(f"{head:>13}" for head in heads))
    for name in options.names:
        network = build(name, {}, bands=options.bands, dates=options.dates, classes=CLASSES)
        flop = flop_per_pixel(network)
        most = peak(options.seconds / 3)
        predicted = prediction(network, 0.8, options.seconds)
        whole = prediction(network, 1.1, options.seconds)
        trained = training(network, 0.8, options.seconds)
        most = max(most, peak(options.seconds / 3))
        figures = (
            f"{parameters(network):,}", quantity(flop), quantity(most), quantity(predicted), quantity(whole),
            f"{max(predicted, whole) * flop / most:.2f}", quantity(trained),
            "" if network.centred else f"{3 * trained * flop / most:.2f}",
        )  # fmt: skip
        print(f"{name:12}" + "".join(f"{figure:>13}" for figure in figures))
        report(
            f"{name}: predicting on one thread, share of the peak of a convolution", max(predicted, whole) * flop / most
        )
        if network.centred:
            flop_ratio, time_ratio = patches(network.eval(), options.seconds)
            print(
                f"{'':12}    every patch by itself: {flop_ratio:.1f} times the operations, {time_ratio:.1f} times the time"
            )


if __name__ == "__main__":
    main()

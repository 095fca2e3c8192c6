"""What each method of saliency costs in forward passes, ours and Captum's on the same tile, with the same results.

A forward pass is `models.inference.scores`; all run on one thread, as a block of a map does. Captum is given the same
prepared network, settings and target; it draws its own noise, so that its SmoothGrad is another. Of occlusion it knows the
fall of the whole map, which ours are summed up to. Below stands what patch occlusion costs on a block, against one pass per
patch over the block, and against one pass per patch over no more than what sees it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import get_args

import torch
from captum.attr import FeatureAblation, InputXGradient, IntegratedGradients, NoiseTunnel, Occlusion, Saliency
from common import report
from torch import Tensor

from models.inference import prepare, scores
from models.saliency.methods import Explainer
from models.settings import Method, SaliencySettings
from models.table import build

CLASSES = 8
BANDS = 6
SETTINGS = SaliencySettings()
BAR = 1e-5  # how far results may be apart


class Tile:
    """A prepared network, a random tile, and the classes that win on it."""

    def __init__(self, name: str, dates: int, side: int) -> None:
        self.network = prepare(build(name, {}, bands=BANDS, dates=dates, classes=CLASSES))
        self.cube = torch.randn(1, dates, BANDS, side, side)
        self.valid = torch.ones(1, dates, side, side, dtype=torch.bool)
        self.time = torch.arange(dates)[None] * 365.0 / dates
        self.winner = self.forward().argmax(1, keepdim=True)

    def forward(self) -> Tensor:
        """Return the scores, without a gradient."""
        return scores(self.network, self.cube, self.valid, self.time)

    def ours(self, method: Method) -> Tensor:
        """Return the attribution (1, T, C, H, W)."""
        explainer = Explainer(method=method, settings=SETTINGS, baseline=(0.0,) * BANDS)
        return explainer(self.network, self.cube, self.valid, self.time, self.valid[:, 0], [(0, 0)])[0]

    def score(self, cube: Tensor) -> Tensor:
        """Return the sum of the scores of the classes that win, (1,)."""
        return self.network(cube, self.valid, self.time).gather(1, self.winner).sum((1, 2, 3))

    def chance(self, cube: Tensor) -> Tensor:
        """Return the sum of their probabilities, (1,): in double precision, for what one patch changes of it is little."""
        found = scores(self.network, cube, self.valid, self.time).softmax(1)
        return found.gather(1, self.winner).double().sum((1, 2, 3))

    def captum(self, method: Method) -> Tensor:
        """Return the attribution of Captum, (1, T, C, H, W)."""
        x = self.cube.clone()
        dates, side = x.shape[1], SETTINGS.patch
        if method == "gradient":
            return Saliency(self.score).attribute(x.requires_grad_(), abs=False)
        if method == "gradient_input":
            return InputXGradient(self.score).attribute(x.requires_grad_())
        if method == "smoothgrad":
            own = {"nt_samples": SETTINGS.samples, "nt_samples_batch_size": 1, "stdevs": SETTINGS.noise}
            return NoiseTunnel(Saliency(self.score)).attribute(x.requires_grad_(), **own, abs=False)
        if method == "integrated_gradients":
            return IntegratedGradients(self.score).attribute(x, n_steps=SETTINGS.steps, internal_batch_size=1)
        if method == "occlusion_patch":
            step = SETTINGS.step
            return Occlusion(self.chance).attribute(x, (dates, BANDS, side, side), strides=(dates, BANDS, step, step))
        groups = (
            torch.arange(BANDS)[:, None, None]
            if method == "occlusion_band"
            else torch.arange(dates)[:, None, None, None]
        )
        return FeatureAblation(self.chance).attribute(x, feature_mask=groups.expand_as(x))

    def difference(self, method: Method) -> float | None:
        """Return how far ours and Captum's are apart at most, as a share of the largest; None where chance makes them so."""
        if method == "smoothgrad":
            return None
        ours, other = self.ours(method).double(), self.captum(method).detach().double()
        if method == "occlusion_patch":
            # Captum has no patches that begin before the tile.
            cut = slice(SETTINGS.patch, -SETTINGS.patch)
            ours, other = ours[..., cut, cut], other[:, :1, :1, cut, cut]
        elif method == "occlusion_band":
            ours, other = ours.sum((3, 4)), other[:, :1, :, 0, 0]
        elif method == "occlusion_date":
            ours, other = ours.sum((3, 4)), other[:, :, :1, 0, 0]
        return float((ours - other).abs().max() / other.abs().max())


def seconds(work: Callable[[], object], repeat: int) -> float:
    """Return the median of a few times."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def methods(name: str, dates: int, side: int, repeat: int) -> None:
    """Print the table of one network."""
    tile = Tile(name, dates, side)
    tile.forward()
    print(f"{name}, {dates} dates, {side} x {side} pixels, forward pass {1e3 * seconds(tile.forward, 9):.1f} ms")
    print(f"{'method':22}{'passes':>44}{'ours':>10}{'Captum':>10}{'apart':>10}")
    for method in get_args(Method):
        passes = Explainer(method=method, settings=SETTINGS, baseline=()).passes(tile.network, BANDS, dates)
        apart = tile.difference(method)  # what runs first is not timed
        if apart is not None and not apart < BAR:
            raise SystemExit(f"{method} of {name}: ours and Captum's are {apart:.1e} apart, allowed are {BAR:.0e}")
        few = repeat if method in ("gradient", "gradient_input") else 1
        ratios: list[list[float]] = [[], []]
        for _ in range(3):
            for work, into in zip((tile.ours, tile.captum), ratios, strict=True):
                # Beside each other: machines are shared.
                forward = seconds(tile.forward, repeat)
                into.append(seconds(lambda work=work, method=method: work(method), few) / forward)  # type: ignore[misc]
        ours, other = (statistics.median(r) for r in ratios)
        report(f"{method} of {name}: time, to Captum's", ours / other)
        print(
            f"{method:22}{passes!s:>44}{ours:10.1f}{other:10.1f}{'own noise' if apart is None else f'{apart:.0e}':>10}",
            flush=True,
        )


def patches(name: str, dates: int, side: int, tried: int) -> None:
    """Print what patch occlusion of a block costs, against one pass per patch; of these some are run, the rest counted."""
    tile = Tile(name, dates, side)
    network, own = tile.network, SETTINGS
    # Patches begin at multiples of the step; the first ones reach into the block from outside.
    count = (side // own.step + (own.patch - 1) // own.step) ** 2
    seen = own.patch + 4 * network.radius
    window = -(-seen // network.stride) * network.stride
    small = Tile(name, dates, window)
    tile.forward()
    together = seconds(lambda: tile.ours("occlusion_patch"), 3)
    apart = seconds(tile.forward, tried) * count
    windows = seconds(small.forward, 10 * tried) * count
    passes = Explainer(method="occlusion_patch", settings=own, baseline=()).passes(network, BANDS, dates).forward
    print(
        f"{name}, block of {side} pixels, {count} patches of {own.patch} every {own.step}: {passes} passes, {together:.1f} s\n"
        f"  one pass per patch over the block: {apart:.0f} s, {apart / together:.0f} times (median of {tried} x {count})\n"
        f"  over {window} pixels around each: {windows:.1f} s, {windows / together:.1f} times (median of {10 * tried} x {count})",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dates", type=int, default=23, help="of the series")
    parser.add_argument("--side", type=int, default=96, help="of the U-Net's tile")
    parser.add_argument("--pixels", type=int, default=28, help="side of the LSTM's tile")
    parser.add_argument("--block", type=int, default=256, help="for the U-Net's patch occlusion")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    methods("unet", 1, options.side, options.repeat)
    methods("lstm", options.dates, options.pixels, options.repeat)
    patches("unet", 1, options.block, 9)
    patches("lstm", options.dates, options.block // 4, 5)


if __name__ == "__main__":
    main()

"""Charts of trainings, of networks compared, and of how far a map and its explanations can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from markupsafe import Markup

from workflows.drawing import BLUE, INK, ORANGE, chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Histories = Sequence[Sequence[Mapping[str, Any]]]


def loss_chart(histories: Histories) -> Markup | None:
    """Return the loss of training and validation by epoch, the lowest validation loss marked; None without figures."""
    return _curves(
        histories, {"train_loss": ("training", BLUE, "--"), "val_loss": ("validation", ORANGE, "-")}, "loss", min
    )


def score_chart(histories: Histories) -> Markup | None:
    """Return the macro-F1 on the validation fold by epoch; None without figures."""
    return _curves(histories, {"val_macro_f1": ("validation", ORANGE, "-")}, "macro-F1", None)


def rate_chart(tests: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Return the loss over the learning rate in range tests, the suggested rates marked; None without tests."""
    if not tests:
        return None

    def draw(axes: Axes) -> None:
        for i, test in enumerate(tests):
            axes.plot(test["lr"], test["loss"], color=BLUE, lw=1.6 if len(tests) == 1 else 0.9)
            axes.axvline(test["suggestion"], color=ORANGE, lw=1.0, ls="--", label="taken" if i == 0 else None)
        # Where the rate is too high the loss has no bound: what is worth seeing lies below its start.
        low = min(min(t["loss"]) for t in tests)
        high = max(t["loss"][0] for t in tests)
        axes.set(
            xscale="log",
            xlabel="learning rate",
            ylabel="loss",
            ylim=(low - 0.1 * (high - low), high + 0.5 * (high - low)),
        )
        axes.grid(axis="y", color=INK, alpha=0.12, lw=0.6)
        axes.legend()

    return chart(draw, "Learning-rate range test: loss by learning rate")


def reliability_chart(bins: Sequence[Mapping[str, float]]) -> Markup:
    """Return how often the map is right (y) by how sure it is (x); circles grow with the number of pixels."""

    def draw(axes: Axes) -> None:
        most = max(b["n"] for b in bins)
        axes.plot([0, 1], [0, 1], color=INK, lw=0.8, ls=":", label="as sure as right")
        axes.plot([b["confidence"] for b in bins], [b["accuracy"] for b in bins], color=BLUE, lw=1.2)
        axes.scatter(
            [b["confidence"] for b in bins],
            [b["accuracy"] for b in bins],
            s=[12 + 110 * b["n"] / most for b in bins],
            color=BLUE,
            alpha=0.75,
            linewidths=0,
            label="pixels of the test fold",
        )
        axes.set(xlabel="confidence", ylabel="share that is right", xlim=(0, 1.03), ylim=(0, 1.03))
        axes.legend(loc="upper left")

    return chart(draw, "Reliability: share of pixels that are right, by confidence of the map")


def agreement_chart(pairs: Sequence[Sequence[float]], quantity: str, unit: str) -> Markup:
    """Return estimated numbers (y) by stated ones (x); on the dotted line they are the same."""

    def draw(axes: Axes) -> None:
        truth, found = (np.array(v) for v in zip(*pairs, strict=True))
        ends = [min(truth.min(), found.min()), max(truth.max(), found.max())]
        axes.plot(ends, ends, color=INK, lw=0.8, ls=":", label="estimated as stated")
        axes.scatter(truth, found, s=5, color=BLUE, alpha=0.35, linewidths=0)
        of = f"{quantity}{f' ({unit})' if unit else ''}"
        axes.set(xlabel=f"stated {of}", ylabel=f"estimated {of}")
        axes.legend(loc="upper left")

    return chart(draw, f"Estimated {quantity} by stated {quantity}, of pixels of the test fold")


def search_chart(
    trials: Sequence[tuple[int, str, float | None]], figure: str, direction: Literal["maximize", "minimize"]
) -> Markup | None:
    """Return the figure of each trial in order, and the best so far; those given up are hollow. None without figures."""
    told = [(i, state, v) for i, state, v in trials if v is not None and math.isfinite(v)]
    done = [(i, v) for i, state, v in told if state == "done"]
    if not done:
        return None

    def draw(axes: Axes) -> None:
        better = np.maximum if direction == "maximize" else np.minimum
        axes.step(
            [i for i, _ in done],
            better.accumulate([v for _, v in done]),
            where="post",
            color=BLUE,
            lw=1.4,
            label="best",
        )
        axes.plot([i for i, _ in done], [v for _, v in done], "o", color=BLUE, ms=4, alpha=0.8, label="trial")
        up = [(i, v) for i, state, v in told if state == "pruned"]
        if up:
            axes.plot(*zip(*up, strict=True), "o", mfc="none", mec=ORANGE, ms=4, label="given up early")
        if done[0][0] == 0:
            axes.axhline(done[0][1], color=INK, lw=0.8, ls=":", label="the job as it stands")
        axes.set(xlabel="trial", ylabel=f"{figure} on the validation fold")
        axes.legend()

    return chart(draw, f"{figure} of each trial, and the best so far")


def importance_chart(shares: Mapping[str, float]) -> Markup:
    """Return how much of the variation between trials each setting explains, the largest on top."""

    def draw(axes: Axes) -> None:
        names = sorted(shares, key=lambda n: shares[n])
        axes.barh(names, [shares[n] for n in names], color=BLUE, alpha=0.85, height=0.6)
        axes.set(xlabel="share of the variation explained", xlim=(0, 1))

    return chart(draw, "How much of the variation between trials each setting explains")


def spread_chart(runs: Mapping[str, Sequence[float]], figure: str) -> Markup:
    """Return the figure of each training (a dot) and their mean (a bar), a row per network, the first on top."""

    def draw(axes: Axes) -> None:
        for place, values in enumerate(runs.values()):
            axes.plot(values, [place] * len(values), "o", color=BLUE, ms=5, alpha=0.7, mew=0)
            axes.plot([float(np.mean(values))] * 2, [place - 0.28, place + 0.28], color=ORANGE, lw=2)
        axes.set_yticks(range(len(runs)), list(runs))
        axes.set(xlabel=f"{figure} on the test fold", ylim=(len(runs) - 0.5, -0.5))
        axes.grid(axis="x", color=INK, alpha=0.12, lw=0.6)

    return chart(draw, f"{figure} of each network: every training and their mean")


def randomisation_chart(layers: Sequence[Mapping[str, Any]], limit: float) -> Markup:
    """Return what is left of an attribution as layers are drawn anew, from the scores to the inputs: rank correlation."""

    def draw(axes: Axes) -> None:
        told = [(i, v) for i, v in enumerate(layers, 1) if v["correlation"] is not None]
        # Nothing is drawn anew at first: there it is itself.
        places, values = [0, *(i for i, _ in told)], [1.0, *(v["correlation"] for _, v in told)]
        errors = [0.0, *(2 * v["standard_error"] for _, v in told)]
        axes.axhspan(-limit, limit, color=INK, alpha=0.08, lw=0, label=f"below {limit:g}")
        axes.errorbar(places, values, errors, color=BLUE, lw=1.6, capsize=2, marker="o", ms=4, label="attribution")
        sizes = [(i, v["sizes"]) for i, v in enumerate(layers, 1) if v["sizes"] is not None]
        axes.plot(
            [0, *(i for i, _ in sizes)], [1.0, *(v for _, v in sizes)], "--", color=ORANGE, lw=1.2, label="its size"
        )
        names = ["none", *(v["layer"] for v in layers)]
        axes.set_xticks(range(len(names)), names, rotation=35, ha="right")
        axes.set(xlabel="drawn anew up to", ylabel="rank correlation")
        axes.grid(axis="y", color=INK, alpha=0.12, lw=0.6)
        axes.legend()

    return chart(draw, "What is left of the explanation as layers are drawn anew, from the scores to the inputs")


def removal_chart(figures: Mapping[str, Any], quantity: str) -> Markup:
    """Return what is left of the target as parts are taken away, and what comes back as they are put back."""

    def draw(axes: Axes) -> None:
        shares, random = figures["shares"], figures["random"]
        axes.plot(shares, figures["deletion"], color=BLUE, lw=1.6, label="taken away")
        axes.plot(shares, random, "--", color=BLUE, lw=1.0, label="taken away at random")
        axes.plot(shares, figures["insertion"], color=ORANGE, lw=1.6, label="put back")
        axes.plot(shares, random[::-1], "--", color=ORANGE, lw=1.0, label="put back at random")
        axes.set(xlabel="share of the parts, the most important first", ylabel=quantity, xlim=(0, 1))
        axes.grid(axis="y", color=INK, alpha=0.12, lw=0.6)
        axes.legend()

    return chart(draw, f"Deletion and insertion: {quantity} by the share of parts taken away, or put back")


def _curves(histories: Histories, lines: Mapping[str, tuple[str, str, str]], what: str, best: Any) -> Markup | None:
    series = [(key, [_points(h, key) for h in histories]) for key in lines]
    if not any(points for _, all_points in series for points in all_points):
        return None
    from matplotlib.ticker import MaxNLocator

    # Several trainings (folds) share a colour; thin lines keep them apart.
    width = 1.6 if len(histories) == 1 else 0.9

    def draw(axes: Axes) -> None:
        for key, all_points in series:
            name, color, dash = lines[key]
            for i, points in enumerate(p for p in all_points if p):
                x, y = zip(*points, strict=True)
                axes.plot(x, y, dash, color=color, lw=width, label=name if i == 0 else None)
                if key == "val_loss" and best:
                    at = best(points, key=lambda p: p[1])
                    axes.plot(*at, "o", color=color, ms=4.5, label="lowest" if i == 0 else None)
        axes.set(xlabel="epoch", ylabel=what)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", color=INK, alpha=0.12, lw=0.6)
        axes.margins(x=0.02)
        if len(lines) > 1:
            axes.legend()

    return chart(draw, f"Learning curves: {what} by epoch")


def _points(history: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    found = ((i, row.get(key)) for i, row in enumerate(history, 1))
    return [(i, float(v)) for i, v in found if v is not None and math.isfinite(v)]

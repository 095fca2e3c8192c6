"""Charts of what decided one pixel: how much its bands and dates count, and its series."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from workflows.ownpixel import Parts, PixelStory, Reason

Array = np.ndarray[Any, Any]

FOR, AGAINST, PLAIN = "#3d85c6", "#d6604d", "#3d85c6"
"""Colours of what speaks for the target and against it, and of sizes without a sign."""

# More bars or lines than these would be too thin to read.
_BARS, _LINES = 14, 6
_LINE_COLORS = ("#3d85c6", "#e0812f", "#4f9d55", "#a05195", "#8c6d46", "#6b7f99")


def bars(axes: Axes, reason: Reason, parts: Parts) -> None:
    """Draw how much each band counts, those that count most where there are many."""
    n = len(parts.names)
    shown = list(range(n)) if n <= _BARS else parts.order[:_BARS]
    values = _drawn(reason, parts)[shown]
    axes.barh(range(len(shown)), values, color=_colors(reason, parts.value[shown]), height=0.66)
    axes.set_yticks(range(len(shown)), [parts.names[i] for i in shown])
    axes.set(ylim=(len(shown) - 0.4, -0.6), xlabel=_measure(reason))
    axes.set_title(_headed("bands" if n <= _BARS else f"{_BARS} of {n} bands", reason), fontsize=9)
    _zero(axes, "x")
    axes.locator_params(axis="x", nbins=4)


def date_bars(axes: Axes, story: PixelStory, reason: Reason) -> None:
    """Draw how much each date counts."""
    parts = reason.parts["date"]
    x, kept = _times(story)
    width = 0.7 * float(np.diff(x).min()) if len(x) > 1 else 0.7
    axes.bar(x, _drawn(reason, parts)[kept], width=width, color=_colors(reason, parts.value[kept]))
    axes.set(ylabel=_measure(reason))
    axes.set_title(_headed("dates", reason), fontsize=9)
    _zero(axes, "y")
    axes.locator_params(axis="y", nbins=5)
    _time_axis(axes, story, x)


def series_lines(axes: Axes, story: PixelStory, bands: Sequence[str]) -> None:
    """Draw the series of the pixel; of several bands in its own standard deviations each, for they share an axis."""
    y, x = story.own
    times, kept = _times(story)
    values = story.values[kept, :, y, x]
    share = next((r.parts["band"].share for r in story.reasons if "band" in r.parts), np.zeros(len(bands)))
    most = np.argsort(-share, kind="stable")[:_LINES].tolist()
    for color, c in zip(_LINE_COLORS, sorted(most), strict=False):
        line = values[:, c]
        if len(bands) > 1:
            line = (line - np.nanmean(line)) / (np.nanstd(line) or 1.0)
        axes.plot(times, line, "o-", color=color, lw=1.4, ms=3, label=bands[c])
    axes.set_ylabel(bands[0] if len(bands) == 1 else "standardised values")
    axes.set_title("what the pixel looked like", fontsize=9)
    axes.grid(axis="y", color=_ink(), alpha=0.12, lw=0.6)
    axes.locator_params(axis="y", nbins=5)
    if len(bands) > 1:
        axes.legend(ncols=len(most), loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8, handlelength=1.4)
    _time_axis(axes, story, times)


def _times(story: PixelStory) -> tuple[Array, list[int]]:
    """Return where dates stand on an axis, and which of them do: days since 1970, or without any date their number."""
    kept = [i for i, d in enumerate(story.dates) if d]
    if not kept:
        return np.arange(1, len(story.dates) + 1), list(range(len(story.dates)))
    return np.array([d for d in story.dates if d], "datetime64[D]").astype(np.int64), kept


def _time_axis(axes: Axes, story: PixelStory, x: Array) -> None:
    from matplotlib import dates

    margin = 0.03 * float(x[-1] - x[0]) + (0.5 * float(np.diff(x).min()) if len(x) > 1 else 0.5)
    axes.set_xlim(x[0] - margin, x[-1] + margin)
    if any(story.dates):
        # Matplotlib counts days from 1970 as well.
        axes.xaxis_date()
        locator = dates.AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def _drawn(reason: Reason, parts: Parts) -> Array:
    return parts.value if reason.signed else 100 * parts.share


def _headed(what: str, reason: Reason) -> str:
    """Return a heading; with the method, where nothing beside it says so."""
    if reason.method in ("occlusion_band", "occlusion_date"):
        return spoken(reason.method)
    return what if tells_places(reason) else f"{what}: {spoken(reason.method)}"


def _measure(reason: Reason) -> str:
    return reason.unit if reason.signed else "share, %"


def _colors(reason: Reason, values: Array) -> list[str]:
    return [(FOR if v >= 0 else AGAINST) if reason.signed else PLAIN for v in values.tolist()]


def _zero(axes: Axes, axis: Literal["x", "y"]) -> None:
    (axes.axvline if axis == "x" else axes.axhline)(0, color=_ink(), lw=0.7)
    axes.grid(axis=axis, color=_ink(), alpha=0.12, lw=0.6)
    axes.set_axisbelow(True)


def _ink() -> str:
    """Return the colour of the text of the figure that is being drawn."""
    from matplotlib import rcParams

    return str(rcParams["text.color"])


def tells_places(reason: Reason) -> bool:
    """Return whether a method tells the pixel from its surroundings, and the network sees any."""
    return reason.pixel.size > 1 and reason.method not in ("occlusion_band", "occlusion_date")


def spoken(method: str) -> str:
    """Return the name of a method in words."""
    return {
        "smoothgrad": "SmoothGrad",
        "gradient_input": "gradient x input",
        "integrated_gradients": "integrated gradients",
        "occlusion_band": "occlusion of bands",
        "occlusion_date": "occlusion of dates",
        "occlusion_patch": "occlusion of patches",
    }.get(method, method)

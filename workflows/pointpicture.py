"""A picture of what decided one pixel: its surroundings, what counts in them, and charts of its bands and dates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from workflows.drawing import drawing
from workflows.pointcharts import bars, date_bars, series_lines, spoken, tells_places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from workflows.ownpixel import PixelStory, Reason

Array = np.ndarray[Any, Any]

_GREY = "#9a9a9a"
_MARK = "#ffd400"
# Percentile of sizes at the ends of the colour ramp.
_SATURATED = 99
_HEIGHT, _WIDTHS = 2.5, {"image": 2.35, "map": 2.75, "band": 2.4, "date": 4.6}


def point_picture(story: PixelStory, bands: Sequence[str], radius: int, side: float, unit: str) -> Markup:
    """Return the picture of a pixel as SVG, a row per method.

    For networks that look around a pixel: the window as an image with the pixel marked, and beside it what counts in it, the
    receptive field outlined. Bars per band and per date, where the method tells them apart and there are several; below
    those of dates the series of the pixel.

    Parameters
    ----------
    story : PixelStory
        The pixel.
    bands : sequence of str
        Names of the bands.
    radius : int
        Receptive radius of the network in pixels.
    side, unit : float, str
        Side of a pixel, and the unit of the map's CRS.
    """
    columns = _columns(story, radius)
    series = len(story.dates) > 1
    rows = len(story.reasons) + series
    width = max(sum(_WIDTHS[c] for c in columns), 5.0)

    def draw(figure: Figure) -> None:
        grid = figure.add_gridspec(rows, len(columns), width_ratios=[_WIDTHS[c] for c in columns])
        for i, reason in enumerate(story.reasons):
            for j, column in enumerate(columns):
                if column == "image" and i == 0:
                    _image(figure.add_subplot(grid[i, j]), story, bands, side, unit)
                elif column == "map" and tells_places(reason):
                    _map(figure.add_subplot(grid[i, j]), story, reason, radius)
                elif column == "band" and _several(reason, "band"):
                    bars(figure.add_subplot(grid[i, j]), reason, reason.parts["band"])
                elif column == "date" and _several(reason, "date"):
                    date_bars(figure.add_subplot(grid[i, j]), story, reason)
        if series:
            place = grid[rows - 1, columns.index("date")] if "date" in columns else grid[rows - 1, :]
            series_lines(figure.add_subplot(place), story, bands)

    title = f"What decided {story.point}: " + ", ".join(f"{name} {value:.3g}" for name, value in story.ranking[:2])
    return drawing(draw, title, (width, _HEIGHT * rows))


def _columns(story: PixelStory, radius: int) -> list[str]:
    columns = ["image"] if radius else []
    if any(tells_places(r) for r in story.reasons):
        columns.append("map")
    columns += [axis for axis in ("band", "date") if any(_several(r, axis) for r in story.reasons)]
    return columns or ["band"]


def _several(reason: Reason, axis: str) -> bool:
    return axis in reason.parts and len(reason.parts[axis].names) > 1


def _image(axes: Axes, story: PixelStory, bands: Sequence[str], side: float, unit: str) -> None:
    shown = shown_bands(bands)
    date = _shown_date(story)
    values = story.values[date][list(shown)]
    n = values.shape[-1]
    seen: Array = np.isfinite(values).all(0)
    low, high = (np.nanpercentile(values, q, axis=(1, 2))[:, None, None] for q in (2, 98))
    stretched = np.clip((values - low) / np.where(high > low, high - low, 1.0), 0, 1)
    picture = np.zeros((n, n, 4))
    picture[..., :3] = np.moveaxis(np.where(seen, stretched, 0), 0, -1)
    picture[..., 3] = seen
    axes.imshow(picture, interpolation="none")
    _frame(axes, story)
    named = ", ".join(bands[i] for i in dict.fromkeys(shown))
    axes.set_title(named + (f", {story.dates[date]}" if story.dates[date] else ""), fontsize=9)
    axes.set_xlabel(f"{n} px = {n * side:,.6g} {unit}")


def shown_bands(bands: Sequence[str]) -> tuple[int, int, int]:
    """Return the bands of a picture: red, green and blue by name, else the first three, else the first in grey."""
    names = [name.lower() for name in bands]
    if {"red", "green", "blue"} <= set(names):
        return names.index("red"), names.index("green"), names.index("blue")
    return (0, 1, 2) if len(names) > 2 else (0, 0, 0)


def _shown_date(story: PixelStory) -> int:
    """Return the date that counts most; where no method tells dates apart, the first on which the pixel was seen."""
    y, x = story.own
    seen = np.isfinite(story.values[:, 0, y, x])
    share = next((r.parts["date"].share for r in story.reasons if "date" in r.parts), np.zeros(len(story.dates)))
    return int(np.argmax(np.where(seen, 1.0 + share, 0.0)))


def _map(axes: Axes, story: PixelStory, reason: Reason, radius: int) -> None:
    from matplotlib.patches import Rectangle

    # Few pixels count most by far, as a rule the pixel itself: on a scale to their end nothing else could be seen.
    most = float(np.nanpercentile(np.abs(reason.pixel), _SATURATED)) or float(np.nanmax(np.abs(reason.pixel))) or 1.0
    span: dict[str, Any] = {"cmap": "RdBu", "vmin": -most} if reason.signed else {"cmap": "magma", "vmin": 0}
    drawn = axes.imshow(reason.pixel, interpolation="none", vmax=most, **span)
    _frame(axes, story)
    y, x = story.own
    corner = (x - radius - 0.5, y - radius - 0.5)
    axes.add_patch(
        Rectangle(corner, 2 * radius + 1, 2 * radius + 1, fill=False, ec=_GREY, lw=0.9, ls=(0, (4, 3)), clip_on=False)
    )
    n = len(reason.pixel)
    axes.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
    axes.set_title(spoken(reason.method), fontsize=9)
    bar = axes.figure.colorbar(
        drawn, ax=axes, extend="both" if reason.signed else "max", shrink=0.85, aspect=24, pad=0.03
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7.5)
    bar.ax.ticklabel_format(style="sci", scilimits=(-2, 3))
    bar.ax.yaxis.get_offset_text().set_fontsize(7.5)
    bar.set_label(reason.unit.replace("standard deviation of the band", "deviation"), fontsize=8)


def _frame(axes: Axes, story: PixelStory) -> None:
    """Mark the pixel; at a size that can be seen, however small it is in the window."""
    from matplotlib.patches import Rectangle

    y, x = story.own
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.5, alpha=0.4)
    half = max(0.5, story.values.shape[-1] / 40)
    for color, width in (("black", 2.4), (_MARK, 1.2)):
        axes.add_patch(Rectangle((x - half, y - half), 2 * half, 2 * half, fill=False, ec=color, lw=width))

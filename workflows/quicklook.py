"""Small pictures of the class map to look at at once: a PNG with its legend, and one made of characters."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from rasterio.enums import Resampling

from pipeline.files import whole_file
from pipeline.maps.layers import LegendEntry
from workflows.pictures import decimated, frame, indexed, read_small

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult


def quicklook(
    classes: Path, legend: Sequence[LegendEntry], out: Path, *, most: int = 1000, title: str | None = None
) -> Path:
    """Write a picture of the class map with its legend and a scale bar, as PNG.

    Parameters
    ----------
    classes : Path
        The class map.
    legend : sequence
        Objects with ``name``, ``code`` and ``color``.
    out : Path
        The PNG to write.
    most : int
        Pixels of the longer side of the map that are read.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    with rasterio.open(classes) as raster:
        values, valid = decimated(raster, most, Resampling.nearest)
        around = frame(raster, values.shape)
    index, palette = indexed(values, valid, legend)
    height, width = values.shape
    # Names are the user's: a `$` in one is no formula, and a sign that the font lacks is drawn as a box.
    with mpl.rc_context({"text.parse_math": False, "font.size": 9}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        figure = Figure(figsize=(7.2, max(2.4, 5.4 * min(height / width, 2.0))), dpi=130, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.imshow(palette[index], interpolation="nearest")
        axes.set_axis_off()
        if title:
            axes.set_title(title, loc="left", fontweight="bold")
        if around["bar"] is not None:
            share, text = around["bar"]
            axes.annotate(text, (0, -0.055), xycoords="axes fraction", va="center", annotation_clip=False)
            axes.plot([0, share], [-0.02, -0.02], color="#333333", lw=3, transform=axes.transAxes, clip_on=False)
        keys = [Patch(facecolor=c.color, edgecolor="#00000055", linewidth=0.5, label=c.name) for c in legend]
        axes.legend(handles=keys, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, borderaxespad=0)
        with whole_file(out) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None}, bbox_inches="tight", pad_inches=0.12)
    return out


@dataclass(frozen=True, slots=True)
class TerminalPicture:
    """A class map drawn with half blocks: two pixels a character. Draws nothing where there are no colours."""

    classes: Path
    legend: tuple[LegendEntry, ...]
    columns: int
    rows: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw as wide as the terminal allows."""
        from rich.text import Text

        if console.color_system is None:
            return
        columns = min(self.columns, max(8, options.max_width - 4))
        with rasterio.open(self.classes) as raster:
            factor = min(columns / raster.width, 2 * self.rows / raster.height)
            shape = (max(1, round(raster.height * factor)), max(1, round(raster.width * factor)))
            values, valid = read_small(raster, shape, Resampling.mode)
        colors = {c.code: c.color for c in self.legend}
        known = [[colors.get(v) for v in row] for row in np.where(valid, values, -1).astype(int).tolist()]
        if len(known) % 2:
            known.append([None] * shape[1])
        for top, bottom in zip(known[::2], known[1::2], strict=True):
            line = Text("  ")
            for above, below in zip(top, bottom, strict=True):
                line.append(*_half_block(above, below))
            yield line
        key = Text("  ")
        for c in self.legend:
            key.append("■\u00a0", c.color).append(c.name.replace(" ", "\u00a0") + "  ")
        yield key


def terminal_picture(
    classes: Path, legend: Iterable[LegendEntry], *, columns: int = 60, rows: int = 24
) -> TerminalPicture:
    """Return a small picture of the class map for `rich` to print; at most ``columns`` x ``rows`` characters."""
    return TerminalPicture(classes, tuple(legend), columns, rows)


def _half_block(above: str | None, below: str | None) -> tuple[str, str]:
    if above is None:
        return (" ", "") if below is None else ("▄", below)
    return ("▀", above) if below is None else ("▀", f"{above} on {below}")

"""Drawings as inline SVG: they take the page's text colour, so they read on a light page, a dark one and on paper."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Stands for the page's own text colour until the SVG is written.
INK = "#010203"
BLUE, ORANGE = "#3d85c6", "#e0812f"
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "landweave",
    "text.parse_math": False,
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def chart(draw: Any, alt: str) -> Markup:
    """Return a drawing of one chart, which ``draw`` puts on its axes."""
    return drawing(lambda figure: draw(figure.add_subplot()), alt)


def drawing(draw: Callable[[Figure], None], alt: str, size: tuple[float, float] = (4.5, 3.0)) -> Markup:
    """Return what ``draw`` puts on a figure of ``size`` inches, as inline SVG; the usual text colour becomes the page's."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # Names are the user's; what the font lacks here, the page's has.
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    # Identifiers of groups repeat from chart to chart; nothing refers to them.
    text = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text)
    text = re.sub(r'(<svg[^>]*?) (?:width|height)="[\d.]+pt"', r"\1", text)
    text = re.sub(r'(<svg[^>]*?) (?:width|height)="[\d.]+pt"', r"\1", text)
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1))  # noqa: S704 - our own SVG

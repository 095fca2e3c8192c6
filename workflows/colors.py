"""Colours of bands and dates, so that a map of them reads at a glance."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.samples.legend import palette

# What a reader expects of a band, by its name; the first that matches counts.
_BANDS = (
    (r"coastal|aerosol", "#5b4b9a"),
    (r"blue", "#3d7fd0"),
    (r"green", "#4caf50"),
    (r"red.?edge", "#e573b5"),
    (r"nir|near", "#a02c5d"),
    (r"red", "#e0402f"),
    (r"(swir|mir).?2", "#f2d16b"),
    (r"swir|mir", "#c58a2b"),
    (r"therm|tir", "#5a3a22"),
    (r"ndvi|evi|savi", "#1b7837"),
    (r"nd[wm].?i", "#2b83ba"),
)


def band_colors(names: Sequence[str]) -> list[str]:
    """Return a colour for each band: what its name lets expect, else one of a distinct set."""
    found: list[str | None] = []
    for name in names:
        color = next((c for words, c in _BANDS if re.search(words, name, re.IGNORECASE)), None)
        found.append(None if color in found else color)
    taken = [c for c in found if c is not None]
    rest = iter(palette([""] * (len(names) - len(taken)), taken))
    return [c or next(rest) for c in found]


def date_colors(number: int) -> list[str]:
    """Return a colour for each of so many dates, along a ramp: neighbours in time are alike."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    # The ends of the ramp are nearly black.
    return [str(to_hex(colormaps["turbo"](0.05 + 0.9 * i / max(1, number - 1)))) for i in range(number)]

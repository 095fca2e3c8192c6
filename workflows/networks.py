"""The networks there are to choose from, with what they cost."""

from __future__ import annotations

from models.cost import flop_per_pixel, parameters
from models.table import NETWORKS, build, network_class
from workflows.console import Console, quantity

# The cost depends on the imagery. A single scene of Sentinel-2's ten bands, or a season of them for networks that are made
# for series, and eight classes.
_BANDS, _SEASON, _CLASSES = 10, 24, 8


def show_networks(console: Console) -> None:
    """Print each network with its parameters, halo, stride and cost, at its default settings."""
    rows = []
    for name in NETWORKS:
        kind = network_class(name)
        dates = _SEASON if kind.temporal else 1
        network = build(name, {}, bands=_BANDS, dates=dates, classes=_CLASSES)
        what = (kind.__doc__ or "").strip().split("\n")[0]
        looks = "pixel" if network.pixelwise else "land"
        cost = quantity(flop_per_pixel(network))
        rows.append((name, looks, dates, f"{parameters(network):,}", network.halo, network.stride, cost, what))
    console.table(
        f"networks at their defaults, for {_BANDS} bands and {_CLASSES} classes: of a single scene, or of {_SEASON} dates",
        ("name", "looks at", "dates", "parameters", "halo", "stride", "FLOP/px", "what"),
        rows,
    )

"""The networks there are to choose from, with what they cost."""

from __future__ import annotations

from models.network import NETWORKS, build, flop_per_pixel
from workflows.console import Console, quantity

# The cost depends on the imagery; this is what a single Sentinel-2 scene of ten bands and eight classes gives.
_BANDS, _DATES, _CLASSES = 10, 1, 8


def show_networks(console: Console) -> None:
    """Print each network with its parameters, halo, stride and cost, at its default settings."""
    rows = []
    for name in NETWORKS:
        network = build(name, {}, bands=_BANDS, dates=_DATES, classes=_CLASSES)
        what = (type(network).__doc__ or "").strip().split("\n")[0]
        parameters = sum(p.numel() for p in network.parameters())
        rows.append((name, f"{parameters:,}", network.halo, network.stride, quantity(flop_per_pixel(network)), what))
    console.table(
        f"networks at their defaults, for {_BANDS} bands, {_DATES} date, {_CLASSES} classes",
        ("name", "parameters", "halo", "stride", "FLOP/px", "what"),
        rows,
    )

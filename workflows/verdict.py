"""Figures in plain words: what an accuracy amounts to, and how areas should be quoted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.maps.areas import AreaRow

# Differences in overall accuracy below this are not called better or worse.
_TIE = 0.01


def verdict(
    accuracy: Mapping[str, Any], forest: Mapping[str, Any] | None, areas: Sequence[AreaRow], evaluated: str
) -> dict[str, Any]:
    """Return what a run amounts to: the ``figure``, the ``headline`` that it belongs to, and ``sentences``.

    Parameters
    ----------
    accuracy, forest : mapping
        As in accuracy.json.
    areas : sequence of AreaRow
        Areas of the classes.
    evaluated : str
        What the accuracy was measured on.
    """
    if not accuracy["n"] or accuracy["overall"] is None:
        headline = "No labelled pixel was kept for testing: this page holds no accuracy."
        return {"figure": None, "headline": headline, "sentences": _how_to_quote(areas)}
    sentences = [
        f"Measured on {accuracy['n']:,} labelled pixels in places that the network had not seen."
        f"{' ' + evaluated if evaluated else ''}"
    ]
    scored = [c for c in accuracy["classes"] if c["support"] and c["f1"] is not None]
    if len(scored) > 1:
        best, worst = max(scored, key=lambda c: c["f1"]), min(scored, key=lambda c: c["f1"])
        sentences.append(
            f"Best mapped: {best['name']} (F1 {best['f1']:.2f}); least well: {worst['name']} (F1 {worst['f1']:.2f})."
            f"{_commonest_mistake(accuracy)}"
        )
    if forest and forest["overall"] is not None:
        sentences.append(_beside(accuracy["overall"], forest["overall"]))
    sentences += _how_to_quote(areas)
    return {
        "figure": percent(accuracy["overall"]),
        "headline": "of the labelled pixels in places never seen are mapped right.",
        "sentences": sentences,
    }


def _commonest_mistake(accuracy: Mapping[str, Any]) -> str:
    names = [c["name"] for c in accuracy["classes"]]
    wrong = [(n, i, j) for i, row in enumerate(accuracy["confusion"]) for j, n in enumerate(row) if i != j and n]
    if not wrong:
        return " No labelled pixel was mapped wrong."
    n, i, j = max(wrong, key=lambda w: w[0])
    return f" The commonest mistake: {names[i]} mapped as {names[j]} ({n:,} pixels)."


def _beside(network: float, forest: float) -> str:
    points = abs(network - forest) * 100
    if abs(network - forest) < _TIE:
        return (
            f"A random forest on the same samples reaches {percent(forest)}: about as good, "
            f"so the network has not shown that it earns its cost here."
        )
    if network > forest:
        return (
            f"A random forest on the same samples reaches {percent(forest)}: the network is {points:.1f} points better."
        )
    return (
        f"A random forest on the same samples reaches {percent(forest)}: it is {points:.1f} points better than the "
        "network, which does not earn its cost here."
    )


def _how_to_quote(areas: Sequence[AreaRow]) -> list[str]:
    if not areas:
        return []
    estimated = [
        (r.adjusted_ha, r.interval_ha, r) for r in areas if r.adjusted_ha is not None and r.interval_ha is not None
    ]
    if not estimated:
        return ["Areas: there are too few test samples to adjust them for error; counted areas are biased."]
    adjusted, interval, row = max(estimated, key=lambda e: e[0])
    return [
        "Areas: where the test labels were drawn at random from the map, quote the error-adjusted estimate with its "
        f"interval, such as {hectares(adjusted)}\u00a0±\u00a0{hectares(interval)}\u00a0ha of {row.name} (the map counts "
        f"{hectares(row.counted_ha)}\u00a0ha). Where the polygons were chosen by hand, neither figure is free of bias.",
    ]


def percent(value: float | None) -> str:
    """Return a share in percent; a dash where there is none. What is rare is not shown as never."""
    if value is None:
        return "–"
    if 0 < value < 0.0005:
        return "<\u00a00.1\u00a0%"
    return ">\u00a099.9\u00a0%" if 0.9995 <= value < 1 else f"{100 * value:.1f}\u00a0%"


def figure(value: float | None, digits: int = 2) -> str:
    """Return a figure; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def hectares(value: float | None) -> str:
    """Return an area with three digits or more; a dash where there is none."""
    return "–" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

"""The layers that explain a map: which there are, what each says of itself, and how an attribution becomes one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from models.saliency.methods import BY_GRADIENT
from models.saliency.reduce import dominant, reduce
from pipeline.errors import JobError
from pipeline.maps.layers import Layer
from pipeline.samples.legend import Legend, LegendClass
from workflows.colors import band_colors, date_colors
from workflows.explainers import layer_name

if TYPE_CHECKING:
    from torch import Tensor

    from models.saliency.methods import Explainer
    from models.settings import Per, SaliencySettings
    from workflows.products.product import Product

Array = np.ndarray[Any, Any]

_SIZES = {
    "pixel": "largest size over bands and dates",
    "band": "sizes, summed over dates",
    "date": "sizes, summed over bands",
    "dominant_band": "the band that counts most",
    "dominant_date": "the date that counts most",
}
_SIGNED = _SIZES | {
    "pixel": "the value of largest size over bands and dates",
    "band": "summed over dates",
    "date": "summed over bands",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """One method at work on a map, and the layers that are made of it.

    Attributes
    ----------
    explainer : Explainer
        The method.
    names : dict of str
        Reduction (`Per`) to the layer's name.
    """

    explainer: Explainer
    names: Mapping[Per, str]

    def made(self, attribution: Tensor) -> dict[str, Array]:
        """Return the layers of an attribution (1, T, C, h, w), by name, (bands, h, w) each."""
        found: dict[str, Array] = {}
        signed = self.explainer.signed
        for per, name in self.names.items():
            if per in ("dominant_band", "dominant_date"):
                layer = dominant(reduce(attribution, per.removeprefix("dominant_"), signed=signed))
            else:
                layer = reduce(attribution, per, signed=signed)
            array = layer[0].cpu().numpy()
            found[name] = array[None] if array.ndim == 2 else array
        return found


def explanations_of(
    explainers: Sequence[Explainer], settings: SaliencySettings, *, bands: int, dates: int
) -> tuple[Explanation, ...]:
    """Return the layers that each method makes.

    Raises
    ------
    JobError
        If a method gives none of those that are asked for.
    """
    return tuple(
        Explanation(e, {per: layer_name(settings, e.method, per) for per in _reductions(e, settings, bands, dates)})
        for e in explainers
    )


def _reductions(explainer: Explainer, settings: SaliencySettings, bands: int, dates: int) -> list[Per]:
    number = {"band": bands, "date": dates}
    offered: list[Per] = ["pixel", *explainer.axes, *(f"dominant_{axis}" for axis in explainer.axes)]  # type: ignore[list-item]
    if settings.per == "auto":
        return [per for per in offered if not per.startswith("dominant") or number[per.removeprefix("dominant_")] > 1]
    chosen = [per for per in offered if per in settings.per]
    if not chosen:
        raise JobError(
            f"saliency.per: found {', '.join(settings.per)}, none of which {explainer.method} gives; it gives "
            + ", ".join(offered)
        )
    return chosen


def explanation_layers(
    explanations: Sequence[Explanation],
    settings: SaliencySettings,
    product: Product,
    *,
    bands: Sequence[str],
    dates: Sequence[str],
    tags: Mapping[str, str],
) -> list[Layer]:
    """Return the layers of a map's explanations.

    Parameters
    ----------
    explanations : sequence of Explanation
        The methods, and the names of their layers.
    settings : SaliencySettings
        What was asked for.
    product : Product
        What the outputs of the network mean.
    bands, dates : sequence of str
        Names of the bands, and of the dates that the network sees.
    tags : mapping
        What every layer says of itself.
    """
    made = []
    for explanation in explanations:
        explainer = explanation.explainer
        about = {**tags, **_about(explainer, settings, product)}
        for per, name in explanation.names.items():
            of = {**about, "reduction": (_SIGNED if explainer.signed else _SIZES)[per]}
            if per in ("dominant_band", "dominant_date"):
                axis = per.removeprefix("dominant_")
                legend = _legend(*((bands, band_colors(bands)) if axis == "band" else (dates, date_colors(len(dates)))))
                made.append(Layer.classes(legend, name=name, band=axis, tags=of))
            else:
                names = {"pixel": ["pixel"], "band": bands, "date": dates}[per]
                made.append(Layer.saliency(name, names, tags=of, signed=explainer.signed))
    return made


def _about(explainer: Explainer, settings: SaliencySettings, product: Product) -> dict[str, str]:
    """Return what the layers of a method say of themselves."""
    gradient, method = explainer.method in BY_GRADIENT, explainer.method
    own = method in ("occlusion_band", "occlusion_date")
    quantity = product.score if gradient else product.amount
    per_value = method in ("gradient", "smoothgrad")
    return {
        "method": method,
        "target": settings.target,
        "signed": "yes" if explainer.signed else "no",
        "meaning": f"what decided this pixel: the fall of its {quantity}" if own
        else f"what moves the map around here: {'change' if gradient else 'fall'} of the {quantity}, summed over the pixels "
        "that see this one",
        "units": f"{quantity} per standard deviation of the band" if per_value else quantity,
        "settings": json.dumps(explainer.own, sort_keys=True),
    }  # fmt: skip


def _legend(names: Sequence[str], colors: Sequence[str]) -> Legend:
    """Return the legend of bands or dates; of several by the same name all but the first are numbered."""
    seen: Counter[str] = Counter()
    classes = []
    for i, (name, color) in enumerate(zip(names, colors, strict=True), start=1):
        seen[name] += 1
        shown = name if seen[name] == 1 else f"{name} ({seen[name]})"
        classes.append(LegendClass(name=shown, code=i, color=color, values=(str(i),)))
    return Legend(tuple(classes))

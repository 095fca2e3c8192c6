"""Scores of classes: the class map, its confidence, and probabilities."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipeline.maps.layers import Layer
from pipeline.samples.legend import Legend
from workflows.products.product import Array, Product

if TYPE_CHECKING:
    from pipeline.imagery.cube import Cube


# Rows of which probabilities are computed together.
_ROWS = 32


@dataclass(frozen=True)
class Classes(Product):
    """Scores (logits) of the classes of a legend."""

    score: str = "score"
    amount: str = "probability"

    @cached_property
    def legend(self) -> Legend:
        """The classes."""
        return Legend.from_json(self.bundle.legend)

    def layers(self, wanted: Collection[str], cube: Cube, tags: Mapping[str, str], overviews: Any) -> list[Layer]:  # noqa: ARG002 - the imagery has no part in these
        """Return the layers that are wanted; see `Product.layers`."""
        made = []
        if "classes" in wanted:
            made.append(class_layer(self.legend, tags, overviews))
        calibrated = {**tags, "temperature": f"{self.bundle.temperature:.6g}"}
        if "confidence" in wanted:
            made.append(Layer.confidence(tags=calibrated))
        if "probabilities" in wanted:
            made.append(Layer.probabilities(self.legend, tags=calibrated))
        return made

    def made(
        self,
        wanted: Collection[str],
        outputs: Tensor,
        cube: Tensor,  # noqa: ARG002 - scores say it all
        valid: Tensor,  # noqa: ARG002
        time: Tensor,  # noqa: ARG002
    ) -> dict[str, Array]:
        """Return codes, and calibrated probabilities; see `Product.made`."""
        made: dict[str, list[Tensor]] = {
            name: [] for name in ("classes", "confidence", "probabilities") if name in wanted
        }
        # Some rows at a time stay in the processor's cache: a third of the time of all at once.
        for part in torch.split(outputs, _ROWS, 1):
            if "classes" in made:
                # The same as argmax, of equal scores the first; along this axis argmax takes eight times as long.
                made["classes"].append(part.max(0, keepdim=True).indices)
            if len(made) > ("classes" in made):
                shares = torch.softmax(part.float() / self.bundle.temperature, 0)
                if "confidence" in made:
                    made["confidence"].append(shares.amax(0, keepdim=True))
                if "probabilities" in made:
                    made["probabilities"].append(shares)
        arrays = {name: torch.cat(parts, 1).cpu().numpy() for name, parts in made.items()}
        if "classes" in arrays:
            arrays["classes"] = self.legend.codes.astype(self.legend.dtype)[arrays["classes"]]
        return arrays


def class_layer(legend: Legend, tags: Mapping[str, str], overviews: Any) -> Layer:
    """Return the layer of a class map."""
    names = json.dumps([{"code": c.code, "name": c.name, "color": c.color} for c in legend.classes])
    return Layer.classes(
        legend, overview=overviews, tags={**tags, "classes": names, "overview_resampling": str(overviews)}
    )

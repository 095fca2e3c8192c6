"""Scores of classes: the class map, its confidence, and probabilities."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
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
        made: dict[str, Array] = {}
        if "classes" in wanted:
            # The same as argmax, of equal scores the first; along this axis argmax takes eight times as long.
            made["classes"] = np.asarray(self.legend.codes)[outputs.max(0).indices.cpu().numpy()][None]
        if {"confidence", "probabilities"}.isdisjoint(wanted):
            return made
        confidence, probabilities = torch.empty_like(outputs[:1], dtype=torch.float32), []
        # Some rows at a time stay in the processor's cache: a third of the time of all at once.
        for rows in range(0, outputs.shape[1], _ROWS):
            part = torch.softmax(outputs[:, rows : rows + _ROWS].float() / self.bundle.temperature, 0)
            confidence[0, rows : rows + _ROWS] = part.amax(0)
            if "probabilities" in wanted:
                probabilities.append(part)
        if "confidence" in wanted:
            made["confidence"] = confidence.cpu().numpy()
        if probabilities:
            made["probabilities"] = torch.cat(probabilities, 1).cpu().numpy()
        return made


def class_layer(legend: Legend, tags: Mapping[str, str], overviews: Any) -> Layer:
    """Return the layer of a class map."""
    names = json.dumps([{"code": c.code, "name": c.name, "color": c.color} for c in legend.classes])
    return Layer.classes(
        legend, overview=overviews, tags={**tags, "classes": names, "overview_resampling": str(overviews)}
    )

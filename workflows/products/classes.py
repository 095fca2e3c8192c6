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
        made: dict[str, list[Tensor]] = {
            name: [] for name in ("classes", "confidence", "probabilities") if name in wanted
        }
        # Some rows at a time stay in the processor's cache: a third of the time of all at once.
        for rows in torch.split(outputs, _ROWS, 1):
            part = rows.contiguous()
            top = part.amax(0, keepdim=True)
            if "classes" in made:
                made["classes"].append(_first(part == top))
            if len(made) > ("classes" in made):
                # Softmax, in such a way that the most certain class has exactly its confidence.
                shares = (part.float() - top).div_(self.bundle.temperature).exp_()
                total = shares.sum(0, keepdim=True)
                if "confidence" in made:
                    made["confidence"].append(1 / total)
                if "probabilities" in made:
                    made["probabilities"].append(shares / total)
        arrays = {name: torch.cat(parts, 1).cpu().numpy() for name, parts in made.items()}
        if "classes" in arrays:
            # Where scores are no numbers there is none, and nobody looks.
            codes = np.append(self.legend.codes, self.legend.nodata).astype(self.legend.dtype)
            arrays["classes"] = codes[arrays["classes"]]
        return arrays


def _first(best: Tensor) -> Tensor:
    """Return for each pixel the first of the classes (K, h, w) that are best, (1, h, w); K where none is.

    The same as argmax, which takes three times as long along this axis.
    """
    small = torch.uint8 if len(best) < 256 else torch.int32
    ranks = torch.arange(len(best), 0, -1, dtype=small, device=best.device)
    return len(best) - (best * ranks[:, None, None]).amax(0, keepdim=True)


def class_layer(legend: Legend, tags: Mapping[str, str], overviews: Any) -> Layer:
    """Return the layer of a class map."""
    names = json.dumps([{"code": c.code, "name": c.name, "color": c.color} for c in legend.classes])
    return Layer.classes(
        legend, overview=overviews, tags={**tags, "classes": names, "overview_resampling": str(overviews)}
    )

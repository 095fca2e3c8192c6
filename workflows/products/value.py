"""A number per pixel: the map of a regression."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from pipeline.maps.layers import Layer
from workflows.products.product import Array, Product

if TYPE_CHECKING:
    from pipeline.imagery.cube import Cube


@dataclass(frozen=True)
class Value(Product):
    """One output, in standard deviations of the labels around their mean."""

    score: str = "value in standard deviations of the labels"
    amount: str = "value in standard deviations of the labels"

    def layers(self, wanted: Collection[str], cube: Cube, tags: Mapping[str, str], overviews: Any) -> list[Layer]:  # noqa: ARG002 - it hangs on nothing else
        """Return the layer of the value; see `Product.layers`."""
        if "value" not in wanted:
            return []
        task = self.bundle.task
        tags = {**tags, "quantity": task["quantity"], "units": task["units"] or "as the labels"}
        return [Layer.number("value", [task["quantity"]], unit=task["units"], tags=tags)]

    def made(
        self,
        wanted: Collection[str],
        outputs: Tensor,
        cube: Tensor,  # noqa: ARG002 - the output says it all
        valid: Tensor,  # noqa: ARG002
        time: Tensor,  # noqa: ARG002
    ) -> dict[str, Array]:
        """Return the value in the units of the labels; see `Product.made`."""
        return {"value": self.real(outputs[:1].float().cpu().numpy())} if "value" in wanted else {}

    def real(self, outputs: Array) -> Array:
        """Return outputs of the network in the units of the labels."""
        return np.asarray(outputs * self.bundle.task["std"] + self.bundle.task["mean"])

"""A product: from the outputs of a network to the layers of a map; and the table of products by task."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import JobError, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from models.bundle import Bundle
    from pipeline.imagery.cube import Cube
    from pipeline.maps.layers import Layer

Array = np.ndarray[Any, Any]

# One line per task. What a task offers is known without importing it.
_PRODUCTS = {
    "classification": "workflows.products.classes:Classes",
    "regression": "workflows.products.value:Value",
    "reconstruction": "workflows.products.code:Code",
    "forecast": "workflows.products.forecast:Forecast",
}
OFFERED: dict[str, tuple[str, ...]] = {
    "classification": ("classes", "confidence", "probabilities", "saliency"),
    "regression": ("value", "saliency"),
    "reconstruction": ("classes", "reconstruction_error", "anomaly", "embedding"),
    "forecast": ("forecast", "surprise", "change"),
}
"""Layers that each task can make."""

USUAL: dict[str, tuple[str, ...]] = {
    "classification": ("classes", "confidence", "saliency"),
    "regression": ("value", "saliency"),
    "reconstruction": ("classes", "reconstruction_error", "anomaly"),
    "forecast": ("forecast", "surprise", "change"),
}
"""Layers that each task makes where nothing is said."""


def chosen(layers: Sequence[str] | str, task: str) -> list[str]:
    """Return the layers to be made for a task, its usual ones for ``auto``.

    Raises
    ------
    JobError
        If the task does not make one of them.
    """
    if isinstance(layers, str):
        return list(USUAL[task])
    if strange := [name for name in layers if name not in OFFERED[task]]:
        raise JobError(
            f"predict.layers: '{strange[0]}' is no layer of a {task}{nearest(strange[0], OFFERED[task]) or '.'} It makes "
            f"{', '.join(OFFERED[task])}"
        )
    return list(layers)


@dataclass(frozen=True)
class Product(ABC):
    """What is made of the outputs of one trained network.

    Attributes
    ----------
    bundle : Bundle
        The network, and what its outputs mean.
    """

    bundle: Bundle

    score: str = "output"
    """What a gradient is taken of where a map is explained."""
    amount: str = "output"
    """What falls where something is taken away."""

    @property
    def dates(self) -> int:
        """How many dates of the imagery a block needs; the network sees the first of them."""
        return self.bundle.network.dates

    def cube(self, cube: Cube) -> Cube:
        """Return the dates of the imagery that a map is made of, in the time that the network counts in."""
        return cube

    @abstractmethod
    def layers(self, wanted: Collection[str], cube: Cube, tags: Mapping[str, str], overviews: str) -> Sequence[Layer]:
        """Return the layers that are wanted, saliency apart.

        Parameters
        ----------
        wanted : collection of str
            Names, as `OFFERED` lists them.
        cube : Cube
            The imagery that is mapped.
        tags : mapping
            What every layer says of itself.
        overviews : str
            How overviews of class maps are made.
        """

    @abstractmethod
    def made(
        self, wanted: Collection[str], outputs: Tensor, cube: Tensor, valid: Tensor, time: Tensor
    ) -> dict[str, Array]:
        """Return real values of the layers that are wanted, (bands, h, w) each; NaN where there is nothing to say.

        Parameters
        ----------
        wanted : collection of str
            Names of layers.
        outputs : Tensor
            (K, h, w), of the network.
        cube, valid : Tensor
            Normalised values (T, C, h, w) and their validity (T, h, w), of all dates that were read.
        time : Tensor
            Days of these dates; (T,) float32.
        """

    def measured(self, outputs: Tensor, cube: Tensor, valid: Tensor, time: Tensor) -> Tensor:  # noqa: ARG002 - for products that look at the imagery too
        """Return what figures are taken of, (M, h, w); parameters are those of `made`. Default: the outputs."""
        return outputs


def product_of(bundle: Bundle) -> Product:
    """Return the product of a bundle, by its task."""
    module, _, name = _PRODUCTS[bundle.task["name"]].partition(":")
    kind: type[Product] = getattr(importlib.import_module(module), name)
    return kind(bundle)

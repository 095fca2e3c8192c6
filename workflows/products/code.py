"""Reconstruction and embedding: what is unlike the rest, what is alike, and a map of that without any label."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from models.anomaly import reconstruction_error
from models.network import EncodingNetwork
from pipeline.maps.layers import Layer
from pipeline.samples.legend import Legend
from workflows.products.classes import class_layer
from workflows.products.product import Array, Product

if TYPE_CHECKING:
    from pipeline.imagery.cube import Cube


@dataclass(frozen=True)
class Code(Product):
    """Reconstruction (T * C) and embedding (E) of a network that learned without labels."""

    @property
    def network(self) -> EncodingNetwork:
        """The network."""
        assert isinstance(self.bundle.network, EncodingNetwork)
        return self.bundle.network

    @cached_property
    def centres(self) -> Tensor:
        """Centres of the clusters in the embedding, (clusters, E) float64."""
        return torch.tensor(self.bundle.task["centres"], dtype=torch.float64)

    def layers(self, wanted: Collection[str], cube: Cube, tags: Mapping[str, str], overviews: Any) -> list[Layer]:  # noqa: ARG002 - codes hang on the network alone
        """Return the layers that are wanted; see `Product.layers`."""
        made = []
        if "classes" in wanted:
            of = {**tags, "method": "k-means on the embedding: classes have no names, only likeness"}
            made.append(class_layer(Legend.from_json(self.bundle.legend), of, overviews))
        if "reconstruction_error" in wanted:
            of = {**tags, "meaning": "root mean square over dates and bands of what the network could not give back"}
            unit = "standard deviations"
            made.append(Layer.number("reconstruction_error", ["error"], unit=unit, tags={**of, "units": unit}))
        if "anomaly" in wanted:
            of = {**tags, "meaning": "share of the validation samples that were given back better than this pixel"}
            made.append(Layer.share("anomaly", ["quantile"], tags=of))
        if "embedding" in wanted:
            names = [f"embedding_{i + 1}" for i in range(self.network.features)]
            made.append(Layer.number("embedding", names, unit="", tags=tags))
        return made

    def made(
        self,
        wanted: Collection[str],
        outputs: Tensor,
        cube: Tensor,
        valid: Tensor,
        time: Tensor,  # noqa: ARG002 - a code is of all dates
    ) -> dict[str, Array]:
        """Return error, quantile, embedding and clusters; see `Product.made`."""
        made: dict[str, Array] = {}
        _, embedding = self.network.split(outputs[None])
        if {"reconstruction_error", "anomaly"} & set(wanted):
            error = reconstruction_error(self.network, outputs[None], cube[None], valid[None])[0].cpu().numpy()
            if "reconstruction_error" in wanted:
                made["reconstruction_error"] = error[None]
            if "anomaly" in wanted:
                made["anomaly"] = quantile(error, np.asarray(self.bundle.task["errors"]))[None]
        if "embedding" in wanted:
            made["embedding"] = embedding[0].float().cpu().numpy()
        if "classes" in wanted:
            made["classes"] = self.clusters(embedding[0])[None]
        return made

    def measured(self, outputs: Tensor, cube: Tensor, valid: Tensor, time: Tensor) -> Tensor:  # noqa: ARG002 - see `made`
        """Return the error, that of an answer that is always the mean, then the embedding: (2 + E, h, w)."""
        error = reconstruction_error(self.network, outputs[None], cube[None], valid[None])
        mean = reconstruction_error(self.network, torch.zeros_like(outputs)[None], cube[None], valid[None])
        return torch.cat([error, mean, self.network.split(outputs[None])[1][0]])

    def clusters(self, embedding: Tensor) -> Array:
        """Return the code of the nearest centre of each pixel of an embedding (E, h, w), (h, w) int64."""
        e, h, w = embedding.shape
        flat = embedding.reshape(e, h * w).T.double().cpu()
        # Distance by distance: a product of matrices rounds otherwise in tiles of other sizes.
        far = [(flat - centre).square().sum(1) for centre in self.centres]
        nearest = torch.stack(far).argmin(0).reshape(h, w).numpy()
        codes: Array = np.asarray(Legend.from_json(self.bundle.legend).codes)[nearest]
        return codes


def quantile(error: Array, known: Array) -> Array:
    """Return which share of known errors (n,), sorted, lies below each error (h, w); NaN stays NaN."""
    below = np.interp(error, known, np.linspace(0, 1, len(known)))
    return np.asarray(np.where(np.isfinite(error), below, np.nan))

"""A map to be made or explained: what it takes, what it hangs on, and the layers it will have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from models.bundle import Bundle
from models.onnx import require
from pipeline.files import digest_of
from pipeline.maps.layers import Layer
from workflows.choose import plan_of
from workflows.explainers import explainers_of
from workflows.explanations import Explanation, explanation_layers, explanations_of
from workflows.gate import PLAIN, Choice
from workflows.keys import run_id
from workflows.plan import Plan
from workflows.products.product import product_of

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from models.settings import SaliencySettings
    from pipeline.imagery.cube import Cube
    from pipeline.settings import ComputeSettings
    from workflows.settings import PredictSettings

Stage = Literal["predict", "explain"]
STAGES: tuple[Stage, ...] = ("predict", "explain")
"""What is made of a map: its layers, and those that explain it."""


@dataclass(frozen=True, kw_only=True)
class MapRequest:
    """A map to be made, or to be explained: what `predict`, `explain` and `apply` have in common.

    Attributes
    ----------
    bundle, folder
        The trained model, and where it lies.
    cube : Cube
        The imagery, with the bundle's bands in the bundle's order.
    key_imagery : dict
        What the cube's values depend on.
    software : dict
        Versions of what makes the numbers.
    area : BaseGeometry or None
        The map is explained only inside it.
    choice : Choice
        What scores pixels, once that is settled: see `workflows.gate`.
    """

    bundle: Bundle
    folder: Path
    cube: Cube
    predict: PredictSettings
    saliency: SaliencySettings
    compute: ComputeSettings
    key_imagery: dict[str, Any]
    software: dict[str, str]
    area: BaseGeometry | None = None
    choice: Choice = PLAIN

    @cached_property
    def explanations(self) -> tuple[Explanation, ...]:
        """How the map is explained; empty where no saliency is asked for."""
        if "saliency" not in self.predict.layers:
            return ()
        network = self.bundle.network
        explainers = explainers_of(self.saliency, self.bundle)
        return explanations_of(explainers, self.saliency, bands=network.bands, dates=network.dates)

    def plan(self, explanations: Sequence[Explanation], layers: Sequence[Layer], begun: int | None = None) -> Plan:
        """Return how the map is made, or explained, within the memory budget.

        Parameters
        ----------
        explanations : sequence of Explanation
            How it is explained.
        layers : sequence of Layer
            What is made.
        begun : int, optional
            Side of the blocks of a run that is resumed.
        """
        return plan_of(
            self.bundle.network,
            self.cube,
            self.predict,
            self.compute,
            [e.explainer for e in explanations],
            stored=sum(layer.stored for layer in layers),
            begun=begun,
        )

    def key(self, stage: Stage) -> dict[str, Any]:
        """Return what the layers of a stage depend on, as plain values."""
        predict = self.predict.model_dump(mode="json", include={"block", "overviews", "layers", "engine"})
        predict["layers"] = [name for name in predict["layers"] if name != "saliency"]
        job: dict[str, Any] = {"dates": [None if d is None else d.isoformat() for d in self.cube.dates]}
        if stage == "predict":
            job["predict"] = predict
        else:
            job["predict"] = {"block": predict["block"]}
            job["saliency"] = self.saliency.model_dump(mode="json", include={"target", "per"})
            job["saliency"]["methods"] = {e.explainer.method: e.explainer.own for e in self.explanations}
            job["area"] = None if self.area is None else digest_of(self.area.wkb_hex)
        software = self.software
        if stage == "predict" and self.predict.engine.startswith("onnx"):
            require(f"predict.engine: {self.predict.engine}")
            software = software | {"onnxruntime": version("onnxruntime")}
        return {
            "model": self.bundle.checksum,
            "job": job,
            "imagery": self.key_imagery,
            "software": software,
        }

    def layers(self, stage: Stage) -> tuple[Layer, ...]:
        """Return the layers that a stage makes."""
        product = product_of(self.bundle)
        key = digests(self.key(stage))
        common = {
            "software": f"landweave {self.software['landweave']}",
            "run_id": run_id(key),
            "bundle": self.bundle.checksum,
            "job": key["job"],
            # Of the model, not of this run: a map resumed tomorrow is the same map to the byte.
            "date": self.bundle.created,
        }
        known = [d.isoformat() for d in self.cube.dates if d is not None]
        # Where some have a date, the others are dates that a longer period had, and this one has not.
        dates = [("none" if known else "undated") if d is None else d.isoformat() for d in self.cube.dates]
        if known:
            common["dates"] = f"{min(known)}/{max(known)}"
        if stage == "predict":
            common["engine"] = self.choice.told
            return tuple(product.layers(self.predict.layers, self.cube, common, self.predict.overviews))
        seen = dates[: self.bundle.network.dates]
        return tuple(
            explanation_layers(
                self.explanations, self.saliency, product, bands=self.cube.bands, dates=seen, tags=common
            )
        )


def digests(key: dict[str, Any]) -> dict[str, str]:
    """Return a key in short: the model's checksum, and digests of the rest."""
    return {"model": key["model"]} | {name: digest_of(key[name]) for name in ("job", "imagery", "software")}

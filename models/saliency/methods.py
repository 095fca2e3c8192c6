"""The methods by name: what each gives, how far it looks, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.inference import activation_bytes
from models.network import Network
from models.saliency.gradients import gradient, gradient_input, integrated_gradients, smoothgrad
from models.saliency.occlusion import occlusion_band, occlusion_date, occlusion_patch, spacing
from models.saliency.target import WINNER, Target
from models.settings import Method, SaliencySettings

BY_GRADIENT: tuple[Method, ...] = ("gradient", "gradient_input", "smoothgrad", "integrated_gradients")
SIGNED: tuple[Method, ...] = (
    "gradient_input", "integrated_gradients", "occlusion_band", "occlusion_date", "occlusion_patch"
)  # fmt: skip
"""Methods whose sign says whether a value speaks for the target or against it."""


_OWN: dict[Method, tuple[str, ...]] = {
    "gradient": (),
    "gradient_input": (),
    "smoothgrad": ("samples", "noise", "seed"),
    "integrated_gradients": ("steps", "baseline"),
    "occlusion_band": ("baseline",),
    "occlusion_date": ("baseline",),
    "occlusion_patch": ("baseline", "patch", "step"),
}


@dataclass(frozen=True, slots=True)
class Passes:
    """What a method costs on one tile: passes forward alone, and passes forward and backward."""

    forward: int
    gradient: int

    def __str__(self) -> str:
        parts = [(self.forward, "forward"), (self.gradient, "forward and backward")]
        return ", ".join(f"{n} pass{'es' * (n > 1)} {what}" for n, what in parts if n)


@dataclass(frozen=True, kw_only=True)
class Explainer:
    """A method with all that it needs beside the tile.

    Attributes
    ----------
    method : str
        Its name.
    settings : SaliencySettings
        Samples, steps, patches, ...; ``method`` and ``target`` in it are not looked at.
    target : Target
        What is explained.
    baseline : tuple of float
        Normalised values that bands hold when they are taken away; zero is their mean. One per band.
    """

    method: Method
    settings: SaliencySettings
    baseline: tuple[float, ...]
    target: Target = WINNER

    @property
    def signed(self) -> bool:
        """Whether values speak for the target or against it."""
        return self.method in SIGNED

    @property
    def own(self) -> dict[str, Any]:
        """The settings that the method looks at, as plain values."""
        return self.settings.model_dump(mode="json", include=set(_OWN[self.method]))

    @property
    def axes(self) -> tuple[str, ...]:
        """Of what it tells apart: ``band``, ``date``."""
        by_one = {"occlusion_band": ("band",), "occlusion_date": ("date",), "occlusion_patch": ()}
        return by_one.get(self.method, ("band", "date"))

    def reach(self, network: Network) -> int:
        """Return how many pixels must be read around those that are explained; a multiple of the stride."""
        if self.method in ("occlusion_band", "occlusion_date"):
            return network.halo
        if self.method == "occlusion_patch":
            return 2 * network.halo + -(-(self.settings.patch - 1) // network.stride) * network.stride
        return 2 * network.halo

    def passes(self, network: Network, bands: int, dates: int) -> Passes:
        """Return what a tile costs."""
        own = self.settings
        lattices = 1 if network.pixelwise else (spacing(network, own.patch, own.step) // own.step) ** 2
        return {
            "gradient": Passes(0, 1),
            "gradient_input": Passes(0, 1),
            "smoothgrad": Passes(1, own.samples),
            "integrated_gradients": Passes(1, own.steps),
            "occlusion_band": Passes(1 + bands, 0),
            "occlusion_date": Passes(1 + dates, 0),
            "occlusion_patch": Passes(1 + lattices, 0),
        }[self.method]

    @property
    def cubes(self) -> int:
        """How many tensors of the cube's size it holds beside what a forward or backward pass holds."""
        return {"gradient": 0, "gradient_input": 1, "occlusion_patch": 1}.get(self.method, 2)

    def bytes_per_pixel(self, network: Network) -> float:
        """Return the most bytes alive at once per pixel that is read, as `models.inference.activation_bytes` counts them."""
        by_gradient = self.method in BY_GRADIENT
        # Scores, their weights and the product, or probabilities; maps of falls, and the sums of patches in double precision.
        scores = (3 if by_gradient else 4) * network.outputs
        maps = {"occlusion_patch": 16}.get(self.method, 2)
        held = self.cubes * network.dates * network.bands + scores + maps
        return activation_bytes(network, gradient=by_gradient) + 4 * held

    def __call__(
        self,
        network: Network,
        cube: Tensor,
        valid: Tensor,
        time: Tensor,
        where: Tensor,
        origins: Sequence[tuple[int, int]],
    ) -> tuple[Tensor, Tensor]:
        """Return the attribution of a tile, and its scores.

        Parameters
        ----------
        network : Network
            As `models.inference.prepare` returns it.
        cube, valid, time : Tensor
            (B, T, C, H, W) float32, (B, T, H, W) bool, (B, T) float32.
        where : Tensor
            Pixels whose targets are explained, (B, H, W) bool. To explain a map: all but the outermost halo, where the map
            is, and something valid is seen. To explain single pixels: these.
        origins : sequence of (int, int)
            Row and column on the map's grid of the upper left pixel of each tile; B of them.

        Returns
        -------
        tuple of Tensor
            Attribution (B, T, C, H, W), T or C being 1 where the method does not tell dates or bands apart, and scores
            (B, K, H, W).
        """
        own, x = self.settings, (network, cube, valid, time, where, self.target)
        baseline = torch.tensor(self.baseline)
        if self.method == "gradient":
            return gradient(*x)
        if self.method == "gradient_input":
            return gradient_input(*x)
        if self.method == "smoothgrad":
            return smoothgrad(*x, origins=origins, samples=own.samples, deviation=own.noise, seed=own.seed)
        if self.method == "integrated_gradients":
            return integrated_gradients(*x, baseline=baseline, steps=own.steps)
        if self.method == "occlusion_band":
            return occlusion_band(*x, baseline=baseline)
        if self.method == "occlusion_date":
            return occlusion_date(*x, baseline=baseline)
        return occlusion_patch(*x, baseline=baseline, origins=origins, patch=own.patch, step=own.step)

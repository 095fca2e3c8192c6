"""One block of a map: a pure function of (bundle, cube, block). The same task runs in threads, processes and clusters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from models.fast import EXACT, Engine
from models.inference import scores
from pipeline.engine import release_memory
from pipeline.grid import Block, BlockGrid, whole
from pipeline.imagery.area import inside_area
from pipeline.maps.parts import PartRecord, write_parts
from workflows.halving import computed
from workflows.scoring import Scorer, load_scorer

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from pipeline.imagery.cube import Cube, Tile
    from pipeline.maps.layers import Layer
    from workflows.explanations import Explanation

Array = np.ndarray[Any, Any]

# How often a worker gives freed memory back: after each block that takes long, seldom where blocks are quick.
_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MapTask:
    """What every block of one map shares.

    Attributes
    ----------
    bundle, checksum
        Folder and checksum of the trained model.
    cube : Cube
        The imagery, with the bundle's bands in the bundle's order.
    blocks : BlockGrid
        The blocks. Their halo is what the network needs, or more where the map is explained: see `explain`.
    layers : tuple of Layer
        What is made.
    folder : Path
        Where parts are written.
    explanations : tuple of Explanation
        How the map is explained; empty where no saliency is made.
    area : BaseGeometry or None
        Only inside it is anything written, whatever the network sees around it.
    engine : Engine
        What scores pixels where nothing is explained.
    """

    bundle: Path
    checksum: str
    cube: Cube
    blocks: BlockGrid
    layers: tuple[Layer, ...]
    folder: Path
    explanations: tuple[Explanation, ...] = ()
    area: BaseGeometry | None = None
    engine: Engine = EXACT

    def __call__(self, index: int) -> PartRecord:
        """Read, score, explain and write one block."""
        block = self.blocks[index]
        inside = None if self.area is None else inside_area(self.area, self.blocks.geobox, block.inner)
        arrays, cuts = None, 0
        # A block without any valid pixel is nodata; the network is not asked.
        if (inside is None or inside.any()) and self.cube.holds(block.inner):
            tile = self.cube.read(block.padded)
            if tile.valid[:, *block.inner.within(block.padded)].any():
                arrays, cuts = computed(self.compute, block, tile, inside, self.blocks.stride)
        record = replace(write_parts(self.folder, self.layers, block, arrays, self.cube.geobox), cuts=cuts)
        # Else the heap frays over many blocks, and a large raster holds more memory than a small one.
        release_memory(_SECONDS)
        return record

    def compute(self, block: Block, tile: Tile, inside: Array | None = None) -> dict[str, Array]:
        """Return the layers of one block, (bands, h, w) each, cut to the part of the core inside the raster."""
        scorer = load_scorer(self.bundle, self.checksum, self.engine)
        with scorer.turn():
            cube, seen, time = scorer.tensors(tile.values[None], tile.valid[None], self.cube.time[None])
            # Of a forecast only the first dates are shown to the network.
            dates = slice(scorer.network.dates)
            inputs = cube[:, dates], seen[:, dates], time[:, dates]
            y, x = block.inner.within(block.padded)
            explained: dict[str, Array] = {}
            for explanation in self.explanations:
                found, made = self.explain(scorer, explanation, block, *inputs)
                explained |= made
            if not self.explanations:
                found = scores(scorer.engine, *inputs)[..., y, x]
            wanted = [layer.name for layer in self.layers if layer.name not in explained]
            values = scorer.product.made(wanted, found[0], cube[0, :, :, y, x], seen[0, :, y, x], time[0])
        valid = tile.valid[dates, y, x].any(0)
        if inside is not None:
            valid &= inside
        # Their sum says it of all at once; where it is not finite, a pixel that nobody sees may be why, or sheer size.
        if not found.sum().isfinite() and not np.isfinite(found[0].cpu().numpy()).all(0)[valid].all():
            raise FloatingPointError(f"block {block.index} ({block.inner}): the network's scores are not finite")
        made = {}
        for layer in self.layers:
            of = explained[layer.name] if layer.name in explained else values[layer.name]
            if layer.kind != "classes":
                # Shares and numbers beside the map need not be finite; nobody sees them.
                of = layer.encode(np.where(valid, of, np.nan))
            made[layer.name] = np.where(valid, of, layer.nodata).astype(layer.dtype)
        return made

    def explain(
        self,
        scorer: Scorer,
        explanation: Explanation,
        block: Block,
        cube: torch.Tensor,
        valid: torch.Tensor,
        time: torch.Tensor,
    ) -> tuple[torch.Tensor, dict[str, Array]]:
        """Return scores (1, K, h, w) and layers on the part of the core inside the raster, exact there.

        Whatever a method must see around the core is read (`Explainer.reach`). Scores are right where their own halo was
        read too: these are explained, those of pixels beyond the core with them, for the core moves them.
        """
        network = scorer.network
        read = block.core.pad(explanation.explainer.reach(network))
        y, x = read.within(block.padded)
        cube, valid = cube[..., y, x], valid[..., y, x]
        where = torch.zeros(valid.shape[0], *valid.shape[2:], dtype=torch.bool, device=valid.device)
        inside = read.pad(-network.halo).intersect(whole(self.blocks.geobox))
        assert inside is not None
        where[:, *inside.within(read)] = True
        attribution, found = explanation.explainer(
            network, cube, valid, time, where & valid.any(1), [(read.y, read.x)] * len(cube)
        )
        y, x = block.inner.within(read)
        return found[..., y, x], explanation.made(attribution[..., y, x])

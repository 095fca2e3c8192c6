"""One block of a map: a pure function of (bundle, cube, block). The same task runs in threads, processes and clusters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from models.inference import scores
from models.saliency.gradients import gradient
from models.saliency.reduce import reduce
from pipeline.engine import release_memory
from pipeline.grid import Block, BlockGrid, whole
from pipeline.maps.parts import PartRecord, write_parts
from workflows.scoring import Scorer, load_scorer

if TYPE_CHECKING:
    from pipeline.imagery.cube import Cube, Tile
    from pipeline.maps.layers import Layer

Array = np.ndarray[Any, Any]


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
        The blocks. Their halo is the network's, or twice that where saliency is made: see `explain`.
    halo : int
        The network's halo.
    layers : tuple of Layer
        What is made.
    folder : Path
        Where parts are written.
    per : tuple of str
        Saliency reductions: ``pixel``, ``band``, ``date``; empty where no saliency is made.
    """

    bundle: Path
    checksum: str
    cube: Cube
    blocks: BlockGrid
    halo: int
    layers: tuple[Layer, ...]
    folder: Path
    per: tuple[str, ...]

    def __call__(self, index: int) -> PartRecord:
        """Read, score, explain and write one block."""
        block = self.blocks[index]
        tile = self.cube.read(block.padded)
        arrays = None
        # A block without any valid pixel is nodata; the network is not asked.
        if tile.valid[:, *block.inner.within(block.padded)].any():
            arrays = self.compute(block, tile)
        record = write_parts(self.folder, self.layers, block, arrays, self.cube.geobox)
        # Else the heap frays over many blocks, and a large raster holds more memory than a small one.
        release_memory()
        return record

    def compute(self, block: Block, tile: Tile) -> dict[str, Array]:
        """Return the layers of one block, (bands, h, w) each, cut to the part of the core inside the raster."""
        scorer = load_scorer(self.bundle, self.checksum)
        with scorer.turn():
            cube, seen, time = scorer.tensors(tile.values[None], tile.valid[None], self.cube.time[None])
            # Of a forecast only the first dates are shown to the network.
            dates = slice(scorer.network.dates)
            inputs = cube[:, dates], seen[:, dates], time[:, dates]
            if self.per:
                found, saliency = self.explain(scorer, block, *inputs)
            else:
                found, saliency = scores(scorer.network, *inputs), {}
            y, x = block.inner.within(block.padded)
            wanted = [layer.name for layer in self.layers if layer.name not in saliency]
            values = scorer.product.made(wanted, found[0, :, y, x], cube[0, :, :, y, x], seen[0, :, y, x], time[0])
        valid = tile.valid[dates, y, x].any(0)
        if not bool(torch.isfinite(found[0, :, y, x]).all(0).cpu().numpy()[valid].all()):
            raise FloatingPointError(f"block {block.index} ({block.inner}): the network's scores are not finite")
        made: dict[str, Array] = {}
        for layer in self.layers:
            of = saliency[layer.name][:, y, x] if layer.name in saliency else values[layer.name]
            if layer.kind != "classes":
                # Shares and numbers beside the map need not be finite; nobody sees them.
                of = layer.encode(np.where(valid, of, np.nan))
            made[layer.name] = np.where(valid, of, layer.nodata).astype(layer.dtype)
        return made

    def explain(
        self, scorer: Scorer, block: Block, cube: torch.Tensor, valid: torch.Tensor, time: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, Array]]:
        """Return the scores and the gradient layers, exact on the core.

        An input value of the core moves scores up to one halo away, and those scores are right only where their own
        halo was read: so core + 2 halo is read, and the target is the sum of winning scores over core + halo.
        """
        where = torch.zeros(valid.shape[0], *valid.shape[2:], dtype=torch.bool, device=valid.device)
        inside = block.core.pad(self.halo).intersect(whole(self.blocks.geobox))
        assert inside is not None
        where[:, *inside.within(block.padded)] = True
        attribution, found = gradient(scorer.network, cube, valid, time, where & valid.any(1))
        made = {}
        for per, name in (("pixel", "saliency"), ("band", "saliency_bands"), ("date", "saliency_dates")):
            if per in self.per:
                layer = reduce(attribution, per)[0].cpu().numpy()
                made[name] = layer[None] if layer.ndim == 2 else layer
        return found.detach(), made
